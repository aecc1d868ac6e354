package compact

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

func TestAPanicEndsItsJobAlone(t *testing.T) {
	bkt := replicas(t, 8)(t)
	other := twoHours("a", hour)
	other.Labels["cluster"] = "us"
	alone := blocktest.InBucket(t, bkt, other)
	e := executor(t, bkt)
	e.build = func(ctx context.Context, o output) error {
		if len(o.sources) > 1 {
			write := o.write
			o.write = func(ctx context.Context, sources []*source, w tee) error {
				_ = write(ctx, sources, w) // so that there is a draft to give up
				panic("met what it did not expect")
			}
		}
		return e.buildOrBlame(ctx, o)
	}
	if err := e.Run(t.Context()); !errors.Is(err, panics.Err) || !strings.Contains(err.Error(), "panics_test.go:") {
		t.Errorf("got error %v, want an internal one that names the place", err)
	}
	for _, b := range fetch(t, bkt).Blocks {
		if b.Deletion != nil || b.NoCompact != nil {
			t.Errorf("block %s is marked, though no block is to blame", b.Meta.ULID)
		}
	}
	if set := fetch(t, bkt); !downsampledTo(set, alone.ULID, block.FiveMin) || !downsampledTo(set, alone.ULID, block.OneHour) {
		t.Error("the block of another stream is not downsampled")
	}
	if left, err := filepath.Glob(filepath.Join(e.opts.Dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left behind in the work directory: %v (%v)", left, err)
	}
	if err := executor(t, bkt).Run(t.Context()); err != nil {
		t.Errorf("the next process, without panics: %v", err)
	}
}

func TestAPanicInACoarserFormGivesUpThatAlone(t *testing.T) {
	all := forms{{}} // made from nothing, which downsampling does not expect
	all.add(&series.Series{}, downsample.Decoded{})
	if !errors.Is(all[0].err, panics.Err) {
		t.Errorf("got error %v, want an internal one", all[0].err)
	}
}

func TestWhatPanicsInABlocksPartIsDamageOfIt(t *testing.T) {
	id := ulid.MustNew(1, nil)
	err := inBlock(id, inPart(chunkUnreadable, panics.Caught(func() error { panic("a part") })))
	if got, ok := errors.AsType[*corruptError](err); !ok || got.id != id || got.reason != chunkUnreadable {
		t.Errorf("got %v, want block %s to be corrupt for %q", err, id, chunkUnreadable)
	}
}

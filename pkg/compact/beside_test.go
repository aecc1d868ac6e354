package compact

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

// metas are those of all blocks that are not marked, without the times of their upload.
func metas(t *testing.T, bkt bucket.Reader) map[string]block.Meta {
	t.Helper()
	out := map[string]block.Meta{}
	for _, e := range fetch(t, bkt).Blocks {
		if e.Deletion == nil {
			m := *e.Meta
			m.Thanos.UploadTime = time.Time{}
			out[m.ULID.String()] = m
		}
	}
	return out
}

func TestFormsMadeBesideABlockAreThoseOfJobsOfTheirOwn(t *testing.T) {
	fill := replicas(t, 8)
	beside, alone := fill(t), fill(t)
	made := 0
	e := executor(t, beside)
	e.build = func(ctx context.Context, o output) error {
		made += len(o.beside)
		if o.meta.Resolution() != block.Raw {
			t.Errorf("a job of its own for %s", o.meta.Resolution())
		}
		return e.buildBlock(ctx, o)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if made != 2 {
		t.Errorf("made beside the block: got %d forms, want 2", made)
	}
	e = executor(t, alone)
	e.build = func(ctx context.Context, o output) error {
		o.beside = nil
		return e.buildBlock(ctx, o)
	}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := metas(t, beside), metas(t, alone); len(want) != 3 || !reflect.DeepEqual(got, want) {
		t.Errorf("metadata:\n got %+v\nwant %+v", got, want)
	}
	got, want := data(t, beside), data(t, alone)
	if names := slices.Sorted(maps.Keys(want)); !slices.Equal(slices.Sorted(maps.Keys(got)), names) {
		t.Fatalf("objects: got %v, want %v", slices.Sorted(maps.Keys(got)), names)
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs", name)
		}
	}
}

func TestAnyRequestThatEndsInAnErrorIsMadeUpFor(t *testing.T) {
	fill := replicas(t, 4)
	synctest.Test(t, func(t *testing.T) {
		reference := fill(t)
		log := buckettest.NewLog(reference)
		if err := executor(t, log).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := metas(t, reference)
		for _, kind := range []buckettest.Kind{buckettest.Create, buckettest.List, buckettest.Get, buckettest.GetRange} {
			for n := range log.Count(kind) {
				bkt := fill(t)
				e := executor(t, buckettest.FailAt(bkt, kind, n+1, buckettest.Before, fmt.Errorf("no connection: %w", bucket.ErrTransient)))
				for range 3 { // the first may end before it has begun
					_ = e.Run(t.Context())
				}
				if got := metas(t, bkt); !reflect.DeepEqual(got, want) {
					t.Fatalf("%s %d of %d went wrong:\n got %+v\nwant %+v", kind, n+1, log.Count(kind), got, want)
				}
			}
		}
	})
}

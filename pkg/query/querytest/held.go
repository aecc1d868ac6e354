package querytest

import (
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// heldBlock is a block of one replica at one resolution.
type heldBlock struct {
	replica    string
	resolution block.Resolution
	series     []blocktest.Series
}

// upload writes the block as a compactor would and brings it into the bucket.
// no tells the blocks of a script apart.
func (b heldBlock) upload(t testing.TB, bkt *bucket.Memory, no byte) ulid.ULID {
	t.Helper()
	dir := t.TempDir()
	symbols := blockwriter.NewSymbols()
	for _, s := range b.series {
		s.Labels.Range(func(l labels.Label) {
			for _, str := range []string{l.Name, l.Value} {
				_, err := symbols.Add(str)
				check(t, err)
			}
		})
	}
	w, err := blockwriter.New(blockwriter.Dir(dir), blockwriter.Defaults(), symbols)
	check(t, err)
	slices.SortFunc(b.series, func(a, b blocktest.Series) int { return labels.Compare(a.Labels, b.Labels) })
	for _, s := range b.series {
		if chunks := b.chunks(t, s); len(chunks) > 0 {
			check(t, w.AddSeries(&series.Series{Labels: s.Labels, Chunks: chunks}))
		}
	}
	result, err := w.Close()
	check(t, err)

	meta := &block.Meta{MinTime: result.MinTime, MaxTime: result.MaxTime + 1, Stats: result.Stats, Version: 1}
	meta.ULID[15] = no
	check(t, meta.ULID.SetTime(uint64(meta.MaxTime)))
	meta.Compaction = block.Compaction{Level: 1, Sources: []ulid.ULID{meta.ULID}}
	meta.Thanos.Labels = map[string]string{ReplicaLabel: b.replica}
	meta.Thanos.Downsample.Resolution = b.resolution
	meta.Thanos.Source = block.SourceTest
	meta.Thanos.UploadTime = time.UnixMilli(meta.MaxTime).UTC()
	check(t, blockio.Upload(t.Context(), bkt, dir, meta))
	return meta.ULID
}

// chunks are those of a series at the block's resolution, through all finer ones.
func (b heldBlock) chunks(t testing.TB, s blocktest.Series) []series.Chunk {
	t.Helper()
	chunks, err := storeapitest.Encode(s)
	check(t, err)
	for _, r := range []block.Resolution{block.FiveMin, block.OneHour} {
		if r <= b.resolution {
			chunks, err = downsample.Chunks(chunks, r)
			check(t, err)
		}
	}
	return chunks
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

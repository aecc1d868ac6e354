package dedup

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// TestAReaderGivesWhatTheChunksHold reads worlds of floats and of histograms, with all algorithms, one after the other with the same memory.
func TestAReaderGivesWhatTheChunksHold(t *testing.T) {
	for _, f := range []Func{Default, Chain, Penalty} {
		r := NewReader(Options{Func: f})
		for seed := range uint64(100) {
			w := simulate(seed)
			in := w.chunks(t, seed)
			if seed%5 == 0 {
				for i := range in {
					in[i] = w.asHistograms(t, &w.replicas[i])
				}
			}
			chunks, err := Chunks(in, Options{Func: f})
			if err != nil {
				t.Fatal(err)
			}
			var got chunkcodec.Samples
			if err := r.Append(&got, &Group{replicas: in}); err != nil {
				t.Fatal(err)
			}
			want := unpack(t, chunks)
			if d := difference(&got, want); d != "" {
				t.Fatalf("seed %d, %s: %s", seed, f, d)
			}
			for i := range want.T {
				count, _ := countAt(&got, i)
				wanted, _ := countAt(want, i)
				if got.Type(i) != want.Type(i) || math.Float64bits(count) != math.Float64bits(wanted) || hintAt(&got, i) != hintAt(want, i) {
					t.Fatalf("seed %d, %s: %s of %g at %d, want %s of %g", seed, f, got.Type(i), count, got.T[i], want.Type(i), wanted)
				}
			}
		}
	}
}

func TestAReaderAppends(t *testing.T) {
	whole := regular(0, 2*Cell, 15_000)
	holed := cut(whole, 0, Cell/2)
	holed.Append(whole, 300, whole.Len())
	late := split(t, holed, 100)
	late[1].MinTime += 20_000 // which its first sample is not
	for name, tc := range map[string]struct {
		in   [][]series.Chunk
		want error
	}{
		"nothing":             {nil, nil},
		"replicas of nothing": {[][]series.Chunk{nil, nil}, nil},
		"a lone replica":      {[][]series.Chunk{nil, split(t, holed, 100)}, nil},
		"two replicas":        {[][]series.Chunk{split(t, holed, 100), split(t, whole, 90)}, nil},
		"samples that are not where the chunk says": {[][]series.Chunk{late, split(t, whole, 90)}, nil},
		"a damaged chunk": {
			[][]series.Chunk{{{MaxTime: 9, Encoding: chunkenc.EncXOR, Data: []byte{0, 9, 1}}}, split(t, whole, 90)}, chunkcodec.ErrInvalid,
		},
		"a downsampled chunk": {[][]series.Chunk{split(t, whole, 90), {{MaxTime: 9, Encoding: aggrchunk.Encoding}}}, errDownsampled},
		"one of a coarser resolution": {
			[][]series.Chunk{split(t, whole, 90), {{MaxTime: 9, Resolution: 300_000, Encoding: chunkenc.EncXOR, Data: []byte{0, 0}}}}, errDownsampled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := regular(0, 100, 10)
			got := &chunkcodec.Samples{T: slices.Clone(before.T), V: slices.Clone(before.V)}
			err := NewReader(Defaults()).Append(got, &Group{replicas: tc.in})
			if !errors.Is(err, tc.want) {
				t.Fatalf("error %v, want %v", err, tc.want)
			}
			if err == nil {
				s := unpack(t, dedupe(t, tc.in...))
				before.Append(s, 0, s.Len())
			}
			if d := difference(got, before); d != "" {
				t.Error(d)
			}
		})
	}
}

// asSamples is what a Reader gives.
func asSamples(t testing.TB, replicas [][]series.Chunk) *chunkcodec.Samples {
	t.Helper()
	var s chunkcodec.Samples
	if err := NewReader(Defaults()).Append(&s, &Group{replicas: replicas}); err != nil {
		t.Fatal(err)
	}
	return &s
}

package series

import (
	"slices"
	"testing"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/tsdbutil"

	"github.com/varve-io/varve/pkg/aggrchunk"
)

func TestClassicKeepsSamplesAndDropsStarts(t *testing.T) {
	h := tsdbutil.GenerateTestHistogram(3)
	plain := []sample{{t: 1000, v: 1}, {t: 2000, v: 4}}
	started := []sample{{st: 500, t: 1000, v: 1}, {st: 500, t: 2000, v: 4}}
	for name, tc := range map[string]struct{ in, want Chunk }{
		"XOR is left alone":        {encode(t, chunkenc.EncXOR, plain...), encode(t, chunkenc.EncXOR, plain...)},
		"XOR2 becomes XOR":         {encode(t, chunkenc.EncXOR2, started...), encode(t, chunkenc.EncXOR, plain...)},
		"a histogram loses starts": {encode(t, chunkenc.EncHistogramST, sample{st: 500, t: 1000, h: h}), encode(t, chunkenc.EncHistogram, sample{t: 1000, h: h})},
		"aggregates are left alone": {
			Chunk{Encoding: aggrchunk.Encoding, Data: []byte{1, 2}}, Chunk{Encoding: aggrchunk.Encoding, Data: []byte{1, 2}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.in.Classic()
			if err != nil {
				t.Fatal(err)
			}
			if got.Encoding != tc.want.Encoding || !slices.Equal(got.Data, tc.want.Data) || got.MinTime != tc.want.MinTime || got.MaxTime != tc.want.MaxTime {
				t.Errorf("got %s %x from %d to %d, want %s %x", got.Encoding, got.Data, got.MinTime, got.MaxTime, tc.want.Encoding, tc.want.Data)
			}
		})
	}
	if _, err := (Chunk{Encoding: chunkenc.EncXOR2, Data: []byte{0, 9}}).Classic(); err == nil {
		t.Error("a damaged chunk: got no error")
	}
}

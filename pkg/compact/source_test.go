package compact

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/series"
)

// segmented is a block of n series in many small segments, local and in the bucket.
func segmented(t testing.TB, bkt *bucket.Memory, n int) (dir string, meta *block.Meta) {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	var all []series.Series
	symbols := blockwriter.NewSymbols()
	for i := range n {
		s := series.Series{Labels: labels.FromStrings("__name__", "m", "n", fmt.Sprintf("%06d", i), "long", strings.Repeat("x", r.IntN(300)))}
		for at := range r.IntN(5) {
			s.Chunks = append(s.Chunks, randomFloats(t, r, int64(at)*1000, 1+r.IntN(120)))
		}
		s.Labels.Range(func(l labels.Label) {
			for _, str := range []string{l.Name, l.Value} {
				if _, err := symbols.Add(str); err != nil {
					t.Fatal(err)
				}
			}
		})
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b series.Series) int { return labels.Compare(a.Labels, b.Labels) })
	dir = t.TempDir()
	o := blockwriter.Defaults()
	o.SegmentSize = 100_000
	w, err := blockwriter.New(blockwriter.Dir(dir), o, symbols)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if err := w.AddSeries(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	meta = &block.Meta{ULID: ulid.ULID{1, 2, 3}, MaxTime: 5000}
	names, err := filepath.Glob(filepath.Join(dir, "chunks", "*"))
	if err != nil || len(names) < 2 && n > 1000 {
		t.Fatalf("got segments %v (%v), want several", names, err)
	}
	for _, name := range append(names, filepath.Join(dir, "index")) {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(dir, name)
		if err := bkt.Upload(t.Context(), block.ObjectName(meta.ULID, filepath.ToSlash(rel)), bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
	return dir, meta
}

func randomFloats(t testing.TB, r *rand.Rand, from int64, n int) series.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		app.Append(0, from+int64(i), r.Float64())
	}
	return series.Chunk{MinTime: from, MaxTime: from + int64(n) - 1, Encoding: chunkenc.EncXOR, Data: c.Bytes()}
}

// read reads a block in windows of 64 KiB.
func read(t testing.TB, bkt bucket.Reader, meta *block.Meta) ([]series.Series, error) {
	t.Helper()
	sources, err := openSources(t.Context(), bkt, []*block.Meta{meta}, newReaders(1_000_000, 1), newSymbolTable())
	if err != nil {
		return nil, err
	}
	defer closeAll(sources)
	all, _, err := series.Collect(sources[0].set(t.Context(), nil))
	return all, err
}

// TestASourceIsWhatPrometheusReads compares with Prometheus' readers of local files.
func TestASourceIsWhatPrometheusReads(t *testing.T) {
	bkt := bucket.NewMemory()
	dir, meta := segmented(t, bkt, 3000)
	got, err := read(t, bkt, meta)
	if err != nil {
		t.Fatal(err)
	}
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer ir.Close()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer cr.Close()
	p, err := ir.Postings(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for p.Next() {
		var b labels.ScratchBuilder
		var metas []chunks.Meta
		if err := ir.Series(p.At(), &b, &metas); err != nil {
			t.Fatal(err)
		}
		if len(metas) == 0 {
			continue // nothing to merge
		}
		if len(got) == 0 || !labels.Equal(got[0].Labels, b.Labels()) || len(got[0].Chunks) != len(metas) {
			t.Fatalf("want %s with %d chunks next of %d series", b.Labels(), len(metas), len(got))
		}
		for i, m := range metas {
			want, _, err := cr.ChunkOrIterable(m)
			if err != nil {
				t.Fatal(err)
			}
			c := got[0].Chunks[i]
			if c.MinTime != m.MinTime || c.MaxTime != m.MaxTime || c.Encoding != want.Encoding() || !bytes.Equal(c.Data, want.Bytes()) {
				t.Fatalf("chunk %d of %s is another one", i, got[0].Labels)
			}
		}
		got = got[1:]
	}
	if len(got) > 0 {
		t.Errorf("%d series too many", len(got))
	}
}

func TestABlockWithoutSeriesIsEmpty(t *testing.T) {
	bkt := bucket.NewMemory()
	_, meta := segmented(t, bkt, 0)
	if got, err := read(t, bkt, meta); err != nil || len(got) > 0 {
		t.Errorf("got %d series and error %v", len(got), err)
	}
}

// TestEveryFlippedByteIsDamageOrHarmless flips bytes of a small block.
func TestEveryFlippedByteIsDamageOrHarmless(t *testing.T) {
	bkt := bucket.NewMemory()
	dir, meta := segmented(t, bkt, 5)
	want, err := read(t, bkt, meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"index", "chunks/000001"} {
		whole, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for i := range whole {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 0x55
			if err := bkt.Upload(t.Context(), block.ObjectName(meta.ULID, file), bytes.NewReader(damaged)); err != nil {
				t.Fatal(err)
			}
			got, err := read(t, bkt, meta)
			var corrupt *corruptError
			switch {
			case err == nil && sameSeries(got, want): // padding, postings
			case err == nil:
				t.Errorf("byte %d of %s: other series and no error", i, file)
			case !errors.As(err, &corrupt) || corrupt.id != meta.ULID:
				t.Errorf("byte %d of %s: got error %v, want damage of %s", i, file, err, meta.ULID)
			}
		}
		if err := bkt.Upload(t.Context(), block.ObjectName(meta.ULID, file), bytes.NewReader(whole)); err != nil {
			t.Fatal(err)
		}
	}
}

func sameSeries(a, b []series.Series) bool {
	return fmt.Sprint(a) == fmt.Sprint(b)
}

// TestABrokenReadBlamesNoBlock lets every single read of the sources go wrong once.
func TestABrokenReadBlamesNoBlock(t *testing.T) {
	fill := replicas(t, 2)
	for n := 1; ; n++ {
		bkt := fill(t)
		errAway := errors.New("the bucket is away")
		f := buckettest.FailAt(bkt, buckettest.GetRange, n, buckettest.Before, errAway)
		e := executor(t, f)
		e.opts.Policy.NoDownsampling = true
		e.opts.LeaseDuration = time.Second // too short for another try of the job
		err := e.Run(t.Context())
		if err == nil && n > 1 {
			return // there are fewer reads
		}
		if !errors.Is(err, errAway) {
			t.Fatalf("read %d broken: got error %v, want %v", n, err, errAway)
		}
		for _, entry := range fetch(t, bkt).Blocks {
			if entry.NoCompact != nil || entry.Deletion != nil {
				t.Fatalf("read %d broken: block %s is marked", n, entry.Meta.ULID)
			}
		}
	}
}

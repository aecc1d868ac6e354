package blocktest

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
)

// chunkRange is where a head cuts its chunks, as in a Prometheus with default settings.
const chunkRange = int64(2 * time.Hour / time.Millisecond)

// Dir writes a block into a directory of its own that ends with the test. The
// directory is named by the block's ULID and holds chunks, index and meta.json.
func Dir(t testing.TB, s Spec) (dir string, meta *block.Meta) {
	t.Helper()
	return DirIn(t, t.TempDir(), s)
}

// DirIn writes a block into a directory below parent, as Prometheus does below its data directory.
func DirIn(t testing.TB, parent string, s Spec) (dir string, meta *block.Meta) {
	t.Helper()
	points := s.points(t)
	mint, maxt := s.timeRange(t, points)

	head := s.head(t)
	defer func() { check(t, head.Close()) }()
	app := head.AppenderV2(context.Background())
	for _, p := range points {
		_, err := app.Append(0, p.labels, p.ST, p.T, p.V, p.H, p.FH, storage.AppendV2Options{})
		check(t, err)
	}
	check(t, app.Commit())

	compactor, err := tsdb.NewLeveledCompactor(context.Background(), nil, promslog.NewNopLogger(), []int64{chunkRange}, chunkenc.NewPool(), nil)
	check(t, err)
	written, err := compactor.Write(parent, head, mint, maxt, nil)
	check(t, err)
	if len(written) != 1 {
		t.Fatalf("the head gave %d blocks, want 1", len(written))
	}
	id := s.id(points, maxt)
	dir = filepath.Join(parent, id.String())
	check(t, os.Rename(filepath.Join(parent, written[0].String()), dir))
	check(t, os.Remove(filepath.Join(dir, "tombstones")))
	return dir, s.meta(t, dir, id)
}

// head opens an empty head without a log that writes the chunks which the spec asks for.
func (s Spec) head(t testing.TB) *tsdb.Head {
	t.Helper()
	o := tsdb.DefaultHeadOptions()
	o.ChunkRange = chunkRange
	o.ChunkDirRoot = t.TempDir()
	switch s.Chunks {
	case Classic:
	case XOR2:
		o.FloatChunkEncoding.Store(uint32(chunkenc.EncXOR2))
	case WithStart:
		o.FloatChunkEncoding.Store(uint32(chunkenc.EncXOR2))
		o.EnableSTStorage.Store(true)
		o.EnableHistogramSTEncoding.Store(true)
	}
	head, err := tsdb.NewHead(nil, promslog.NewNopLogger(), nil, nil, o, tsdb.NewHeadStats())
	check(t, err)
	check(t, head.Init(0))
	return head
}

// meta completes the meta.json that Prometheus wrote.
func (s Spec) meta(t testing.TB, dir string, id ulid.ULID) *block.Meta {
	t.Helper()
	m := readMeta(t, dir)
	m.ULID = id
	m.Compaction.Level = max(s.Level, 1)
	m.Compaction.Sources = []ulid.ULID{id}
	m.Thanos.Version = 1
	m.Thanos.Labels = s.Labels
	m.Thanos.Source = block.SourceTest
	data, err := m.Encode()
	check(t, err)
	check(t, os.WriteFile(filepath.Join(dir, block.MetaFile), data, 0o644))
	return m
}

func readMeta(t testing.TB, dir string) *block.Meta {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, block.MetaFile))
	check(t, err)
	m, err := block.ParseMeta(data)
	check(t, err)
	return m
}

// Read gives all samples of a raw block's directory, sorted by labels.
func Read(t testing.TB, dir string) []Series {
	t.Helper()
	b, err := tsdb.OpenBlock(promslog.NewNopLogger(), dir, nil, nil)
	check(t, err)
	defer func() { check(t, b.Close()) }()
	q, err := tsdb.NewBlockQuerier(b, b.MinTime(), b.MaxTime())
	check(t, err)
	defer func() { check(t, q.Close()) }()

	var all []Series
	set := q.Select(context.Background(), true, nil, labels.MustNewMatcher(labels.MatchRegexp, "__name__", ".*"))
	for set.Next() {
		s := Series{Labels: set.At().Labels().Copy()}
		it := set.At().Iterator(nil)
		for kind := it.Next(); kind != chunkenc.ValNone; kind = it.Next() {
			s.Samples = append(s.Samples, sampleAt(it, kind))
		}
		check(t, it.Err())
		all = append(all, s)
	}
	check(t, set.Err())
	return all
}

func sampleAt(it chunkenc.Iterator, kind chunkenc.ValueType) Sample {
	p := Sample{T: it.AtT(), ST: it.AtST()}
	switch kind {
	case chunkenc.ValNone:
	case chunkenc.ValFloat:
		_, p.V = it.At()
	case chunkenc.ValHistogram:
		_, p.H = it.AtHistogram(nil)
	case chunkenc.ValFloatHistogram:
		_, p.FH = it.AtFloatHistogram(nil)
	}
	return p
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

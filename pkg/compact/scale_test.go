package compact

import (
	"fmt"
	"maps"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/planner"
)

// fillSmall puts blocks of two hours into a bucket, of so many streams and replicas of
// each. Nothing but their meta.json can be read.
func fillSmall(tb testing.TB, bkt *bucket.Memory, blocks, streams, replicas int) {
	tb.Helper()
	for i := range blocks {
		m := &block.Meta{MinTime: int64(i/streams/replicas) * 2 * time.Hour.Milliseconds(), Version: 1}
		m.MaxTime = m.MinTime + 2*time.Hour.Milliseconds()
		_ = m.ULID.SetTime(uint64(m.MaxTime))
		copy(m.ULID[6:], fmt.Sprintf("%010d", i))
		m.Stats = block.Stats{NumSamples: 4800, NumSeries: 10, NumChunks: 40}
		m.Compaction = block.Compaction{Level: 1, Sources: []ulid.ULID{m.ULID}}
		m.Thanos = block.Thanos{
			Version: 1, Source: block.SourceSidecar, UploadTime: time.UnixMilli(m.MaxTime).UTC(), SegmentFiles: []string{"000001"},
			Labels: map[string]string{"cluster": fmt.Sprintf("c%d", i/replicas%streams), "replica": string(rune('a' + i%replicas))},
			Files:  []block.File{{RelPath: "chunks/000001", SizeBytes: 5000}, {RelPath: "index", SizeBytes: 2000}, {RelPath: "meta.json"}},
		}
		data, err := m.Encode()
		if err != nil {
			tb.Fatal(err)
		}
		for name, content := range map[string]string{
			block.SegmentName(m.ULID, 1): "x", block.IndexName(m.ULID): "x", block.MetaName(m.ULID): string(data),
		} {
			if err := bkt.Upload(tb.Context(), name, strings.NewReader(content)); err != nil {
				tb.Fatal(err)
			}
		}
	}
}

// BenchmarkLook is how long it takes to know what is to be done in a bucket of 100,000
// small blocks, first and again, and what is held in memory afterwards.
func BenchmarkLook(b *testing.B) {
	const blocks = 100_000
	bkt := bucket.NewMemory()
	fillSmall(b, bkt, blocks, 50, 2)
	p := planner.Defaults()
	p.ReplicaLabels = []string{"replica"}
	now := time.UnixMilli(blocks / 100 * 2 * time.Hour.Milliseconds())
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, when := range []string{"first", "again"} {
		b.Run(when, func(b *testing.B) {
			before := heap()
			f := fetcher.New(bkt, fetcher.Defaults(), promslog.NewNopLogger(), prometheus.NewRegistry())
			look := func() ([]planner.Job, *block.Set) {
				set, err := f.Fetch(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				return planner.Plan(set, p, now), set
			}
			jobs, set := look()
			b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
			if len(jobs) == 0 || len(set.Blocks) != blocks {
				b.Fatalf("%d jobs for %d blocks", len(jobs), len(set.Blocks))
			}
			for b.Loop() {
				if when == "first" {
					f = fetcher.New(bkt, fetcher.Defaults(), promslog.NewNopLogger(), prometheus.NewRegistry())
				}
				look()
			}
			runtime.KeepAlive(set)
		})
	}
}

func TestWhatARunAsksForFollowsFromWhatChanged(t *testing.T) {
	var dirs []string
	for _, replica := range []string{"a", "b"} {
		dir, _ := blocktest.Dir(t, twoHours(replica, hour))
		dirs = append(dirs, dir)
	}
	asked := func(streams int) map[string]int {
		bkt := bucket.NewMemory()
		fillSmall(t, bkt, streams, streams, 1) // each with one block, which is left alone
		log := buckettest.NewLog(bkt)
		e := executor(t, log)
		e.opts.Policy.NoDownsampling = true
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		log.Reset()
		for _, dir := range dirs {
			blocktest.Upload(t, bkt, dir)
		}
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		requests := map[string]int{}
		for _, op := range log.All() {
			kind, _, _ := strings.Cut(op, " ")
			requests[kind]++
		}
		return requests
	}
	few, many := asked(3), asked(300)
	if len(few) == 0 || !maps.Equal(few, many) {
		t.Errorf("requests of a run in which two blocks are new: got %v beside 300 blocks, %v beside 3", many, few)
	}
}

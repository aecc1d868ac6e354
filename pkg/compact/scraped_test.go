package compact

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/promslog"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/planner"
)

func TestMetricsSayHowThingsStand(t *testing.T) {
	bkt := replicas(t, 2)(t)
	pair(t, bkt, blocktest.DamageNamed(t, "no index"), "us")
	aside := blocktest.InBucket(t, bkt, twoHours("z", hour+50))
	e := executor(t, bkt)
	reg := prometheus.NewRegistry()
	reg.MustRegister(scraped{e})
	if n, err := testutil.GatherAndCount(reg); err != nil || n != 0 {
		t.Errorf("before the first look there are %d series, %v", n, err)
	}
	for _, m := range []block.Mark{
		{Kind: block.NoCompactMark, ID: aside.ULID, Reason: "of another program"},
		{Kind: block.NoDownsampleMark, ID: aside.ULID, Reason: "manual"},
	} {
		if err := blockio.Mark(t.Context(), bkt, m); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Run(t.Context()); err == nil {
		t.Error("got no error for the broken block")
	}
	want := `# HELP varve_compact_quarantined_blocks Blocks that are left out of merging or downsampling, by the reason of their mark.
# TYPE varve_compact_quarantined_blocks gauge
varve_compact_quarantined_blocks{reason="chunk-checksum"} 0
varve_compact_quarantined_blocks{reason="chunk-unreadable"} 0
varve_compact_quarantined_blocks{reason="incomplete"} 1
varve_compact_quarantined_blocks{reason="index-checksum"} 0
varve_compact_quarantined_blocks{reason="index-size-exceeding"} 0
varve_compact_quarantined_blocks{reason="index-unreadable"} 0
varve_compact_quarantined_blocks{reason="manual"} 1
varve_compact_quarantined_blocks{reason="meta-unreadable"} 0
varve_compact_quarantined_blocks{reason="other"} 1
varve_compact_quarantined_blocks{reason="series-order"} 0
varve_compact_quarantined_blocks{reason="wrong-times"} 0
# HELP varve_compact_thanos_seen_timestamp_seconds When a Thanos compactor last left a trace in a stream of this one since it started; 0 for never.
# TYPE varve_compact_thanos_seen_timestamp_seconds gauge
varve_compact_thanos_seen_timestamp_seconds 0
# HELP varve_compact_oldest_job_seconds How long the oldest job that is not done has been in every plan.
# TYPE varve_compact_oldest_job_seconds gauge
varve_compact_oldest_job_seconds 0
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want),
		"varve_compact_quarantined_blocks", "varve_compact_thanos_seen_timestamp_seconds", "varve_compact_oldest_job_seconds"); err != nil {
		t.Error(err)
	}
	later := testutil.CollectAndCount(scraped{e}, "varve_compact_reclaimable_bytes")
	if later != 3 {
		t.Errorf("reclaimable bytes have %d series, want 3", later)
	}
}

// However many streams there are, metrics name the largest only.
func TestTheBacklogOfManyStreamsHasFewMetrics(t *testing.T) {
	e := executor(t, bucket.NewMemory())
	s := sight{at: e.now(), set: &block.Set{}, sizes: map[ulid.ULID]int64{}}
	var waiting []waitingJob
	for i := range 3 * shownStreams {
		waiting = append(waiting, waitingJob{job: planner.Expire{Group: block.GroupKey{Stream: fmt.Sprint("s", i)}, Block: &block.Meta{}}})
	}
	e.board.planned(s, nil)
	e.board.waits(waiting)
	if n := testutil.CollectAndCount(scraped{e}, "varve_compact_backlog_jobs"); n != shownStreams+1 {
		t.Errorf("got %d series, want %d", n, shownStreams+1)
	}
}

func TestTheRateFollowsFromWhatWasMoved(t *testing.T) {
	b := newBoard()
	job := func(stream string, size byte) planner.Downsample {
		m := &block.Meta{ULID: ulid.ULID{size}}
		return planner.Downsample{Group: block.GroupKey{Stream: stream}, Source: m}
	}
	one, two := job("one", 1), job("two", 2)
	b.planned(sight{sizes: map[ulid.ULID]int64{{1}: 1000, {2}: 4000}, jobs: []planner.Job{one, two}}, nil)
	p := &progress{}
	b.started(one, p)
	b.waits([]waitingJob{{job: two, why: forPlace}})
	p.read.Store(500)
	if got := b.backlog(); got[0].Stream != "two" || got[0].ETASeconds != nil || got[1].Bytes != 500 {
		t.Errorf("before there is a rate: got %+v", got)
	}
	b.busy, b.busySince = 10*time.Second, time.Time{} // as if time stood still
	got := b.backlog()
	if eta := *got[0].ETASeconds; eta != 90 { // 4500 bytes are left, at 50 a second
		t.Errorf("got %v seconds, want 90", eta)
	}
	b.busySince = time.Now()
	b.ended(one)
	if b.moved != 500 || b.busy < 10*time.Second || len(b.running) > 0 {
		t.Errorf("at the end: %d bytes in %v, running %v", b.moved, b.busy, b.running)
	}
}

func TestUploadsThatNobodyGoesOnWithAreAborted(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	bkt, err := bucket.Open(t.Context(), bucket.Options{Config: buckettest.CreateBucket(t, endpoint, "left")}, promslog.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	buckettest.LeaveUpload(t, endpoint, "left", id+"/chunks/000001")
	buckettest.LeaveUpload(t, endpoint, "left", id+"/index")
	buckettest.LeaveUpload(t, endpoint, "left", "somebody/else's")
	left := func() (n int) {
		t.Helper()
		if err := bucket.PendingUploads(t.Context(), bkt, "", func(bucket.PendingUpload) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		return n
	}
	e := executor(t, bkt)
	e.opts.Policy.PartialAge = 48 * time.Hour
	for _, tc := range []struct {
		at   time.Duration
		left int
	}{{47 * time.Hour, 3}, {49 * time.Hour, 1}, {50 * time.Hour, 1}} {
		e.now = func() time.Time { return time.Now().Add(tc.at) }
		e.uploadsSeen = time.Time{}
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := left(); got != tc.left {
			t.Errorf("after %s: %d uploads are left, want %d", tc.at, got, tc.left)
		}
	}
	if got := testutil.ToFloat64(e.metrics.uploadsAborted); got != 2 {
		t.Errorf("%v uploads are counted, want 2", got)
	}
}

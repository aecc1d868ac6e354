package compact

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/logtest"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/planner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hour is where the blocks of the tests lie, in hours since the epoch: at the
// start of a range of two weeks.
const hour = 14 * 24 * 1000

// twoHours is a block of two series, scraped every minute but for the minutes left out.
func twoHours(replica string, from int, without ...int) blocktest.Spec {
	start := int64(from) * time.Hour.Milliseconds()
	var counter, gauge blocktest.Series
	counter.Labels = labels.FromStrings(labels.MetricName, "c", "x", "1")
	gauge.Labels = labels.FromStrings(labels.MetricName, "g", "x", "2")
	for i := range 120 {
		if slices.Contains(without, i) {
			continue
		}
		at := start + int64(i)*60_000 + 1000
		if replica == "b" {
			at += 13_000
		}
		counter.Samples = append(counter.Samples, blocktest.Sample{T: at, V: float64(at / 1000)})
		gauge.Samples = append(gauge.Samples, blocktest.Sample{T: at, V: float64(i % 7)})
	}
	return blocktest.Spec{
		Series:  []blocktest.Series{counter, gauge},
		Labels:  map[string]string{"cluster": "eu", "replica": replica},
		MinTime: start, MaxTime: start + 2*time.Hour.Milliseconds(),
	}
}

// executor works on bkt at a time when every range of the tests is closed.
func executor(t *testing.T, bkt objstore.Bucket) *Executor {
	t.Helper()
	o := Defaults()
	o.Dir = t.TempDir()
	o.Policy.ReplicaLabels = []string{"replica"}
	o.Policy.ConsistencyDelay = 0
	o.Policy.PartialAge = 100 * 365 * 24 * time.Hour // the clock of objects is another
	log := promslog.NewNopLogger()
	blocks := fetcher.New(bkt, fetcher.Defaults(), log, prometheus.NewRegistry())
	e, err := New(bkt, blocks, o, log, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	e.now = func() time.Time { return time.UnixMilli((hour + 24*20) * time.Hour.Milliseconds()) }
	return e
}

func fetch(t *testing.T, bkt bucket.Reader) *block.Set {
	t.Helper()
	set, err := fetcher.New(bkt, fetcher.Defaults(), promslog.NewNopLogger(), prometheus.NewRegistry()).Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// live says what is in the bucket and not marked for deletion.
func live(t *testing.T, bkt bucket.Reader) []string {
	t.Helper()
	var out []string
	for _, e := range fetch(t, bkt).Blocks {
		if e.Deletion == nil {
			m := e.Meta
			out = append(out, fmt.Sprintf("%s %s +%dh %dh level %d, %d sources, %d series, %d samples",
				m.ULID, m.Group(nil), m.MinTime/3_600_000-hour, m.TimeRange().Duration()/3_600_000,
				m.Compaction.Level, len(m.Compaction.Sources), m.Stats.NumSeries, m.Stats.NumSamples))
		}
	}
	slices.Sort(out)
	return out
}

// replicas writes so many hours of two replicas and returns a function that gives a
// new bucket with them; the second replica fills two holes of the first.
func replicas(t *testing.T, hours int) func(*testing.T) *bucket.Memory {
	t.Helper()
	var dirs []string
	for from := hour; from < hour+hours; from += 2 {
		for _, spec := range []blocktest.Spec{
			twoHours("a", from, 10, 11, 12, 13, 70, 71, 72), twoHours("b", from, 40, 41, 42, 43),
		} {
			dir, _ := blocktest.Dir(t, spec)
			dirs = append(dirs, dir)
		}
	}
	return func(t *testing.T) *bucket.Memory {
		t.Helper()
		bkt := bucket.NewMemory()
		for _, dir := range dirs {
			blocktest.Upload(t, bkt, dir)
		}
		return bkt
	}
}

func TestReplicasBecomeOneBlockInEveryResolution(t *testing.T) {
	bkt := replicas(t, 8)(t)
	if err := executor(t, bkt).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, line := range live(t, bkt) {
		_, rest, _ := strings.Cut(line, " ")
		got = append(got, rest)
	}
	slices.Sort(got)
	// The first replica has 113 samples in two hours; the other fills 3 and 4 minutes.
	want := []string{
		`{cluster="eu"}@1h +0h 8h level 2, 8 sources, 2 series, 16 samples`,
		`{cluster="eu"}@5m +0h 8h level 2, 8 sources, 2 series, 192 samples`,
		`{cluster="eu"}@raw +0h 8h level 2, 8 sources, 2 series, 960 samples`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if err := executor(t, bkt).Run(t.Context()); err != nil {
		t.Errorf("a second run: %v", err)
	}
}

// TestBlocksThatAnotherDeduplicatedApart merges a stream without replicas, in which each
// block has another phase. Where it changes, a sample comes 20 s behind the one before, and
// deduplication leaves it out. Verification takes that for no loss.
func TestBlocksThatAnotherDeduplicatedApart(t *testing.T) {
	bkt := bucket.NewMemory()
	for i := range 4 {
		spec := twoHours("", hour+2*i)
		delete(spec.Labels, "replica")
		for _, s := range spec.Series {
			for j := range s.Samples {
				s.Samples[j].T += int64(i+1) % 2 * 40_000
			}
		}
		blocktest.InBucket(t, bkt, spec)
	}
	e := executor(t, bkt)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(live(t, bkt), "\n")
	if want := "@raw +0h 8h level 2, 4 sources, 2 series, 956 samples"; !strings.Contains(got, want) { // two of each series are left out
		t.Errorf("got\n%s\nwant %s", got, want)
	}
}

// data gives all objects but marks, metadata and leases.
func data(t *testing.T, bkt *bucket.Memory) map[string]string {
	t.Helper()
	got := map[string]string{}
	err := bkt.List(t.Context(), "", "", func(o bucket.Object) error {
		if !strings.HasSuffix(o.Name, ".json") {
			data, _, err := bkt.GetVersion(t.Context(), o.Name)
			got[o.Name] = string(data)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestASecondRunOverTheSameSourcesMakesTheSameBytes(t *testing.T) {
	fill := replicas(t, 4)
	a, b := fill(t), fill(t)
	for _, bkt := range []*bucket.Memory{a, b} {
		if err := executor(t, bkt).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	got, want := data(t, a), data(t, b)
	if len(got) != len(want) {
		t.Fatalf("got %d objects and %d", len(got), len(want))
	}
	for name := range want {
		if got[name] != want[name] {
			t.Errorf("%s differs between two runs", name)
		}
	}
}

func TestACrashAtAnyWriteIsFinishedByTheNextRun(t *testing.T) {
	fill := replicas(t, 4)
	synctest.Test(t, func(t *testing.T) { crashAtAnyWrite(t, fill) })
}

// crashAtAnyWrite counts the writes of leases too; the next run waits until those of the dead ran out.
func crashAtAnyWrite(t *testing.T, fill func(*testing.T) *bucket.Memory) {
	t.Helper()
	reference := fill(t)
	log := buckettest.NewLog(reference)
	if err := executor(t, log).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want, writes := live(t, reference), len(log.Writes())
	for n := 1; n <= writes; n++ {
		for _, when := range []buckettest.Moment{buckettest.Before, buckettest.After} {
			bkt := fill(t)
			err := executor(t, buckettest.CrashAt(bkt, n, when)).Run(t.Context())
			if err == nil {
				t.Fatalf("crash at write %d of %d: got no error", n, writes)
			}
			if err := executor(t, bkt).Run(t.Context()); err != nil {
				t.Fatalf("run after a crash at write %d: %v", n, err)
			}
			if got := live(t, bkt); !slices.Equal(got, want) {
				t.Fatalf("crash at write %d: got\n%s\nwant\n%s", n, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}

func TestRetentionWaitsForWhatOutlivesIt(t *testing.T) {
	bkt := replicas(t, 8)(t)
	e := executor(t, bkt)
	e.opts.Policy.DeleteDelay = 0
	e.opts.Policy.Retention = map[block.Resolution]time.Duration{block.Raw: 10 * 24 * time.Hour}
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []block.Resolution
	for _, entry := range fetch(t, bkt).Blocks {
		got = append(got, entry.Meta.Resolution())
	}
	slices.Sort(got)
	if want := []block.Resolution{block.FiveMin, block.OneHour}; !slices.Equal(got, want) {
		t.Errorf("resolutions left: got %v, want %v", got, want)
	}
}

func TestTheWorkDirectoryIsEmptyAfterwards(t *testing.T) {
	bkt := replicas(t, 8)(t)
	e := executor(t, bkt)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(e.opts.Dir, "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v (%v)", left, err)
	}
}

func TestABucketThatCannotBeListedIsAnError(t *testing.T) {
	e := executor(t, bucket.NewMemory())
	e.blocks = brokenSource{}
	if err := e.Run(t.Context()); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v, want %v", err, os.ErrPermission)
	}
}

type brokenSource struct{}

func (brokenSource) Fetch(context.Context) (*block.Set, error) { return nil, os.ErrPermission }

// A merge that takes its time keeps nothing else from being done, not even in its own stream.
func TestNothingWaitsForALongMerge(t *testing.T) {
	bkt := replicas(t, 2)(t)
	old := blocktest.InBucket(t, bkt, twoHours("a", hour-24*40))
	e := keeping(t, bkt)
	e.opts.Policy.DeleteDelay = 0
	build := e.build
	begun, goOn := make(chan struct{}, 1), make(chan struct{})
	e.build = func(ctx context.Context, o output) error {
		if len(o.sources) > 1 {
			begun <- struct{}{}
			<-goOn
		}
		return build(ctx, o)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(t.Context()) }()
	defer func() {
		close(goOn)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	<-begun
	logtest.Eventually(t, "an old block to be downsampled twice, expired and deleted", func() bool {
		set := fetch(t, bkt)
		return set.Find(old.ULID) == nil && downsampledTo(set, old.ULID, block.FiveMin) && downsampledTo(set, old.ULID, block.OneHour)
	})
}

func TestWhatARunningJobMayWriteIsLeftAlone(t *testing.T) {
	bkt := replicas(t, 2)(t)
	e := executor(t, bkt)
	goOn := make(chan struct{})
	build := e.build
	e.build = func(ctx context.Context, o output) error {
		<-goOn
		return build(ctx, o)
	}
	if err := e.openLeases(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := e.newSchedule()
	defer s.drain(t.Context())
	end := sync.OnceFunc(func() { close(goOn) })
	defer end()
	if err := s.plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	first, ok := s.peek(kindCompact).(planner.Compact)
	if !ok || s.start(t.Context()) == 0 {
		t.Fatal("there is nothing to merge")
	}
	out := e.merged(first, first.Into[0], 0)
	if len(out.beside) == 0 {
		t.Fatal("nothing coarser is made of it at once")
	}
	for _, m := range append(out.beside, out.meta) {
		if s.ready(planner.Expire{Block: m}) {
			t.Errorf("%s may expire while it is written", m.ULID)
		}
	}
	end()
	s.end(<-s.outcomes)
	if err := s.plan(t.Context()); err != nil {
		t.Fatal(err)
	}
	if !s.ready(planner.Expire{Block: out.meta}) {
		t.Errorf("%s is still in use", out.meta.ULID)
	}
}

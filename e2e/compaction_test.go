package e2e

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// twoWeeks is a boundary of the largest compaction range, so that the ranges
// before it are complete.
func twoWeeks(t time.Time) time.Time {
	width := int64(14 * 24 * 3600)
	return time.Unix(t.Unix()/width*width, 0).UTC()
}

// TestCompactionChangesNoSample is scenario c: one block without the replica
// label replaces its sources, and every query answers as before.
func TestCompactionChangesNoSample(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	bucket, config := bucketOf(s3, bucketName), s3.ObjstoreConfig(bucketName)

	end := twoWeeks(time.Now()).Add(-4 * 24 * time.Hour)
	down := func(from, to time.Duration) history.Outage {
		return history.Outage{From: end.Add(-from), To: end.Add(-to)}
	}
	replicas := pair(
		[]history.Outage{down(30*time.Hour, 29*time.Hour), down(10*time.Minute, 5*time.Minute)},
		[]history.Outage{down(40*time.Hour, 37*time.Hour), down(20*time.Hour, 19*time.Hour+50*time.Minute)},
	)
	lay(ctx, t, bucket, replicas, history.Options{
		Start: end.Add(-48 * time.Hour), End: end, Interval: 30 * time.Second, BlockRange: 2 * time.Hour,
		Processes: history.Processes(30),
	})

	questions := []question{
		{expr: `demo_requests_total[48h]`, at: end},
		{expr: `demo_temperature_celsius[48h]`, at: end},
		{expr: `sum(rate(demo_requests_total[5m]))`, at: end, over: 47 * time.Hour, step: time.Minute},
		{expr: `sum by (code) (increase(demo_requests_total[1h]))`, at: end, over: 46 * time.Hour, step: 7 * time.Minute},
		{expr: `max(demo_temperature_celsius)`, at: end, over: 48 * time.Hour, step: 5 * time.Minute},
		{expr: `count_over_time(demo_temperature_celsius[3m])`, at: end, over: 47 * time.Hour, step: 3 * time.Minute},
	}
	before := must(c.Store(ctx, "store-before", config))(t)
	api := must(c.Query(ctx, "query-before", []string{before.GRPC}))(t).API()
	want := askAll(ctx, t, api, questions)

	compactOnce(ctx, t, c, "compact", must(c.CompactArgs(config, "--downsampling.disable"))(t)...)
	verified(ctx, t, c, "bucket", config)
	left := blocks(ctx, t, bucket)
	if len(left) != 1 || left[0].Thanos.Labels["prometheus_replica"] != "" || left[0].Thanos.Labels["cluster"] != "e2e" {
		t.Fatalf("blocks after compaction: got %+v, want one without the replica label", left)
	}
	if got := len(left[0].Compaction.Sources); got != 48 {
		t.Errorf("sources of the block: got %d, want 48", got)
	}

	// A gateway that takes marked blocks for gone sees the new block alone.
	after := must(c.Store(ctx, "store-after", config, "--ignore-deletion-marks-delay=0s"))(t)
	api = must(c.Query(ctx, "query-after", []string{after.GRPC}))(t).API()
	for i, got := range askAll(ctx, t, api, questions) {
		sameSeries(t, questions[i], got, want[i])
	}
	readWithPromtool(t, c, s3, left[0])
}

// readWithPromtool opens a block from the bucket with Prometheus' own tool.
func readWithPromtool(t *testing.T, c *harness.Cluster, s3 *harness.S3, m metaOf) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, m.ULID), os.DirFS(filepath.Join(s3.Root, bucketName, m.ULID))); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "wal"), 0o755); err != nil { // a data directory has one
		t.Fatal(err)
	}
	promtool := must(c.Tool("promtool"))(t)
	out, err := exec.CommandContext(t.Context(), promtool, "tsdb", "analyze", dir, m.ULID).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Total Series: 30") {
		t.Errorf("promtool tsdb analyze: %v\n%.2000s", err, out)
	}
	out, err = exec.CommandContext(t.Context(), promtool, "tsdb", "dump", "--sandbox-dir-root="+t.TempDir(), "--match={sensor=\"s2\"}", dir).CombinedOutput()
	if lines := strings.Count(string(out), "demo_temperature_celsius"); err != nil || lines < 5000 {
		t.Errorf("promtool tsdb dump: %v, %d samples, want about 5760\n%.500s", err, lines, out)
	}
}

// TestMonthsAnswerFromDownsampledBlocks is scenarios d and e.
func TestMonthsAnswerFromDownsampledBlocks(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	bucket, config := bucketOf(s3, bucketName), s3.ObjstoreConfig(bucketName)

	end := twoWeeks(time.Now())
	processes := history.Processes(24)
	lay(ctx, t, bucket, pair(nil, nil), history.Options{
		Start: end.Add(-30 * 24 * time.Hour), End: end, Interval: 30 * time.Second, BlockRange: 2 * time.Hour,
		Processes: processes,
	})
	compactOnce(ctx, t, c, "compact", must(c.CompactArgs(config))(t)...)
	verified(ctx, t, c, "bucket", config)
	all := blocks(ctx, t, bucket)
	for name, resolution := range map[string]int64{"raw": 0, "5m": 300_000, "1h": 3_600_000} {
		if len(atResolution(all, resolution)) == 0 {
			t.Fatalf("no blocks at %s among %+v", name, all)
		}
	}
	store := must(c.Store(ctx, "store", config, "--ignore-deletion-marks-delay=0s"))(t)
	query := must(c.Query(ctx, "query", []string{store.GRPC}))(t)
	for _, resolution := range []string{"5m", "1h"} {
		t.Run("at "+resolution, func(t *testing.T) { compareWithRaw(t, query.API(), resolution, end) })
	}

	// Scenario e: raw data expire, what was made of them stays.
	raw := query.API().With("max_source_resolution", "0s")
	gone := question{expr: `sum(increase(demo_requests_total[2h]))`, at: end.Add(-20 * 24 * time.Hour), over: 24 * time.Hour, step: time.Hour}
	want := askAll(ctx, t, raw, []question{gone})[0]
	held := panels(end)
	before := askAll(ctx, t, raw, asked(held))
	compactOnce(ctx, t, c, "compact-retention", must(c.CompactArgs(config, "--retention.resolution-raw=10d",
		"--retention.resolution-5m=365d", "--retention.resolution-1h=0d", "--delete-delay=0s"))(t)...)
	for _, m := range atResolution(blocks(ctx, t, bucket), 0) {
		if time.UnixMilli(m.MaxTime).Before(time.Now().Add(-10 * 24 * time.Hour)) {
			t.Errorf("raw block %s ends at %s and is still there", m.ULID, time.UnixMilli(m.MaxTime).UTC())
		}
	}
	// The store lets go of the blocks within a sync; until then their raw data answer.
	err := harness.WaitFor(ctx, "5m data to answer where raw data expired", func(ctx context.Context) error {
		answer, err := gone.ask(ctx, query.API())
		if err == nil && len(answer.Infos) == 0 {
			err = errors.New("the answer has no infos")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	got := askAll(ctx, t, query.API(), []question{gone})[0]
	within(t, gone, got, want, 0.01)

	t.Run("panels hold where raw data expired", func(t *testing.T) {
		for i, after := range askAll(ctx, t, query.API(), asked(held)) {
			within(t, held[i].question, after, before[i], held[i].tolerance)
		}
	})
}

// panel is a question, and by how much its answers may differ.
type panel struct {
	question
	tolerance float64
}

func asked(panels []panel) (questions []question) {
	for _, p := range panels {
		questions = append(questions, p.question)
	}
	return questions
}

// panels are what dashboards ask for at several zooms. Where points lie between the
// borders of windows, and ranges are no longer than those, all that is wanted is that no point is missing.
func panels(end time.Time) (all []panel) {
	const anything, day = 2, 24 * time.Hour
	for _, zoom := range []struct {
		at         time.Time
		over, step time.Duration
		short      float64 // tolerance where a range is the step
	}{
		{end, 28 * day, time.Hour, 0},
		{end, 28 * day, 6 * time.Hour, 0},
		{end, 28 * day, 2*time.Hour + 41*time.Minute + 17*time.Second, anything},
		{end.Add(-20 * day), 2 * day, 2 * time.Minute, anything},
		{end.Add(-21 * day), 6 * time.Hour, 15 * time.Second, anything},
	} {
		interval := max(zoom.step, time.Minute)
		rate := max(zoom.step+30*time.Second, 2*time.Minute)
		for _, p := range []struct {
			expr      string
			tolerance float64
		}{
			{`sum by (code) (rate(demo_requests_total[$rate]))`, max(zoom.short, 0.02)},
			{`increase(demo_requests_total[1h])`, 0.02}, // a restart loses up to a scrape interval of it
			{`increase(demo_requests_total[1d])`, 0.01},
			{`max_over_time(rate(demo_requests_total[1h])[6h:30m])`, 0.02},
			{`avg_over_time(demo_temperature_celsius[1d])`, 0.001},
			{`sum_over_time(demo_temperature_celsius[1d])`, 0.005},
			{`count_over_time(demo_temperature_celsius[1d])`, 0.005},
			{`min_over_time(demo_temperature_celsius[$interval])`, zoom.short},
			{`max_over_time(demo_temperature_celsius[$interval])`, zoom.short},
			{`avg_over_time(demo_temperature_celsius[$interval])`, max(zoom.short, 1e-12)},
			{`count_over_time(demo_temperature_celsius[$interval])`, zoom.short},
			{`quantile_over_time(0.9, demo_temperature_celsius[1h])`, anything},
			{`last_over_time(demo_temperature_celsius[$interval])`, anything},
			{`count(demo_temperature_celsius)`, 0},
			{`demo_temperature_celsius`, anything},
		} {
			expr := strings.NewReplacer("$rate", seconds(rate), "$interval", seconds(interval)).Replace(p.expr)
			all = append(all, panel{question{expr: expr, at: zoom.at, over: zoom.over, step: zoom.step}, p.tolerance})
		}
	}
	return all
}

func seconds(d time.Duration) string { return fmt.Sprintf("%ds", int64(d.Seconds())) }

// compareWithRaw asks at the resolution and at raw and compares.
func compareWithRaw(t *testing.T, api harness.PromAPI, resolution string, end time.Time) {
	t.Helper()
	ctx := testContext(t)
	coarse := api.With("max_source_resolution", resolution)
	raw := api.With("max_source_resolution", "0s")
	// Ranges are left-open and windows right-open, so aligned is a millisecond
	// before; no replica scrapes at a full hour.
	at := end.Add(-time.Millisecond)
	month := 28 * 24 * time.Hour
	for _, tc := range []struct {
		expr      string
		tolerance float64
	}{
		{`min_over_time(demo_temperature_celsius[3h])`, 0},
		{`max_over_time(demo_temperature_celsius[3h])`, 0},
		{`sum_over_time(demo_temperature_celsius[3h])`, 1e-12}, // the order of additions differs
		{`count_over_time(demo_temperature_celsius[3h])`, 0},
		{`avg_over_time(demo_temperature_celsius[3h])`, 0.001},
		{`rate(demo_requests_total[3h])`, 0.01},
		{`increase(demo_requests_total[6h])`, 0.01},
		{`sum by (code) (rate(demo_requests_total[2h]))`, 0.01},
	} {
		q := question{expr: tc.expr, at: at, over: month, step: 3 * time.Hour}
		want := askAll(ctx, t, raw, []question{q})[0]
		got := askAll(ctx, t, coarse, []question{q})[0]
		within(t, q, got, want, tc.tolerance)
		if !strings.Contains(strings.Join(got.Infos, "\n"), resolution) {
			t.Errorf("%s: got infos %q, want one that says that %s data served", q, got.Infos, resolution)
		}
		if len(want.Infos) > 0 {
			t.Errorf("%s at raw: got infos %q", q, want.Infos)
		}
	}
}

// within compares two answers sample by sample, up to a relative tolerance.
func within(t *testing.T, q question, got, want *harness.Answer, tolerance float64) {
	t.Helper()
	if len(got.Series) != len(want.Series) {
		t.Errorf("%s: got %d series, want %d", q, len(got.Series), len(want.Series))
		return
	}
	worst, off := 0.0, 0
	for i, w := range want.Series {
		g := got.Series[i]
		if len(g.Samples) != len(w.Samples) {
			t.Errorf("%s: %v: got %d samples, want %d", q, w.Metric, len(g.Samples), len(w.Samples))
			return
		}
		for k, s := range w.Samples {
			if g.Samples[k].T != s.T {
				t.Errorf("%s: %v: sample %d at %d, want %d", q, w.Metric, k, g.Samples[k].T, s.T)
				return
			}
			diff := math.Abs(g.Samples[k].V-s.V) / math.Max(math.Abs(s.V), 1e-9)
			if diff > tolerance || math.IsNaN(diff) {
				off++
				if off <= 3 {
					t.Errorf("%s: %v at %d: got %v, want %v", q, w.Metric, s.T, g.Samples[k].V, s.V)
				}
			}
			worst = max(worst, diff)
		}
	}
	t.Logf("%s: worst relative difference %.3g (%d of the samples beyond %.3g)", q, worst, off, tolerance)
}

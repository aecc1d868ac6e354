package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// replicaPair are two Prometheis with sidecars that scrape the same exporter every second.
type replicaPair struct {
	sidecar [2]*harness.Component
	proms   [2]*harness.Prometheus
}

// startPair starts them; objstore may be empty.
func startPair(ctx context.Context, t *testing.T, c *harness.Cluster, objstore string, processes []history.Process) (p replicaPair) {
	t.Helper()
	exporter := httptest.NewServer(history.Exporter(processes))
	t.Cleanup(exporter.Close)
	for i, name := range []string{"a", "b"} {
		p.proms[i] = must(c.Prometheus(ctx, harness.PrometheusOptions{
			Name:           "prometheus-" + name,
			ExternalLabels: map[string]string{"cluster": "e2e", "prometheus_replica": name},
			Targets:        map[string][]string{"demo": {strings.TrimPrefix(exporter.URL, "http://")}},
		}))(t)
		p.sidecar[i] = must(c.Sidecar(ctx, p.proms[i], objstore))(t)
	}
	return p
}

func (p replicaPair) endpoints() []string { return []string{p.sidecar[0].GRPC, p.sidecar[1].GRPC} }

// waitForSeries waits until an instant query has n series.
func waitForSeries(ctx context.Context, t *testing.T, api harness.PromAPI, expr string, n int) {
	t.Helper()
	err := harness.WaitFor(ctx, fmt.Sprintf("%d series of %s", n, expr), func(ctx context.Context) error {
		a, err := api.Query(ctx, expr, time.Now())
		if err == nil && len(a.Series) != n {
			err = fmt.Errorf("got %d series, warnings %q", len(a.Series), a.Warnings)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestFreshDataSurviveTheLossOfAReplica is scenario a.
func TestFreshDataSurviveTheLossOfAReplica(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	processes := history.Processes(9)
	p := startPair(ctx, t, c, "", processes)
	query := must(c.Query(ctx, "query", p.endpoints()))(t)

	// One series for each process, without the replica label; without dedup two.
	waitForSeries(ctx, t, query.API(), `{__name__=~"demo_.*"}`, len(processes))
	waitForSeries(ctx, t, query.API().With("dedup", "false"), `{__name__=~"demo_.*"}`, 2*len(processes))
	waitForSeries(ctx, t, query.API(), `{__name__=~"demo_.*",prometheus_replica!=""}`, len(processes))
	waitForSeries(ctx, t, query.API(), `{prometheus_replica="b",__name__=~"demo_.*"}`, len(processes))

	begin := time.Now()
	settle(ctx, t, query.API(), begin.Add(8*time.Second))
	if err := errors.Join(p.proms[0].Kill(), p.sidecar[0].Kill()); err != nil {
		t.Fatal(err)
	}
	end := begin.Add(20 * time.Second)
	settle(ctx, t, query.API(), end)

	// Every window of three seconds has a sample, before, across and after the loss.
	q := question{expr: `count_over_time(demo_temperature_celsius[3s])`, at: end, over: 15 * time.Second, step: time.Second}
	answer := must(q.ask(ctx, query.API()))(t)
	if len(answer.Series) != 3 {
		t.Fatalf("%s: got %d series, want 3", q, len(answer.Series))
	}
	for _, s := range answer.Series {
		if len(s.Samples) != 16 {
			t.Errorf("%s: %v: got samples at %d of 16 steps", q, s.Metric, len(s.Samples))
		}
	}
	if len(answer.Warnings) == 0 {
		t.Errorf("%s: got no warning that names the lost replica", q)
	}
}

// settle waits until query has samples of the time.
func settle(ctx context.Context, t *testing.T, api harness.PromAPI, at time.Time) {
	t.Helper()
	err := harness.WaitFor(ctx, fmt.Sprintf("samples of %s", at.UTC().Format(time.TimeOnly)), func(ctx context.Context) error {
		a, err := api.Query(ctx, `max(timestamp(demo_temperature_celsius))`, time.Now())
		if err != nil {
			return err
		}
		if len(a.Series) != 1 || a.Series[0].Samples[0].V < float64(at.Unix()) {
			return fmt.Errorf("got %v", a.Series)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestAShippedBlockAnswersWithoutItsPrometheus is scenario b.
func TestAShippedBlockAnswersWithoutItsPrometheus(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	bucket, config := bucketOf(s3, bucketName), s3.ObjstoreConfig(bucketName)
	processes := history.Processes(6)
	p := startPair(ctx, t, c, config, processes)

	var shipped []metaOf
	err := harness.WaitFor(ctx, "a block of each replica in the bucket", func(ctx context.Context) error {
		shipped = blocks(ctx, t, bucket)
		replicas := map[string]bool{}
		for _, m := range shipped {
			replicas[m.Thanos.Labels["prometheus_replica"]] = true
		}
		if len(replicas) < 2 {
			return fmt.Errorf("there are blocks of %d replicas", len(replicas))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range shipped {
		checkShipped(ctx, t, bucket, m)
	}
	for i := range p.proms {
		if err := errors.Join(p.sidecar[i].Stop(), p.proms[i].Stop()); err != nil {
			t.Fatal(err)
		}
	}
	store := must(c.Store(ctx, "store", config))(t)
	query := must(c.Query(ctx, "query", []string{store.GRPC}))(t)
	at := time.UnixMilli(shipped[0].MaxTime - 1)
	answer := must(query.API().Query(ctx, `count({__name__=~"demo_.*"})`, at))(t)
	if len(answer.Series) != 1 || answer.Series[0].Samples[0].V != float64(len(processes)) {
		t.Errorf("series at %s: got %v, want %d", at.UTC(), answer.Series, len(processes))
	}
}

// checkShipped compares a meta.json with the objects beside it.
func checkShipped(ctx context.Context, t *testing.T, b history.Bucket, m metaOf) {
	t.Helper()
	if m.Version != 1 || m.Thanos.Version != 1 || m.Thanos.Source != "sidecar" || m.Thanos.Labels["cluster"] != "e2e" ||
		m.Compaction.Level != 1 || m.MaxTime <= m.MinTime || m.Stats.NumSamples == 0 {
		t.Errorf("meta.json of %s: got %+v", m.ULID, m)
	}
	if len(m.Thanos.Files) < 3 {
		t.Errorf("files of %s: got %+v, want a segment, the index and meta.json", m.ULID, m.Thanos.Files)
	}
	for _, f := range m.Thanos.Files {
		data := must(b.Get(ctx, m.ULID+"/"+f.RelPath))(t)
		if f.RelPath != "meta.json" && int64(len(data)) != f.SizeBytes {
			t.Errorf("%s/%s: got %d bytes, meta.json says %d", m.ULID, f.RelPath, len(data), f.SizeBytes)
		}
	}
}

// TestADeadStoreIsAWarningOrAnError is scenario f.
func TestADeadStoreIsAWarningOrAnError(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	config := s3.ObjstoreConfig(bucketName)
	end := twoWeeks(time.Now())
	lay(ctx, t, bucketOf(s3, bucketName), pair(nil, nil)[:1], history.Options{
		Start: end.Add(-4 * time.Hour), End: end, Interval: time.Minute, BlockRange: 2 * time.Hour,
		Processes: history.Processes(3),
	})
	alive := must(c.Store(ctx, "store-alive", config))(t)
	dead := must(c.Store(ctx, "store-dead", config))(t)
	api := must(c.Query(ctx, "query", []string{alive.GRPC, dead.GRPC}))(t).API()
	q := question{expr: "count(demo_requests_total)", at: end.Add(-time.Minute)}
	want := askAll(ctx, t, api, []question{q})[0]

	if err := dead.Kill(); err != nil {
		t.Fatal(err)
	}
	got := must(q.ask(ctx, api))(t)
	sameSeries(t, q, got, want)
	if !strings.Contains(strings.Join(got.Warnings, "\n"), dead.GRPC) {
		t.Errorf("in partial mode: got warnings %q, want one that names %s", got.Warnings, dead.GRPC)
	}
	_, err := q.ask(ctx, api.With("partial_response", "false"))
	var refused *harness.APIError
	if !errors.As(err, &refused) || !strings.Contains(refused.Message, dead.GRPC) {
		t.Errorf("in strict mode: got error %v, want one that names %s", err, dead.GRPC)
	}
}

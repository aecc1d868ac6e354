// Package e2e proves that Varve does its job with real processes: real
// Prometheis, a real S3 server and Varve's own binaries, talked to over HTTP and
// gRPC only. A file is a scenario.
package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"reflect"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

const bucketName = "metrics"

// deadline bounds every wait of a scenario.
const deadline = 4 * time.Minute

// testContext ends with the test, or after the deadline.
func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// startS3 starts an S3 server with an empty bucket.
func startS3(ctx context.Context, t *testing.T, c *harness.Cluster, buckets ...string) *harness.S3 {
	t.Helper()
	return must(c.S3(ctx, append(buckets, bucketName)...))(t)
}

// must returns a function that takes the value out of a result, or ends the test.
func must[V any](v V, err error) func(t *testing.T) V {
	return func(t *testing.T) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// bucketOf is the bucket as the history package wants it.
func bucketOf(s3 *harness.S3, name string) history.Bucket {
	return history.Bucket{Endpoint: s3.Endpoint, Name: name, AccessKey: harness.AccessKey, SecretKey: harness.SecretKey}
}

// pair describes two replicas of one cluster that scrape at different moments.
func pair(outagesA, outagesB []history.Outage) []history.Replica {
	labels := func(name string) map[string]string {
		return map[string]string{"cluster": "e2e", "prometheus_replica": name}
	}
	return []history.Replica{
		{Labels: labels("a"), Phase: 2 * time.Second, Outages: outagesA},
		{Labels: labels("b"), Phase: 17 * time.Second, Outages: outagesB},
	}
}

// generate writes the blocks of all replicas and returns their directories.
func generate(ctx context.Context, t *testing.T, replicas []history.Replica, o history.Options) []string {
	t.Helper()
	dir := t.TempDir()
	all := make([][]string, len(replicas))
	g, ctx := errgroup.WithContext(ctx)
	for i, r := range replicas {
		g.Go(func() (err error) {
			all[i], err = history.Write(ctx, filepath.Join(dir, strconv.Itoa(i)), r, o)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	var dirs []string
	for _, d := range all {
		dirs = append(dirs, d...)
	}
	return dirs
}

// lay generates history and uploads it.
func lay(ctx context.Context, t *testing.T, b history.Bucket, replicas []history.Replica, o history.Options) {
	t.Helper()
	if err := b.Upload(ctx, generate(ctx, t, replicas, o), func() {}); err != nil {
		t.Fatal(err)
	}
}

// compactOnce runs the compactor, with arguments of CompactArgs, until nothing is left to do.
func compactOnce(ctx context.Context, t *testing.T, c *harness.Cluster, name string, args ...string) {
	t.Helper()
	p := must(c.Launch(harness.ComponentOptions{Binary: "compact", Name: name, Args: args}))(t)
	if err := p.Wait(ctx); err != nil {
		t.Fatalf("compact: %v", err)
	}
}

// verified lets the operator's tool read every block of the bucket: none may have findings.
func verified(ctx context.Context, t *testing.T, c *harness.Cluster, name, config string) {
	t.Helper()
	p := must(c.Start(harness.Command{
		Name: name, Path: must(c.Varve("bucket"))(t),
		Args: []string{"verify", "--objstore.config=" + config},
	}))(t)
	if err := p.Wait(ctx); err != nil {
		t.Fatalf("bucket verify: %v", err)
	}
}

// question is a query whose answer is compared.
type question struct {
	expr string
	at   time.Time
	// over, if positive, makes it a range query that ends at at.
	over, step time.Duration
}

func (q question) String() string {
	return fmt.Sprintf("%s at %s over %s by %s", q.expr, q.at.UTC().Format(time.RFC3339), q.over, q.step)
}

func (q question) ask(ctx context.Context, api harness.PromAPI) (*harness.Answer, error) {
	if q.over > 0 {
		return api.QueryRange(ctx, q.expr, harness.Range{Start: q.at.Add(-q.over), End: q.at, Step: q.step})
	}
	return api.Query(ctx, q.expr, q.at)
}

// askAll answers all questions and wants each answer to have series and no warning.
func askAll(ctx context.Context, t *testing.T, api harness.PromAPI, questions []question) []*harness.Answer {
	t.Helper()
	answers := make([]*harness.Answer, len(questions))
	for i, q := range questions {
		a := must(q.ask(ctx, api))(t)
		if len(a.Series) == 0 || len(a.Warnings) > 0 {
			t.Fatalf("%s: got %d series and warnings %q", q, len(a.Series), a.Warnings)
		}
		answers[i] = a
	}
	return answers
}

// sameSeries compares the samples of two answers, bit for bit.
func sameSeries(t *testing.T, q question, got, want *harness.Answer) {
	t.Helper()
	if reflect.DeepEqual(got.Series, want.Series) {
		return
	}
	if len(got.Series) != len(want.Series) {
		t.Errorf("%s: got %d series, want %d", q, len(got.Series), len(want.Series))
		return
	}
	for i := range want.Series {
		g, w := got.Series[i], want.Series[i]
		if !reflect.DeepEqual(g.Metric, w.Metric) {
			t.Errorf("%s: got series %v, want %v", q, g.Metric, w.Metric)
			return
		}
		for k := range min(len(g.Samples), len(w.Samples)) {
			if g.Samples[k] != w.Samples[k] {
				t.Errorf("%s: %v: got sample %v, want %v (number %d of %d and %d)",
					q, w.Metric, g.Samples[k], w.Samples[k], k, len(g.Samples), len(w.Samples))
				return
			}
		}
		if len(g.Samples) != len(w.Samples) {
			t.Errorf("%s: %v: got %d samples, want %d", q, w.Metric, len(g.Samples), len(w.Samples))
			return
		}
	}
	t.Errorf("%s: the answers differ in their histograms", q)
}

// metaOf is the part of meta.json that scenarios look at.
type metaOf struct {
	ULID       string `json:"ulid"`
	MinTime    int64  `json:"minTime"`
	MaxTime    int64  `json:"maxTime"`
	Stats      struct{ NumSamples, NumSeries, NumChunks uint64 }
	Compaction struct {
		Level   int
		Sources []string
	}
	Version int
	Thanos  struct {
		Version    int
		Labels     map[string]string
		Downsample struct{ Resolution int64 }
		Source     string
		Files      []struct {
			RelPath   string `json:"rel_path"`
			SizeBytes int64  `json:"size_bytes"`
		}
	}
}

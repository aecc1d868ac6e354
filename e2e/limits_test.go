package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// TestAQueryForEverythingEndsAtALimit asks for all series of all time: the
// answer is an error that names the limit, and the process lives on.
func TestAQueryForEverythingEndsAtALimit(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	config := s3.ObjstoreConfig(bucketName)
	end := twoWeeks(time.Now())
	lay(ctx, t, bucketOf(s3, bucketName), pair(nil, nil), history.Options{
		Start: end.Add(-4 * 24 * time.Hour), End: end, Interval: 30 * time.Second, BlockRange: 8 * time.Hour,
		Processes: history.Processes(60),
	})
	subquery := question{expr: `sum_over_time(count(demo_requests_total)[10y:1ms])`, at: end}
	everything := question{expr: `{__name__=~".+"}[10y]`, at: end}
	modest := question{expr: `count(demo_requests_total)`, at: end.Add(-time.Minute)}

	for name, tc := range map[string]struct{ store, query, queryEnv []string }{
		"samples in query, by default in 64 MiB": {queryEnv: []string{"GOMEMLIMIT=64MiB"}},
		"samples in query":                       {query: []string{"--query.max-samples=100000"}},
		"bytes in query":                         {query: []string{"--query.max-bytes=200KB"}},
		"series in store":                        {store: []string{"--store.limits.request-series=50"}},
		"samples in store":                       {store: []string{"--store.limits.request-samples=100000"}},
		"bytes in store":                         {store: []string{"--store.grpc.downloaded-bytes-limit=200KB"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			suffix := strings.ReplaceAll(name, " ", "-")
			store := must(c.Store(ctx, "store-"+suffix, config, tc.store...))(t)
			query := must(c.Launch(harness.ComponentOptions{
				Binary: "query", Name: "query-" + suffix, Env: tc.queryEnv,
				Args: append([]string{"--query.replica-label=prometheus_replica", "--endpoint=" + store.GRPC}, tc.query...),
			}))(t)
			if err := query.Ready(ctx); err != nil {
				t.Fatal(err)
			}
			api := query.API().With("partial_response", "false")

			_, err := everything.ask(ctx, api)
			var refused *harness.APIError
			if !errors.As(err, &refused) || !strings.Contains(refused.Message, strings.Fields(name)[0]) {
				t.Errorf("everything for all time: got error %v, want one that names the limit on %s", err, name)
			}
			t.Log(err)
			if _, err := subquery.ask(ctx, api); !errors.As(err, &refused) || !strings.Contains(refused.Message, "subquery") {
				t.Errorf("a subquery of 300 billion steps: got error %v, want one that names it", err)
			}
			if tc.store == nil || name == "bytes in store" {
				askAll(ctx, t, api, []question{modest})
			}
			select {
			case <-store.Done():
				t.Errorf("store ended: %s", store.State())
			case <-query.Done():
				t.Errorf("query ended: %s", query.State())
			default:
			}
		})
	}
}

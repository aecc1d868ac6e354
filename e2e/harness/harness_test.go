package harness_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/varve-io/varve/e2e/harness"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestPrometheusAndS3BecomeReadyAndStop(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c := harness.ForTest(t)

	s3, err := c.S3(ctx, "varve")
	if err != nil {
		t.Fatal(err)
	}
	prom, err := startSelfScraping(ctx, c)
	if err != nil {
		t.Fatal(err)
	}

	if err := harness.WaitFor(ctx, "a scrape of itself", func(ctx context.Context) error {
		return up(ctx, prom.API)
	}); err != nil {
		t.Fatal(err)
	}
	names, err := prom.API.LabelValues(ctx, "job", `up`)
	if err != nil || len(names) != 1 || names[0] != "self" {
		t.Errorf("values of job: got %v, %v, want [self]", names, err)
	}
	var apiErr *harness.APIError
	if _, err := prom.API.Query(ctx, "up{", time.Now()); !errors.As(err, &apiErr) || apiErr.Type != "bad_data" {
		t.Errorf("query of half an expression: got %v, want an APIError of type bad_data", err)
	}

	for _, p := range []*harness.Process{prom.Process, s3.Process} {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
		if got := p.State(); got == "running" {
			t.Errorf("%s after Stop: got %s, want it ended", p.Name, got)
		}
	}
	if got := prom.ExitCode(); got != 0 {
		t.Errorf("exit code of Prometheus after SIGTERM: got %d, want 0", got)
	}
}

func startSelfScraping(ctx context.Context, c *harness.Cluster) (*harness.Prometheus, error) {
	address, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	return c.Prometheus(ctx, harness.PrometheusOptions{
		Name:           "prometheus-a",
		Address:        address,
		ExternalLabels: map[string]string{"cluster": "e2e", "prometheus_replica": "a"},
		Targets:        map[string][]string{"self": {address}},
	})
}

// up returns an error until the server has scraped something that is up.
func up(ctx context.Context, api harness.PromAPI) error {
	answer, err := api.Query(ctx, "sum(up)", time.Now())
	if err != nil {
		return err
	}
	if len(answer.Series) != 1 || answer.Series[0].Samples[0].V != 1 {
		return fmt.Errorf("sum(up) is %v", answer.Series)
	}
	return nil
}

func TestAProcessThatEndsEarlyIsReportedWithItsLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := harness.ForTest(t).Prometheus(ctx, harness.PrometheusOptions{Name: "wrong", Args: []string{"--no-such-flag"}})
	if err == nil || !strings.Contains(err.Error(), "no-such-flag") {
		t.Errorf("start with an unknown flag: got %v, want an error with the log's line about it", err)
	}
	if ctx.Err() != nil {
		t.Error("the whole deadline was waited out, want an early end")
	}
}

func TestWaitForNamesWhatItWaitedForAndWhyInVain(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
	defer cancel()
	reason := errors.New("two of three")
	err := harness.WaitFor(ctx, "three stores", func(context.Context) error { return reason })
	if !errors.Is(err, reason) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "three stores") {
		t.Errorf("got %v, want the subject, the deadline and the last reason", err)
	}
}

func TestVectorsAndMatricesDecodeAlike(t *testing.T) {
	for name, tc := range map[string]struct {
		json string
		want harness.Sample
	}{
		"a vector's element": {`{"metric":{"a":"b"},"value":[1.5,"+Inf"]}`, harness.Sample{T: 1500, V: math.Inf(1)}},
		"a matrix' element":  {`{"metric":{"a":"b"},"values":[[1795221006.772,"2"]]}`, harness.Sample{T: 1795221006772, V: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			var got harness.Series
			if err := json.Unmarshal([]byte(tc.json), &got); err != nil {
				t.Fatal(err)
			}
			if got.Metric["a"] != "b" || len(got.Samples) != 1 || got.Samples[0] != tc.want {
				t.Errorf("got %+v, want labels a=b and the sample %+v", got, tc.want)
			}
		})
	}
}

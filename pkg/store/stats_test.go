package store

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// TestARequestSaysWhereTimeAndBytesWent asks the same twice and looks at statistics,
// metrics and log.
func TestARequestSaysWhereTimeAndBytesWent(t *testing.T) {
	bkt := bucket.NewMemory()
	entries := add(t, bkt, ups(50, 0, hour, 1))
	var log bytes.Buffer
	o := Defaults()
	o.Dir, o.LogLongerThan = t.TempDir(), time.Nanosecond
	g, err := New(bkt, o, slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	syncBlocks(t, g, entries)

	var first, second map[string]storeapi.Stage
	var sum time.Duration
	for _, stages := range []*map[string]storeapi.Stage{&first, &second} {
		ctx, cancel := context.WithCancel(t.Context())
		set := g.Series(ctx, selectUp(0, hour))
		if got, _, err := series.Collect(set); err != nil || len(got) != 50 {
			t.Fatalf("%d series (%v), want 50", len(got), err)
		}
		took := set.(storeapi.Counted).Stats()
		if took.Touched != 50 || took.Series != 50 || took.Chunks != 100 || len(took.Blocks) != 1 {
			t.Errorf("statistics are %+v", took)
		}
		*stages = map[string]storeapi.Stage{}
		sum = 0
		for _, s := range took.Stages {
			(*stages)[s.Name] = s
			if s.Name == storeapi.StageTurn || s.Name == storeapi.StageWait || s.Name == storeapi.StageSend {
				sum += s.Took
			}
		}
		if sum > took.Took {
			t.Errorf("the caller's stages took %s of %s", sum, took.Took)
		}
		cancel()
	}
	for _, name := range []string{storeapi.StageSelect, storeapi.StageEntries, storeapi.StageChunks} {
		a, b := first[name], second[name]
		if a.Needed == 0 || a.FromMemory < a.Needed && a.Requests == 0 || a.Requests > 0 && a.Fetched < a.Needed-a.FromMemory || a.Took <= 0 {
			t.Errorf("%s, cold: %+v, want requests and bytes", name, a)
		}
		if b.Requests != 0 || b.Fetched != 0 || b.Needed == 0 || b.FromMemory+b.FromDisk != b.Needed {
			t.Errorf("%s, again: %+v, want all from caches", name, b)
		}
		if got := testutil.ToFloat64(g.metrics.stageBytes.WithLabelValues(name)); got != float64(a.Needed+b.Needed) {
			t.Errorf("%s: metrics have %v bytes needed, want %d", name, got, a.Needed+b.Needed)
		}
		if got := testutil.ToFloat64(g.metrics.stageServed.WithLabelValues(name, "bucket")); got != float64(a.Fetched) {
			t.Errorf("%s: metrics have %v bytes of the bucket, want %d", name, got, a.Fetched)
		}
	}
	if first[storeapi.StageSelect].Requests == 0 || first[storeapi.StageChunks].Requests == 0 {
		t.Errorf("cold: %+v, want requests", first)
	}
	if _, _, err := g.LabelValues(t.Context(), "job", &storeapi.LabelsRequest{MaxTime: hour, Matchers: selectUp(0, hour).Matchers}); err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	lines = lines[1:] // the first tells of the blocks
	if len(lines) != 3 {
		t.Fatalf("%d log lines of slow requests, want 3:\n%s", len(lines), log.String())
	}
	for i, want := range []string{"request=series", "request=series", "request=labels"} {
		for _, part := range []string{`msg="slow request"`, want, `selector="{__name__=\"up\"}"`, "from=1970-01-01T00:00:00Z", "blocks=1 "} {
			if !strings.Contains(lines[i], part) {
				t.Errorf("log line %d has no %s:\n%s", i+1, part, lines[i])
			}
		}
	}
	for _, part := range []string{"series=50", "turn.took=", "select.needed=", "entries.fetched=", "chunks.requests=", "wait.took=", "send.took="} {
		if !strings.Contains(lines[0], part) {
			t.Errorf("the log line of an answer has no %s:\n%s", part, lines[0])
		}
	}
}

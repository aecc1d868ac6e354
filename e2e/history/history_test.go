package history_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/varve-io/varve/e2e/history"
)

func TestGeneratedBlocksHoldTheTruth(t *testing.T) {
	dir := t.TempDir()
	end := time.Date(2026, 11, 1, 5, 30, 0, 0, time.UTC)
	r := history.Replica{
		Labels:  map[string]string{"cluster": "demo", "prometheus_replica": "a"},
		Phase:   3 * time.Second,
		Outages: []history.Outage{{From: end.Add(-3 * time.Hour), To: end.Add(-2 * time.Hour)}},
	}
	o := history.Options{
		Start: end.Add(-6 * time.Hour), End: end, Interval: 30 * time.Second, BlockRange: 2 * time.Hour,
		Processes: history.Processes(12),
	}
	dirs, err := history.Write(t.Context(), dir, r, o)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(dirs), 4; got != want {
		t.Errorf("blocks: got %d, want %d", got, want)
	}

	if err := os.Mkdir(filepath.Join(dir, "wal"), 0o755); err != nil {
		t.Fatal(err)
	}
	db, err := tsdb.OpenDBReadOnly(dir, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	q, err := db.Querier(o.Start.UnixMilli(), o.End.UnixMilli())
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()

	truth := map[uint64]history.Process{}
	for _, p := range o.Processes {
		truth[p.Labels.Hash()] = p
	}
	all := labels.MustNewMatcher(labels.MatchRegexp, labels.MetricName, ".+")
	set := q.Select(t.Context(), true, nil, all)
	seen := 0
	for set.Next() {
		seen++
		p := truth[set.At().Labels().Hash()]
		it := set.At().Iterator(nil)
		n := 0
		for it.Next() != 0 {
			n++
			if at, v := it.At(); v != p.At(at) {
				t.Fatalf("%s at %d: got %v, want %v", p.Labels, at, v, p.At(at))
			}
		}
		if want := 5 * 120; n != want {
			t.Errorf("samples of %s: got %d, want %d", p.Labels, n, want)
		}
	}
	if err := set.Err(); err != nil || seen != len(o.Processes) {
		t.Errorf("got %d series and error %v, want %d", seen, err, len(o.Processes))
	}
}

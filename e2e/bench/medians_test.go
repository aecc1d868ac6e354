package main

import (
	"errors"
	"testing"
	"time"
)

func TestMediansOfSeveralRuns(t *testing.T) {
	broken := errors.New("broken")
	run := func(cpu, wall time.Duration, gets int, peak int64, err error) *report {
		r := &report{}
		*r.add("g", "p", "varve") = row{group: "g", phase: "p", subject: "varve", cpu: cpu, wall: wall, peak: peak, traffic: traffic{gets: gets}, err: err}
		r.note("one note")
		return r
	}
	three := []*report{run(5, 30, 1, 100, nil), run(1, 50, 2, 300, broken), run(3, 10, 3, 200, nil)}
	three[1].add("g", "of one run alone", "varve").cpu = 7

	m := medians(three)
	if len(m.rows) != 2 || len(m.notes) != 3 {
		t.Fatalf("got %d rows and %d notes, want 2 and 3", len(m.rows), len(m.notes))
	}
	if got := m.rows[0]; got.cpu != 3 || got.wall != 30 || got.traffic.gets != 3 || got.peak != 300 || !errors.Is(got.err, broken) {
		t.Errorf("got %+v, want the medians 3 and 30, the traffic of that run, the highest peak and the error", got)
	}
	if got := m.rows[1]; got.cpu != 7 || got.err != nil {
		t.Errorf("got %+v, want the one run's 7", got)
	}
	if got := medians(three[:2]).rows[0]; got.cpu != 3 || got.wall != 40 {
		t.Errorf("two runs: got %s and %s, want the middle between them", got.cpu, got.wall)
	}
}

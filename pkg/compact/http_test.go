package compact

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/blockview"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/planner"
)

// ask gets a page of the compactor.
func ask(t *testing.T, e *Executor, path string) *httptest.ResponseRecorder {
	t.Helper()
	rec := httptest.NewRecorder()
	e.Handler().ServeHTTP(rec, httptest.NewRequest(http.MethodGet, path, nil))
	return rec
}

func answer[T any](t *testing.T, rec *httptest.ResponseRecorder) (v T) {
	t.Helper()
	var a struct {
		Status string
		Data   *T
	}
	a.Data = &v
	if err := json.Unmarshal(rec.Body.Bytes(), &a); err != nil || a.Status != "success" || rec.Code != http.StatusOK {
		t.Fatalf("%d %s: %v", rec.Code, rec.Body, err)
	}
	return v
}

// wellFormed parses a page, which is XML too, and reports elements that came with the data.
func wellFormed(t *testing.T, page string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(page))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, page)
		}
		if start, ok := token.(xml.StartElement); ok && slices.Contains([]string{"script", "img", "link"}, start.Name.Local) {
			t.Errorf("the page has a <%s>", start.Name.Local)
		}
	}
}

func TestTheStatusBeforeTheFirstLook(t *testing.T) {
	e := executor(t, replicas(t, 2)(t))
	page := ask(t, e, "/").Body.String()
	wellFormed(t, page)
	if !strings.Contains(page, "not yet") {
		t.Errorf("got\n%s", page)
	}
	if r := answer[Report](t, ask(t, e, "/api/v1/jobs")); r.RefreshedAt != nil || r.Holder == "" || r.Running == nil || r.Waiting == nil {
		t.Errorf("got %+v", r)
	}
	if b := answer[blockview.Blocks](t, ask(t, e, "/api/v1/blocks")); b.Err == "" || b.Blocks == nil {
		t.Errorf("got %+v", b)
	}
}

// TestTheStatusWhileAJobRuns looks at everything there is to see at one moment.
func TestTheStatusWhileAJobRuns(t *testing.T) {
	bkt := replicas(t, 4)(t)
	bad := pair(t, bkt, blocktest.DamageNamed(t, "no index"), "<script>us")
	gone := blocktest.InBucket(t, bkt, twoHours("c", hour+100))
	if err := blockio.Mark(t.Context(), bkt, block.Mark{Kind: block.DeletionMark, ID: gone.ULID, Details: "source of compacted block", Time: time.Now().Unix() + 60}); err != nil {
		t.Fatal(err)
	}
	e := executor(t, bkt)
	build := e.build
	begun, goOn := make(chan struct{}, 100), make(chan struct{})
	e.build = func(ctx context.Context, o output) error {
		if o.meta.Thanos.Labels["cluster"] == "eu" {
			begun <- struct{}{}
			<-goOn
		}
		return build(ctx, o)
	}
	ended := make(chan error, 1)
	go func() { ended <- e.Run(t.Context()) }()
	<-begun
	during := answer[Report](t, ask(t, e, "/api/v1/jobs"))
	page := ask(t, e, "/").Body.String()
	close(goOn)
	runErr := <-ended

	wellFormed(t, page)
	i := slices.IndexFunc(during.Running, func(r Running) bool { return r.Stream == `{cluster="eu"}` })
	if i < 0 || during.Running[i].Kind != kindCompact || during.Running[i].Bytes == 0 || len(during.Running[i].Blocks) < 2 {
		t.Errorf("running: got %+v", during.Running)
	}
	if len(during.Backlog) == 0 || during.Backlog[0].Jobs == 0 {
		t.Errorf("backlog: got %+v", during.Backlog)
	}
	if n := during.Neighbours; len(n) != 1 || n[0].Block != gone.ULID || !strings.Contains(page, "A Thanos compactor works here too") {
		t.Errorf("neighbours: got %+v", n)
	}
	if r := during.Reclaimable; len(r) != 1 || r[0].Block != gone.ULID || r[0].Bytes == 0 || !r[0].At.After(time.Now()) {
		t.Errorf("reclaimable: got %+v", r)
	}
	if strings.Contains(page, "<script>") {
		t.Error("labels are part of the page's markup")
	}

	after := answer[Report](t, ask(t, e, "/api/v1/jobs"))
	if q := after.Quarantined; len(q) == 0 || q[0].Block != bad.ULID || q[0].Reason != string(incomplete) || !strings.Contains(q[0].Remedy, "bucket repair --id="+bad.ULID.String()) {
		t.Errorf("set aside: got %+v", q)
	}
	if after.Leases != leasesOfStreams {
		t.Errorf("leases are of the %s", after.Leases)
	}
	if runErr == nil || after.LastRun == nil || after.LastRun.Done == 0 || after.LastRun.Quarantined == 0 || after.LastRun.Left > 0 || after.LastRun.BytesRead == 0 || after.LastRun.BytesWritten == 0 {
		t.Errorf("the last run: got %+v and error %v", after.LastRun, runErr)
	}
	page = ask(t, e, "/").Body.String()
	wellFormed(t, page)
	for _, want := range []string{bad.ULID.String(), "a file is missing", "Nothing runs."} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q", want)
		}
	}
}

func TestBlocksAreServedWithTheirStates(t *testing.T) {
	bkt := replicas(t, 2)(t)
	e := executor(t, bkt)
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := answer[blockview.Blocks](t, ask(t, e, "/api/v1/blocks?view=global"))
	loaded := answer[blockview.Blocks](t, ask(t, e, "/api/v1/blocks?view=loaded"))
	if len(all.Blocks) != 5 || len(loaded.Blocks) != 3 || len(all.States) != 5 || all.RefreshedAt == nil {
		t.Errorf("got %d blocks, %d of them loaded, and %d states", len(all.Blocks), len(loaded.Blocks), len(all.States))
	}
	if rec := ask(t, e, "/api/v1/blocks?view=some"); rec.Code != http.StatusBadRequest {
		t.Errorf("an unknown view: got %d", rec.Code)
	}
	if rec := ask(t, e, "/nothing"); rec.Code != http.StatusNotFound {
		t.Errorf("an unknown page: got %d", rec.Code)
	}
}

func TestThanosIsSeenByWhatItWroteSinceTheStart(t *testing.T) {
	start := time.Unix(1_700_000_000, 0)
	at := func(d time.Duration) ulid.ULID { return ulid.MustNew(ulid.Timestamp(start.Add(d)), nil) }
	entry := func(id ulid.ULID, source block.Source, from ...ulid.ULID) *block.Entry {
		m := &block.Meta{ULID: id, MaxTime: 1, Thanos: block.Thanos{Source: source, Labels: map[string]string{"cluster": "eu", "replica": "a"}}}
		m.Compaction.Sources = from
		return &block.Entry{Meta: m}
	}
	marked := func(details string, d time.Duration) *block.Entry {
		e := entry(at(-time.Hour), block.SourceSidecar)
		e.Deletion = &block.Mark{Kind: block.DeletionMark, Details: details, Time: start.Add(d).Unix()}
		return e
	}
	for name, tc := range map[string]struct {
		entry *block.Entry
		seen  bool
	}{
		"a block named after its time":            {entry(at(time.Minute), block.SourceCompactor, at(-time.Hour)), true},
		"such a block from before the start":      {entry(at(-time.Minute), block.SourceCompactor, at(-time.Hour)), false},
		"a block named after its sources":         {entry(at(time.Minute), block.SourceCompactor, at(time.Minute), at(0)), false},
		"a sidecar's block":                       {entry(at(time.Minute), block.SourceSidecar), false},
		"a source that Thanos retired":            {marked("source of compacted block", time.Minute), true},
		"a block past Thanos' retention":          {marked("block exceeding retention of 30d", time.Minute), true},
		"a source retired before the start":       {marked("source of compacted block", -time.Minute), false},
		"a source that Varve retired":             {marked("replaced by 01ARZ3NDEKTSV4RRFFQ69G5FAV", time.Minute), false},
		"a block that somebody marked by hand":    {marked("no longer wanted", time.Minute), false},
		"a block that was retired in that second": {marked("outdated block", 0), true},
	} {
		t.Run(name, func(t *testing.T) {
			got := neighbours(&block.Set{Blocks: []*block.Entry{tc.entry}}, start, []string{"replica"})
			if len(got) > 0 != tc.seen {
				t.Errorf("got %+v", got)
			}
			if tc.seen && got[0].Stream != `{cluster="eu"}` {
				t.Errorf("got stream %s", got[0].Stream)
			}
		})
	}
}

func TestBlocksInNoJobSayWhy(t *testing.T) {
	bkt := replicas(t, 2)(t)
	e := executor(t, bkt)
	e.now = func() time.Time { return time.UnixMilli((hour + 3) * time.Hour.Milliseconds()) }
	if err := e.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	r := answer[Report](t, ask(t, e, "/api/v1/jobs"))
	if len(r.Held) == 0 || r.HeldBlocks != len(r.Held) || r.Held[0].For != "range" || r.Held[0].Until == nil || !strings.Contains(r.Held[0].Detail, "8h") {
		t.Errorf("got %+v", r.Held)
	}
	page := ask(t, e, "/").Body.String()
	wellFormed(t, page)
	if !strings.Contains(page, "In no job yet") {
		t.Errorf("the page does not say it:\n%s", page)
	}
}

// However many blocks there are, one can be asked for.
func TestOneBlockIsAskedFor(t *testing.T) {
	e := executor(t, bucket.NewMemory())
	meta := func(n int) *block.Meta { return &block.Meta{ULID: ulid.MustNew(uint64(n), nil)} }
	gone, held, waits := meta(1), meta(2*shown), meta(3*shown)
	sight := &e.board.sight
	sight.set = &block.Set{Blocks: []*block.Entry{
		{Meta: gone, Deletion: &block.Mark{Kind: block.DeletionMark, Details: "replaced"}},
		{Meta: held, NoCompact: &block.Mark{Kind: block.NoCompactMark, Reason: reasonManual}},
	}}
	for n := range 3 * shown {
		sight.held = append(sight.held, planner.Held{Block: meta(n), Why: planner.HeldForRange})
		e.board.waiting = append(e.board.waiting, waitingJob{job: planner.Delete{ID: meta(10*shown + n).ULID}, why: forPlace})
	}
	e.board.waiting = append(e.board.waiting, waitingJob{job: planner.Downsample{Source: waits, Resolution: block.FiveMin, Reason: "it is long"}, why: forPlace})
	counts := func(r Report) [6]int {
		return [6]int{len(r.Held), r.HeldBlocks, len(r.Waiting), r.WaitingJobs, len(r.Quarantined), len(r.Reclaimable)}
	}

	if got, want := counts(e.Report()), [6]int{shown, 3 * shown, shown, 3*shown + 1, 1, 1}; got != want {
		t.Errorf("all: got %v, want %v", got, want)
	}
	one := answer[Report](t, ask(t, e, "/api/v1/jobs?id="+held.ULID.String()))
	if got, want := counts(one), [6]int{1, 1, 0, 0, 1, 0}; got != want || one.Held[0].Block != held.ULID || one.Quarantined[0].Block != held.ULID {
		t.Errorf("a block that is held: got %+v", one)
	}
	two := answer[Report](t, ask(t, e, "/api/v1/jobs?id="+waits.ULID.String()+"&id="+gone.ULID.String()))
	if got, want := counts(two), [6]int{1, 1, 1, 1, 0, 1}; got != want || !strings.HasSuffix(two.Waiting[0].Job, "to 5m: it is long") || two.Held[0].Block != gone.ULID {
		t.Errorf("two blocks: got %+v", two)
	}
	if rec := ask(t, e, "/api/v1/jobs?id=some"); rec.Code != http.StatusBadRequest {
		t.Errorf("an id that is none: got %d", rec.Code)
	}
}

// What the page says is in the operator's guide, word for word.
func TestTheGuideKnowsEveryReason(t *testing.T) {
	text, err := os.ReadFile("../../docs/compact.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := strings.ReplaceAll(string(text), "`meta.json`", "meta.json")
	for r, means := range reasons() {
		if !strings.Contains(guide, "\n| `"+string(r)+"` | "+means) {
			t.Errorf("the guide has no row that begins with `%s` | %s", r, means)
		}
	}
	for _, w := range []wait{forPlace, forLease, forPause, forJob, forLook} {
		if !strings.Contains(guide, "`"+string(w)+"` (") {
			t.Errorf("the guide does not say what it is to wait for `%s`", w)
		}
	}
	for _, h := range []planner.Hold{planner.HeldFresh, planner.HeldForReplica, planner.HeldForNeighbour, planner.HeldForRange, planner.HeldForCoarser} {
		if !strings.Contains(guide, "`"+string(h)+"` (") {
			t.Errorf("the guide does not say what it is to be held for `%s`", h)
		}
	}
}

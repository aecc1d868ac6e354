package compact

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockview"
)

// Handler serves the status page and what it is made from as JSON. Nothing can be
// changed through it.
func (e *Executor) Handler() http.Handler {
	mux := http.NewServeMux()
	page := template.Must(template.New("status").Funcs(pageFuncs()).Parse(statusPage))
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { e.serveStatus(w, page) })
	mux.HandleFunc("GET /api/v1/jobs", e.serveJobs)
	mux.HandleFunc("GET /api/v1/blocks", e.serveBlocks)
	return mux
}

func (e *Executor) answer(w http.ResponseWriter, v any) {
	if err := blockview.Answer(w, v); err != nil {
		e.log.Debug("answer not sent", "err", err)
	}
}

// serveJobs answers with the report, or with what it says of the blocks that the request names by id.
func (e *Executor) serveJobs(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var ids []ulid.ULID
	for _, text := range r.Form["id"] {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			http.Error(w, fmt.Sprintf("id=%q is no ULID of a block: %s", text, err), http.StatusBadRequest)
			return
		}
		ids = append(ids, id)
	}
	e.answer(w, e.Report(ids...))
}

// serveBlocks answers with all blocks of the bucket, or, as Thanos has it for
// view=loaded, without those that are marked for deletion.
func (e *Executor) serveBlocks(w http.ResponseWriter, r *http.Request) {
	e.board.mu.Lock()
	set := e.board.sight.set
	e.board.mu.Unlock()
	answer := blockview.Blocks{Blocks: []*block.Meta{}}
	switch view := r.FormValue("view"); {
	case view != "" && view != "global" && view != "loaded":
		http.Error(w, fmt.Sprintf("view=%q is none of global and loaded", view), http.StatusBadRequest)
		return
	case set == nil:
		answer.Err = "the bucket was not looked at yet"
	case view == "loaded":
		answer = blockview.OfSet(&block.Set{
			Listed: set.Listed,
			Blocks: block.Select(set.Blocks, func(b *block.Entry) bool { return b.Deletion == nil }),
		})
	default:
		answer = blockview.OfSet(set)
	}
	e.answer(w, answer)
}

//go:embed status.html
var statusPage string

// listed is how many rows the page shows of a table.
const listed = 50

// statusView is what the page is made from.
type statusView struct {
	Report

	Now time.Time
	// Rows is how many of each table are shown; the JSON has all.
	Rows int
	// Due and Later are the bytes that can be removed now, and later.
	Due, Later int64
	Remedy     string // of neighbours
}

func (e *Executor) serveStatus(w http.ResponseWriter, page *template.Template) {
	v := statusView{Report: e.Report(), Now: e.now().UTC(), Rows: listed, Remedy: remedyNeighbour}
	for _, r := range v.Reclaimable {
		if r.At.After(v.Now) {
			v.Later += r.Bytes
		} else {
			v.Due += r.Bytes
		}
	}
	var text bytes.Buffer
	if err := page.Execute(&text, v); err != nil {
		e.log.Error("status page not made", "err", err)
		http.Error(w, "the page could not be made; /api/v1/jobs has the same", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	if _, err := w.Write(text.Bytes()); err != nil {
		e.log.Debug("status page not sent", "err", err)
	}
}

// pageFuncs are how the page writes numbers and times.
func pageFuncs() template.FuncMap {
	return template.FuncMap{
		"bytes":   binaryBytes,
		"percent": func(part float64) int { return int(math.Round(part * 100)) },
		"stamp":   func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") },
		"since":   func(now, t time.Time) string { return roughly(now.Sub(t)) },
		"seconds": func(s *float64) string {
			if s == nil {
				return "not known yet"
			}
			return roughly(time.Duration(*s * float64(time.Second)))
		},
		"less": func(i, n int) bool { return i < n },
		"more": func(all, n int) int { return max(0, all-n) },
		"stream": func(s string) string {
			if s == "" {
				return "(of no stream)"
			}
			return s
		},
	}
}

// binaryBytes writes 1536 as 1.5 KiB.
func binaryBytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"}
	v, i := float64(n), 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// roughly writes a duration in its two largest units.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d >= day:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	case d >= time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

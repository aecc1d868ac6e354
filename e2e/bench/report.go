package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

// report collects what was measured.
type report struct {
	rows  []*row
	notes []string
}

// row is one phase of one subject.
type row struct {
	group, phase, subject string

	wall, cpu time.Duration
	// rig and server are the CPU time of this program and of the S3 server: with what the
	// subject used, they share the machine's cores, and so bound the wall time from below.
	rig, server time.Duration
	rss, peak   int64 // bytes
	traffic     traffic
	size        size
	answer      *answer // nil if it was not compared
	err         error   // that ended the phase, or says what is wrong with the answer
}

func (r *report) add(group, phase, subject string) *row {
	added := &row{group: group, phase: phase, subject: subject}
	r.rows = append(r.rows, added)
	return added
}

// note adds a line below the table.
func (r *report) note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}

func (r *report) find(group, phase, subject string) *row {
	for _, one := range r.rows {
		if one.group == group && one.phase == phase && one.subject == subject {
			return one
		}
	}
	return nil
}

// sum adds a row that is what several phases took together.
func (r *report) sum(group, phase, subject string, parts ...string) {
	total := r.add(group, phase, subject)
	for _, part := range parts {
		total.join(r.find(group, part, subject))
	}
}

// join adds what another phase took.
func (r *row) join(p *row) {
	r.wall += p.wall
	r.cpu += p.cpu
	r.rig += p.rig
	r.server += p.server
	r.traffic.gets += p.traffic.gets
	r.traffic.lists += p.traffic.lists
	r.traffic.heads += p.traffic.heads
	r.traffic.others += p.traffic.others
	r.traffic.bytes += p.traffic.bytes
	r.traffic.written += p.traffic.written
	r.rss, r.peak = p.rss, max(r.peak, p.peak)
}

// columns are those of the table, each with its width.
func columns() []string {
	return []string{
		"   wall s", "   CPU s", " rig s", "  S3 s", " peak MiB", "  RSS MiB", "    GET", "  LIST", "  HEAD", " other", "  read MiB", " trips",
		"  sent MiB", " frames", " series", "   chunks", " Msamples",
	}
}

// nameWidth is that of the first column.
const nameWidth = 12

// write prints a table, phase by phase with the subjects below each other, and what
// the first used as a part of what the second did.
func (r *report) write(out io.Writer, subjects []subject) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%*s%s\n", nameWidth, "", strings.Join(columns(), ""))
	done := map[string]bool{}
	for _, one := range r.rows {
		title := one.group + ": " + one.phase
		if done[title] {
			continue
		}
		done[title] = true
		fmt.Fprintln(&b, title)
		var pair []*row
		for _, s := range subjects {
			if x := r.find(one.group, one.phase, s.name); x != nil {
				writeLine(&b, s.name, x.cells())
				if x.err != nil {
					fmt.Fprintf(&b, "%*s%v\n", nameWidth, "", x.err)
				}
				pair = append(pair, x)
			}
		}
		if len(pair) == 2 {
			writeLine(&b, "ratio", pair[0].ratios(pair[1]))
		}
	}
	for _, n := range r.notes {
		fmt.Fprintln(&b, n)
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// writeLine writes cells under their columns; those left out are empty.
func writeLine(b *strings.Builder, name string, cells []string) {
	fmt.Fprintf(b, "%*s", nameWidth, name)
	for i, c := range cells {
		fmt.Fprintf(b, "%*s", len(columns()[i]), c)
	}
	b.WriteByte('\n')
}

func (r *row) cells() []string {
	t := &r.traffic
	cells := []string{
		fmt.Sprintf("%.3f", r.wall.Seconds()), fmt.Sprintf("%.2f", r.cpu.Seconds()),
		fmt.Sprintf("%.2f", r.rig.Seconds()), fmt.Sprintf("%.2f", r.server.Seconds()), mib(r.peak), mib(r.rss),
		strconv.Itoa(t.gets), strconv.Itoa(t.lists), strconv.Itoa(t.heads), strconv.Itoa(t.others), mib(t.bytes), strconv.Itoa(t.trips()),
		mib(r.size.bytes), strconv.Itoa(r.size.frames),
	}
	if a := r.answer; a != nil {
		cells = append(cells, strconv.Itoa(len(a.series)), strconv.Itoa(a.chunks), fmt.Sprintf("%.1f", float64(a.samples)/1e6))
	}
	return cells
}

// ratios are r's numbers as parts of o's. That of all requests stands below those of reads.
func (r *row) ratios(o *row) []string {
	return []string{
		ratio(r.wall.Seconds(), o.wall.Seconds()), ratio(r.cpu.Seconds(), o.cpu.Seconds()), "", "",
		ratio(float64(r.peak), float64(o.peak)), ratio(float64(r.rss), float64(o.rss)),
		ratio(float64(r.traffic.requests()), float64(o.traffic.requests())), "", "", "",
		ratio(float64(r.traffic.bytes), float64(o.traffic.bytes)), "",
		ratio(float64(r.size.bytes), float64(o.size.bytes)),
	}
}

func ratio(a, b float64) string {
	if b == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", a/b)
}

func mib(n int64) string { return fmt.Sprintf("%.1f", float64(n)/(1<<20)) }

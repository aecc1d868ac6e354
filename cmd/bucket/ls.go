package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/planner"
)

// now is the time that relative times are relative to.
func now() time.Time { return time.Now() }

// ls lists blocks: their ULIDs alone as Thanos does, or what stands in meta.json.
func (a *app) ls() {
	var sel selection
	c := a.command("ls", "List the complete blocks of the bucket.", func(ctx context.Context, e env) (table, error) {
		blocks, err := sel.blocks(ctx, e)
		t := table{header: []string{"ULID", "FROM", "UNTIL", "RESOLUTION", "LEVEL", "SOURCE", "LABELS", "MARKS"}}
		for _, b := range blocks {
			m := b.Meta
			t.add(m, m.ULID.String(), date(m.MinTime), date(m.MaxTime), m.Resolution().String(),
				strconv.Itoa(m.Compaction.Level), string(m.Thanos.Source), m.Labels().String(), marks(b))
		}
		return t, err
	})
	formats := []string{string(ids), string(asTable), string(asJSON), string(asTSV), string(wide)}
	c.Flag("output", "Form of the result: "+strings.Join(formats, ", ")+", or a Go template over meta.json such as {{.ULID}}.").
		Short('o').Default(formats[0]).SetValue(formatOrTemplate{&a.output, formats})
	c.Flag("exclude-delete", "Leave out blocks that are marked for deletion.").BoolVar(&sel.chosen.Unmarked)
	sel.bindTimes(c)
	sel.bindLabels(c)
}

// blocks gives the blocks that are selected.
func (s *selection) blocks(ctx context.Context, e env) ([]*block.Entry, error) {
	chosen, err := s.read()
	if err != nil {
		return nil, err
	}
	return e.op.Blocks(ctx, chosen)
}

// inspected is a block in the JSON form of inspect.
type inspected struct {
	*block.Meta

	Bytes int64    `json:"bytes"`
	Marks []string `json:"marks"`
}

// inspectColumns are Thanos', and two of ours at the end.
func inspectColumns() []string {
	return []string{"ULID", "FROM", "UNTIL", "RANGE", "UNTIL-DOWN", "#SERIES", "#SAMPLES", "#CHUNKS", "COMP-LEVEL", "COMP-FAILED", "LABELS", "RESOLUTION", "SOURCE", "BYTES", "MARKS"}
}

// inspect shows a row of numbers on each block.
func (a *app) inspect() {
	var sel selection
	var by []string
	c := a.command("inspect", "Show what is known of each block without reading it.", func(ctx context.Context, e env) (table, error) {
		blocks, err := sel.blocks(ctx, e)
		t := table{header: inspectColumns()}
		for _, b := range blocks {
			t.add(inspected{b.Meta, sizeOf(b), kinds(b)}, inspectRow(b)...)
		}
		t.sort(by)
		return t, err
	})
	a.bindOutput(c, string(asTable), string(asJSON), string(asTSV), string(asCSV))
	c.Flag("sort-by", "Column to sort by; may be repeated.").Default("FROM", "UNTIL").EnumsVar(&by, inspectColumns()...)
	sel.bindIDs(c)
	sel.bindTimes(c)
	sel.bindLabels(c)
}

func inspectRow(b *block.Entry) []string {
	m := b.Meta
	length := time.Duration(m.TimeRange().Duration()) * time.Millisecond
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	return []string{
		m.ULID.String(), date(m.MinTime), date(m.MaxTime), length.String(), untilDown(m, length),
		number(m.Stats.NumSeries), number(m.Stats.NumSamples), number(m.Stats.NumChunks),
		strconv.Itoa(m.Compaction.Level), strconv.FormatBool(m.Compaction.Failed),
		m.Labels().String(), m.Resolution().String(), string(m.Thanos.Source), strconv.FormatInt(sizeOf(b), 10), marks(b),
	}
}

// untilDown is what a block still lacks in length to be downsampled at once.
func untilDown(m *block.Meta, length time.Duration) string {
	next := map[block.Resolution]block.Resolution{block.Raw: block.FiveMin, block.FiveMin: block.OneHour}
	after, ok := planner.Defaults().DownsampleAfter[next[m.Resolution()]]
	if !ok || length >= after {
		return "-"
	}
	return model.Duration(after - length).String()
}

// sort orders rows and objects by columns, numbers as numbers.
func (t *table) sort(columns []string) {
	order := make([]int, len(t.rows))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		for _, column := range columns {
			at := slices.Index(t.header, column)
			if c := compareCells(t.rows[i][at], t.rows[j][at]); c != 0 {
				return c
			}
		}
		return 0
	})
	sorted := table{header: t.header}
	for _, i := range order {
		sorted.add(t.objects[i], t.rows[i]...)
	}
	*t = sorted
}

func compareCells(a, b string) int {
	x, errX := strconv.ParseInt(a, 10, 64)
	y, errY := strconv.ParseInt(b, 10, 64)
	if errX == nil && errY == nil {
		return cmp.Compare(x, y)
	}
	d, errD := time.ParseDuration(a)
	e, errE := time.ParseDuration(b)
	if errD == nil && errE == nil {
		return cmp.Compare(d, e)
	}
	return strings.Compare(a, b)
}

func date(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05Z") }

func sizeOf(b *block.Entry) (n int64) {
	for _, size := range b.Objects {
		n += size
	}
	return n
}

// kinds are the marks that a block carries.
func kinds(b *block.Entry) []string {
	var list []string
	for _, m := range []*block.Mark{b.Deletion, b.NoCompact, b.NoDownsample} {
		if m != nil {
			list = append(list, string(m.Kind))
		}
	}
	return list
}

func marks(b *block.Entry) string {
	var short []string
	for _, k := range kinds(b) {
		short = append(short, strings.TrimSuffix(strings.TrimSuffix(k, ".json"), "-mark"))
	}
	return strings.Join(short, ",")
}

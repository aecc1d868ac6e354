package dedup

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// aggregates is one downsampled replica.
type aggregates struct {
	chunks  []coarse
	counter staircase
}

// coarse is a decoded aggregate chunk.
type coarse struct {
	series.Chunk
	subs      aggrchunk.Subs
	columns   [aggrchunk.NumKinds]chunkcodec.Samples // all but the counter of floats, one row a window
	firstRaw  point                                  // of a counter of floats
	lastRaw   float64
	histogram bool
}

type point struct {
	t int64
	v float64
}

// window is one window of one chunk of one replica.
type window struct {
	id         int64 // the window's start
	t          int64 // its sample's time
	count      float64
	rep, chunk int
	row        int
}

// mergeAggregates takes each window from the replica that has most samples in
// it, the first of equal ones. A difference of one sample is scrape phase and counts as equal.
func mergeAggregates(of [][]series.Chunk, resolution int64) ([]series.Chunk, error) {
	if resolution <= 0 {
		return nil, fmt.Errorf("aggregate chunk of resolution %d: %w", resolution, aggrchunk.ErrInvalid)
	}
	if len(of) == 1 && !overlapping(of[0]) {
		return of[0], nil
	}
	m := merger{reps: make([]*aggregates, len(of))}
	var all []window
	for i, chunks := range of {
		a, err := decodeAggregates(sorted(chunks))
		if err != nil {
			return nil, err
		}
		m.reps[i] = a
		all = append(all, a.windows(i, resolution)...)
	}
	slices.SortStableFunc(all, func(a, b window) int { return cmp.Compare(a.id, b.id) })
	for _, w := range all {
		n := len(m.chosen)
		switch {
		case n == 0 || m.chosen[n-1].id < w.id:
			m.chosen = append(m.chosen, w)
		case w.count > m.chosen[n-1].count+1:
			m.chosen[n-1] = w
		}
	}
	return m.write()
}

func overlapping(chunks []series.Chunk) bool {
	in := sorted(chunks)
	for i := 1; i < len(in); i++ {
		if in[i].MinTime <= in[i-1].MaxTime {
			return true
		}
	}
	return len(in) != len(chunks)
}

func decodeAggregates(chunks []series.Chunk) (*aggregates, error) {
	a := &aggregates{}
	var counters []aggrchunk.Sub
	for _, c := range chunks {
		d, err := decodeCoarse(c)
		if err != nil {
			return nil, fmt.Errorf("aggregate chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
		}
		a.chunks = append(a.chunks, d)
		if s := d.subs[aggrchunk.Counter]; s.Present() && !d.histogram {
			counters = append(counters, s)
		}
	}
	r := aggrchunk.NewCounterReader(counters)
	for r.Next() == chunkenc.ValFloat {
		t, v := r.At()
		a.counter = append(a.counter, point{t, v})
	}
	return a, r.Err()
}

func decodeCoarse(c series.Chunk) (d coarse, err error) {
	d.Chunk = c
	if d.subs, err = aggrchunk.Decode(c.Data); err != nil {
		return d, err
	}
	rows := -1
	for k, s := range d.subs {
		if !s.Present() {
			continue
		}
		if err := chunkcodec.Decode(s.Encoding, s.Data, &d.columns[k]); err != nil {
			return d, fmt.Errorf("%s: %w", aggrchunk.Kind(k), err)
		}
		column := &d.columns[k]
		d.histogram = d.histogram || s.Encoding != chunkenc.EncXOR
		if aggrchunk.Kind(k) == aggrchunk.Counter && s.Encoding == chunkenc.EncXOR {
			if column.Len() < 3 {
				return d, fmt.Errorf("counter of %d samples: %w", column.Len(), aggrchunk.ErrInvalid)
			}
			last := column.Len() - 1
			d.firstRaw, d.lastRaw = point{column.T[0], column.V[0]}, column.V[last]
			column.T, column.V = column.T[1:last], column.V[1:last]
		}
		if leads(aggrchunk.Kind(k), s.Encoding, column.T, c.Resolution) {
			column.T, column.FH = column.T[1:], column.FH[1:]
		}
		if rows >= 0 && rows != column.Len() {
			return d, fmt.Errorf("%s of %d windows beside %d: %w", aggrchunk.Kind(k), column.Len(), rows, aggrchunk.ErrInvalid)
		}
		rows = column.Len()
	}
	return d, nil
}

// leads reports whether the first sample of a counter of histograms is none of a
// window's end but the first one of all, which is in the same window as the next.
func leads(k aggrchunk.Kind, enc chunkenc.Encoding, times []int64, resolution int64) bool {
	return k == aggrchunk.Counter && enc != chunkenc.EncXOR && len(times) > 1 && resolution > 0 &&
		floor(times[0], resolution) == floor(times[1], resolution)
}

func (a *aggregates) windows(rep int, resolution int64) (out []window) {
	for i := range a.chunks {
		c := &a.chunks[i]
		for row, t := range c.times() {
			w := window{id: floor(t, resolution), t: t, rep: rep, chunk: i, row: row}
			if c.subs[aggrchunk.Count].Present() {
				w.count = c.columns[aggrchunk.Count].V[row]
			}
			out = append(out, w)
		}
	}
	return out
}

// times are those of the windows; every aggregate has the same.
func (c *coarse) times() []int64 {
	for k := range c.columns {
		if c.columns[k].Len() > 0 {
			return c.columns[k].T
		}
	}
	return nil
}

// staircase is a counter without resets, known at some times.
type staircase []point

// at runs linearly between two known times, and level outside of them.
func (s staircase) at(t int64) float64 {
	if len(s) == 0 {
		return 0
	}
	i, found := slices.BinarySearchFunc(s, t, func(p point, t int64) int { return cmp.Compare(p.t, t) })
	switch {
	case found:
		return s[i].v
	case i == 0:
		return s[0].v
	case i == len(s):
		return s[i-1].v
	}
	a, b := s[i-1], s[i]
	return a.v + (b.v-a.v)*float64(t-a.t)/float64(b.t-a.t)
}

// merger writes the chosen windows.
type merger struct {
	reps   []*aggregates
	chosen []window
	group  []window // what the next chunk will hold
	carry  *point   // the counter where the last chunk ended without a true raw value
	out    []series.Chunk
}

// Chunks of windows from several replicas are cut at the end of a source's
// chunk when they hold maxWindows, and anywhere when they hold twice as many.
const maxWindows = 120

func (m *merger) source(w window) *coarse { return &m.reps[w.rep].chunks[w.chunk] }

func (m *merger) write() ([]series.Chunk, error) {
	for i := 0; i < len(m.chosen); {
		if n := m.passes(i); n > 0 {
			if err := m.flush(&m.chosen[i]); err != nil {
				return nil, err
			}
			m.out = append(m.out, m.source(m.chosen[i]).Chunk)
			m.carry = nil
			i += n
			continue
		}
		if w := m.chosen[i]; len(m.group) > 0 && m.cut(w) {
			if err := m.flush(&w); err != nil {
				return nil, err
			}
		}
		m.group = append(m.group, m.chosen[i])
		i++
	}
	return m.out, m.flush(nil)
}

// passes returns the number of windows of the chunk that begins at i when the
// chunk can keep its bytes: all of it was chosen, and its neighbours, with whose counters
// it has to agree, are of the same replica.
func (m *merger) passes(i int) int {
	w := m.chosen[i]
	n := len(m.source(w).times())
	if w.row != 0 || i+n > len(m.chosen) {
		return 0
	}
	for row := range n {
		if c := m.chosen[i+row]; c.rep != w.rep || c.chunk != w.chunk || c.row != row {
			return 0
		}
	}
	if i > 0 && !m.joins(m.chosen[i-1], w) || i+n < len(m.chosen) && !m.joins(m.chosen[i+n-1], m.chosen[i+n]) {
		return 0
	}
	return n
}

// joins reports whether the counters of neighbours of different chunks agree:
// one goes on where the other ends, or they have nothing to do with each other.
func (m *merger) joins(a, b window) bool {
	return m.source(a).histogram || m.source(b).histogram || m.trueEnd(a, &b)
}

// cut reports whether w cannot, or need not, be in the group.
func (m *merger) cut(w window) bool {
	last := m.group[len(m.group)-1]
	a, b := m.source(last), m.source(w)
	switch {
	case a.histogram || b.histogram: // layouts differ from chunk to chunk
		return a != b
	case a.subs.Kinds() != b.subs.Kinds():
		return true
	case len(m.group) < maxWindows:
		return false
	}
	return len(m.group) >= 2*maxWindows || m.trueEnd(last, &w)
}

// trueEnd reports whether the counter's raw value at w is known and the next window goes on from it.
func (m *merger) trueEnd(w window, next *window) bool {
	return w.row == len(m.source(w).times())-1 && (next == nil || next.rep == w.rep && next.row == 0)
}

func (m *merger) flush(next *window) error {
	if len(m.group) == 0 {
		return nil
	}
	var subs aggrchunk.Subs
	for k := range subs {
		sub, err := m.encode(aggrchunk.Kind(k), next)
		if err != nil {
			return fmt.Errorf("encode %s of %d windows: %w", aggrchunk.Kind(k), len(m.group), err)
		}
		subs[k] = sub
	}
	first, last := m.group[0], m.group[len(m.group)-1]
	m.out = append(m.out, series.Chunk{
		MinTime: first.t, MaxTime: last.t, Resolution: m.source(first).Resolution,
		Encoding: aggrchunk.Encoding, Data: aggrchunk.Encode(subs),
	})
	m.group = m.group[:0]
	return nil
}

func (m *merger) encode(k aggrchunk.Kind, next *window) (aggrchunk.Sub, error) {
	s := m.source(m.group[0]).subs[k]
	if !s.Present() {
		return aggrchunk.Sub{}, nil
	}
	var column chunkcodec.Samples
	if k == aggrchunk.Counter && s.Encoding == chunkenc.EncXOR {
		m.count(&column, next)
	} else {
		for _, w := range m.group {
			column.Append(&m.source(w).columns[k], w.row, w.row+1)
		}
	}
	reset := chunkenc.UnknownCounterReset
	if s.Encoding != chunkenc.EncXOR {
		reset = chunkcodec.ResetHeader(s.Encoding, s.Data)
		if reset != chunkenc.GaugeType {
			reset = chunkenc.UnknownCounterReset // another chunk may come before it now
		}
	}
	data, err := chunkcodec.Encode(s.Encoding, &column, reset)
	return aggrchunk.Sub{Encoding: s.Encoding, Data: data}, err
}

// count writes the counter of the group: what each window's replica counted
// since the window before. It keeps the true raw values of the source where a
// chunk of the source begins or ends with the group, so that neighbours that
// keep their bytes go on from there; elsewhere the running value stands for them.
func (m *merger) count(column *chunkcodec.Samples, next *window) {
	first, last := m.group[0], m.group[len(m.group)-1]
	begin := m.source(first).firstRaw
	if m.carry != nil {
		begin = *m.carry
		m.carry = nil
	}
	column.AppendFloat(0, begin.t, begin.v)
	total, t := begin.v, begin.t
	for _, w := range m.group {
		counter := m.reps[w.rep].counter
		total += math.Max(0, counter.at(w.t)-counter.at(t))
		t = w.t
		column.AppendFloat(0, t, total)
	}
	end := total
	if m.trueEnd(last, next) {
		end = m.source(last).lastRaw
	} else {
		m.carry = &point{t, total}
	}
	column.AppendFloat(0, t, end)
}

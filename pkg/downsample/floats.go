package downsample

import (
	"fmt"
	"math"

	"github.com/varve-io/varve/pkg/block"
)

// rawFloats downsamples chunks of floats. Numbers that are none, stale markers
// among them, and samples that go back in time are left out.
func (d *downsampler) rawFloats(r run) error {
	b := &d.floats
	b.begin(d.to)
	b.limit = sizeOf(r, assumedStep, d.to).samplesPerChunk()
	for _, s := range r.known.floats {
		if err := d.takeFloats(b.forward(s.T, s.V)); err != nil {
			return err
		}
	}
	if len(r.known.floats) > 0 {
		return d.flushFloats()
	}
	for _, c := range r.chunks {
		d.in.Reset()
		if err := d.decoder.Decode(c.Encoding, c.Data, &d.in); err != nil {
			return fmt.Errorf("read chunk at %d: %w", c.MinTime, err)
		}
		if err := d.takeFloats(b.forward(d.in.T, d.in.V)); err != nil {
			return err
		}
	}
	return d.flushFloats()
}

// forward leaves out samples that go back in time, in place.
func (b *floatBatch) forward(ts []int64, vs []float64) ([]int64, []float64) {
	n, last := 0, b.seenT
	for n < len(ts) && ts[n] > last {
		last = ts[n]
		n++
	}
	for i := n; i < len(ts); i++ {
		if ts[i] > last {
			last = ts[i]
			ts[n], vs[n] = ts[i], vs[i]
			n++
		}
	}
	b.seenT = last
	return ts[:n], vs[:n]
}

// takeFloats goes through samples a window at a time. Guarded by BenchmarkDownsample.
func (d *downsampler) takeFloats(ts []int64, vs []float64) error {
	b := &d.floats
	for len(ts) > 0 {
		if ts[0] > b.end {
			if b.full(ts[0]) {
				if err := d.flushFloats(); err != nil {
					return err
				}
			}
			b.open(ts[0])
		}
		n := b.within(ts)
		b.add(ts[:n], vs[:n])
		ts, vs = ts[n:], vs[n:]
	}
	return nil
}

// within counts the samples of the current window, with one of which ts begins. Mostly it
// has as many as the one before.
func (b *floatBatch) within(ts []int64) int {
	n := min(b.usual, len(ts))
	for n < len(ts) && ts[n] <= b.end {
		n++
	}
	for n > 0 && ts[n-1] > b.end {
		n--
	}
	b.usual = n
	return n
}

// flushFloats emits the batch as a chunk, unless it is empty.
func (d *downsampler) flushFloats() error {
	b := &d.floats
	b.close(b.end)
	if n := len(b.rows.count); n > 0 {
		b.rows.t[n] = b.lastT // the last window ends with the last sample
		c, err := d.encoder.floats(b)
		if err != nil {
			return err
		}
		d.out = append(d.out, c)
		d.keepRows()
	}
	b.next()
	return nil
}

// keepRows puts the rows of the chunk that was emitted last aside, and gives the batch the memory of others.
func (d *downsampler) keepRows() {
	n := len(d.kept)
	if !d.keep || n != len(d.out)-1 { // chunks before it are of something else
		return
	}
	if n == cap(d.kept) {
		d.kept = append(d.kept, floatRows{})
	}
	d.kept = d.kept[:n+1]
	d.kept[n], d.floats.rows = d.floats.rows, d.kept[n]
}

// floatBatch gathers the windows that become one aggregate chunk.
type floatBatch struct {
	res   block.Resolution
	limit int // samples after which the chunk ends with its hour

	seenT int64 // time of the last sample, in the batches before, too
	seen  int   // samples taken, those without a number included
	usual int   // samples of a window
	end   int64 // of the current window
	cur   floatWindow
	rows  floatRows

	lastT int64   // time of the last number
	lastV float64 // which is as it was scraped
	base  float64 // the counter runs as base plus the raw value; base grows at each reset

	rising bool // the values of the last window never fell
}

// floatWindow is a window that still grows.
type floatWindow struct{ count, sum, min, max, counter float64 }

// floatRows are the columns of a chunk. Times and counter have a row more than
// the others, in front: the first sample as it was scraped.
type floatRows struct {
	t                             []int64
	count, sum, min, max, counter []float64
}

// begin prepares for the samples of another run.
func (b *floatBatch) begin(res block.Resolution) {
	b.res, b.seenT = res, math.MinInt64
	b.next()
}

// next empties the batch.
func (b *floatBatch) next() {
	b.seen, b.end, b.base, b.lastV = 0, math.MinInt64, 0, math.Inf(-1)
	b.cur = emptyWindow()
	r := &b.rows
	*r = floatRows{r.t[:0], r.count[:0], r.sum[:0], r.min[:0], r.max[:0], r.counter[:0]}
}

func emptyWindow() floatWindow { return floatWindow{min: math.Inf(1), max: math.Inf(-1)} }

// full reports whether a sample at t belongs to the next chunk.
func (b *floatBatch) full(t int64) bool {
	return (b.seen >= b.limit || len(b.rows.count) >= maxWindows) && t > chunkEnd(b.end)
}

// open closes the current window and begins that of t.
func (b *floatBatch) open(t int64) {
	b.close(b.end)
	if next := b.end + int64(b.res); b.end < t && t <= next {
		b.end = next
		return
	}
	b.end = windowEnd(t, b.res)
}

// close makes the current window a row that ends at end, unless it is empty.
func (b *floatBatch) close(end int64) {
	if b.cur.count == 0 {
		return
	}
	r := &b.rows
	r.t = append(r.t, end)
	r.count = append(r.count, b.cur.count)
	r.sum = append(r.sum, b.cur.sum)
	r.min = append(r.min, b.cur.min)
	r.max = append(r.max, b.cur.max)
	r.counter = append(r.counter, b.cur.counter)
	b.cur = emptyWindow()
}

// add takes samples of the current window.
func (b *floatBatch) add(ts []int64, vs []float64) {
	b.seen += len(vs)
	if b.rising && b.addRising(ts, vs) || b.addPositive(ts, vs) {
		return
	}
	for i, v := range vs {
		if math.IsNaN(v) {
			continue
		}
		if len(b.rows.t) == 0 {
			b.rows.first(ts[i], v)
		}
		if v < b.lastV {
			b.base += b.lastV
		}
		w := &b.cur
		*w = floatWindow{w.count + 1, w.sum + v, min(w.min, v), max(w.max, v), b.base + v}
		b.lastT, b.lastV = ts[i], v
	}
}

// addRising is add for samples that never fall, those of most counters. It reports whether they are such.
func (b *floatBatch) addRising(ts []int64, vs []float64) bool {
	last, sum := b.lastV, b.cur.sum
	for _, v := range vs {
		if !(v >= last) { // it falls, or one of them is no number
			b.rising = false
			return false
		}
		sum += v
		last = v
	}
	lowest, highest := vs[0], last
	if lowest == 0 || highest == 0 { // zeros may differ in their signs
		for _, v := range vs {
			lowest, highest = min(lowest, v), max(highest, v)
		}
	}
	b.took(ts, vs, sum, lowest, highest)
	return true
}

// addPositive is add for numbers without a sign, and reports whether all are such. They are in the order of their
// bits, and no branch depends on them, because the way of a gauge cannot be guessed.
func (b *floatBatch) addPositive(ts []int64, vs []float64) bool {
	sum, base, last := b.cur.sum, b.base, math.Float64bits(max(b.lastV, 0))
	lowest, highest := uint64(math.MaxUint64), uint64(0)
	for _, v := range vs {
		now := math.Float64bits(v)
		sum += v
		lowest = min(lowest, now)
		highest = max(highest, now)
		lost := last
		if now >= last { // so it becomes a conditional move
			lost = 0
		}
		base += math.Float64frombits(lost)
		last = now
	}
	if highest > infinity {
		return false
	}
	b.rising = base == b.base
	b.base = base
	b.took(ts, vs, sum, math.Float64frombits(lowest), math.Float64frombits(highest))
	return true
}

// infinity is the greatest number without a sign, in bits.
const infinity = 0x7ff << 52

// took notes samples that are numbers.
func (b *floatBatch) took(ts []int64, vs []float64, sum, lowest, highest float64) {
	if len(b.rows.t) == 0 {
		b.rows.first(ts[0], vs[0])
	}
	b.lastT, b.lastV = ts[len(vs)-1], vs[len(vs)-1]
	w := &b.cur
	*w = floatWindow{w.count + float64(len(vs)), sum, min(w.min, lowest), max(w.max, highest), b.base + b.lastV}
}

// first puts down the first sample of a chunk.
func (r *floatRows) first(t int64, v float64) {
	r.t = append(r.t, t)
	r.counter = append(r.counter, v)
}

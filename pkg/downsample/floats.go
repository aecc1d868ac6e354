package downsample

import (
	"fmt"
	"math"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// rawFloats downsamples chunks of floats. Numbers that are none, stale markers
// among them, and samples that go back in time are left out.
func (d *downsampler) rawFloats(chunks []series.Chunk) error {
	b := &d.floats
	b.begin(d.to)
	b.limit = sizeOf(chunks, assumedStep, d.to).samplesPerChunk()
	for _, c := range chunks {
		d.in.Reset()
		if err := d.decoder.Decode(c.Encoding, c.Data, &d.in); err != nil {
			return fmt.Errorf("read chunk at %d: %w", c.MinTime, err)
		}
		if err := d.takeFloats(d.in.T, d.in.V); err != nil {
			return err
		}
	}
	return d.flushFloats()
}

// takeFloats goes through samples a window at a time. Guarded by BenchmarkDownsample.
func (d *downsampler) takeFloats(ts []int64, vs []float64) error {
	b := &d.floats
	vs = vs[:len(ts)]
	for i := 0; i < len(ts); {
		t := ts[i]
		if t <= b.seenT {
			i++
			continue
		}
		if t > b.end {
			if b.full(t) {
				if err := d.flushFloats(); err != nil {
					return err
				}
			}
			b.open(t)
		}
		if n := b.climb(ts[i:], vs[i:]); n > 0 {
			i += n
			continue
		}
		next := i + 1
		for ; next < len(ts) && t < ts[next] && ts[next] <= b.end; next++ {
			t = ts[next]
		}
		b.seenT = t
		b.seen += next - i
		b.add(ts[i:next], vs[i:next])
		i = next
	}
	return nil
}

// climb takes samples of the current window up to the first one that falls or is no number, and
// returns how many it took. Most counters never fall: it takes all of theirs.
func (b *floatBatch) climb(ts []int64, vs []float64) int {
	t, end, last, sum := b.seenT, b.end, b.lastV, b.cur.sum
	vs = vs[:len(ts)]
	n := 0
	for ; n < len(ts); n++ {
		if ts[n] <= t || ts[n] > end || vs[n] < last || math.IsNaN(vs[n]) {
			break
		}
		t, last = ts[n], vs[n]
		sum += last
	}
	if n == 0 {
		return 0
	}
	if len(b.rows.t) == 0 {
		b.rows.first(ts[0], vs[0])
	}
	lowest, highest := vs[0], last
	if lowest == 0 || highest == 0 { // zeros may differ in their signs
		for _, v := range vs[:n] {
			lowest, highest = min(lowest, v), max(highest, v)
		}
	}
	w := &b.cur
	*w = floatWindow{w.count + float64(n), sum, min(w.min, lowest), max(w.max, highest), b.base + last}
	b.seenT, b.seen, b.lastT, b.lastV = t, b.seen+n, t, last
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
	}
	b.next()
	return nil
}

// floatBatch gathers the windows that become one aggregate chunk.
type floatBatch struct {
	res   block.Resolution
	limit int // samples after which the chunk ends with its hour

	seen  int   // samples taken, those without a number included
	seenT int64 // time of the last of them, in the batches before, too
	end   int64 // of the current window
	cur   floatWindow
	rows  floatRows

	lastT int64   // time of the last number
	lastV float64 // which is as it was scraped
	base  float64 // the counter runs as base plus the raw value; base grows at each reset

	numbers []float64 // room for those of a window
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
	last := len(vs) - 1
	for ; last >= 0 && math.IsNaN(vs[last]); last-- {
	}
	if last < 0 {
		return
	}
	b.lastT = ts[last]
	if len(b.rows.t) == 0 {
		first := 0
		for math.IsNaN(vs[first]) {
			first++
		}
		b.rows.first(ts[first], vs[first])
	}
	vs = vs[:last+1]
	w, base := b.cur.with(vs, b.base, b.lastV)
	if math.IsNaN(w.sum) { // so some of them may be none
		b.numbers = b.numbers[:0]
		for _, v := range vs {
			if !math.IsNaN(v) {
				b.numbers = append(b.numbers, v)
			}
		}
		w, base = b.cur.with(b.numbers, b.base, b.lastV)
	}
	b.cur, b.base, b.lastV = w, base, vs[last]
}

// with returns the window with more samples, all of them numbers, and the base
// of the counter behind them. No branch depends on the values, because the way of
// a gauge cannot be guessed.
func (w floatWindow) with(vs []float64, base, last float64) (floatWindow, float64) {
	sum, lowest, highest := w.sum, w.min, w.max
	for _, v := range vs {
		sum += v
		lowest = min(lowest, v)
		highest = max(highest, v)
		lost := math.Float64bits(last)
		if v >= last { // so it becomes a conditional move
			lost = 0
		}
		base += math.Float64frombits(lost)
		last = v
	}
	return floatWindow{w.count + float64(len(vs)), sum, lowest, highest, base + last}, base
}

// first puts down the first sample of a chunk.
func (r *floatRows) first(t int64, v float64) {
	r.t = append(r.t, t)
	r.counter = append(r.counter, v)
}

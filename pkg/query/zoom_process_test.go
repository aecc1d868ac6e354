package query

import (
	"math"
	"math/rand/v2"
	"slices"
	"sort"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/series"
)

// scraped is a series as it was scraped, with what is needed to know the truth
// about any range of it at once.
type scraped struct {
	t []int64
	v []float64

	sums    []float64 // of all samples before
	gained  []float64 // by a counter up to the sample
	resets  []int     // of a counter up to the sample
	changes []int     // up to the sample

	sumNoise, gainNoise float64 // by how much values and gains differ at random; see noise
}

func newScraped(times []int64, value func(i int) float64) *scraped {
	p := &scraped{
		t: times, v: make([]float64, len(times)), sums: make([]float64, len(times)+1),
		gained: make([]float64, len(times)), resets: make([]int, len(times)), changes: make([]int, len(times)),
	}
	for i := range times {
		p.v[i] = value(i)
		p.sums[i+1] = p.sums[i] + p.v[i]
		if i == 0 {
			continue
		}
		p.gained[i], p.resets[i], p.changes[i] = p.gained[i-1]+p.v[i]-p.v[i-1], p.resets[i-1], p.changes[i-1]
		if p.v[i] < p.v[i-1] {
			p.gained[i] = p.gained[i-1] + p.v[i]
			p.resets[i]++
		}
		if p.v[i] != p.v[i-1] {
			p.changes[i]++
		}
	}
	p.sumNoise, p.gainNoise = noise(p.sums), noise(p.gained)
	return p
}

// within are the indexes of the samples after from, up to to.
func (p *scraped) within(from, to int64) (first, end int) {
	return sort.Search(len(p.t), func(i int) bool { return p.t[i] > from }), sort.Search(len(p.t), func(i int) bool { return p.t[i] > to })
}

func (p *scraped) count(from, to int64) float64 {
	first, end := p.within(from, to)
	return float64(end - first)
}

func (p *scraped) sum(from, to int64) float64 {
	first, end := p.within(from, to)
	return p.sums[end] - p.sums[first]
}

func (p *scraped) avg(from, to int64) float64 { return p.sum(from, to) / p.count(from, to) }

func (p *scraped) min(from, to int64) float64 {
	first, end := p.within(from, to)
	return slices.Min(p.v[first:end])
}

func (p *scraped) max(from, to int64) float64 {
	first, end := p.within(from, to)
	return slices.Max(p.v[first:end])
}

// Windows that a range cuts leave open what of them lies inside. Of n scrapes whose
// sum is known, and that differ by noise, the sum of k has the variance noise² k (n-k) / n,
// whatever reads it. cutSum and cutGain are one standard deviation for both ends of a
// range over windows of length r, relative to the sum or the gain over the range.

func (p *scraped) cutSum(from, to, r int64) float64 {
	return p.sumNoise * p.cut(from, to, r) / math.Abs(p.sum(from, to))
}

func (p *scraped) cutGain(from, to, r int64) float64 {
	return p.gainNoise * p.cut(from, to, r) / p.gain(from, to)
}

// cut is the standard deviation for a noise of one.
func (p *scraped) cut(from, to, r int64) float64 {
	open := 0.0
	for _, border := range []int64{from, to} {
		start := windowStart(border, r) - 1
		if n := p.count(start, start+r); n > 0 {
			k := p.count(start, border)
			open += k * (n - k) / n
		}
	}
	return math.Sqrt(open)
}

// noise is by how much the parts of a running sum differ at random: a smooth
// course moves little from scrape to scrape.
func noise(running []float64) float64 {
	squares := 0.0
	for i := 2; i < len(running); i++ {
		d := running[i] - 2*running[i-1] + running[i-2]
		squares += d * d
	}
	return math.Sqrt(squares / float64(len(running)-2) / 2)
}

// total is what the counter has gained up to t, on straight lines between scrapes.
func (p *scraped) total(t int64) float64 {
	i := sort.Search(len(p.t), func(i int) bool { return p.t[i] >= t })
	if i == 0 || i == len(p.t) {
		return math.NaN()
	}
	part := float64(t-p.t[i-1]) / float64(p.t[i]-p.t[i-1])
	return p.gained[i-1] + (p.gained[i]-p.gained[i-1])*part
}

func (p *scraped) increase(from, to int64) float64 { return p.total(to) - p.total(from) }

// gain is what the last samples up to both borders differ by: a burst lies
// between two scrapes, and belongs to the second.
func (p *scraped) gain(from, to int64) float64 {
	first, end := p.within(from, to)
	return p.gained[end-1] - p.gained[first-1]
}

func (p *scraped) rate(from, to int64) float64 {
	return p.increase(from, to) / float64(to-from) * 1000
}

// happened counts what happened between samples of a range, by a running count.
func (p *scraped) happened(counts []int, from, to int64) float64 {
	first, end := p.within(from, to)
	return float64(counts[end-1] - counts[first])
}

// zoo is the series of the zoom matrix, in all resolutions.
type zoo struct {
	store     *tiers
	processes map[string]*scraped
	days      int64
}

const scrapeEvery = 30_000

// newZoo lets the processes run for so many days:
//
//	temperature      a gauge with a daily period and noise
//	pressure         one with a fifth of the noise
//	requests_total   a counter whose rate swings, reset about every 25 hours
//	bursts_total     one that begins with a tenth of its daily gain at each reset
//	state            a gauge that changes rarely, 0 and 1
//	latency_bucket   a classic histogram, reset like a counter
//	latency          the same as a native one
//	sizes            a native one with custom buckets
func newZoo(t *testing.T, days int64) *zoo {
	t.Helper()
	rnd := rand.New(rand.NewPCG(7, 11))
	var times []int64
	for at := epoch + 5000; at < epoch+days*day; at += scrapeEvery {
		times = append(times, at+rnd.Int64N(200))
	}
	z := &zoo{store: &tiers{}, processes: map[string]*scraped{}, days: days}
	total := 0.0
	for _, g := range []struct {
		name  string
		noise float64
	}{{"temperature", 5}, {"pressure", 1}} {
		z.floats(t, times, labels.FromStrings("__name__", g.name), func(i int) float64 {
			at := float64(times[i])
			return 1000 + 300*math.Sin(2*math.Pi*at/float64(day)) + 50*math.Sin(at/float64(5*hour)) + g.noise*rnd.NormFloat64()
		})
	}
	z.floats(t, times, labels.FromStrings("__name__", "requests_total"), func(i int) float64 {
		if rnd.IntN(3000) == 0 {
			total = 0
		}
		total += 100 + 40*math.Sin(float64(times[i])/float64(7*hour)) + 10*rnd.Float64()
		return total
	})
	z.floats(t, times, labels.FromStrings("__name__", "bursts_total"), func(i int) float64 {
		if rnd.IntN(3000) == 0 {
			total = 28_800
		}
		total += 100
		return total
	})
	state := 0.0
	z.floats(t, times, labels.FromStrings("__name__", "state"), func(int) float64 {
		if rnd.IntN(500) == 0 {
			state = 1 - state
		}
		return state
	})
	z.histograms(t, times[:min(len(times), int(40*day/scrapeEvery))])
	return z
}

// floats adds a series.
func (z *zoo) floats(t *testing.T, times []int64, lset labels.Labels, value func(i int) float64) {
	t.Helper()
	p := newScraped(times, value)
	var raw []series.Chunk
	for from := 0; from < len(times); from += 120 {
		to := min(from+120, len(times))
		raw = append(raw, floatChunk(t, times[from:to], p.v[from:to]))
	}
	if z.processes[lset.Get("__name__")] == nil {
		z.processes[lset.Get("__name__")] = p
	}
	z.add(t, lset, raw)
}

func floatChunk(t *testing.T, times []int64, values []float64) series.Chunk {
	t.Helper()
	c := chunkenc.NewXORChunk()
	app, err := c.Appender()
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range times {
		app.Append(0, at, values[i])
	}
	return series.Chunk{MinTime: times[0], MaxTime: times[len(times)-1], Encoding: c.Encoding(), Data: c.Bytes()}
}

// add keeps a series in all resolutions.
func (z *zoo) add(t *testing.T, lset labels.Labels, raw []series.Chunk) {
	t.Helper()
	one := tiered{labels: lset, chunks: map[block.Resolution][]series.Chunk{block.Raw: raw}}
	for _, step := range []struct{ from, to block.Resolution }{{block.Raw, block.FiveMin}, {block.FiveMin, block.OneHour}} {
		// Blocks of two days, downsampled apart.
		for rest := one.chunks[step.from]; len(rest) > 0; {
			border := windowStart(rest[0].MinTime, 2*day) + 2*day
			n := slices.IndexFunc(rest, func(c series.Chunk) bool { return c.MinTime >= border })
			if n < 0 {
				n = len(rest)
			}
			coarse, err := downsample.Chunks(rest[:n], step.to)
			if err != nil {
				t.Fatalf("downsample %s to %s: %v", lset, step.to, err)
			}
			one.chunks[step.to] = append(one.chunks[step.to], coarse...)
			rest = rest[n:]
		}
	}
	z.store.all = append(z.store.all, one)
	slices.SortFunc(z.store.all, func(a, b tiered) int { return labels.Compare(a.labels, b.labels) })
}

// buckets are the upper bounds of the histograms' buckets.
func buckets() []float64 { return []float64{0.1, 0.2, 0.4, 0.8, 1.6, 3.2} }

// histograms adds one process of observations in three forms.
func (z *zoo) histograms(t *testing.T, times []int64) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(13, 17))
	bounds := buckets()
	counts := make([][]float64, len(times)) // per bucket, not cumulative
	running := make([]float64, len(bounds))
	for i, at := range times {
		if rnd.IntN(3000) == 0 {
			clear(running)
		}
		middle := 2.5 + 1.5*math.Sin(2*math.Pi*float64(at)/float64(day))
		for b := range running {
			running[b] += math.Round(20 * math.Exp(-(float64(b)-middle)*(float64(b)-middle)/2) * (0.9 + 0.2*rnd.Float64()))
		}
		counts[i] = slices.Clone(running)
	}
	cumulative := func(i, b int) (n float64) {
		for k := 0; k <= min(b, len(bounds)-1); k++ {
			n += counts[i][k]
		}
		return n
	}
	z.processes["latency"] = newScraped(times, func(i int) float64 { return cumulative(i, len(bounds)) })
	for b := range len(bounds) + 1 {
		le := "+Inf"
		if b < len(bounds) {
			le = strconv.FormatFloat(bounds[b], 'g', -1, 64)
		}
		z.floats(t, times, labels.FromStrings("__name__", "latency_bucket", "le", le), func(i int) float64 { return cumulative(i, b) })
	}
	z.add(t, labels.FromStrings("__name__", "latency"), histogramChunks(t, times, func(i int) *histogram.FloatHistogram {
		n := float64(len(bounds))
		return &histogram.FloatHistogram{
			Schema: 0, Count: cumulative(i, len(bounds)), Sum: n, ZeroThreshold: 1e-128,
			PositiveSpans: []histogram.Span{{Offset: -2, Length: uint32(len(bounds))}}, PositiveBuckets: slices.Clone(counts[i]),
		}
	}))
	z.add(t, labels.FromStrings("__name__", "sizes"), histogramChunks(t, times, func(i int) *histogram.FloatHistogram {
		return &histogram.FloatHistogram{
			Schema: histogram.CustomBucketsSchema, Count: cumulative(i, len(bounds)), Sum: 1, CustomValues: bounds,
			PositiveSpans: []histogram.Span{{Length: uint32(len(bounds))}}, PositiveBuckets: slices.Clone(counts[i]),
		}
	}))
}

// histogramChunks encodes histograms as Prometheus does: a reset begins a chunk.
func histogramChunks(t *testing.T, times []int64, at func(i int) *histogram.FloatHistogram) (out []series.Chunk) {
	t.Helper()
	var chk chunkenc.Chunk
	var app chunkenc.Appender
	first := 0
	flush := func(end int) {
		if end > first {
			out = append(out, series.Chunk{MinTime: times[first], MaxTime: times[end-1], Encoding: chk.Encoding(), Data: chk.Bytes()})
		}
		first = end
	}
	for i := range times {
		var before chunkenc.Appender
		if chk == nil || i-first == 120 || times[i]/(2*hour) != times[first]/(2*hour) {
			if chk != nil {
				flush(i)
			}
			before, chk = app, chunkenc.NewFloatHistogramChunk()
			var err error
			if app, err = chk.Appender(); err != nil {
				t.Fatal(err)
			}
		}
		next, recoded, a, err := app.AppendFloatHistogram(before, 0, times[i], at(i), false)
		if err != nil {
			t.Fatal(err)
		}
		if next != nil {
			if !recoded {
				flush(i)
			}
			chk = next
		}
		app = a
	}
	flush(len(times))
	return out
}

package dedup

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/value"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser/posrange"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// whole makes TestErrorsAgainstTheProcess measure what docs/design/0006-dedup.md
// shows, in a few minutes:
//
//	go test -count=1 -run ErrorsAgainst -v ./pkg/dedup -whole
var whole = flag.Bool("whole", false, "measure the accuracy on 1560 series over 54 hours")

// The fleet's clocks are in milliseconds.
const (
	fleetStart  = 1000 * Cell
	fleetScrape = 15_000
	fleetSlot   = 5_000 // what happens inside is spread evenly
	fleetStep   = 60_000
	fleetRange  = 300_000
	fleetGroup  = 30 // series that are summed up: scrape phase alone errs by 0.4 % at p99, and 2.8 % at worst
)

// fleet is a set of processes, and two replicas that scrape them; each is
// down for a twentieth of the time, never both.
type fleet struct {
	r     *rand.Rand
	end   int64
	down  [2][][2]int64
	slots int
}

func newFleet(hours int64) *fleet {
	f := &fleet{r: rand.New(rand.NewPCG(51, 52)), end: fleetStart + hours*3_600_000}
	f.slots = int((f.end-fleetStart)/fleetSlot) + 1
	var taken [][2]int64
	for replica := range f.down {
		for left := (f.end - fleetStart) / 20; left > 0; {
			length := min(left, 120_000+f.r.Int64N([]int64{180_000, 180_000, 3_000_000}[f.r.IntN(3)]))
			from := fleetStart + fleetRange + f.r.Int64N(f.end-fleetStart-2*fleetRange-length)
			near := func(o [2]int64) bool { return from-fleetRange < o[1] && o[0] < from+length+fleetRange }
			if slices.ContainsFunc(taken, near) {
				continue
			}
			outage := [2]int64{from, from + length}
			taken, f.down[replica] = append(taken, outage), append(f.down[replica], outage)
			left -= length
		}
	}
	return f
}

func (f *fleet) up(replica int, t int64) bool {
	return !slices.ContainsFunc(f.down[replica], func(o [2]int64) bool { return o[0] <= t && t < o[1] })
}

// restarts are the slots in which a process begins anew, about once in two days.
func (f *fleet) restarts() (out []int) {
	for at := f.r.IntN(35_000); at < f.slots; at += 1 + f.r.IntN(70_000) {
		out = append(out, at)
	}
	return out
}

// load is the relative load at each slot: the time of day, and a noise that lasts some minutes.
func (f *fleet) load() []float64 {
	out := make([]float64, f.slots)
	noise, phase := 0.0, f.r.Float64()
	for i := range out {
		noise = 0.99*noise + 0.01*f.r.NormFloat64()
		out[i] = math.Exp(noise) * (1 + 0.6*math.Sin(2*math.Pi*(float64(i)*fleetSlot/86_400_000+phase)))
	}
	return out
}

// scrapes calls record for each scrape of a target: its time, and the time at which the target answered.
// Replicas scrape at phases of their own, and the second one's clock is 100 ms ahead.
func (f *fleet) scrapes(replica int, phase int64, record func(t, truth int64)) {
	for t := fleetStart + phase; t < f.end; t += fleetScrape {
		record(t+f.r.Int64N(3), t-int64(replica)*100+5+f.r.Int64N(40))
	}
}

// since is the position of the slot that t lies in, and how far into it.
func (f *fleet) slot(t int64) (i int, part float64) {
	t = max(t, fleetStart) - fleetStart
	i = min(int(t/fleetSlot), f.slots-2)
	return i, float64(t-int64(i)*fleetSlot) / fleetSlot
}

// answer is what one way of reading the two replicas gives.
type answer struct {
	name   string
	read   func(t testing.TB, a, b, unbroken *chunkcodec.Samples) *chunkcodec.Samples
	errors []float64
	lost   int // points that are missing although there was data
}

func answers() []*answer {
	by := func(f Func) func(t testing.TB, a, b, _ *chunkcodec.Samples) *chunkcodec.Samples {
		return func(t testing.TB, a, b, _ *chunkcodec.Samples) *chunkcodec.Samples {
			t.Helper()
			out, err := Chunks([][]series.Chunk{stored(t, a), stored(t, b)}, Options{Func: f})
			if err != nil {
				t.Fatal(err)
			}
			return unpack(t, out)
		}
	}
	return []*answer{
		{name: "default", read: by(Default)},
		{name: "penalty", read: by(Penalty)},
		{name: "other replica, never down", read: func(_ testing.TB, _, _, unbroken *chunkcodec.Samples) *chunkcodec.Samples { return unbroken }},
	}
}

// stored cuts samples into chunks as Prometheus does.
func stored(t testing.TB, s *chunkcodec.Samples) (out []series.Chunk) {
	t.Helper()
	for from := 0; from < s.Len(); {
		end, _ := slices.BinarySearch(s.T, cellStart(s.T[from])+Cell)
		to := min(from+chunkcodec.MaxSamples, end)
		var part chunkcodec.Samples
		part.Append(s, from, to)
		chunks, err := chunkcodec.Append(nil, &part)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range chunks {
			out = append(out, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data})
		}
		from = to
	}
	return out
}

// report sorts the errors and returns p99 and the worst, in per cent.
func (a *answer) report(t *testing.T, what string) (p99, worst float64) {
	t.Helper()
	slices.Sort(a.errors)
	n := len(a.errors)
	p99, worst = 100*a.errors[n*99/100], 100*a.errors[n-1]
	t.Logf("%-10s %-26s %8d points, p50 %.3f %%, p99 %.3f %%, worst %.3f %%, lost %d",
		what, a.name, n, 100*a.errors[n/2], p99, worst, a.lost)
	return p99, worst
}

// TestErrorsAgainstTheProcess asks for sum by (group) (rate(counter[5m])) and
// histogram_quantile(0.9, sum by (group) (rate(histogram[5m]))) and compares with what the processes did.
func TestErrorsAgainstTheProcess(t *testing.T) {
	groups, histograms, hours := 4, 1, int64(18)
	switch {
	case *whole:
		groups, histograms, hours = 1560/fleetGroup, 4, 54
	case testing.Short():
		groups = 1
	}
	f := newFleet(hours)
	floats := answers()
	for range groups {
		f.counters(t, floats)
	}
	native := answers()
	for range histograms {
		f.histograms(t, native)
	}
	for what, all := range map[string][]*answer{"rate": floats, "quantile": native} {
		for _, a := range all {
			p99, worst := a.report(t, what)
			if a.name == "default" && (p99 > 1 || worst > 3.5 || a.lost > 0) {
				t.Errorf("%s: p99 %.2f %%, worst %.2f %%, %d points lost; want at most 1 %%, 3.5 %% and none", what, p99, worst, a.lost)
			}
		}
	}
}

// counters measures one group of counters.
func (f *fleet) counters(t *testing.T, all []*answer) {
	t.Helper()
	steps := int((f.end-fleetStart-fleetRange)/fleetStep) - 1
	truth := make([]float64, steps)
	sums := make([][]float64, len(all))
	for i := range sums {
		sums[i] = make([]float64, steps)
	}
	load, rater := f.load(), newRater(fleetRange)
	for range fleetGroup {
		rate := math.Exp(1.5 * f.r.NormFloat64())
		risen := make([]float64, f.slots)
		for i := range f.slots - 1 {
			risen[i+1] = risen[i] + rate*load[i]*(0.95+0.05*f.r.ExpFloat64())
		}
		restarts := f.restarts()
		at := func(t int64) float64 {
			i, part := f.slot(t)
			return risen[i] + (risen[i+1]-risen[i])*part
		}
		var got [2]chunkcodec.Samples
		var unbroken chunkcodec.Samples
		for replica := range got {
			f.scrapes(replica, f.r.Int64N(fleetScrape), func(t, answered int64) {
				v := at(answered)
				for _, i := range slices.Backward(restarts) {
					if answered >= fleetStart+int64(i)*fleetSlot {
						v -= risen[i]
						break
					}
				}
				if replica == 1 {
					unbroken.AppendFloat(0, t, v)
				}
				if f.up(replica, t) {
					got[replica].AppendFloat(0, t, v)
				}
			})
		}
		for i := range steps {
			t := fleetStart + fleetRange + int64(i+1)*fleetStep
			truth[i] += (at(t) - at(t-fleetRange)) / fleetRange * 1000
		}
		for k, a := range all {
			s := a.read(t, &got[0], &got[1], &unbroken)
			for i := range steps {
				rate := rater.rate(s, fleetStart+fleetRange+int64(i+1)*fleetStep, fleetRange)
				if math.IsNaN(rate) {
					a.lost++
					continue
				}
				sums[k][i] += rate
			}
		}
	}
	for k, a := range all {
		for i, want := range truth {
			a.errors = append(a.errors, math.Abs(sums[k][i]-want)/want)
		}
	}
}

const fleetBuckets = 24

// native is a process that observes latencies: its buckets at each slot.
func (f *fleet) native(load []float64) (counts [][fleetBuckets]int64) {
	counts = make([][fleetBuckets]int64, f.slots)
	center := 8 + 8*f.r.Float64()
	for i := range f.slots - 1 {
		counts[i+1] = counts[i]
		center = min(max(center+0.01*f.r.NormFloat64(), 6), 18)
		for range int(20 * load[i] * (0.7 + 0.3*f.r.ExpFloat64())) {
			counts[i+1][min(max(int(center+3*f.r.NormFloat64()), 0), fleetBuckets-1)]++
		}
	}
	return counts
}

// observed is a histogram of what came to a from b.
func observed(a, b *[fleetBuckets]int64) *histogram.Histogram {
	h := &histogram.Histogram{Schema: 3, ZeroThreshold: 1e-9, PositiveSpans: []histogram.Span{{Length: fleetBuckets}}}
	last := int64(0)
	for i := range a {
		n := a[i] - b[i]
		h.PositiveBuckets = append(h.PositiveBuckets, n-last)
		h.Count += uint64(n)
		h.Sum += float64(n) * math.Exp2(float64(i)/8)
		last = n
	}
	return h
}

// histograms measures one group of native histograms.
func (f *fleet) histograms(t *testing.T, all []*answer) {
	t.Helper()
	steps := int((f.end-fleetStart-fleetRange)/fleetStep) - 1
	truth := make([]*histogram.FloatHistogram, steps)
	sums := make([][]*histogram.FloatHistogram, len(all))
	for k := range sums {
		sums[k] = make([]*histogram.FloatHistogram, steps)
	}
	load, rater := f.load(), newRater(fleetRange)
	for range fleetGroup / 5 {
		counts := f.native(load)
		restarts := f.restarts()
		var got [2]chunkcodec.Samples
		var unbroken chunkcodec.Samples
		for replica := range got {
			f.scrapes(replica, f.r.Int64N(fleetScrape), func(t, answered int64) {
				i, _ := f.slot(answered)
				base := 0
				for _, n := range restarts {
					if n <= i {
						base = n
					}
				}
				h := observed(&counts[i], &counts[base])
				if replica == 1 {
					unbroken.AppendHistogram(0, t, h)
				}
				if f.up(replica, t) {
					got[replica].AppendHistogram(0, t, h)
				}
			})
		}
		for i := range steps {
			to := int((fleetRange + int64(i+1)*fleetStep) / fleetSlot)
			truth[i] = plus(t, truth[i], observed(&counts[to], &counts[to-fleetRange/fleetSlot]).ToFloat(nil))
		}
		for k, a := range all {
			s := a.read(t, &got[0], &got[1], &unbroken)
			for i := range steps {
				rate := rater.histogramRate(s, fleetStart+fleetRange+int64(i+1)*fleetStep, fleetRange)
				if rate == nil {
					a.lost++
					continue
				}
				sums[k][i] = plus(t, sums[k][i], rate)
			}
		}
	}
	quantile := func(h *histogram.FloatHistogram) float64 {
		v, _ := promql.HistogramQuantile(0.9, h, "", posrange.PositionRange{})
		return v
	}
	for k, a := range all {
		for i, want := range truth {
			if sums[k][i] != nil {
				a.errors = append(a.errors, math.Abs(quantile(sums[k][i])/quantile(want)-1))
			}
		}
	}
}

func plus(t *testing.T, sum, h *histogram.FloatHistogram) *histogram.FloatHistogram {
	t.Helper()
	if sum == nil {
		return h
	}
	sum, _, _, err := sum.Add(h)
	if err != nil {
		t.Fatal(fmt.Errorf("add histograms: %w", err))
	}
	return sum
}

// histogramRate is nil where PromQL has no result.
func (r *rater) histogramRate(s *chunkcodec.Samples, t, window int64) *histogram.FloatHistogram {
	i, _ := slices.BinarySearch(s.T, t-window+1)
	j, _ := slices.BinarySearch(s.T, t+1)
	var points []promql.HPoint
	for ; i < j; i++ {
		if !value.IsStaleNaN(s.H[i].Sum) {
			points = append(points, promql.HPoint{T: s.T[i], H: s.H[i].ToFloat(nil)})
		}
	}
	if len(points) < 2 {
		return nil
	}
	r.enh.Ts, r.enh.Out = t, r.enh.Out[:0]
	out, _ := promql.FunctionCalls["rate"](nil, promql.Matrix{{Histograms: points}}, r.args, &r.enh)
	if len(out) == 0 {
		return nil
	}
	return out[0].H
}

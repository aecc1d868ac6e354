package pagecache

import (
	"slices"
	"sync"
	"time"
)

const (
	// startFirstByte and startBandwidth are what object stores in the same region do
	// on one connection; a few requests correct them.
	startFirstByte = 0.030 // seconds
	startBandwidth = 60e6  // bytes a second
	startSlow      = 4.0
	// weight is that of a new observation in a moving average.
	weight = 0.1
	// minMeasured is the least length that says something of bandwidth, and maxBandwidth
	// more than a connection has: what waited in buffers comes faster.
	minMeasured  = 256 << 10
	maxBandwidth = 250e6
	// window is how many requests tell what is slow, and relearn how often they are asked.
	window  = 256
	relearn = 16
	// minLate is what a second request could not win back: of a bucket on local disk,
	// and of a busy machine.
	minLate = 5 * time.Millisecond
	// hedgeShare is the most of all requests that may be hedges, and hedgeBurst how
	// many may come at once.
	hedgeShare = 0.1
	hedgeBurst = 8
)

const (
	// minGap and maxGap bound what is read over rather than asking twice.
	minGap = 4 << 10
	maxGap = 2 << 20
	// maxAlways bounds what is read over whatever the load: a busy machine makes the
	// bucket look slow, and is not helped by more bytes.
	maxAlways = 64 << 10
	// workShare is the part of a request's time that it costs in work, on both ends;
	// the rest is waiting, which requests side by side do together.
	workShare = 1.0 / 32
)

// pace is what the bucket was seen to do: how long until the first byte, how many
// bytes a second then, and how much longer than that the slowest requests take.
type pace struct {
	metrics *metrics

	mu        sync.Mutex
	firstByte float64 // seconds
	bandwidth float64 // bytes a second
	ratios    []float64
	next      int     // of ratios to be overwritten
	slow      float64 // 95 % take at most this many times what is expected
	credit    float64 // hedges that may be made
}

func newPace(m *metrics) *pace {
	p := &pace{metrics: m, firstByte: startFirstByte, bandwidth: startBandwidth, slow: startSlow, credit: hedgeBurst}
	p.publish()
	return p
}

// arrived learns from a request that brought n bytes.
func (p *pace) arrived(first, whole time.Duration, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.firstByte += weight * (first.Seconds() - p.firstByte)
	if body := (whole - first).Seconds(); n >= minMeasured && body > 0 {
		p.bandwidth += weight * (min(float64(n)/body, maxBandwidth) - p.bandwidth)
	}
	p.publish()
}

// answered learns how long n bytes took, from the first of the requests for them.
func (p *pace) answered(took time.Duration, n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.credit = min(p.credit+hedgeShare, hedgeBurst)
	ratio := took.Seconds() / p.expected(n)
	if len(p.ratios) < window {
		p.ratios = append(p.ratios, ratio)
	} else {
		p.ratios[p.next] = ratio
	}
	if p.next = (p.next + 1) % window; p.next%relearn == 0 {
		sorted := slices.Sorted(slices.Values(p.ratios))
		p.slow = max(1, sorted[len(sorted)*95/100])
	}
}

// expected is how many seconds n bytes take. The caller holds mu.
func (p *pace) expected(n int64) float64 { return p.firstByte + float64(n)/p.bandwidth }

// slowAfter is when a request for n bytes is among the slowest.
func (p *pace) slowAfter(n int64) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return max(minLate, time.Duration(p.slow*p.expected(n)*float64(time.Second)))
}

// late reports whether a request of which so many of n bytes came in that time would be
// overtaken by a new one: not if what is left comes sooner at its pace so far.
func (p *pace) late(came, n int64, took time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return float64(n-came)*took.Seconds() > p.expected(n)*float64(came)
}

// hedge reports whether one more hedge may be made, and books it.
func (p *pace) hedge() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.credit < 1 {
		return false
	}
	p.credit--
	return true
}

// gaps returns up to which gap between two ranges one request is better, whatever
// the load, and when requests wait for each other.
func (p *pace) gaps() (always, most int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	worth := p.firstByte * p.bandwidth
	return int64(min(max(worth*workShare, minGap), maxAlways)), int64(min(max(worth, minGap), maxGap))
}

// publish shows what was learned. The caller holds mu.
func (p *pace) publish() {
	p.metrics.firstByte.Set(p.firstByte)
	p.metrics.bandwidth.Set(p.bandwidth)
}

// usual is how long the first byte takes.
func (p *pace) usual() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.firstByte * float64(time.Second))
}

package sidecar

import (
	"fmt"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// budget is what one request may touch and hold.
type budget struct {
	opts    StoreOptions
	metrics *storeMetrics

	series, samples int64 // of what was handed out
	last            labels.Labels
	held, most      int64 // bytes
}

func newBudget(o StoreOptions, m *storeMetrics) *budget { return &budget{opts: o, metrics: m} }

// count takes a series or a further part of it into account, in the order in
// which they are handed out.
func (b *budget) count(s *series.Series) error {
	if b.series == 0 || !labels.Equal(b.last, s.Labels) {
		b.series++
		b.last = s.Labels
	}
	if limit := b.opts.MaxSeries; limit > 0 && b.series > limit {
		return b.refuse("series", "the request touches more than %d series (--store.limits.request-series)", limit)
	}
	if limit := b.opts.MaxSamples; limit > 0 {
		for _, c := range s.Chunks {
			opened, err := c.Open()
			if err != nil {
				return fmt.Errorf("count samples of %s: %w", s.Labels, err)
			}
			b.samples += int64(opened.NumSamples())
		}
		if b.samples > limit {
			return b.refuse("samples", "the request touches more than %d samples (--store.limits.request-samples)", limit)
		}
	}
	return nil
}

// hold takes a series into account that waits for its turn, until let go.
func (b *budget) hold(s *series.Series) error {
	b.held += weigh(s)
	b.most = max(b.most, b.held)
	if b.held > b.opts.MaxHeld {
		return b.refuse("bytes", "putting the answer in order needs more than %d bytes of series (--store.limits.request-held-bytes)", b.opts.MaxHeld)
	}
	return nil
}

func (b *budget) letGo(s *series.Series) { b.held -= weigh(s) }

// done ends the request.
func (b *budget) done() { b.metrics.held.Observe(float64(b.most)) }

func (b *budget) refuse(limit, text string, n int64) error {
	b.metrics.refused.WithLabelValues(limit).Inc()
	return fmt.Errorf("%w: "+text+"; add matchers, shorten the time range, or raise the limit", storeapi.ErrLimit, n)
}

// weigh is what a series holds in memory, about.
func weigh(s *series.Series) int64 {
	const perSeries, perChunk = 128, 56
	n := perSeries + int64(s.Labels.ByteSize()) + int64(len(s.Chunks))*perChunk
	for _, c := range s.Chunks {
		n += int64(len(c.Data))
	}
	return n
}

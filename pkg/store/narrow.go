package store

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/storeapi"
)

// narrow reports whether a Series request surely needs no more memory than a narrow one
// begins with, be it that all series are read that the page directories allow for.
func (g *Gateway) narrow(ctx context.Context, req *storeapi.Request) bool {
	blocks, err := g.blocksFor(req)
	for _, c := range blocks {
		if !slices.ContainsFunc(c.matchers, names) {
			return false
		}
	}
	errWide := errors.New("it is wide")
	var sum atomic.Int64
	return err == nil && nil == g.estimate(ctx, blocks, func(_ context.Context, b *openBlock, _ *blockindex.Index, e blockindex.Estimate) error {
		if sum.Add(e.Memory+e.Series*b.seriesBytes()) > narrowShare(g.opts.RequestBytes) {
			return errWide
		}
		return nil
	})
}

// names reports whether a matcher names the values that it accepts: of any other, nothing
// is known before all values of its label are looked at.
func names(m *labels.Matcher) bool {
	return !m.Matches("") && (m.Type == labels.MatchEqual || m.Type == labels.MatchRegexp && len(m.SetMatches()) > 0)
}

// estimate calls fn with what the index of each block says of the matchers, until there is an error.
func (g *Gateway) estimate(ctx context.Context, blocks []concerned, fn func(context.Context, *openBlock, *blockindex.Index, blockindex.Estimate) error) error {
	const atOnce = 16
	eg, ctx := errgroup.WithContext(unlimited(ctx))
	eg.SetLimit(atOnce)
	for _, c := range blocks {
		eg.Go(func() (err error) {
			defer panics.Recovered(&err)
			index, err := c.block.openIndex(ctx, g)
			if err != nil {
				return err
			}
			e, err := index.Estimate(ctx, c.matchers...)
			if err != nil {
				return err
			}
			return fn(ctx, c.block, index, e)
		})
	}
	return eg.Wait()
}

// seriesBytes is how many bytes of chunks a series has on average.
func (b *openBlock) seriesBytes() (n int64) {
	for name, size := range b.objects {
		if strings.HasPrefix(name, block.ChunksDir+"/") {
			n += size
		}
	}
	return n / int64(max(b.meta.Stats.NumSeries, 1))
}

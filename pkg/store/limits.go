package store

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/storeapi"
)

// The flags that set the limits, as messages name them.
const (
	flagTouchedSeries   = "--store.grpc.touched-series-limit"
	flagResponseSeries  = "--store.limits.request-series"
	flagSamples         = "--store.grpc.series-sample-limit"
	flagResponseSamples = "--store.limits.request-samples"
	flagBytes           = "--store.grpc.downloaded-bytes-limit"
	flagMemory          = "--store.request-bytes"
	flagHeld            = "half of " + flagMemory
	flagProcess         = "--store.memory-bytes"
)

// usage is what one request has used up of its limits.
type usage struct {
	limits   Limits
	memory   int64
	matchers []*labels.Matcher
	metrics  *metrics
	share    *share

	touched, series, samples, responseSamples, bytes, held atomic.Int64
}

func (g *Gateway) newUsage(matchers []*labels.Matcher, memory *share) usage {
	return usage{limits: g.opts.Limits, memory: g.opts.RequestBytes / heldPart, matchers: matchers, metrics: g.metrics, share: memory}
}

type usageKey struct{}

// under makes reads of indexes under the context count against the limits.
func (u *usage) under(ctx context.Context) context.Context {
	return context.WithValue(ctx, usageKey{}, u)
}

// unlimited makes reads of indexes under the context count against no limits: those of what
// later requests need as well.
func unlimited(ctx context.Context) context.Context { return (*usage)(nil).under(ctx) }

// readIndex counts bytes of an index that are to be read under a context.
func readIndex(ctx context.Context, n int64) error {
	if u, _ := ctx.Value(usageKey{}).(*usage); u != nil {
		return u.readBytes(n)
	}
	return nil
}

func (u *usage) touch(n int) error {
	return u.check(u.touched.Add(int64(n)), u.limits.TouchedSeries, flagTouchedSeries, "series in all blocks together")
}

func (u *usage) answerSeries(samples int) error {
	if err := u.check(u.series.Add(1), u.limits.ResponseSeries, flagResponseSeries, "series"); err != nil {
		return err
	}
	return u.check(u.responseSamples.Add(int64(samples)), u.limits.ResponseSamples, flagResponseSamples, "samples")
}

func (u *usage) readSamples(n int) error {
	return u.check(u.samples.Add(int64(n)), u.limits.Samples, flagSamples, "samples")
}

func (u *usage) readBytes(n int64) error {
	return u.check(u.bytes.Add(n), u.limits.DownloadedBytes, flagBytes, "bytes of indexes and chunks")
}

// hold takes memory for what must stay until the request ends.
func (u *usage) hold(bytes int) error {
	return u.fits(u.held.Add(int64(bytes)))
}

// fits sees to it that there is memory for so many bytes of labels.
func (u *usage) fits(held int64) error {
	if err := u.check(held, u.memory, flagHeld, "bytes of memory for labels"); err != nil {
		return err
	}
	if !u.share.grow(heldPart * held) {
		u.metrics.refused.Inc()
		return fmt.Errorf("%w: %s needs %d bytes of memory for labels or more, of which other requests hold the rest of %s, which is %d; ask again, or raise the limit",
			storeapi.ErrLimit, selector(u.matchers), held, flagProcess, u.share.budget.size)
	}
	return nil
}

// check returns an ErrLimit that says what to change.
func (u *usage) check(used, limit int64, flag, what string) error {
	if limit <= 0 || used <= limit {
		return nil
	}
	u.metrics.refused.Inc()
	return fmt.Errorf("%w: %s needs %d %s or more, %s is %d; add matchers that narrow it down, ask for a shorter time range, or raise the limit",
		storeapi.ErrLimit, selector(u.matchers), used, what, flag, limit)
}

// selector is the text of matchers in PromQL.
func selector(matchers []*labels.Matcher) string {
	texts := make([]string, len(matchers))
	for i, m := range matchers {
		texts[i] = m.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}

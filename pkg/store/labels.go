package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/storeapi"
)

// LabelNames returns the names of the labels of the blocks that overlap the
// request's time, or of the matching series in them.
func (g *Gateway) LabelNames(ctx context.Context, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	return g.labels(ctx, req, func(ctx context.Context, b *openBlock, matchers []*labels.Matcher, add func(string)) error {
		index, err := b.openIndex(ctx, g)
		if err != nil {
			return err
		}
		names, err := index.LabelNames(ctx, matchers...)
		if err != nil {
			return err
		}
		if len(names) > 0 || len(matchers) == 0 {
			b.labels.Range(func(l labels.Label) { names = append(names, l.Name) })
		}
		for _, name := range names {
			if !slices.Contains(req.WithoutLabels, name) {
				add(name)
			}
		}
		return nil
	})
}

// LabelValues returns the values of a label in the blocks that overlap the
// request's time, or of the matching series in them.
func (g *Gateway) LabelValues(ctx context.Context, name string, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	if name == "" {
		return nil, nil, fmt.Errorf("%w: no label name given", storeapi.ErrBadRequest)
	}
	if slices.Contains(req.WithoutLabels, name) {
		return nil, nil, nil
	}
	return g.labels(ctx, req, func(ctx context.Context, b *openBlock, matchers []*labels.Matcher, add func(string)) error {
		external := b.labels.Get(name)
		if external != "" && len(matchers) == 0 {
			add(external)
			return nil
		}
		index, err := b.openIndex(ctx, g)
		if err != nil {
			return err
		}
		if external != "" {
			some, err := index.Any(ctx, matchers...)
			if some {
				add(external)
			}
			return err
		}
		values, err := index.LabelValues(ctx, name, req.Limit, matchers...)
		for _, v := range values {
			add(v)
		}
		return err
	})
}

// labelsOf adds what a block has for a request of labels. The matchers are those that
// its external labels do not answer.
type labelsOf func(ctx context.Context, b *openBlock, matchers []*labels.Matcher, add func(string)) error

// labels gathers what fn adds for every block that a request concerns.
func (g *Gateway) labels(ctx context.Context, req *storeapi.LabelsRequest, fn labelsOf) ([]string, annotations.Annotations, error) {
	if err := req.Validate(); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("select labels: %w", err)
	}
	blocks, err := g.labelBlocks(req)
	if err != nil {
		return nil, nil, err
	}
	var took stage
	defer g.reportLabels(req, len(blocks), &took, time.Now())
	limited := usage{limits: g.opts.Limits, matchers: req.Matchers, metrics: g.metrics}
	ctx = limited.under(took.under(ctx))
	var mu sync.Mutex
	found := map[string]struct{}{}
	var warnings annotations.Annotations
	add := func(s string) {
		mu.Lock()
		defer mu.Unlock()
		found[s] = struct{}{}
	}
	ask := func(ctx context.Context, blocks ...labelBlock) error {
		for _, b := range blocks {
			if err := fn(ctx, b.openBlock, b.matchers, add); err != nil {
				return err
			}
		}
		return nil
	}
	eg, ectx := errgroup.WithContext(ctx)
	eg.SetLimit(4 * runtime.GOMAXPROCS(0))
	for _, b := range blocks {
		eg.Go(func() error {
			err := ask(ectx, b)
			if heirs := g.labelHeirs(req, b, err); len(heirs) > 0 {
				err = ask(ectx, heirs...)
			}
			if err == nil || errors.Is(err, storeapi.ErrLimit) {
				return err
			}
			err = fmt.Errorf("block %s is missing: %w", b.meta.ULID, err)
			if req.Partial == storeapi.Abort || ectx.Err() != nil {
				return err
			}
			g.metrics.warnings.Inc()
			g.log.Warn("block left out of an answer", "block", b.meta.ULID, "err", err)
			mu.Lock()
			defer mu.Unlock()
			warnings.Add(err)
			return nil
		})
	}
	if err := eg.Wait(); err != nil {
		return nil, nil, err
	}
	sorted := slices.Sorted(maps.Keys(found))
	if req.Limit > 0 && len(sorted) > req.Limit {
		sorted = sorted[:req.Limit]
	}
	return sorted, warnings, nil
}

// labelHeirs returns the blocks of now that hold what a block held that is gone, as err says.
func (g *Gateway) labelHeirs(req *storeapi.LabelsRequest, gone labelBlock, err error) []labelBlock {
	if err == nil || !g.gone(err) {
		return nil
	}
	blocks, _ := g.labelBlocks(req)
	heirs := slices.DeleteFunc(blocks, func(b labelBlock) bool { return b.openBlock == gone.openBlock || !inherits(b.meta, gone.meta) })
	if len(heirs) > 0 {
		g.metrics.replanned.Inc()
	}
	return heirs
}

// reportLabels logs and counts what a request for labels took, at its end.
func (g *Gateway) reportLabels(req *storeapi.LabelsRequest, blocks int, took *stage, began time.Time) {
	took.since(began)
	g.metrics.labelsTook.Observe(took.took().Seconds())
	all := took.as("labels")
	g.metrics.count(all)
	g.logTook(all.Took, append([]any{
		"request", "labels", "selector", selector(req.Matchers), "from", timeText(req.MinTime), "to", timeText(req.MaxTime), "blocks", blocks,
	}, stageAttrs(all)...))
}

// labelBlock is a block that a label request concerns.
type labelBlock struct {
	*openBlock
	matchers []*labels.Matcher
}

// labelBlocks returns the blocks, of any resolution, that overlap a request.
func (g *Gateway) labelBlocks(req *storeapi.LabelsRequest) ([]labelBlock, error) {
	want := g.clip(req.MinTime, req.MaxTime)
	g.mu.Lock()
	defer g.mu.Unlock()
	set, err := g.current()
	if err != nil {
		return nil, err
	}
	var blocks []labelBlock
	for _, st := range set.streams {
		matchers, ok := storeapi.MatchExternal(st.labels, req.Matchers)
		if !ok {
			continue
		}
		for _, p := range planAll(st.parts, want, block.OneHour, block.OneHour) {
			blocks = append(blocks, labelBlock{p.block, matchers})
		}
	}
	return blocks, nil
}

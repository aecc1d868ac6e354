package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/storeapi"
)

// LabelNames returns the names of the labels of the blocks that overlap the
// request's time, or of the matching series in them.
func (g *Gateway) LabelNames(ctx context.Context, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	l := &labelsRequest{LabelsRequest: req, g: g}
	return l.answer(ctx, l.addNames)
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
	l := &labelsRequest{LabelsRequest: req, g: g, name: name}
	return l.answer(ctx, l.addValues)
}

// labelsRequest is a request for label names or values that is being answered.
type labelsRequest struct {
	*storeapi.LabelsRequest
	name    string // of the label whose values are wanted
	g       *Gateway
	usage   usage
	window  *window // memory of the blocks that are read
	sampled sample
	took    stage

	mu       sync.Mutex
	found    map[string]struct{}
	most     string // what comes after it is not wanted; "" means that nothing is known
	warnings annotations.Annotations
}

// foundBytes is about what a text of an answer takes, twice its own bytes aside.
const foundBytes = 100

// need is about the memory that the request needs, as far as the indexes tell.
func (l *labelsRequest) need(ctx context.Context) (int64, error) {
	blocks, err := l.g.labelBlocks(l.LabelsRequest)
	if err != nil {
		return 0, err
	}
	var most atomic.Int64
	err = l.g.estimate(ctx, blocks, func(ctx context.Context, _ *openBlock, x *blockindex.Index, e blockindex.Estimate) error {
		values, typical, err := x.Values(ctx, l.name)
		for need := heldPart * max(e.Memory, min(values, e.Series)*(foundBytes+2*typical)); ; {
			if known := most.Load(); known >= need || most.CompareAndSwap(known, need) {
				return err
			}
		}
	})
	if err != nil && ctx.Err() != nil {
		return 0, fmt.Errorf("select labels: %w", ctx.Err())
	}
	return most.Load(), nil // what is wrong with a block is said when it is read
}

// addNames adds the label names that a block has.
func (l *labelsRequest) addNames(ctx context.Context, c concerned) error {
	index, done, err := l.open(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	names, err := index.LabelNames(ctx, c.matchers...)
	if err != nil {
		return err
	}
	if len(names) > 0 || len(c.matchers) == 0 {
		c.block.labels.Range(func(l labels.Label) { names = append(names, l.Name) })
	}
	for _, name := range names {
		if slices.Contains(l.WithoutLabels, name) {
			continue
		}
		if err := l.add(name); err != nil {
			return err
		}
	}
	return nil
}

// addValues adds the values that a block has of the label.
func (l *labelsRequest) addValues(ctx context.Context, c concerned) error {
	external := c.block.labels.Get(l.name)
	if external != "" && len(c.matchers) == 0 {
		return l.add(external)
	}
	index, done, err := l.open(ctx, c)
	if err != nil {
		return err
	}
	defer done()
	if external == "" {
		return index.LabelValues(ctx, l.name, l.Limit, l.add, c.matchers...)
	}
	some, err := index.Any(ctx, c.matchers...)
	if err == nil && some {
		err = l.add(external)
	}
	return err
}

// open opens the index of a block, once there is memory for what the matchers take in it.
func (l *labelsRequest) open(ctx context.Context, c concerned) (_ *blockindex.Index, done func(), err error) {
	index, err := c.block.openIndex(ctx, l.g)
	if err != nil {
		return nil, nil, err
	}
	l.sampled.look(index, c.matchers)
	e, err := index.Estimate(ctx, c.matchers...)
	if err != nil {
		return nil, nil, fmt.Errorf("look the matchers up: %w", err)
	}
	room := func() int64 {
		l.usage.share.grow(l.usage.share.most)
		return l.usage.share.size() / heldPart
	}
	if err := l.window.enter(ctx, e.Memory, room); err != nil {
		return nil, nil, err
	}
	if err := l.usage.fits(e.Memory); err != nil {
		l.window.leave(e.Memory)
		return nil, nil, err
	}
	return index, func() { l.window.leave(e.Memory) }, nil
}

// add adds a name or a value to the answer.
func (l *labelsRequest) add(text string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.found[text]; ok || l.most != "" && text > l.most {
		return nil
	}
	if err := l.usage.hold(foundBytes + 2*len(text)); err != nil {
		return err
	}
	l.found[strings.Clone(text)] = struct{}{}
	const spare = 1000
	if l.Limit > 0 && len(l.found) > 2*l.Limit+spare {
		l.cut()
	}
	return nil
}

// cut lets go of what is beyond the limit.
func (l *labelsRequest) cut() {
	all := slices.Sorted(maps.Keys(l.found))
	l.most = all[l.Limit-1]
	for _, text := range all[l.Limit:] {
		delete(l.found, text)
		l.usage.held.Add(-int64(foundBytes + 2*len(text)))
	}
}

// sorted is what was found, in order and no more than wanted.
func (l *labelsRequest) sorted() []string {
	all := slices.Sorted(maps.Keys(l.found))
	if l.Limit > 0 && len(all) > l.Limit {
		all = all[:l.Limit]
	}
	return all
}

// answer gathers what add adds for every block that the request concerns.
func (l *labelsRequest) answer(ctx context.Context, add func(context.Context, concerned) error) ([]string, annotations.Annotations, error) {
	if err := l.Validate(); err != nil {
		return nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("select labels: %w", err)
	}
	g, began := l.g, time.Now()
	need, err := l.need(ctx)
	if err != nil {
		return nil, nil, err
	}
	share, err := g.budget.enter(ctx, need, func() bool { return need <= narrowShare(g.opts.RequestBytes) })
	if err != nil {
		return nil, nil, err
	}
	defer share.leave()
	turn := time.Since(began)
	blocks, err := g.labelBlocks(l.LabelsRequest)
	if err != nil {
		return nil, nil, err
	}
	l.usage, l.window, l.found = g.newUsage(l.Matchers, share), newWindow(), map[string]struct{}{}
	defer l.report(len(blocks), turn, time.Now())
	if err := l.gather(l.usage.under(l.took.under(ctx)), blocks, add); err != nil {
		if errors.Is(err, storeapi.ErrLimit) {
			err = l.sampled.advise(ctx, err, l.Matchers)
		}
		return nil, nil, err
	}
	return l.sorted(), l.warnings, nil
}

// gather has add look at blocks side by side.
func (l *labelsRequest) gather(ctx context.Context, blocks []concerned, add func(context.Context, concerned) error) error {
	eg, ectx := errgroup.WithContext(ctx)
	eg.SetLimit(4 * runtime.GOMAXPROCS(0))
	look := func(c concerned) error { return panics.Caught(func() error { return add(ectx, c) }) }
	for _, c := range blocks {
		eg.Go(func() error {
			err := look(c)
			for _, heir := range l.heirs(c, err) {
				if err = look(heir); err != nil {
					break
				}
			}
			if err == nil || errors.Is(err, storeapi.ErrLimit) {
				return err
			}
			err = fmt.Errorf("block %s is missing: %w", c.block.meta.ULID, err)
			if l.Partial == storeapi.Abort || ectx.Err() != nil {
				return err
			}
			l.g.metrics.warnings.Inc()
			l.g.log.Warn("block left out of an answer", "block", c.block.meta.ULID, "err", err)
			l.mu.Lock()
			defer l.mu.Unlock()
			l.warnings.Add(err)
			return nil
		})
	}
	return eg.Wait()
}

// heirs returns the blocks of now that hold what a block held that is gone, as err says.
func (l *labelsRequest) heirs(gone concerned, err error) []concerned {
	if err == nil || !l.g.gone(err) {
		return nil
	}
	blocks, _ := l.g.labelBlocks(l.LabelsRequest)
	heirs := slices.DeleteFunc(blocks, func(c concerned) bool { return c.block == gone.block || !inherits(c.block.meta, gone.block.meta) })
	if len(heirs) > 0 {
		l.g.metrics.replanned.Inc()
	}
	return heirs
}

// report logs and counts what the request took, at its end.
func (l *labelsRequest) report(blocks int, turn time.Duration, began time.Time) {
	l.took.since(began)
	l.g.metrics.labelsTook.Observe(l.took.took().Seconds())
	stages := []storeapi.Stage{{Name: storeapi.StageTurn, Took: turn}, l.took.as("labels")}
	l.g.metrics.count(stages...)
	l.g.logTook(turn+l.took.took(), append([]any{
		"request", "labels", "selector", selector(l.Matchers), "from", timeText(l.MinTime), "to", timeText(l.MaxTime), "blocks", blocks,
	}, stageAttrs(stages...)...))
}

// labelBlocks returns the blocks, of any resolution, that overlap a request.
func (g *Gateway) labelBlocks(req *storeapi.LabelsRequest) ([]concerned, error) {
	return g.blocksFor(&storeapi.Request{
		MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, MaxResolution: block.OneHour, Fallback: block.OneHour,
	})
}

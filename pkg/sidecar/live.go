package sidecar

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Prometheus sorts its answer by the labels of its own, we by the final labels:
// with the external ones added and others removed. To stream nevertheless, one
// remote read asks for two kinds of series apart.
//
// Hidden series carry a label of a name that is external or removed. Rare as they
// are, and their order being of no use, they come first, are held within a budget
// and sorted. One query for each such name selects those that carry it and none
// of the names before.
//
// Plain series carry no such label: final labels are their own with the same few
// labels inserted. Of two of them the order changes only if one's own labels are
// the beginning of the other's. So what sorts not after a series' final labels up
// to its own last one sorts before all that follow, and the others wait in a heap.

// live asks remote read.
func (s *Store) live(ctx context.Context, sc scope, req *storeapi.Request) series.Set {
	l := &liveSet{ctx: ctx, scope: sc, req: req, budget: newBudget(s.opts, s.metrics)}
	queries := hiddenQueries(sc, req.WithoutLabels)
	l.plain = len(queries) - 1
	var err error
	if l.reader, err = s.client.Read(ctx, queries); err != nil {
		return series.ErrSet(l.explain(err))
	}
	return l
}

// hiddenQueries are those for hidden series, and at last that for plain ones.
func hiddenQueries(sc scope, without []string) []promclient.Query {
	names := slices.Clone(without)
	sc.external.Range(func(l labels.Label) { names = append(names, l.Name) })
	slices.Sort(names)
	names = slices.Compact(names)

	var queries []promclient.Query
	var absent []*labels.Matcher
	add := func(ms ...*labels.Matcher) {
		queries = append(queries, promclient.Query{
			MinTime: sc.mint, MaxTime: sc.maxt,
			// What selects least comes first: mostly there is no such label at all.
			Matchers: slices.Concat(ms, sc.matchers, absent),
		})
	}
	for _, name := range names {
		add(labels.MustNewMatcher(labels.MatchNotEqual, name, ""))
		absent = append(absent, labels.MustNewMatcher(labels.MatchEqual, name, ""))
	}
	add()
	return queries
}

// liveSet is an answer of remote read in the order of final labels.
type liveSet struct {
	ctx    context.Context //nolint:containedctx // the set lives as long as the call that made it
	scope  scope
	req    *storeapi.Request
	reader *promclient.Reader
	plain  int // index of the query for plain series
	budget *budget

	waiting waiting
	turn    int            // of the part that was read last
	bound   *series.Series // what sorts not after it can go; nil while nothing can
	ended   bool           // everything was read

	cur  *series.Series // nil before the first
	err  error
	over bool
}

// Next hands out the first of what waits once nothing that follows sorts before it.
func (l *liveSet) Next() bool {
	for !l.over {
		if l.ready() {
			next := heap.Pop(&l.waiting).(waiter).Series //nolint:forcetypeassert // nothing else is pushed
			l.budget.letGo(&next)
			return l.emit(&next)
		}
		if l.ended {
			return l.end(nil)
		}
		if err := l.read(); err != nil {
			return l.end(err)
		}
	}
	return false
}

// ready reports whether the first of what waits can go.
func (l *liveSet) ready() bool {
	if len(l.waiting) == 0 {
		return false
	}
	return l.ended || (l.bound != nil && series.Compare(&l.waiting[0].Series, l.bound) <= 0)
}

// read takes one part from Prometheus.
func (l *liveSet) read() error {
	if !l.reader.Next() {
		l.ended = true
		return l.reader.Err()
	}
	part := l.reader.At()
	if len(part.Chunks) == 0 {
		return nil
	}
	lset, replica := series.Final(part.Labels, l.scope.external, l.req.WithoutLabels)
	if part.Query >= l.plain && l.reader.Streamed() {
		l.bound = &series.Series{Labels: l.beginning(part.Labels, lset), Replica: replica}
	}
	if !l.req.Shard.Keeps(lset) {
		return nil
	}
	next := series.Series{Labels: lset, Replica: replica, Chunks: make([]series.Chunk, len(part.Chunks))}
	for i, c := range part.Chunks {
		next.Chunks[i] = series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Encoding: c.Encoding, Data: c.Data}
	}
	l.turn++
	heap.Push(&l.waiting, waiter{next, l.turn})
	return l.budget.hold(&next)
}

// beginning is the final labels of a plain series up to the last label of its own.
func (l *liveSet) beginning(received, final labels.Labels) labels.Labels {
	last := ""
	received.Range(func(x labels.Label) {
		if !l.scope.external.Has(x.Name) {
			last = x.Name
		}
	})
	b := labels.NewScratchBuilder(final.Len())
	final.Range(func(x labels.Label) {
		if x.Name <= last {
			b.Add(x.Name, x.Value)
		}
	})
	return b.Labels()
}

// errOrder is seen when the external labels that Prometheus adds are not those that
// the last heartbeat found.
var errOrder = fmt.Errorf("%w: Prometheus' answer is not in the order of its labels, because its external labels have just changed; ask again", storeapi.ErrUnavailable)

func (l *liveSet) emit(next *series.Series) bool {
	if l.cur != nil && series.Compare(l.cur, next) > 0 {
		return l.end(errOrder)
	}
	l.cur = next
	if err := l.budget.count(next); err != nil {
		return l.end(err)
	}
	if l.req.Limit > 0 && l.budget.series > int64(l.req.Limit) {
		return l.end(nil)
	}
	return true
}

// end closes the answer; nothing is read after it.
func (l *liveSet) end(err error) bool {
	l.over, l.waiting = true, nil
	l.err = l.explain(errors.Join(err, l.reader.Close()))
	l.budget.done()
	return false
}

func (l *liveSet) explain(err error) error {
	if err != nil && l.ctx.Err() != nil {
		return fmt.Errorf("read series from Prometheus: %w", l.ctx.Err())
	}
	return mark("read series from Prometheus", err)
}

func (l *liveSet) At() *series.Series                { return l.cur }
func (l *liveSet) Err() error                        { return l.err }
func (l *liveSet) Warnings() annotations.Annotations { return nil }

// waiting is a heap of series; equal ones leave in the order of their coming.
type waiting []waiter

type waiter struct {
	series.Series
	turn int
}

// Len, Less, Swap, Push and Pop are heap.Interface.
func (w waiting) Len() int { return len(w) }

func (w waiting) Less(i, j int) bool {
	if c := series.Compare(&w[i].Series, &w[j].Series); c != 0 {
		return c < 0
	}
	return w[i].turn < w[j].turn
}

func (w waiting) Swap(i, j int) { w[i], w[j] = w[j], w[i] }

func (w *waiting) Push(x any) { *w = append(*w, x.(waiter)) } //nolint:forcetypeassert // nothing else is pushed

func (w *waiting) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	*w = (*w)[:last]
	return x
}

package storeapitest

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Memory is a Store over fixtures: the reference, made to be read.
type Memory struct {
	sources []source
}

type source struct {
	external labels.Labels
	series   []series.Series
}

var _ storeapi.Store = (*Memory)(nil)

// NewMemory encodes the fixtures into chunks.
func NewMemory(fixtures ...Fixture) (*Memory, error) {
	m := &Memory{}
	for _, f := range fixtures {
		src := source{external: f.External}
		for _, s := range f.Series {
			chunks, err := Encode(s)
			if err != nil {
				return nil, err
			}
			src.series = append(src.series, series.Series{Labels: s.Labels, Chunks: chunks})
		}
		m.sources = append(m.sources, src)
	}
	return m, nil
}

// Info announces every fixture as a stream.
func (m *Memory) Info(context.Context) (storeapi.Info, error) {
	info := storeapi.Info{
		Component: "store", MinTime: math.MaxInt64, MaxTime: math.MinInt64, APIs: storeapi.StoreAPI,
		Native: true, DropsLabels: true, SupportsSharding: true,
	}
	for _, src := range m.sources {
		s := storeapi.Stream{Labels: src.external, MinTime: math.MaxInt64, MaxTime: math.MinInt64}
		for _, ser := range src.series {
			for _, c := range ser.Chunks {
				s.MinTime, s.MaxTime = min(s.MinTime, c.MinTime), max(s.MaxTime, c.MaxTime)
			}
		}
		info.MinTime, info.MaxTime = min(info.MinTime, s.MinTime), max(info.MaxTime, s.MaxTime)
		info.LabelSets = append(info.LabelSets, src.external)
		info.Streams = append(info.Streams, s)
	}
	return info, nil
}

// Series gives series final labels, sorts, and cuts.
func (m *Memory) Series(ctx context.Context, req *storeapi.Request) series.Set {
	if err := req.Validate(); err != nil {
		return series.ErrSet(err)
	}
	if err := ctx.Err(); err != nil {
		return series.ErrSet(fmt.Errorf("select series: %w", err))
	}
	var out []series.Series
	for _, src := range m.sources {
		out = append(out, src.find(req)...)
	}
	slices.SortStableFunc(out, func(a, b series.Series) int { return series.Compare(&a, &b) })
	seen := 0
	for i := range out {
		if i > 0 && labels.Equal(out[i].Labels, out[i-1].Labels) {
			continue
		}
		if seen++; req.Limit > 0 && seen > req.Limit {
			out = out[:i]
			break
		}
	}
	return series.NewSet(out, nil)
}

func (src *source) find(req *storeapi.Request) (out []series.Series) {
	rest, ok := storeapi.MatchExternal(src.external, req.Matchers)
	if !ok {
		return nil
	}
	for _, s := range src.series {
		if !matchesAll(s.Labels, rest) {
			continue
		}
		var chunks []series.Chunk
		for _, c := range s.Chunks {
			if c.MinTime <= req.MaxTime && c.MaxTime >= req.MinTime {
				chunks = append(chunks, c)
			}
		}
		if len(chunks) == 0 {
			continue
		}
		if req.SkipChunks {
			chunks = nil
		}
		lset, replica := series.Final(s.Labels, src.external, req.WithoutLabels)
		if req.Shard.Keeps(lset) {
			out = append(out, series.Series{Labels: lset, Replica: replica, Chunks: chunks})
		}
	}
	return out
}

func matchesAll(lset labels.Labels, ms []*labels.Matcher) bool {
	return !slices.ContainsFunc(ms, func(m *labels.Matcher) bool { return !m.Matches(lset.Get(m.Name)) })
}

// LabelNames collects over the matching series.
func (m *Memory) LabelNames(ctx context.Context, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	found := map[string]struct{}{}
	err := m.visit(ctx, req, func(lset labels.Labels) {
		lset.Range(func(l labels.Label) { found[l.Name] = struct{}{} })
	})
	return sorted(found, req.Limit), nil, err
}

// LabelValues collects over the matching series.
func (m *Memory) LabelValues(ctx context.Context, name string, req *storeapi.LabelsRequest) ([]string, annotations.Annotations, error) {
	if name == "" {
		return nil, nil, fmt.Errorf("%w: no label name given", storeapi.ErrBadRequest)
	}
	found := map[string]struct{}{}
	err := m.visit(ctx, req, func(lset labels.Labels) {
		if v := lset.Get(name); v != "" {
			found[v] = struct{}{}
		}
	})
	return sorted(found, req.Limit), nil, err
}

func (m *Memory) visit(ctx context.Context, req *storeapi.LabelsRequest, see func(labels.Labels)) error {
	if err := req.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("select labels: %w", err)
	}
	for _, src := range m.sources {
		for _, s := range src.find(&storeapi.Request{
			MinTime: req.MinTime, MaxTime: req.MaxTime, Matchers: req.Matchers, WithoutLabels: req.WithoutLabels,
		}) {
			see(s.Labels)
		}
	}
	return nil
}

func sorted(set map[string]struct{}, limit int) []string {
	list := slices.Sorted(maps.Keys(set))
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	return list
}

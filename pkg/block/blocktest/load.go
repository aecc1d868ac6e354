package blocktest

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
)

// Load gives the series of promqltest's load commands, start timestamps included, sorted by labels.
func Load(t testing.TB, text string) []Series {
	t.Helper()
	var r Recorder
	promqltest.RunTestWithStorage(t, text, nil, func(testing.TB) storage.Storage { return recorderStorage{Recorder: &r} })
	return r.Series()
}

// recorderStorage lends a recorder the methods that load commands do not call.
type recorderStorage struct {
	storage.Storage
	*Recorder
}

// AppenderV2 and Close are the recorder's, not those of the empty storage.
func (s recorderStorage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	return s.Recorder.AppenderV2(ctx)
}
func (recorderStorage) Close() error { return nil }

// Recorder keeps what is appended to it, for blocks to be built from. Its zero
// value is empty and ready; it is safe for concurrent use.
type Recorder struct {
	mu     sync.Mutex
	series map[string]*Series
}

// AppenderV2 gives an appender whose samples are kept when it commits.
func (r *Recorder) AppenderV2(context.Context) storage.AppenderV2 { return &recording{recorder: r} }

// Series gives all that was committed, sorted by labels, samples by time.
func (r *Recorder) Series() []Series {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]Series, 0, len(r.series))
	for _, s := range r.series {
		c := Series{Labels: s.Labels, Samples: slices.Clone(s.Samples)}
		slices.SortStableFunc(c.Samples, func(a, b Sample) int { return int(a.T - b.T) })
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b Series) int { return labels.Compare(a.Labels, b.Labels) })
	return all
}

type recording struct {
	storage.AppenderTransaction

	recorder *Recorder
	points   []point
}

//nolint:revive // the signature is that of storage.AppenderV2
func (r *recording) Append(_ storage.SeriesRef, ls labels.Labels, st, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram, _ storage.AppendV2Options) (storage.SeriesRef, error) {
	s := Sample{ST: st, T: t, V: v}
	if h != nil {
		s.H = h.Copy()
	}
	if fh != nil {
		s.FH = fh.Copy()
	}
	r.points = append(r.points, point{ls, s})
	return 0, nil
}

func (r *recording) Commit() error {
	r.recorder.mu.Lock()
	defer r.recorder.mu.Unlock()
	if r.recorder.series == nil {
		r.recorder.series = map[string]*Series{}
	}
	for _, p := range r.points {
		key := p.labels.String()
		s := r.recorder.series[key]
		if s == nil {
			s = &Series{Labels: p.labels}
			r.recorder.series[key] = s
		}
		s.Samples = append(s.Samples, p.Sample)
	}
	r.points = nil
	return nil
}

func (r *recording) Rollback() error {
	r.points = nil
	return nil
}

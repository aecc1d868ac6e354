package querytest

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/prometheus/prometheus/storage"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
)

// Storage is a storage.Storage for promqltest: what was appended is answered
// through blocks, bucket, two gateways, gRPC, fan-out and the deduplication of two
// identical replicas.
type Storage struct {
	storage.ChunkQueryable
	storage.Appendable

	t      testing.TB
	loaded blocktest.Recorder
	mu     sync.Mutex
	world  *world // nil: what was loaded is not in blocks yet
}

// NewStorage returns an empty storage, which ends with the test.
func NewStorage(t testing.TB) storage.Storage { return &Storage{t: t} }

// AppenderV2 gathers samples for the next blocks.
func (s *Storage) AppenderV2(ctx context.Context) storage.AppenderV2 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.world = nil
	return s.loaded.AppenderV2(ctx)
}

// Querier builds the blocks of what was loaded, if that has not been done, and answers from them.
func (s *Storage) Querier(mint, maxt int64) (storage.Querier, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.world == nil {
		s.world = s.build()
	}
	return s.world.engine.Queryable(params()).Querier(mint, maxt)
}

// build makes blocks for two replicas of what was loaded, two of each when it
// spans a multiple of two hours, and deals them out so that each gateway has a
// part of either replica.
func (s *Storage) build() *world {
	series := s.loaded.Series()
	bkt := bucket.NewMemory()
	border := int64(math.MaxInt64)
	if len(series) > 0 {
		border = middle(series)
		upload(s.t, bkt, series, []string{"a", "b"}, border)
	}
	return open(s.t, bkt, 2, func(e *block.Entry) int {
		if (e.Meta.MinTime < border) == (e.Meta.Thanos.Labels[ReplicaLabel] == "a") {
			return 0
		}
		return 1
	})
}

// middle is the multiple of two hours next to the middle of all samples, where a
// Prometheus would end a block. It may lie outside: a cut elsewhere would lose
// what a histogram knows of the one before it.
func middle(series []blocktest.Series) int64 {
	const blockRange = 2 * 3_600_000
	first, last := int64(math.MaxInt64), int64(math.MinInt64)
	for _, s := range series {
		first, last = min(first, s.Samples[0].T), max(last, s.Samples[len(s.Samples)-1].T)
	}
	return ((first+last)/2/blockRange + 1) * blockRange
}

// StartTime is not asked for.
func (s *Storage) StartTime() (int64, error) {
	return 0, errors.New("a querytest.Storage has no start time")
}

// Close does nothing: servers and gateways end with the test.
func (s *Storage) Close() error { return nil }

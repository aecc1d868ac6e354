package storeapitest

import (
	"testing"

	"github.com/prometheus/common/promslog"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/varve-io/varve/pkg/block/blocktest"
)

// Queryable is the fixture in a real block, as Prometheus' own storage: what to
// put behind remote read, for one. It ends with the test and does not add the
// external labels.
func (f Fixture) Queryable(t testing.TB) storage.SampleAndChunkQueryable {
	t.Helper()
	dir, _ := blocktest.Dir(t, f.Block())
	b, err := tsdb.OpenBlock(promslog.NewNopLogger(), dir, nil, nil)
	if err != nil {
		t.Fatalf("open block: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close block: %v", err)
		}
	})
	return blockQueryable{b}
}

type blockQueryable struct{ block *tsdb.Block }

func (q blockQueryable) Querier(mint, maxt int64) (storage.Querier, error) {
	return tsdb.NewBlockQuerier(q.block, mint, maxt)
}

func (q blockQueryable) ChunkQuerier(mint, maxt int64) (storage.ChunkQuerier, error) {
	return tsdb.NewBlockChunkQuerier(q.block, mint, maxt)
}

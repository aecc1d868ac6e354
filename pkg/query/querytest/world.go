package querytest

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/query"
	"github.com/varve-io/varve/pkg/store"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// ReplicaLabel is the external label by which replicas differ.
const ReplicaLabel = "prometheus_replica"

// world is a bucket with its store gateways and the fan-out over them.
type world struct {
	engine *query.Engine
	fanout *query.Fanout
}

// members are the gateways, all of them up.
type members []query.Endpoint

func (m members) Members() ([]query.Endpoint, []query.Missing) { return m, nil }

// peer is a Store over gRPC whose connection ends with the test.
type peer struct{ storeapi.Store }

func (peer) Close() error { return nil }

// open starts as many gateways as stores says over one bucket; a block belongs
// to the gateway that place names for it.
func open(t testing.TB, bkt *bucket.Memory, stores int, place func(*block.Entry) int) *world {
	t.Helper()
	reg, log := prometheus.NewRegistry(), promslog.NewNopLogger()
	set, err := fetcher.New(bkt, fetcher.Defaults(), log, reg).Fetch(t.Context())
	if err != nil {
		t.Fatalf("fetch blocks: %v", err)
	}
	var ups members
	for i := range stores {
		part := &block.Set{Blocks: slices.DeleteFunc(slices.Clone(set.Blocks), func(e *block.Entry) bool { return place(e) != i })}
		s := storeapitest.OverGRPC(t, gateway(t, bkt, part))
		info, err := s.Info(t.Context())
		if err != nil {
			t.Fatalf("info of gateway %d: %v", i, err)
		}
		ups = append(ups, query.Endpoint{Address: "gateway", Info: info, Peer: peer{s}})
	}
	fanout := query.NewFanout(ups, query.DefaultFanoutOptions(), reg)
	return &world{fanout: fanout, engine: query.NewEngine(fanout, query.Defaults(), log, reg)}
}

func gateway(t testing.TB, bkt bucket.Reader, set *block.Set) *store.Gateway {
	t.Helper()
	o := store.Defaults()
	o.Dir = t.TempDir()
	o.IgnoreDeletionMarksDelay = math.MaxInt64
	g, err := store.New(bkt, o, promslog.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open gateway: %v", err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Errorf("close gateway: %v", err)
		}
	})
	if err := g.Sync(context.WithoutCancel(t.Context()), set); err != nil {
		t.Fatalf("sync gateway: %v", err)
	}
	return g
}

// upload writes series as blocks, cut at the borders, once for each replica.
func upload(t testing.TB, bkt *bucket.Memory, series []blocktest.Series, replicas []string, borders ...int64) {
	t.Helper()
	borders = append(append([]int64{math.MinInt64}, borders...), math.MaxInt64)
	for i, from := range borders[:len(borders)-1] {
		part := cut(series, from, borders[i+1])
		if len(part) == 0 {
			continue
		}
		dir, meta := blocktest.Dir(t, blocktest.Spec{Series: part, Chunks: blocktest.WithStart})
		for j, replica := range replicas {
			copied := *meta
			copied.ULID[15] += byte(j)
			copied.Compaction.Sources = []ulid.ULID{copied.ULID}
			copied.Thanos.UploadTime = time.UnixMilli(copied.MaxTime).UTC()
			copied.Thanos.Labels = map[string]string{ReplicaLabel: replica}
			if err := blockio.Upload(t.Context(), bkt, dir, &copied); err != nil {
				t.Fatalf("upload block of replica %s: %v", replica, err)
			}
		}
	}
}

// cut keeps the samples of [from, to) and drops series that have none.
func cut(in []blocktest.Series, from, to int64) (out []blocktest.Series) {
	for _, s := range in {
		s.Samples = slices.DeleteFunc(slices.Clone(s.Samples), func(p blocktest.Sample) bool { return p.T < from || p.T >= to })
		if len(s.Samples) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// params are those of a query that wants everything, deduplicated.
func params() query.Params {
	return query.Params{Dedup: true, ReplicaLabels: []string{ReplicaLabel}}
}

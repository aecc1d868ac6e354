package store

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/storeapi"
)

// farIndexes is a bucket that takes a second for each read of an index, and knows how many
// bytes of them were read at the same time. Some reads are made twice, for they are late.
type farIndexes struct {
	bucket.Reader
	mu          sync.Mutex
	reads       map[string]int // how many there are of the same bytes
	bytes, most int64
}

func (b *farIndexes) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/"+block.IndexFile) {
		b.begin(fmt.Sprint(name, off), length)
		defer b.end(fmt.Sprint(name, off), length)
		select {
		case <-time.After(time.Second): // when nobody can do more
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return b.Reader.GetRange(ctx, name, off, length)
}

func (b *farIndexes) begin(read string, length int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reads[read]++; b.reads[read] == 1 {
		b.bytes += length
		b.most = max(b.most, b.bytes)
	}
}

func (b *farIndexes) end(read string, length int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.reads[read]--; b.reads[read] == 0 {
		b.bytes -= length
	}
}

// atOnce returns the most bytes that were read at the same time since the last call.
func (b *farIndexes) atOnce() (n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n, b.most = b.most, b.bytes
	return n
}

// TestPostingsOfManyBlocksStayWithinTheBudget asks blocks for few series, which are found by
// long lists alone.
func TestPostingsOfManyBlocksStayWithinTheBudget(t *testing.T) {
	const blocks, values, kept = 16, 10_000, 3
	s := blocktest.Spec{Labels: map[string]string{"cluster": "eu"}, MinTime: 0, MaxTime: hour}
	for i := range values {
		job := fmt.Sprintf("drop-%05d", i)
		if i < kept {
			job = fmt.Sprintf("keep-%d", i)
		}
		pairs := []string{"__name__", "up", "job", job}
		for n := range 10 { // or entries would be read rather than lists
			pairs = append(pairs, fmt.Sprint("more", n), "x")
		}
		s.Series = append(s.Series, blocktest.Floats(labels.FromStrings(pairs...), 0, 15_000, 1))
	}
	dir, meta := blocktest.Dir(t, s)
	bkt := bucket.NewMemory()
	var entries []*block.Entry
	for i := range blocks { // replicas
		copied := *meta
		copied.ULID = ulid.MustNew(uint64(i+1), nil)
		copied.Thanos.Labels = map[string]string{"cluster": "eu", "replica": fmt.Sprintf("%02d", i)}
		entries = append(entries, upload(t, bkt, dir, &copied))
	}
	synctest.Test(t, func(t *testing.T) {
		far := &farIndexes{Reader: bkt, reads: map[string]int{}}
		g := open(t, far, func(o *Options) { o.RequestBytes, o.MemoryBytes, o.Cache.MemoryBytes = 16<<20, 64<<20, 0 }, entries...)
		mustAsk(t, g, selectJobs(labels.MustNewMatcher(labels.MatchEqual, "job", "keep-0"))) // what later requests need as well is there
		far.atOnce()
		got := mustAsk(t, g, selectJobs(
			labels.MustNewMatcher(labels.MatchRegexp, "job", ".+-.+"), labels.MustNewMatcher(labels.MatchNotRegexp, "job", "drop.+")))
		if n := strings.Count(got, "\n"); n != blocks*kept {
			t.Errorf("got %d series, want %d", n, blocks*kept)
		}
		// Each block needs 3 MiB meanwhile, of which some 160 kB are read; half of the budget is 8 MiB.
		if n := far.atOnce(); n < 300_000 || n > 600_000 {
			t.Errorf("%d bytes of lists were read at once, want those of two or three blocks", n)
		}
	})
}

func selectJobs(matchers ...*labels.Matcher) *storeapi.Request {
	return &storeapi.Request{MaxTime: hour, Matchers: matchers}
}

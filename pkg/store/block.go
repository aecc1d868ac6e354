package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/pagecache"
)

// retryIndex is how long a corrupt index is left alone before it is fetched again.
const retryIndex = time.Minute

// openBlock is a block that is answered for.
type openBlock struct {
	meta    *block.Meta
	labels  labels.Labels
	objects map[string]int64
	path    string // of the local copy of the index

	// Guarded by Gateway.mu.
	users   int
	retired bool // not in the current set any more

	turn chan struct{} // holds one token, which guards what follows
	// index is nil until a request needs it.
	index   *blockindex.Index
	corrupt error // what was wrong with the index at triedAt
	triedAt time.Time
}

func newOpenBlock(e *block.Entry, dir string) *openBlock {
	b := &openBlock{
		meta:    e.Meta,
		labels:  e.Meta.Labels(),
		objects: e.Objects,
		path:    filepath.Join(dir, e.Meta.ULID.String()),
		turn:    make(chan struct{}, 1),
	}
	b.turn <- struct{}{}
	return b
}

// openIndex returns the block's index, fetching it on first use.
func (b *openBlock) openIndex(ctx context.Context, bkt bucket.Reader, m *metrics) (*blockindex.Index, error) {
	select {
	case <-b.turn:
		defer func() { b.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, fmt.Errorf("open index of block %s: %w", b.meta.ULID, ctx.Err())
	}
	if b.index != nil {
		return b.index, nil
	}
	if b.corrupt != nil && time.Since(b.triedAt) < retryIndex {
		return nil, b.corrupt
	}
	index, err := b.fetchIndex(ctx, bkt, m)
	if err != nil {
		m.indexFailures.Inc()
		err = fmt.Errorf("open index of block %s: %w", b.meta.ULID, err)
		if errors.Is(err, blockindex.ErrCorrupt) {
			b.corrupt, b.triedAt = err, time.Now()
		}
		return nil, err
	}
	b.index, b.corrupt = index, nil
	return index, nil
}

// fetchIndex opens the local copy of the index, or makes one.
func (b *openBlock) fetchIndex(ctx context.Context, bkt bucket.Reader, m *metrics) (*blockindex.Index, error) {
	size, ok := b.objects[block.IndexFile]
	if !ok {
		return nil, fmt.Errorf("%w: the listing has no such object", blockindex.ErrCorrupt)
	}
	if info, err := os.Stat(b.path); err == nil && info.Size() == size {
		index, err := blockindex.OpenFile(ctx, b.path)
		if !errors.Is(err, blockindex.ErrCorrupt) {
			return index, err
		}
	}
	m.indexFetches.Inc()
	if err := blockindex.Fetch(ctx, bkt, block.IndexName(b.meta.ULID), size, b.path); err != nil {
		return nil, err
	}
	return blockindex.OpenFile(ctx, b.path)
}

// close releases the index. No request may use the block any more.
func (b *openBlock) close() error {
	if b.index == nil {
		return nil
	}
	return b.index.Close()
}

// segment names the n-th chunk segment, counted from zero as references do.
func (b *openBlock) segment(n int) (pagecache.Object, error) {
	size, ok := b.objects[block.SegmentFile(n+1)]
	if !ok {
		return pagecache.Object{}, fmt.Errorf("%w: a chunk is in segment %d, which the block %s has not", errCorruptChunk, n+1, b.meta.ULID)
	}
	return pagecache.Object{Name: block.SegmentName(b.meta.ULID, n+1), Size: size}, nil
}

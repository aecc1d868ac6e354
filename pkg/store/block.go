package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/pagecache"
)

// retryIndex is how long a corrupt index is left alone before it is looked at again.
const retryIndex = time.Minute

// openBlock is a block that is answered for.
type openBlock struct {
	meta    *block.Meta
	labels  labels.Labels // external ones of its series
	objects map[string]int64
	etags   map[string]string
	version string // of the objects

	turn chan struct{} // holds one token, which guards what follows
	// index is nil until a request needs it.
	index   *blockindex.Index
	corrupt error // what was wrong with the index at triedAt
	triedAt time.Time
}

func newOpenBlock(e *block.Entry) *openBlock {
	b := &openBlock{
		meta:    e.Meta,
		labels:  e.Meta.SeriesLabels(),
		objects: e.Objects,
		etags:   e.ETags,
		version: e.Version,
		turn:    make(chan struct{}, 1),
	}
	b.turn <- struct{}{}
	return b
}

// openIndex returns the block's index, opening it on first use.
func (b *openBlock) openIndex(ctx context.Context, g *Gateway) (*blockindex.Index, error) {
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
	src, err := g.indexSource(b)
	var index *blockindex.Index
	if err == nil {
		index, err = g.indexes.Open(unlimited(ctx), b.directoryName(), src, b.meta.Stats.NumChunks)
	}
	if err != nil {
		g.metrics.indexFailures.Inc()
		err = fmt.Errorf("open index of block %s: %w", b.meta.ULID, err)
		if errors.Is(err, blockindex.ErrCorrupt) {
			b.corrupt, b.triedAt = err, time.Now()
		}
		return nil, err
	}
	b.index, b.corrupt = index, nil
	return index, nil
}

// directoryName names the page directory of the block's index.
func (b *openBlock) directoryName() string {
	if b.version == "" {
		return b.meta.ULID.String()
	}
	return b.meta.ULID.String() + "." + b.version
}

// segment names the n-th chunk segment, counted from zero as references do.
func (b *openBlock) segment(n int) (pagecache.Object, error) {
	object, ok := b.object(block.SegmentFile(n + 1))
	if !ok {
		return object, fmt.Errorf("%w: a chunk is in segment %d, which the block %s has not", errCorruptChunk, n+1, b.meta.ULID)
	}
	return object, nil
}

// object is one of the block's, if the listing has it.
func (b *openBlock) object(rel string) (pagecache.Object, bool) {
	size, ok := b.objects[rel]
	return pagecache.Object{Name: block.ObjectName(b.meta.ULID, rel), Size: size, Version: versionText(b.etags[rel], b.version)}, ok
}

package store

import (
	"context"
	"fmt"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/pagecache"
)

// indexSource is an index in the bucket, read through the cache.
type indexSource struct {
	g      *Gateway
	object pagecache.Object
}

// indexSource returns where a block's index is.
func (g *Gateway) indexSource(b *openBlock) (blockindex.Source, error) {
	object, ok := b.object(block.IndexFile)
	if !ok {
		return nil, fmt.Errorf("%w: the listing has no such object", blockindex.ErrCorrupt)
	}
	return &indexSource{g, object}, nil
}

// Size is what the listing says.
func (s *indexSource) Size() int64 { return s.object.Size }

// Read fills ranges with few requests side by side.
func (s *indexSource) Read(ctx context.Context, ranges ...blockindex.Range) error {
	var size int64
	for _, r := range ranges {
		size += int64(len(r.Into))
	}
	if err := readIndex(ctx, size); err != nil {
		return err
	}
	if len(ranges) == 1 {
		return s.g.cache.Read(ctx, s.object, ranges[0].Into, ranges[0].Off)
	}
	wanted := make([]pagecache.Range, len(ranges))
	for i, r := range ranges {
		wanted[i] = pagecache.Range{Object: s.object, Off: r.Off, Len: int64(len(r.Into))}
	}
	lease, err := s.g.cache.ReadRanges(ctx, wanted)
	if err != nil {
		return err
	}
	defer lease.Release()
	for i, r := range ranges {
		copy(r.Into, wanted[i].Bytes)
	}
	return nil
}

// Forget drops bytes from the cache.
func (s *indexSource) Forget(off, n int64) { s.g.cache.Forget(s.object, off, n) }

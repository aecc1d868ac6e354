package blockio

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// Remote is a complete block whose files are read where they are.
type Remote struct {
	Index *Object
	// Segments are the chunk segments in the order in which references number them.
	Segments []*Object
}

// Open looks at the files of a complete block. A file that the block's meta.json
// lists and the bucket does not have in that size is block.ErrCorrupt. The caller
// closes the block when nothing reads it any more.
func Open(ctx context.Context, bkt bucket.Reader, meta *block.Meta, index, segments *ReadAhead) (*Remote, error) {
	sizes, err := Objects(ctx, bkt, meta.ULID)
	if err != nil {
		return nil, fmt.Errorf("open block %s: %w", meta.ULID, err)
	}
	if err := checkFiles(meta, sizes); err != nil {
		return nil, fmt.Errorf("open block %s: %w", meta.ULID, err)
	}
	r := &Remote{}
	for _, rel := range slices.Sorted(maps.Keys(sizes)) {
		name, size := block.ObjectName(meta.ULID, rel), sizes[rel]
		switch {
		case rel == block.IndexFile:
			r.Index = index.object(bkt, name, size)
		case isData(rel):
			r.Segments = append(r.Segments, segments.object(bkt, name, size))
		}
	}
	return r, nil
}

// Again is the same block for another goroutine, which closes it, too.
func (r *Remote) Again() *Remote {
	out := &Remote{Index: r.Index.again()}
	for _, s := range r.Segments {
		out.Segments = append(out.Segments, s.again())
	}
	return out
}

// Close ends all reading ahead.
func (r *Remote) Close() {
	r.Index.Close()
	for _, s := range r.Segments {
		s.Close()
	}
}

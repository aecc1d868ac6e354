package compact

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// corruptError says that a block cannot be read; only that block is set aside.
type corruptError struct {
	id  ulid.ULID
	err error
}

func (e *corruptError) Error() string { return fmt.Sprintf("read block %s: %v", e.id, e.err) }
func (e *corruptError) Unwrap() error { return e.err }

// source is a downloaded block, open for reading.
type source struct {
	meta   *block.Meta
	index  *index.Reader
	chunks *chunks.Reader
	pool   chunkenc.Pool // of the reader
}

// openSource opens the files of a block below dir. The caller closes it when
// nothing uses its series any more.
func openSource(dir string, meta *block.Meta) (*source, error) {
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		return nil, &corruptError{meta.ULID, fmt.Errorf("open index: %w", err)}
	}
	pool := aggrchunk.NewPool()
	cr, err := chunks.NewDirReader(filepath.Join(dir, "chunks"), pool)
	if err != nil {
		return nil, errors.Join(&corruptError{meta.ULID, fmt.Errorf("open chunks: %w", err)}, ir.Close())
	}
	return &source{meta: meta, index: ir, chunks: cr, pool: pool}, nil
}

// Close releases the files.
func (s *source) Close() error { return errors.Join(s.index.Close(), s.chunks.Close()) }

// closeAll closes all sources.
func closeAll(sources []*source) error {
	var errs []error
	for _, s := range sources {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// set iterates all series of the block with all their chunks. Their replica is
// what the block's external labels say under the replica labels. Chunks alias the
// mapped files, so they are valid until Close.
func (s *source) set(ctx context.Context, replicaLabels []string) series.Set {
	name, value := index.AllPostingsKey()
	p, err := s.index.Postings(ctx, name, value)
	if err != nil {
		return series.ErrSet(&corruptError{s.meta.ULID, fmt.Errorf("read postings: %w", err)})
	}
	_, replica := series.Final(labels.EmptyLabels(), s.meta.Labels(), replicaLabels)
	return &sourceSet{source: s, postings: p, replica: replica}
}

type sourceSet struct {
	source   *source
	postings index.Postings
	replica  string
	builder  labels.ScratchBuilder
	metas    []chunks.Meta
	cur      *series.Series
	err      error
}

func (s *sourceSet) Next() bool {
	if s.err != nil {
		return false
	}
	for s.postings.Next() {
		cur, err := s.load()
		if err != nil {
			s.err = &corruptError{s.source.meta.ULID, err}
			return false
		}
		if len(cur.Chunks) > 0 {
			s.cur = cur
			return true
		}
	}
	if err := s.postings.Err(); err != nil {
		s.err = &corruptError{s.source.meta.ULID, fmt.Errorf("read postings: %w", err)}
	}
	return false
}

// load reads the series at the current posting.
func (s *sourceSet) load() (*series.Series, error) {
	ref := s.postings.At()
	s.metas = s.metas[:0]
	if err := s.source.index.Series(ref, &s.builder, &s.metas); err != nil {
		return nil, fmt.Errorf("series %d: %w", ref, err)
	}
	out := &series.Series{
		Labels:  s.builder.Labels(),
		Replica: s.replica,
		Chunks:  make([]series.Chunk, 0, len(s.metas)),
	}
	for _, m := range s.metas {
		chk, iterable, err := s.source.chunks.ChunkOrIterable(m)
		if err != nil {
			return nil, fmt.Errorf("chunk at %d of %s: %w", m.MinTime, out.Labels, err)
		}
		if iterable != nil {
			return nil, fmt.Errorf("chunk at %d of %s is not a single chunk", m.MinTime, out.Labels)
		}
		out.Chunks = append(out.Chunks, series.Chunk{
			MinTime:    m.MinTime,
			MaxTime:    m.MaxTime,
			Resolution: int64(s.source.meta.Resolution()),
			Encoding:   chk.Encoding(),
			Data:       chk.Bytes(),
		})
		if err := s.source.pool.Put(chk); err != nil { // its bytes are the file's
			return nil, err
		}
	}
	return out, nil
}

func (s *sourceSet) At() *series.Series                { return s.cur }
func (s *sourceSet) Err() error                        { return s.err }
func (s *sourceSet) Warnings() annotations.Annotations { return nil }

// openSources opens the blocks that lie below dir, each under its ULID.
func openSources(dir string, metas []*block.Meta) ([]*source, error) {
	var sources []*source
	for _, m := range metas {
		s, err := openSource(filepath.Join(dir, m.ULID.String()), m)
		if err != nil {
			return nil, errors.Join(err, closeAll(sources))
		}
		sources = append(sources, s)
	}
	return sources, nil
}

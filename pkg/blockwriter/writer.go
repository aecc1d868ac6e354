// Package blockwriter writes a block's index and chunk segments in the format
// of Prometheus' TSDB, as streams.
//
// It stands on floor 4. Series come in label order, each with all its chunks;
// the bytes of a chunk are written as they are, whatever their encoding. The
// same series give the same bytes. Files are written from front to end and
// nothing is read back, so they may be objects of a bucket as well as local
// files; memory is bounded by the symbols and by what Options allow.
//
// The index is, byte for byte, that of Prometheus' own writer. A chunk's reference
// may be lower than that of the chunk before: readers do not mind (docs/design/0016).
package blockwriter

import (
	"errors"
	"fmt"
	"math"

	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// ErrTooLarge says that a block would exceed what the format can express; write
// its series into several blocks.
var ErrTooLarge = errors.New("too large for one block")

// Options are the settings of a writer; none changes the bytes of an index.
type Options struct {
	// SegmentSize is how many bytes of chunks go into one file; a chunk that is larger gets one of its own.
	SegmentSize int64
	// Memory is how many bytes the postings may take while they are gathered and
	// while they are written. Symbols (their bytes and 20 each) and labels (20 bytes each) come on top.
	Memory int64
	// TempDir is for postings beyond Memory, about 15 bytes a series; empty means the system's.
	TempDir string
}

// Defaults returns segments of the size that Prometheus writes and a moderate need of memory.
func Defaults() Options {
	return Options{SegmentSize: chunks.DefaultChunkSegmentSize, Memory: 64 << 20}
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	if o.SegmentSize < 1 || o.SegmentSize > math.MaxUint32 {
		return fmt.Errorf("segment size %d: it has to be positive and to fit 32 bits", o.SegmentSize)
	}
	if o.Memory < 0 || o.Memory > 8<<30 {
		return fmt.Errorf("memory %d: it has to be between 0 and 8 GiB", o.Memory)
	}
	return nil
}

// Result describes a block that was written completely.
type Result struct {
	Stats      block.Stats
	IndexStats block.IndexStats
	// MinTime and MaxTime are the times of the first and the last sample, both inclusive.
	MinTime, MaxTime int64
}

// Writer writes one block. It is used by one goroutine.
type Writer struct {
	index    *indexWriter
	segments segments
	result   Result
	metas    []chunkMeta
	err      error // the first one; nothing can be added after it
}

// New starts a block of series whose labels consist of the symbols; strings
// that no series uses are allowed. The caller calls Close, or Abort when it gives up.
func New(files Files, o Options, symbols *Symbols) (*Writer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	f, err := files.Create(block.IndexFile)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", block.IndexFile, err)
	}
	return &Writer{
		index:    newIndexWriter(f, symbols, o),
		segments: segments{files: files, limit: o.SegmentSize},
		result:   Result{MinTime: math.MaxInt64, MaxTime: math.MinInt64},
	}, nil
}

// AddSeries writes the series, whose labels must be greater than those of the
// one before and whose chunks must be sorted and free of overlaps. After an
// error the block can only be aborted.
func (w *Writer) AddSeries(s *series.Series) error {
	if w.err == nil {
		w.err = w.add(s)
	}
	return w.err
}

func (w *Writer) add(s *series.Series) error {
	w.metas = w.metas[:0]
	for _, c := range s.Chunks {
		samples, err := c.NumSamples()
		if err != nil {
			return fmt.Errorf("chunk at %d of %s: %w", c.MinTime, s.Labels, err)
		}
		ref, err := w.segments.add(c)
		if err != nil {
			return fmt.Errorf("write chunk at %d of %s: %w", c.MinTime, s.Labels, err)
		}
		w.metas = append(w.metas, chunkMeta{c.MinTime, c.MaxTime, ref})
		w.count(c, samples)
	}
	if err := w.index.add(s.Labels, w.metas); err != nil {
		return fmt.Errorf("index series %s: %w", s.Labels, err)
	}
	w.result.Stats.NumSeries++
	return nil
}

func (w *Writer) count(c series.Chunk, samples int) {
	r := &w.result
	r.MinTime = min(r.MinTime, c.MinTime)
	r.MaxTime = max(r.MaxTime, c.MaxTime)
	r.Stats.NumChunks++
	r.Stats.NumSamples += uint64(samples)
	switch c.Encoding {
	case chunkenc.EncXOR, chunkenc.EncXOR2:
		r.Stats.NumFloatSamples += uint64(samples)
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		r.Stats.NumHistogramSamples += uint64(samples)
	}
	r.IndexStats.ChunkMaxSize = max(r.IndexStats.ChunkMaxSize, recordSize(len(c.Data)))
}

// Stats counts what was written so far.
func (w *Writer) Stats() block.Stats { return w.result.Stats }

// Close completes all files. A writer without series leaves an empty block.
func (w *Writer) Close() (Result, error) {
	if w.err != nil {
		w.Abort()
		return Result{}, w.err
	}
	var g errgroup.Group // what is far away takes its time to complete a file
	g.Go(w.segments.close)
	g.Go(w.index.close)
	if err := g.Wait(); err != nil {
		return Result{}, err
	}
	w.result.IndexStats.SeriesMaxSize = w.index.largest
	return w.result, nil
}

// Abort gives up the files that are not complete; the others are the caller's.
func (w *Writer) Abort() {
	w.segments.abort()
	w.index.abort()
}

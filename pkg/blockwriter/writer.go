// Package blockwriter writes a block's index and chunk segments in the format
// of Prometheus' TSDB.
//
// It stands on floor 4. Series come in label order, each with all its chunks;
// the bytes of a chunk are written as they are, whatever their encoding. The
// same series give the same bytes. For now the files are written to a local
// directory by Prometheus' own index and segment writers.
package blockwriter

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/series"
)

// Result describes a block that was written completely.
type Result struct {
	Stats      block.Stats
	IndexStats block.IndexStats
	// MinTime and MaxTime are the times of the first and the last sample, both inclusive.
	MinTime, MaxTime int64
}

// Writer writes one block into a directory. It is used by one goroutine.
type Writer struct {
	index  *index.Writer
	chunks *chunks.Writer
	result Result
	ref    storage.SeriesRef
	metas  []chunks.Meta
}

// Create starts a block in dir, which must exist. Symbols are the strings of all
// label names and values to come, each iterator sorted; strings that no series
// uses are allowed. The caller calls Close, or Abort when it gives up.
func Create(ctx context.Context, dir string, symbols ...index.StringIter) (*Writer, error) {
	iw, err := index.NewWriter(ctx, filepath.Join(dir, "index"))
	if err != nil {
		return nil, fmt.Errorf("create index in %s: %w", dir, err)
	}
	if err := addSymbols(iw, symbols); err != nil {
		return nil, errors.Join(fmt.Errorf("write symbols of %s: %w", dir, err), iw.Close())
	}
	cw, err := chunks.NewWriter(filepath.Join(dir, "chunks"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create chunks in %s: %w", dir, err), iw.Close())
	}
	return &Writer{
		index:  iw,
		chunks: cw,
		result: Result{MinTime: math.MaxInt64, MaxTime: math.MinInt64},
	}, nil
}

// AddSeries writes the series, whose labels must be greater than those of the
// one before and whose chunks must be sorted and free of overlaps.
func (w *Writer) AddSeries(s *series.Series) error {
	w.metas = w.metas[:0]
	for _, c := range s.Chunks {
		chk, err := c.Open()
		if err != nil {
			return fmt.Errorf("open chunk at %d of %s: %w", c.MinTime, s.Labels, err)
		}
		w.metas = append(w.metas, chunks.Meta{Chunk: chk, MinTime: c.MinTime, MaxTime: c.MaxTime})
		w.count(c, chk.NumSamples())
	}
	if err := w.chunks.WriteChunks(w.metas...); err != nil {
		return fmt.Errorf("write chunks of %s: %w", s.Labels, err)
	}
	if err := w.index.AddSeries(w.ref, s.Labels, w.metas...); err != nil {
		return fmt.Errorf("index series %s: %w", s.Labels, err)
	}
	w.ref++
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

// recordSize is the size of a chunk in a segment: length, encoding, payload, checksum.
func recordSize(payload int) int64 {
	var buf [binary.MaxVarintLen64]byte
	return int64(binary.PutUvarint(buf[:], uint64(payload)) + 1 + payload + 4)
}

// Close completes both files. A writer without series leaves an empty block.
func (w *Writer) Close() (Result, error) {
	if err := errors.Join(w.chunks.Close(), w.index.Close()); err != nil {
		return Result{}, fmt.Errorf("complete block: %w", err)
	}
	return w.result, nil
}

// Abort closes the files and removes what was written from dir.
func (w *Writer) Abort(dir string) error {
	// Closing an index writer that has no series reports its unfinished state; the files go anyway.
	_, _ = w.Close()
	return errors.Join(os.RemoveAll(filepath.Join(dir, "index")), os.RemoveAll(filepath.Join(dir, "chunks")))
}

// addSymbols writes the sorted union of the iterators.
func addSymbols(iw *index.Writer, iters []index.StringIter) error {
	heads := make([]string, 0, len(iters))
	live := make([]index.StringIter, 0, len(iters))
	for _, it := range iters {
		if it.Next() {
			heads, live = append(heads, it.At()), append(live, it)
		} else if err := it.Err(); err != nil {
			return err
		}
	}
	for len(live) > 0 {
		least := heads[0]
		for _, h := range heads[1:] {
			least = min(least, h)
		}
		if err := iw.AddSymbol(least); err != nil {
			return fmt.Errorf("symbol %q: %w", least, err)
		}
		for i := 0; i < len(live); {
			if heads[i] != least {
				i++
				continue
			}
			if live[i].Next() {
				heads[i] = live[i].At()
				i++
				continue
			}
			if err := live[i].Err(); err != nil {
				return err
			}
			heads, live = append(heads[:i], heads[i+1:]...), append(live[:i], live[i+1:]...)
		}
	}
	return nil
}

// Package downsample turns series into series of a coarser resolution: raw
// samples into aggregates of five minutes, those into aggregates of an hour.
//
// It stands on floor 3: a function of its arguments, without I/O and clock.
// Every aggregate is exact (docs/format/aggregate-chunk.md): counts and sums
// are conserved, minima and maxima are those of the samples, and the counter
// keeps its first and last true values, so that a reset between two chunks is
// still seen. Windows and chunk sizes follow Thanos' downsampling, so that
// either side reads the other's blocks. The same samples give the same bytes,
// however they are cut into chunks, and however many of them there are, no more
// than one chunk of samples and one of aggregates is held beside the result.
package downsample

import (
	"context"
	"fmt"

	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// Writer takes the downsampled series in order. A series stays valid only during the call, the bytes of its chunks for good.
type Writer interface {
	AddSeries(s *series.Series) error
}

// DecodedWriter is a Writer that can use the samples of a series, too. These stay valid only during the call.
type DecodedWriter interface {
	AddDecoded(s *series.Series, d Decoded) error
}

// Decoded is what all chunks of a series hold. Who has it need not decode them; the zero value says that nobody did.
type Decoded struct {
	floats []chunkcodec.Samples // of raw chunks
	rows   []floatRows          // of aggregate chunks, of each its own
}

// Floats are the samples of raw chunks of floats, in rising order of time.
func Floats(columns []chunkcodec.Samples) Decoded { return Decoded{floats: columns} }

// Run downsamples every series of set to the resolution to and hands those that
// keep a sample to w. The chunks of each series must not overlap.
func Run(ctx context.Context, set series.Set, w Writer, to block.Resolution) error {
	d := New(to, w)
	for set.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := d.AddDecoded(set.At(), Decoded{}); err != nil {
			return err
		}
	}
	return set.Err()
}

// Downsampler downsamples one series after another.
type Downsampler struct {
	downsampler

	w Writer
}

// New makes a Downsampler that hands to w what keeps a sample.
func New(to block.Resolution, w Writer) *Downsampler {
	d := &Downsampler{downsampler{to: to}, w}
	_, d.keep = w.(DecodedWriter)
	return d
}

// AddDecoded downsamples a series, whose chunks must not overlap.
func (d *Downsampler) AddDecoded(s *series.Series, known Decoded) error {
	if err := d.series(s.Chunks, known); err != nil {
		return fmt.Errorf("downsample series %s: %w", s.Labels, err)
	}
	if len(d.out) == 0 {
		return nil
	}
	if err := d.write(&series.Series{Labels: s.Labels, Chunks: d.out}); err != nil {
		return fmt.Errorf("write downsampled series %s: %w", s.Labels, err)
	}
	return nil
}

func (d *Downsampler) write(s *series.Series) error {
	w, ok := d.w.(DecodedWriter)
	switch {
	case !ok:
		return d.w.AddSeries(s)
	case len(d.kept) < len(s.Chunks):
		return w.AddDecoded(s, Decoded{})
	}
	return w.AddDecoded(s, Decoded{rows: d.kept})
}

// Chunks downsamples the chunks of one series, which are sorted and do not
// overlap, to the resolution to. Raw samples become aggregates of any coarser
// resolution; aggregates become coarser aggregates. A raw chunk among
// aggregates is brought to their resolution first.
func Chunks(in []series.Chunk, to block.Resolution) ([]series.Chunk, error) {
	d := downsampler{to: to}
	if err := d.series(in, Decoded{}); err != nil {
		return nil, err
	}
	return d.out, nil
}

// downsampler works on one series after another and keeps its memory from one to the next.
type downsampler struct {
	to   block.Resolution
	out  []series.Chunk // of the current series
	keep bool           // the rows of these chunks, too
	kept []floatRows    // of each chunk, up to the first that is not of floats

	decoder    chunkcodec.Decoder
	in         chunkcodec.Samples                     // of one raw chunk
	columns    [aggrchunk.NumKinds]chunkcodec.Samples // of one aggregate chunk
	floats     floatBatch
	histograms histogramBatch
	encoder    encoder
}

// series leaves the downsampled form of the chunks in d.out.
func (d *downsampler) series(in []series.Chunk, known Decoded) error {
	clear(d.out) // the bytes belong to whoever had them
	d.out, d.kept = d.out[:0], d.kept[:0]
	from := block.Raw
	for _, c := range in {
		from = max(from, block.Resolution(c.Resolution))
	}
	if d.to <= from {
		return fmt.Errorf("cannot downsample from %s to %s", from, d.to)
	}
	for all := len(in); len(in) > 0; {
		r, err := nextRun(in)
		if err != nil {
			return err
		}
		if len(r.chunks) == all {
			r.known = known
		}
		in = in[len(r.chunks):]
		if from != block.Raw && (r.kind == rawFloats || r.kind == rawHistograms) {
			fine := downsampler{to: from}
			if err := fine.run(r); err != nil {
				return err
			}
			if r, err = nextRun(fine.out); err != nil {
				return err
			}
		}
		if err := d.run(r); err != nil {
			return err
		}
	}
	return nil
}

// run downsamples chunks that hold the same kind of samples.
func (d *downsampler) run(r run) error {
	switch r.kind {
	case rawFloats:
		return d.rawFloats(r)
	case rawHistograms:
		return d.rawHistograms(r)
	case coarseFloats:
		return d.coarseFloats(r)
	case coarseHistograms:
		return d.coarseHistograms(r)
	case nothing:
	}
	return nil
}

// kind is what the samples of a chunk are.
type kind int

const (
	nothing kind = iota // there are none
	rawFloats
	rawHistograms
	coarseFloats
	coarseHistograms
)

// look returns what the samples of a chunk are, and how many of them its header announces.
func look(c series.Chunk) (kind, int, error) {
	if c.Encoding != aggrchunk.Encoding {
		n := sampleCount(c)
		switch {
		case len(c.Data) >= 2 && n == 0:
			return nothing, 0, nil
		case isHistogram(c.Encoding):
			return rawHistograms, n, nil
		}
		return rawFloats, n, nil
	}
	subs, err := aggrchunk.Decode(c.Data)
	n := subs.NumSamples()
	switch {
	case err != nil:
		return nothing, 0, fmt.Errorf("chunk at %d: %w", c.MinTime, err)
	case subs.Kinds() == 0:
		return nothing, 0, nil
	case isHistogram(subs[aggrchunk.Sum].Encoding):
		return coarseHistograms, n, nil
	}
	return coarseFloats, n, nil
}

func isHistogram(enc chunkenc.Encoding) bool {
	switch enc {
	case chunkenc.EncHistogram, chunkenc.EncFloatHistogram, chunkenc.EncHistogramST, chunkenc.EncFloatHistogramST:
		return true
	case chunkenc.EncNone, chunkenc.EncXOR, chunkenc.EncXOR2:
	}
	return false
}

// run is a sequence of chunks that hold the same kind of samples, or none.
type run struct {
	chunks  []series.Chunk
	kind    kind
	samples int
	known   Decoded // what the chunks hold
}

// nextRun is the first run of a list of chunks.
func nextRun(in []series.Chunk) (run, error) {
	r := run{chunks: in}
	for i, c := range in {
		k, n, err := look(c)
		switch {
		case err != nil:
			return run{}, err
		case k == nothing:
			continue
		case r.kind == nothing:
			r.kind = k
		case r.kind != k:
			r.chunks = in[:i]
			return r, nil
		}
		r.samples += n
	}
	return r, nil
}

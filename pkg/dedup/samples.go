package dedup

import (
	"errors"
	"fmt"
	"math"

	"github.com/varve-io/varve/pkg/chunkcodec"
)

// Reader gives the samples of what Chunks makes, for those who would decode it at once. It keeps memory from one series
// to the next; it is not safe for concurrent use.
type Reader struct {
	opts   Options
	dedup  deduplicator
	memory chunkcodec.Decoder // of histograms
}

// NewReader makes a Reader.
func NewReader(o Options) *Reader { return &Reader{opts: o} }

// errDownsampled says that chunks hold aggregates.
var errDownsampled = errors.New("downsampled chunks are merged by Chunks alone")

// Append appends to dst what decoding the result of deduplication would give. All chunks are raw.
// Histograms stay valid until Append is called again. After an error dst is as it was.
func (r *Reader) Append(dst *chunkcodec.Samples, g *Group) error {
	base := dst.Len()
	err := r.append(dst, g)
	if err != nil {
		dst.Truncate(base)
		return fmt.Errorf("read %d replicas as one: %w", len(g.replicas), err)
	}
	return nil
}

func (r *Reader) append(dst *chunkcodec.Samples, g *Group) error {
	k := kinds(g.replicas)
	switch {
	case len(k) == 0:
		return nil
	case len(k) > 1 || k[0].aggregate:
		return errDownsampled
	}
	of := g.of(k[0], k)
	if !of.floats() { // what a histogram knows about the one before it is for the encoder to say
		return r.encoded(dst, g)
	}
	return r.floats(dst, &of, math.MinInt64, math.MaxInt64)
}

// floats appends the samples of a group without histograms from mint to maxt, both inclusive. There may be others beside them.
func (r *Reader) floats(dst *chunkcodec.Samples, of *Group, mint, maxt int64) error {
	base := dst.Len()
	return r.dedup.raw(of, r.opts, func(reps []*replica, runs []run) error {
		if dst.Truncate(base); base == 0 && covered(reps, runs) {
			if s := &reps[runs[0].rep].s; s.Len() <= cap(dst.T) { // else it would have to make that much room again
				*dst, *s = *s, *dst
				return nil
			}
		}
		for _, row := range runs {
			rep := reps[row.rep]
			if u := &rep.units[row.unit]; u.maxTime < mint || u.minTime > maxt {
				continue
			}
			if err := rep.appendTo(dst, row); err != nil {
				return err
			}
		}
		return nil
	})
}

// covered reports whether the result is all that was decoded of one replica.
func covered(reps []*replica, runs []run) bool {
	n := 0
	for _, row := range runs {
		if row.rep != runs[0].rep || reps[row.rep].units[row.unit].at+row.from != n {
			return false
		}
		n += row.to - row.from
	}
	return n > 0 && n == reps[runs[0].rep].s.Len()
}

// encoded decodes what Chunks gives.
func (r *Reader) encoded(dst *chunkcodec.Samples, g *Group) error {
	r.memory.Reset()
	chunks, err := r.dedup.chunks(g, r.opts)
	if err != nil {
		return err
	}
	for _, c := range chunks {
		if err := r.memory.Decode(c.Encoding, c.Data, dst); err != nil {
			return fmt.Errorf("chunk from %d to %d: %w", c.MinTime, c.MaxTime, err)
		}
	}
	return nil
}

// appendTo appends the floats of a row.
func (r *replica) appendTo(dst *chunkcodec.Samples, row run) error {
	u := &r.units[row.unit]
	if u.at == unread && row.from == 0 && row.to == u.n { // nobody else wants to know them
		return r.sums(dst, r.chunks[u.lo], math.MaxInt)
	}
	if err := r.readFirst(row.unit, row.to); err != nil {
		return err
	}
	dst.Append(&r.s, u.at+row.from, u.at+row.to)
	return nil
}

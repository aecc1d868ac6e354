package storeapi

import (
	"errors"
	"fmt"
	"slices"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/varve-io/varve/pkg/aggrchunk"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// errFrame marks a frame that no Store API sends.
var errFrame = errors.New("malformed frame")

// decoder turns frames into series. Their chunk data alias the message.
type decoder struct {
	b labels.ScratchBuilder
	// coarsest bounds the guess at the resolution of chunks that do not tell it.
	coarsest block.Resolution
}

// seriesOf returns the series messages of a frame; other kinds have none.
func seriesOf(frame *storepb.SeriesResponse) []*storepb.Series {
	switch r := frame.Result.(type) {
	case *storepb.SeriesResponse_Series:
		return []*storepb.Series{r.Series}
	case *storepb.SeriesResponse_Batch:
		return r.Batch.GetSeries()
	}
	return nil
}

func (d *decoder) frame(frame *storepb.SeriesResponse) ([]series.Series, error) {
	in := seriesOf(frame)
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]series.Series, len(in))
	for i, s := range in {
		if err := d.series(s, &out[i]); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (d *decoder) series(in *storepb.Series, out *series.Series) (err error) {
	if out.Labels, err = d.labels(in.GetLabels()); err != nil {
		return err
	}
	out.Replica = string(in.GetVarveReplica())
	out.Chunks = make([]series.Chunk, 0, len(in.GetChunks()))
	guess := false
	for _, a := range in.GetChunks() {
		c, ok, err := chunkFromWire(a)
		if err != nil {
			return fmt.Errorf("series %s: %w", out.Labels, err)
		}
		if !ok {
			continue
		}
		guess = guess || (c.Encoding == aggrchunk.Encoding && c.Resolution == 0)
		out.Chunks = append(out.Chunks, c)
	}
	if guess {
		inferResolutions(out.Chunks, d.coarsest)
	}
	if !slices.IsSortedFunc(out.Chunks, series.CompareChunks) {
		slices.SortStableFunc(out.Chunks, series.CompareChunks)
	}
	return nil
}

func (d *decoder) labels(in []*storepb.Label) (labels.Labels, error) {
	d.b.Reset()
	sorted := true
	for i, l := range in {
		if l.GetValue() == "" {
			continue // as good as absent
		}
		d.b.Add(l.GetName(), l.GetValue())
		sorted = sorted && (i == 0 || in[i-1].GetName() < l.GetName())
	}
	if sorted {
		return d.b.Labels(), nil
	}
	d.b.Sort()
	lset := d.b.Labels()
	if name, twice := lset.HasDuplicateLabelNames(); twice {
		return labels.EmptyLabels(), fmt.Errorf("%w: label %q comes twice", errFrame, name)
	}
	return lset, nil
}

// chunkFromWire returns false for a chunk without any data: none of its aggregates
// were asked for, or it has none of those that were.
func chunkFromWire(a *storepb.AggrChunk) (c series.Chunk, ok bool, err error) {
	c = series.Chunk{MinTime: a.GetMinTime(), MaxTime: a.GetMaxTime(), Resolution: a.GetVarveResolution()}
	if c.MinTime > c.MaxTime {
		return c, false, fmt.Errorf("%w: chunk from %d to %d", errFrame, c.MinTime, c.MaxTime)
	}
	if raw := a.GetRaw(); raw != nil {
		c.Encoding, err = encodingOf(raw)
		c.Data = raw.Data
		return c, len(c.Data) > 0, err
	}
	var subs aggrchunk.Subs
	if a == nil {
		return c, false, nil
	}
	for k, field := range aggregateFields(a) {
		if *field == nil || len((*field).Data) == 0 {
			continue
		}
		enc, err := encodingOf(*field)
		if err != nil {
			return c, false, err
		}
		subs[k] = aggrchunk.Sub{Encoding: enc, Data: (*field).Data}
		ok = true
	}
	if !ok {
		return c, false, nil
	}
	c.Encoding, c.Data = aggrchunk.Encoding, aggrchunk.Encode(subs)
	return c, true, nil
}

func encodingOf(c *storepb.Chunk) (chunkenc.Encoding, error) {
	enc := chunkenc.Encoding(c.Type) + chunkenc.EncXOR
	if c.VarveEncoding != 0 {
		enc = chunkenc.Encoding(c.VarveEncoding)
	}
	if c.Type < 0 || c.Type > 0xfe || c.VarveEncoding > 0xff || !chunkenc.IsValidEncoding(enc) {
		return 0, fmt.Errorf("%w: chunk encoding %d (%d) is unknown", errFrame, c.Type, c.VarveEncoding)
	}
	return enc, nil
}

// inferResolutions fills in the resolution of aggregate chunks whose sender did
// not tell it. Windows end one millisecond before a multiple of their length,
// only the last of a chunk may end earlier; so a chunk all of whose other
// windows end before full hours is of 1h, else of 5m. One window alone tells
// this only if it ends so; otherwise its neighbour in the series decides.
func inferResolutions(chunks []series.Chunk, coarsest block.Resolution) {
	known := block.Raw
	var open []*series.Chunk
	for i := range chunks {
		c := &chunks[i]
		if c.Encoding != aggrchunk.Encoding || c.Resolution != 0 {
			continue
		}
		r := block.FiveMin // nothing coarser was asked for
		if coarsest >= block.OneHour {
			r = resolutionOf(c.Data)
		}
		if r == block.Raw {
			open = append(open, c)
			continue
		}
		c.Resolution, known = int64(r), r
		for _, o := range open {
			o.Resolution = int64(r)
		}
		open = open[:0]
	}
	if known == block.Raw {
		known = block.FiveMin
	}
	for _, o := range open {
		o.Resolution = int64(known)
	}
}

// resolutionOf is Raw when the chunk does not tell.
func resolutionOf(payload []byte) block.Resolution {
	ends := windowEnds(payload)
	for i, t := range ends {
		last := i == len(ends)-1
		switch {
		case (t+1)%int64(block.OneHour) == 0:
			if last {
				return block.OneHour
			}
		case (t+1)%int64(block.FiveMin) == 0 || !last:
			return block.FiveMin
		case i > 0: // the ones before ended at full hours
			return block.OneHour
		}
	}
	return block.Raw
}

// windowEnds are the timestamps of the first aggregate there is; none if the
// chunk cannot be read, which whoever reads its samples will report.
func windowEnds(payload []byte) (ends []int64) {
	subs, err := aggrchunk.Decode(payload)
	if err != nil {
		return nil
	}
	for k, sub := range subs {
		if !sub.Present() {
			continue
		}
		c, err := chunkcodec.Open(sub.Encoding, sub.Data)
		if err != nil {
			return nil
		}
		it := c.Iterator(nil)
		for it.Next() != chunkenc.ValNone {
			ends = append(ends, it.AtT())
		}
		switch {
		case aggrchunk.Kind(k) != aggrchunk.Counter:
		case sub.Encoding == chunkenc.EncXOR && len(ends) > 2:
			ends = ends[1 : len(ends)-1] // around them stand the first and the last raw sample
		case sub.Encoding != chunkenc.EncXOR && len(ends) > 1 && (ends[0]+1)%int64(block.FiveMin) != 0:
			ends = ends[1:] // behind the first raw sample
		}
		return ends
	}
	return nil
}

package dedup

import (
	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// writer turns rows into chunks. A chunk whose samples were all chosen, with
// none between them, keeps its bytes.
type writer struct {
	reps       []*replica
	resolution int64
	out        []series.Chunk
	open       chunkcodec.Samples // chosen samples that are not encoded yet
	encoded    []chunkcodec.Chunk
	encoder    chunkcodec.Encoder
}

// begin prepares for a result of about so many chunks.
func (w *writer) begin(reps []*replica, resolution int64, chunks int) {
	w.reps, w.resolution = reps, resolution
	w.out = make([]series.Chunk, 0, chunks)
	w.open.Reset()
}

func (w *writer) write(runs []run) error {
	for i := 0; i < len(runs); {
		r := runs[i]
		// What was chosen cell by cell is one row again where a chunk crosses an edge.
		for i++; i < len(runs) && runs[i].rep == r.rep && runs[i].unit == r.unit && runs[i].from == r.to; i++ {
			r.to = runs[i].to
		}
		if err := w.add(r); err != nil {
			return err
		}
	}
	return w.flush()
}

func (w *writer) add(r run) error {
	rep := w.reps[r.rep]
	u := &rep.units[r.unit]
	if r.from == 0 && r.to == u.n && u.hi == u.lo+1 {
		if err := w.flush(); err != nil {
			return err
		}
		w.out = append(w.out, rep.chunks[u.lo])
		return nil
	}
	if err := rep.readFirst(r.unit, r.to); err != nil {
		return err
	}
	// Chunks written anew end at the edges of cells, so that whoever reads them again can tell cells apart without decoding.
	for from := r.from; from < r.to; {
		t := rep.s.T[u.at+from]
		if n := w.open.Len(); n > 0 && cellStart(w.open.T[n-1]) != cellStart(t) {
			if err := w.flush(); err != nil {
				return err
			}
		}
		to := r.to
		if end := saturate(cellStart(t), Cell); rep.s.T[u.at+to-1] >= end {
			to = min(to, position(rep, u, end))
		}
		if err := rep.copyTo(&w.open, r.unit, from, to); err != nil {
			return err
		}
		from = to
	}
	return nil
}

func (w *writer) flush() error {
	if w.open.Len() == 0 {
		return nil
	}
	var err error
	clear(w.encoded) // the result has their data
	w.encoded, err = w.encoder.Append(w.encoded[:0], &w.open)
	for _, c := range w.encoded {
		w.out = append(w.out, series.Chunk{MinTime: c.MinTime, MaxTime: c.MaxTime, Resolution: w.resolution, Encoding: c.Encoding, Data: c.Data})
	}
	w.open.Reset()
	for _, r := range w.reps {
		r.forget()
	}
	return err
}

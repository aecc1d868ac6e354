package compact

import (
	"context"
	"errors"
	"slices"

	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/series"
)

// form is a coarser form of a block, made beside it from the same samples, on a
// goroutine of its own. Name and bytes are those of the job that would make it from
// the complete block, so whatever goes wrong here is left to that job.
type form struct {
	*draft

	in   chan *series.Series // of the next finer form
	at   *series.Series
	cut  error         // why in ended early, set before it is closed
	done chan struct{} // closed when nothing is taken from in any more
	err  error         // valid then
	// ended brings what came of completing the files, or err.
	ended chan error
}

// inHand is how many series a form may be behind.
const inHand = 16

// errBroken says that the finer form was not written to its end.
var errBroken = errors.New("the finer form was given up")

// forms are made one from the other.
type forms []*form

// begin starts the coarser forms of an output.
func (e *Executor) begin(ctx context.Context, o output, symbols *symbolTable) (out forms) {
	for _, meta := range o.beside {
		d, err := e.draft(ctx, o, meta, symbols)
		if err != nil {
			e.later(meta, err)
			break
		}
		out = append(out, &form{draft: d, in: make(chan *series.Series, inHand), done: make(chan struct{}), ended: make(chan error, 1)})
	}
	for i, f := range out {
		go func() {
			f.err = f.write(ctx, out[i+1:])
			close(f.done)
			err := f.end(f.err)
			if err != nil {
				e.later(f.meta, err)
			}
			f.ended <- err
		}()
	}
	return out
}

// later notes that a form is left to a job of its own.
func (e *Executor) later(meta *block.Meta, err error) {
	if !errors.Is(err, errBroken) {
		e.log.Info("block not downsampled while it was written, this is done later", "block", meta.ULID, "resolution", meta.Resolution(), "err", err)
	}
}

// write writes the form and hands its series on.
func (f *form) write(ctx context.Context, coarser forms) error {
	if err := downsample.Run(ctx, f, tee{f.recorder, coarser}, f.meta.Resolution()); err != nil {
		return err
	}
	if f.lacksAll() {
		return errEmpty
	}
	return nil
}

// end ends the making of all forms and returns those that are written, up to the first that is not.
// Err is why there is no more for the first, if it has not got everything.
func (fs forms) end(err error) forms {
	for _, f := range fs {
		if err != nil {
			f.cut = errBroken
		}
		close(f.in)
		<-f.done
		err = f.err
	}
	written := len(fs)
	for i, f := range fs {
		if err := <-f.ended; err != nil {
			written = min(written, i)
		}
	}
	return fs[:written]
}

// take hands a series to the first form, unless that has given up.
func (fs forms) take(s *series.Series) {
	if len(fs) == 0 {
		return
	}
	select {
	case fs[0].in <- s:
	case <-fs[0].done:
	}
}

// tee writes a block and hands its series to the coarser forms.
type tee struct {
	w       downsample.Writer
	coarser forms
}

// AddSeries keeps nothing of s but its labels and the bytes of its chunks, which stay.
func (t tee) AddSeries(s *series.Series) error {
	if err := t.w.AddSeries(s); err != nil {
		return err
	}
	if len(t.coarser) > 0 {
		t.coarser.take(&series.Series{Labels: s.Labels, Chunks: slices.Clone(s.Chunks)})
	}
	return nil
}

// A form is the set of series that it gets.

func (f *form) Next() bool {
	s, ok := <-f.in
	f.at = s
	return ok
}

func (f *form) At() *series.Series                { return f.at }
func (f *form) Err() error                        { return f.cut }
func (f *form) Warnings() annotations.Annotations { return nil }

package compact

import (
	"context"
	"errors"
	"sync"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/downsample"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
)

// form is a coarser form of a block, made beside it from the same samples. Name and
// bytes are those of the job that would make it from the complete block, so whatever
// goes wrong here is left to that job.
type form struct {
	*draft

	from *downsample.Downsampler // of the next finer form
	err  error                   // why the form was given up
}

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
		out = append(out, &form{draft: d})
	}
	for i, f := range out {
		f.from = downsample.New(f.meta.Resolution(), tee{f.recorder, out[i+1:]})
	}
	return out
}

// later notes that a form is left to a job of its own.
func (e *Executor) later(meta *block.Meta, err error) {
	if !errors.Is(err, errBroken) {
		e.log.Info("block not downsampled while it was written, this is done later", "block", meta.ULID, "resolution", meta.Resolution(), "err", err)
	}
}

// end ends the making of all forms and returns those that are written, up to the first that is not.
// Err is why there is no more for the first, if it has not got everything.
func (e *Executor) end(all forms, err error) (written forms) {
	var g sync.WaitGroup
	for _, f := range all {
		switch {
		case err != nil:
			f.err = errBroken
		case f.err == nil && f.lacksAll():
			f.err = errEmpty
		}
		err = f.err
		g.Go(func() { f.err = f.end(f.err) })
	}
	g.Wait()
	written = all
	for i, f := range all {
		if f.err != nil {
			e.later(f.meta, f.err)
			written = written[:min(i, len(written))]
		}
	}
	return written
}

// add makes the next series of the first form, unless that was given up.
func (fs forms) add(s *series.Series, known downsample.Decoded) {
	if len(fs) > 0 && fs[0].err == nil {
		fs[0].err = panics.Caught(func() error { return fs[0].from.AddDecoded(s, known) })
	}
}

// tee writes a block and its coarser forms.
type tee struct {
	w       downsample.Writer
	coarser forms
}

// AddSeries keeps nothing of s but its labels.
func (t tee) AddSeries(s *series.Series) error { return t.AddDecoded(s, downsample.Decoded{}) }

// AddDecoded is AddSeries where the samples are known.
func (t tee) AddDecoded(s *series.Series, known downsample.Decoded) error {
	if err := t.w.AddSeries(s); err != nil {
		return err
	}
	t.coarser.add(s, known)
	return nil
}

package bucketops

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/fetcher"
)

// Options are the settings of an Operator.
type Options struct {
	// Dir is where blocks are brought to and written; empty for a directory of the
	// system's that ends with the operation. It needs room for one block and what is made of it.
	Dir string
	// DryRun shows what would be done, and writes nothing to any bucket.
	DryRun  bool
	Fetcher fetcher.Options
}

// Defaults are the settings of an operator who means it.
func Defaults() Options { return Options{Fetcher: fetcher.Defaults()} }

// Progress hears how far long work has come: done of total, in blocks or in bytes.
type Progress func(what string, done, total int64)

// Operator works on the blocks of one bucket. Its operations are called one at a time.
type Operator struct {
	bkt      objstore.Bucket
	opts     Options
	log      *slog.Logger
	progress Progress
	now      func() time.Time
}

// New returns an operator on bkt. Progress may be nil.
func New(bkt objstore.Bucket, o Options, log *slog.Logger, p Progress) *Operator {
	if p == nil {
		p = func(string, int64, int64) {}
	}
	return &Operator{bkt: bkt, opts: o, log: log, progress: p, now: time.Now}
}

// blocks looks at the bucket.
func (o *Operator) blocks(ctx context.Context) (*block.Set, error) {
	return fetchSet(ctx, o.bkt, o.opts.Fetcher, o.log)
}

func fetchSet(ctx context.Context, bkt bucket.Reader, opts fetcher.Options, log *slog.Logger) (*block.Set, error) {
	set, err := fetcher.New(bkt, opts, log, prometheus.NewRegistry()).Fetch(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the bucket: %w", err)
	}
	return set, nil
}

// workDir makes a directory for one operation. The caller calls done.
func (o *Operator) workDir() (dir string, done func() error, err error) {
	parent := o.opts.Dir
	if parent != "" {
		if err := os.MkdirAll(parent, 0o755); err != nil {
			return "", nil, fmt.Errorf("make --data-dir: %w", err)
		}
	}
	if dir, err = os.MkdirTemp(parent, "bucket-"); err != nil {
		return "", nil, fmt.Errorf("make a directory for blocks: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// withBlock brings the block into a directory, calls fn with it, and removes the directory.
func (o *Operator) withBlock(ctx context.Context, e *block.Entry, fn func(dir string) error) (err error) {
	dir, done, err := o.workDir()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	into := filepath.Join(dir, e.Meta.ULID.String())
	if err := o.download(ctx, e, into); err != nil {
		return fmt.Errorf("download block %s: %w", e.Meta.ULID, err)
	}
	return fn(into)
}

// Action is one thing that is done to a bucket.
type Action struct {
	// Do is mark, unmark, delete, abort, copy, upload, write or lost.
	Do    string    `json:"action"`
	Block ulid.ULID `json:"block"`
	// What is the mark, the new block, or what was lost; Why is for people.
	What string `json:"what"`
	Why  string `json:"why"`
	// Status says how it ended: planned (of a dry run), done, unchanged, or the
	// error. Of what a repair did not find (Do is lost) it is lost or filled.
	Status string `json:"status"`

	// run does it. It returns errUnchanged if it was done before.
	run func(ctx context.Context) error
	// look finds out, for a dry run, what run would do; it may be nil.
	look func(ctx context.Context) error
}

// The ends of actions that are no errors.
const (
	Planned   = "planned"
	Done      = "done"
	Unchanged = "unchanged"
)

// errUnchanged says that an action found its work done.
var errUnchanged = errors.New(Unchanged)

// act runs the actions one after another, or says that they are planned. An error
// belongs to its action, and the returned one joins them all.
func (o *Operator) act(ctx context.Context, what string, actions []Action) ([]Action, error) {
	var errs []error
	for i := range actions {
		a := &actions[i]
		o.progress(what, int64(i), int64(len(actions)))
		run, done := a.run, Done
		if o.opts.DryRun {
			run, done = a.look, Planned
		}
		err := ctx.Err()
		if err == nil && run != nil {
			err = run(ctx)
		}
		switch {
		case err == nil:
			a.Status = done
		case errors.Is(err, errUnchanged):
			a.Status = Unchanged
		default:
			a.Status = err.Error()
			errs = append(errs, fmt.Errorf("%s %s: %w", a.Do, a.Block, err))
		}
	}
	o.progress(what, int64(len(actions)), int64(len(actions)))
	return actions, errors.Join(errs...)
}

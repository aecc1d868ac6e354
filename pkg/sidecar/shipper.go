package sidecar

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
)

// Shipper uploads the blocks that a Prometheus has finished.
type Shipper struct {
	bkt     objstore.Bucket
	opts    ShipperOptions
	log     *slog.Logger
	metrics *shipperMetrics
	oldest  atomic.Pointer[time.Time] // of what waits; nil if nothing does
}

// NewShipper returns a shipper from the data directory in the options to a bucket.
func NewShipper(bkt objstore.Bucket, o ShipperOptions, log *slog.Logger, reg prometheus.Registerer) (*Shipper, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if _, err := os.ReadDir(o.Dir); err != nil {
		return nil, fmt.Errorf("--tsdb.path: %w; mount Prometheus' data volume and give its path", err)
	}
	s := &Shipper{bkt: bkt, opts: o, log: log}
	s.metrics = newShipperMetrics(reg, func() time.Time {
		if at := s.oldest.Load(); at != nil {
			return *at
		}
		return time.Time{}
	})
	return s, nil
}

// errNoLabels says why nothing is shipped.
var errNoLabels = errors.New("Prometheus has no external labels, by which its blocks are told apart in the bucket: set global.external_labels in its configuration")

// Ship uploads every finished local block that the bucket does not have, oldest
// first, with the given external labels. A block that cannot be shipped is
// logged, counted, and tried again the next time; the others go on. The error is
// what concerns all blocks. Ship is called by one goroutine at a time.
func (s *Shipper) Ship(ctx context.Context, external labels.Labels) error {
	s.metrics.rounds.Inc()
	if external.IsEmpty() {
		return errNoLabels
	}
	path := filepath.Join(s.opts.Dir, s.opts.StateFile)
	state, err := readShipped(path)
	if err != nil {
		s.log.Warn("list of shipped blocks is made anew from the bucket", "err", err)
		state = shipped{}
	}
	waiting, local, err := s.waiting(&state)
	if err != nil {
		return err
	}
	s.observe(waiting)
	if missing := !exists(path); state.keep(local) || missing {
		if err := state.write(path); err != nil {
			return err
		}
	}
	for i := 0; i < len(waiting); {
		b := waiting[i]
		if err := s.shipOne(ctx, b, external, &state); err != nil {
			if ctx.Err() != nil {
				return fmt.Errorf("ship blocks: %w", ctx.Err())
			}
			s.metrics.failures.Inc()
			s.log.Warn("block not shipped", "block", b.meta.ULID, "err", err)
			i++
			continue
		}
		waiting = slices.Delete(waiting, i, i+1)
		s.observe(waiting)
		if slices.Contains(local, b.meta.ULID) {
			state.add(b.meta.ULID)
			if err := state.write(path); err != nil {
				return err
			}
		}
		s.unstage(b.meta.ULID)
	}
	return nil
}

// waiting lists the blocks to ship, and the ULIDs of all local ones.
func (s *Shipper) waiting(state *shipped) (waiting []localBlock, local []ulid.ULID, err error) {
	blocks, local, errs := localBlocks(s.opts.Dir)
	if len(local) == 0 && len(errs) > 0 {
		return nil, nil, errors.Join(errs...)
	}
	for _, err := range errs {
		// Prometheus writes a block under another name, so this one is damaged, or being deleted.
		s.metrics.failures.Inc()
		s.log.Warn("block not shipped", "err", err)
	}
	for _, b := range append(blocks, s.orphans(local)...) {
		if state.has(b.meta.ULID) || b.meta.Stats.NumSamples == 0 {
			continue
		}
		if b.meta.Compaction.Level > 1 && s.opts.Compacted == SkipCompacted {
			continue
		}
		waiting = append(waiting, b)
	}
	slices.SortStableFunc(waiting, func(a, b localBlock) int { return a.meta.ULID.Compare(b.meta.ULID) })
	return waiting, local, nil
}

// orphans are the staged blocks that a crash left behind and that Prometheus has
// deleted since: the last copies. Other remains of staging are removed.
func (s *Shipper) orphans(local []ulid.ULID) []localBlock {
	staged, ids, _ := localBlocks(s.staging()) // links without meta.json are not complete
	staged = slices.DeleteFunc(staged, func(b localBlock) bool { return slices.Contains(local, b.meta.ULID) })
	for _, id := range ids {
		if !slices.ContainsFunc(staged, func(b localBlock) bool { return b.meta.ULID == id }) {
			s.unstage(id)
		}
	}
	return staged
}

// observe tells the metrics what waits.
func (s *Shipper) observe(waiting []localBlock) {
	s.metrics.unshipped.Set(float64(len(waiting)))
	if len(waiting) == 0 {
		s.oldest.Store(nil)
		return
	}
	at := ulid.Time(waiting[0].meta.ULID.Time())
	s.oldest.Store(&at)
}

// shipOne brings one block into the bucket, unless it is there.
func (s *Shipper) shipOne(ctx context.Context, b localBlock, external labels.Labels, state *shipped) error {
	merged, err := s.mergedFromShipped(ctx, b.meta, state)
	if err != nil {
		return err
	}
	if merged {
		s.metrics.found.Inc()
		return nil
	}
	found, err := s.complete(ctx, b.meta.ULID)
	if err != nil {
		return err
	}
	staged, err := stage(b, s.staging(), external, time.Now())
	if err != nil {
		return err
	}
	// Of a complete block this only looks whether it has the same files.
	if err := blockio.Upload(ctx, s.bkt, staged.dir, staged.meta); err != nil {
		// The links must not keep disk space that Prometheus wants back, unless they
		// have become the only copy.
		if staged.dir != b.dir && exists(b.dir) {
			s.unstage(b.meta.ULID)
		}
		return err
	}
	if found {
		s.metrics.found.Inc()
		return nil
	}
	s.metrics.shipped.Inc()
	s.log.Info("block shipped", "block", b.meta.ULID, "min_time", b.meta.MinTime, "max_time", b.meta.MaxTime, "samples", b.meta.Stats.NumSamples)
	return nil
}

// mergedFromShipped reports whether the bucket needs nothing of this block, because
// Prometheus merged it from blocks that are there.
func (s *Shipper) mergedFromShipped(ctx context.Context, m *block.Meta, state *shipped) (bool, error) {
	if m.Compaction.Level <= 1 || len(m.Compaction.Sources) == 0 {
		return false, nil
	}
	for _, source := range m.Compaction.Sources {
		if state.has(source) {
			continue
		}
		complete, err := s.complete(ctx, source)
		if err != nil || !complete {
			return false, err
		}
	}
	return true, nil
}

// complete asks for the one object that makes a block complete.
func (s *Shipper) complete(ctx context.Context, id ulid.ULID) (bool, error) {
	found, err := s.bkt.Exists(ctx, block.MetaName(id))
	if err != nil {
		return false, fmt.Errorf("look for block %s in the bucket: %w", id, err)
	}
	return found, nil
}

func (s *Shipper) staging() string {
	return filepath.Join(s.opts.Dir, filepath.FromSlash(stagingDir))
}

// unstage removes the links of a block. What stays behind is removed by the next round.
func (s *Shipper) unstage(id ulid.ULID) {
	if err := os.RemoveAll(filepath.Join(s.staging(), id.String())); err != nil {
		s.log.Warn("links of a block stay behind", "block", id, "err", err)
	}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}

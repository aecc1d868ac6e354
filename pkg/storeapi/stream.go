package storeapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi/storepb"
)

// seriesOverhead is what a series and a chunk cost in memory beside their bytes.
const (
	seriesOverhead = 64
	chunkOverhead  = 56
)

// Weigh is what a series holds in memory, about, in bytes.
func Weigh(s *series.Series) int64 {
	n := seriesOverhead + int64(s.Labels.ByteSize()) + int64(len(s.Replica)) + int64(len(s.Chunks))*chunkOverhead
	for _, c := range s.Chunks {
		n += int64(len(c.Data))
	}
	return n
}

// received is one frame after decoding.
type received struct {
	series  []series.Series
	warning error
}

// streamSet is the answer of a peer. A goroutine receives and decodes ahead of
// the reader; it ends with the stream or with the context of the call.
type streamSet struct {
	frames   <-chan received
	in       *receiver // its err is settled once frames is closed
	cur      []series.Series
	at       int
	warnings annotations.Annotations
	err      error
}

func (s *streamSet) Next() bool {
	s.at++
	for s.at >= len(s.cur) {
		f, ok := <-s.frames
		if !ok {
			s.err, s.cur = s.in.err, nil
			return false
		}
		if f.warning != nil {
			s.warnings.Add(f.warning)
		}
		s.cur, s.at = f.series, 0
	}
	return true
}

func (s *streamSet) At() *series.Series                { return &s.cur[s.at] }
func (s *streamSet) Err() error                        { return s.err }
func (s *streamSet) Warnings() annotations.Annotations { return s.warnings }

// open starts the call.
func (c *Client) open(ctx context.Context, req *storepb.SeriesRequest, draw Draw) series.Set {
	ctx, cancel := context.WithCancelCause(ctx)
	frames := make(chan received, c.opts.ReadAhead)
	r := &receiver{
		client:  c,
		draw:    draw,
		stats:   statsOf(ctx),
		cancel:  cancel,
		decoder: decoder{coarsest: block.Resolution(req.MaxResolutionWindow)},
	}
	go r.run(ctx, req, frames)
	return &streamSet{frames: frames, in: r, at: -1}
}

// receiver is the side of a streamSet that faces the peer.
type receiver struct {
	client  *Client
	draw    Draw
	stats   func(QueryStats) // nil if nobody asked
	cancel  context.CancelCauseFunc
	decoder decoder
	last    series.Series
	bytes   int64
	err     error
}

func (r *receiver) run(ctx context.Context, req *storepb.SeriesRequest, out chan<- received) {
	defer close(out)
	defer r.cancel(nil)
	if err := r.receive(ctx, req, out); err != nil {
		r.err = r.explain(ctx, err)
	}
}

// errSilent is the cause with which a stream that sends nothing is cancelled.
var errSilent = errors.New("no answer in time")

func (r *receiver) receive(ctx context.Context, req *storepb.SeriesRequest, out chan<- received) (err error) {
	defer panics.Recovered(&err)
	timer := r.watch()
	defer timer.Stop()
	stream, err := r.client.store.Series(ctx, req)
	if err != nil {
		return err
	}
	for {
		frame, err := stream.Recv()
		timer.Stop()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		f, err := r.decode(frame)
		if err != nil {
			return err
		}
		select {
		case out <- f:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		timer = r.watch() // the wait for the reader of the set does not count
	}
}

// watch cancels the stream unless the timer it returns is stopped in time.
func (r *receiver) watch() *time.Timer {
	wait := r.client.opts.ResponseTimeout
	if wait <= 0 {
		wait = 1<<63 - 1
	}
	return time.AfterFunc(wait, func() { r.cancel(errSilent) })
}

// explain names the peer, and the wait where that was too long.
func (r *receiver) explain(ctx context.Context, err error) error {
	const doing = "series from"
	if errors.Is(context.Cause(ctx), errSilent) {
		return &peerError{
			doing: doing, peer: r.client.peer, cause: ErrUnavailable,
			message: fmt.Sprintf("silent for %s; the store may be overloaded, or --store.response-timeout too short", r.client.opts.ResponseTimeout),
		}
	}
	return fromStatus(doing, r.client.peer, err)
}

func (r *receiver) decode(frame *storepb.SeriesResponse) (f received, err error) {
	switch other := frame.Result.(type) {
	case *storepb.SeriesResponse_Warning:
		f.warning = r.client.warning(other.Warning)
		return f, nil
	case *storepb.SeriesResponse_Hints:
		if stats, ok := statsFromWire(other.Hints); ok && r.stats != nil {
			r.stats(stats)
		}
		return f, nil
	}
	if f.series, err = r.decoder.frame(frame); err != nil {
		return f, err
	}
	var size int64
	for i := range f.series {
		s := &f.series[i]
		if series.Compare(&r.last, s) > 0 {
			return f, fmt.Errorf("%w: series %s comes after %s", errFrame, s.Labels, r.last.Labels)
		}
		r.last = *s
		size += Weigh(s)
	}
	r.bytes += size
	if limit := r.client.opts.MaxBytes; limit > 0 && r.bytes > limit {
		return f, fmt.Errorf("%w: the answer is larger than %d bytes; ask for fewer series or a shorter range", ErrLimit, limit)
	}
	return f, r.draw(size)
}

// resortSet takes labels out of a sorted set whose series carry them, and sorts
// what comes out. It reads its input at the first Next.
type resortSet struct {
	in   series.Set
	req  *Request
	draw Draw

	loaded bool
	out    []series.Series
	at     int
	err    error
}

func (s *resortSet) Next() bool {
	if !s.loaded {
		s.loaded, s.at = true, -1
		if s.err = s.load(); s.err != nil {
			s.out = nil
		}
	}
	if s.at+1 >= len(s.out) {
		return false
	}
	s.at++
	return true
}

func (s *resortSet) At() *series.Series                { return &s.out[s.at] }
func (s *resortSet) Err() error                        { return s.err }
func (s *resortSet) Warnings() annotations.Annotations { return s.in.Warnings() }

func (s *resortSet) load() error {
	for s.in.Next() {
		cur := *s.in.At()
		drawn := Weigh(&cur)
		if cur.Labels.Has(block.ShardLabel) {
			cur.Labels = withoutShard(cur.Labels)
		}
		cur.Labels, cur.Replica = series.Final(cur.Labels, labels.EmptyLabels(), s.req.WithoutLabels)
		keeps := s.req.Shard.Keeps(cur.Labels)
		if keeps {
			drawn -= Weigh(&cur) // what the new labels take less than the old
			s.out = append(s.out, cur)
		}
		if err := s.draw(-drawn); err != nil {
			return err
		}
	}
	if err := s.in.Err(); err != nil {
		return err
	}
	slices.SortStableFunc(s.out, func(a, b series.Series) int { return series.Compare(&a, &b) })
	limit := seriesLimit{max: s.req.Limit}
	for i := range s.out {
		if limit.reached(s.out[i].Labels) {
			s.out = s.out[:i]
			break
		}
	}
	return nil
}

// shardSet keeps the series of a shard, for a peer that cannot.
type shardSet struct {
	series.Set
	shard *Shard
	draw  Draw
	err   error
}

func (s *shardSet) Next() bool {
	for s.err == nil && s.Set.Next() {
		if s.shard.Keeps(s.At().Labels) {
			return true
		}
		s.err = s.draw(-Weigh(s.At()))
	}
	return false
}

func (s *shardSet) Err() error {
	if s.err != nil {
		return s.err
	}
	return s.Set.Err()
}

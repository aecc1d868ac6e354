package compact

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

// leaseDir holds one small object for each stream; no block's directory has this name.
const leaseDir = "varve/leases/"

var (
	// errHeld says that another process works on the stream.
	errHeld = errors.New("another compactor holds the lease")
	// errLeaseLost says that this process held a lease too long without renewing it.
	errLeaseLost = errors.New("the lease of the stream was lost")
)

// leaseState is the content of a lease object.
type leaseState struct {
	Stream string `json:"stream"`
	// Holder is one process; a process that starts anew is another.
	Holder string `json:"holder"`
	// Epoch rises whenever the lease is taken, Renewal while it is held.
	Epoch   int64 `json:"epoch"`
	Renewal int64 `json:"renewal"`
	// DurationMS is how long the object must stay unchanged, seen by one who
	// watches it, until the lease may be taken from its holder.
	DurationMS int64 `json:"durationMs"`
	Released   bool  `json:"released"`
}

// leases takes the leases of streams for one process. No clock is ever compared
// with that of another machine: a lease is taken over after it was seen unchanged
// for its whole duration, and its holder, who renews it every quarter, stops to
// write when two thirds have passed since the last renewal that went well was
// begun. What remains is for requests that are on their way.
type leases struct {
	store    bucket.Versioned
	holder   string
	duration time.Duration
	log      *slog.Logger
	// whole stands for the stream of every lease where the store cannot put
	// conditionally, so that there is one lease for the bucket.
	whole bool

	// The rest is of the one goroutine that acquires.
	seen map[string]sighting
	// looks counts how often the bucket was looked at, and since says after how many looks
	// the lease of a stream was taken from another process, or the last doubt of it ended.
	looks int
	since map[string]int
	// doubtful are the leases under which a write ended of which nobody knows whether it takes
	// effect, until that time; before it this process does not take them again.
	doubtful map[string]time.Time
}

// sighting is a version of somebody else's lease.
type sighting struct {
	etag    string
	expires time.Time // if it stays as it is
	changed bool      // it was seen to change: its holder is alive
}

func newLeases(bkt objstore.Bucket, holder string, duration time.Duration, log *slog.Logger) *leases {
	l := &leases{
		holder: holder, duration: duration, log: log,
		seen: map[string]sighting{}, since: map[string]int{}, doubtful: map[string]time.Time{},
	}
	l.store, _ = bkt.(bucket.Versioned)
	return l
}

// newHolder names this process: the machine, for people, and something no other process has.
func newHolder() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return host + "-" + rand.Text()[:12]
}

// key names the lease that covers a stream.
func (l *leases) key(stream string) string {
	if l.whole {
		return "the whole bucket"
	}
	return stream
}

func leaseName(key string) string {
	sum := sha256.Sum256([]byte(key))
	return leaseDir + hex.EncodeToString(sum[:16]) + ".json"
}

// acquire takes a lease that is free, that ran out, or that this process had
// before; otherwise the error is errHeld. The lease is renewed until it is
// released or ctx ends.
func (l *leases) acquire(ctx context.Context, key string) (*lease, error) {
	if until := l.doubtful[key]; time.Now().Before(until) {
		l.seen[key] = sighting{expires: until}
		return nil, fmt.Errorf("%w: a write of this process may still be on its way, to %s", errHeld, key)
	}
	if _, was := l.doubtful[key]; was {
		l.since[key] = l.looks // what arrived late is not in the plan
		delete(l.doubtful, key)
	}
	name := leaseName(key)
	old, etag, err := l.read(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("look at the lease of %s: %w", key, err)
	}
	if etag != "" && !old.Released && old.Holder != l.holder && !l.expired(key, etag, old) {
		return nil, fmt.Errorf("%w: %s, of %s", errHeld, old.Holder, key)
	}
	next := leaseState{Stream: key, Holder: l.holder, Epoch: old.Epoch + 1, DurationMS: l.duration.Milliseconds()}
	began := time.Now()
	etag, err = l.put(ctx, name, next, etag)
	if err != nil {
		return nil, fmt.Errorf("take the lease of %s: %w", key, err)
	}
	if l.whole {
		if err := l.stays(ctx, name, etag); err != nil {
			return nil, fmt.Errorf("take the lease of %s: %w", key, err)
		}
	}
	delete(l.seen, key)
	if old.Holder != "" && old.Holder != l.holder {
		l.since[key] = l.looks
		if !old.Released {
			l.log.Info("lease taken over, its holder did not renew it", "stream", key, "holder", old.Holder)
		}
	}
	return l.hold(ctx, name, next, etag, began), nil
}

// stays looks at a lease a second time that was put without a condition: of several processes
// that took it at the same instant the last one has it.
func (l *leases) stays(ctx context.Context, name, etag string) error {
	timer := time.NewTimer(l.duration / 12)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	_, now, err := l.read(ctx, name)
	if err == nil && now != etag {
		return errHeld
	}
	return err
}

// expired notes what somebody's lease looks like and reports whether it stayed so long enough.
func (l *leases) expired(key, etag string, s leaseState) bool {
	now := time.Now()
	last, known := l.seen[key]
	if !known || last.etag != etag {
		// Settings may differ: whoever is more patient is right.
		patience := max(l.duration, time.Duration(s.DurationMS)*time.Millisecond)
		l.seen[key] = sighting{etag: etag, expires: now.Add(patience), changed: known}
		return false
	}
	return !now.Before(last.expires)
}

// read gives a lease and its version; both are zero if there is none. A lease
// that is no JSON is one of nobody.
func (l *leases) read(ctx context.Context, name string) (leaseState, string, error) {
	content, etag, err := l.store.GetVersion(ctx, name)
	if errors.Is(err, bucket.ErrNotFound) {
		return leaseState{}, "", nil
	}
	if err != nil {
		return leaseState{}, "", err
	}
	var s leaseState
	if err := json.Unmarshal(content, &s); err != nil {
		l.log.Warn("lease cannot be read and counts as run out", "object", name, "err", err)
		return leaseState{Released: true, Holder: "unknown"}, etag, nil
	}
	return s, etag, nil
}

// put replaces the version etag, or creates the lease if there is none. A put
// whose answer got lost may have won although it ends in an error: what the
// object says then counts.
func (l *leases) put(ctx context.Context, name string, s leaseState, etag string) (string, error) {
	content, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode lease: %w", err)
	}
	var put string
	if etag == "" {
		put, err = l.store.PutIfAbsent(ctx, name, bytes.NewReader(content))
	} else {
		put, err = l.store.PutIfMatch(ctx, name, content, etag)
	}
	if err == nil {
		return put, nil
	}
	now, version, readErr := l.read(ctx, name)
	if readErr == nil && now == s {
		return version, nil
	}
	if errors.Is(err, bucket.ErrExists) || errors.Is(err, bucket.ErrChanged) {
		return "", errHeld
	}
	return "", errors.Join(err, readErr)
}

// hold keeps a lease that was taken.
func (l *leases) hold(ctx context.Context, name string, s leaseState, etag string, began time.Time) *lease {
	held := &lease{leases: l, name: name, key: s.Stream, since: l.since[s.Stream], state: s, etag: etag, renewed: began, done: make(chan struct{})}
	held.ctx, held.cancel = context.WithCancelCause(ctx)
	go held.keep() //nolint:contextcheck // it lasts as long as the lease
	return held
}

// lease is one that this process holds.
type lease struct {
	*leases
	name, key string
	// since is the number of looks at the bucket that do not count for the stream, because
	// another process had the lease afterwards, or a write in doubt may have taken effect.
	since int

	// ctx ends with the lease.
	ctx    context.Context //nolint:containedctx // it is the lease's lifetime, which jobs inherit
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when nobody renews any more

	mu      sync.Mutex
	state   leaseState
	etag    string
	renewed time.Time // when the last renewal that went well was begun
	unsure  time.Time // when a write ended of which nobody knows whether it takes effect
}

// keep renews the lease until it is released or lost.
func (h *lease) keep() {
	defer close(h.done)
	ticker := time.NewTicker(h.duration / 4)
	defer ticker.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-ticker.C:
		}
		if err := h.renew(); err != nil {
			h.cancel(err)
			return
		}
	}
}

// renew writes the lease again. An error that another try may mend is none
// before the lease has run out.
func (h *lease) renew() error {
	h.mu.Lock()
	next, etag, last := h.state, h.etag, h.renewed
	h.mu.Unlock()
	next.Renewal++
	began := time.Now()
	ctx, cancel := context.WithDeadline(h.ctx, h.end(last))
	defer cancel()
	etag, err := h.put(ctx, h.name, next, etag)
	switch {
	case errors.Is(err, errHeld):
		return fmt.Errorf("%w: another compactor took %s", errLeaseLost, h.key)
	case err != nil && !time.Now().Before(h.end(last)):
		return fmt.Errorf("%w: %s could not be renewed: %w", errLeaseLost, h.key, err)
	case err != nil:
		return nil
	}
	h.mu.Lock()
	h.state, h.etag, h.renewed = next, etag, began
	h.mu.Unlock()
	return nil
}

// end is until when a lease that was renewed at that time may be relied upon.
func (h *lease) end(renewed time.Time) time.Time { return renewed.Add(h.duration * 2 / 3) }

// check reports, with errLeaseLost, that the stream is another's by now, judged
// by the own clock and by the object; until the time it returns the lease holds.
func (h *lease) check(ctx context.Context) (time.Time, error) {
	h.mu.Lock()
	end := h.end(h.renewed)
	epoch := h.state.Epoch
	h.mu.Unlock()
	if err := context.Cause(h.ctx); err != nil { //nolint:contextcheck // the lease's own lifetime is asked for
		return end, err
	}
	if !time.Now().Before(end) {
		return end, fmt.Errorf("%w: %s was not renewed in time", errLeaseLost, h.key)
	}
	now, _, err := h.read(ctx, h.name)
	if err != nil {
		return end, fmt.Errorf("look at the lease of %s: %w", h.key, err)
	}
	if now.Holder != h.holder || now.Epoch != epoch {
		err := fmt.Errorf("%w: %s is %s's", errLeaseLost, h.key, now.Holder)
		h.cancel(err)
		return end, err
	}
	return end, nil
}

// doubt notes that a write may take effect although it ended in an error.
func (h *lease) doubt() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.unsure = time.Now()
}

// settled is when all writes have taken effect of which nobody knows whether they do; a look at
// the bucket that began before does not show them all.
func (h *lease) settled() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.unsure.Add(h.duration / 3)
}

// release gives the lease back, so that others need not wait for its end. Jobs
// under it must have ended. If a write of theirs may still be on its way, the
// lease runs out instead, so that nobody is surprised by it.
func (h *lease) release(ctx context.Context) {
	h.cancel(context.Canceled)
	<-h.done
	until := h.settled()
	if !h.unsure.IsZero() {
		h.doubtful[h.key] = until
	}
	if time.Now().Before(until) {
		return
	}
	h.state.Released = true
	h.state.Renewal++
	if _, err := h.put(ctx, h.name, h.state, h.etag); err != nil && !errors.Is(err, errHeld) && ctx.Err() == nil {
		h.log.Warn("lease not given back, it will run out", "stream", h.key, "err", err)
	}
}

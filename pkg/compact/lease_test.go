package compact

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/promslog"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

const stream = `{c="eu"}`

func processLeases(bkt objstore.Bucket) *leases {
	return newLeases(bkt, newHolder(), time.Minute, promslog.NewNopLogger())
}

// take acquires a lease that must be free.
func take(ctx context.Context, t *testing.T, l *leases) *lease {
	t.Helper()
	h, err := l.acquire(ctx, stream)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// refused fails unless somebody else has the lease.
func refused(t *testing.T, l *leases) {
	t.Helper()
	if h, err := l.acquire(t.Context(), stream); !errors.Is(err, errHeld) {
		t.Fatalf("got lease %v and error %v, want %v", h, err, errHeld)
	}
}

func TestALeaseThatIsRenewedStaysWithItsHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewMemory()
		a, b := processLeases(bkt), processLeases(bkt)
		held := take(t.Context(), t, a)
		for range 50 {
			refused(t, b)
			<-time.After(50 * time.Second)
			if _, err := held.check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		held.release(t.Context())
		next := take(t.Context(), t, b)
		if next.state.Epoch != 2 || next.since != 0 {
			t.Errorf("got %+v, want epoch 2", next.state)
		}
		next.release(t.Context())
	})
}

func TestALeaseIsTakenOverWhenItStoodStillForItsDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewMemory()
		a, b := processLeases(bkt), processLeases(bkt)
		life, kill := context.WithCancel(t.Context())
		old := take(life, t, a)
		<-time.After(10 * time.Minute)
		refused(t, b)
		kill()
		refused(t, b) // it knows not yet that the holder is dead
		<-time.After(59 * time.Second)
		refused(t, b)
		<-time.After(time.Second)
		held := take(t.Context(), t, b)
		if _, err := old.check(t.Context()); err == nil {
			t.Error("the dead process still trusts its lease")
		}
		refused(t, a)
		held.release(t.Context())
	})
}

// stopped is a bucket whose writes stand still while they are told to.
type stopped struct {
	*bucket.Memory
	until chan struct{}
}

func (s stopped) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	<-s.until
	return s.Memory.PutIfMatch(ctx, name, content, etag)
}

func TestAWorkerThatStalledChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewMemory()
		stall := stopped{bkt, make(chan struct{})}
		old := take(t.Context(), t, processLeases(stall)) // and its renewals do not get through
		b := processLeases(bkt)
		refused(t, b)
		<-time.After(time.Minute)
		held := take(t.Context(), t, b)
		close(stall.until)
		synctest.Wait()

		id := ulid.MustNew(1, nil)
		err := blockio.Mark(t.Context(), fence(bkt, old), block.Mark{Kind: block.DeletionMark, ID: id})
		if !errors.Is(err, errLeaseLost) {
			t.Errorf("a mark of the stalled worker: got %v, want %v", err, errLeaseLost)
		}
		err = blockio.Mark(t.Context(), fence(bkt, held), block.Mark{Kind: block.DeletionMark, ID: id})
		if err != nil {
			t.Errorf("a mark of the holder: %v", err)
		}
		err = fence(bkt, old).Upload(t.Context(), block.MetaName(id), strings.NewReader("{}"))
		if !errors.Is(err, errLeaseLost) {
			t.Errorf("a meta.json of the stalled worker: got %v, want %v", err, errLeaseLost)
		}
		if err := blockio.Delete(t.Context(), fence(bkt, old), id); !errors.Is(err, errLeaseLost) {
			t.Errorf("a deletion of the stalled worker: got %v, want %v", err, errLeaseLost)
		}
		held.release(t.Context())
		old.release(t.Context())
	})
}

func TestALostAnswerIsNoLostLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewMemory()
		faulty := buckettest.FailAt(bkt, buckettest.Create, 1, buckettest.After, bucket.ErrTransient)
		held := take(t.Context(), t, processLeases(faulty))
		<-time.After(5 * time.Minute)
		if _, err := held.check(t.Context()); err != nil {
			t.Error(err)
		}
		held.release(t.Context())
	})
}

func TestALeaseRunsOutIfAWriteMayStillBeOnItsWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewMemory()
		a, b := processLeases(bkt), processLeases(bkt)
		held := take(t.Context(), t, a)
		lost := buckettest.FailAt(bkt, buckettest.Create, 1, buckettest.Before, bucket.ErrTransient)
		err := blockio.Mark(t.Context(), fence(lost, held), block.Mark{Kind: block.DeletionMark, ID: ulid.MustNew(1, nil)})
		if !errors.Is(err, bucket.ErrTransient) {
			t.Fatal(err)
		}
		held.release(t.Context())
		refused(t, a)
		refused(t, b)
		<-time.After(20 * time.Second)
		take(t.Context(), t, a).release(t.Context())
		take(t.Context(), t, b).release(t.Context())
	})
}

// belated is a bucket that gives up the first mark for deletion, which arrives all the same.
type belated struct {
	*bucket.Memory
	t    *testing.T
	once *sync.Once
}

func (b belated) PutIfAbsent(ctx context.Context, name string, r io.Reader) (etag string, err error) {
	id, rel, _ := block.ParseName(name)
	if rel == string(block.DeletionMark) {
		b.once.Do(func() {
			err = bucket.ErrTransient
			ctx := context.WithoutCancel(ctx)
			time.AfterFunc(15*time.Second, func() {
				if there, err := b.Exists(ctx, block.MetaName(id)); err != nil || !there {
					b.t.Errorf("the mark of %s arrives when that is gone (%v)", id, err)
				}
				if _, err := b.Memory.PutIfAbsent(ctx, name, r); err != nil {
					b.t.Error(err)
				}
			})
		})
		if err != nil {
			return "", err
		}
	}
	return b.Memory.PutIfAbsent(ctx, name, r)
}

func TestNothingBeginsUnderALeaseWhileAWriteMayStillBeOnItsWay(t *testing.T) {
	fill := replicas(t, 2)
	dir, old := blocktest.Dir(t, twoHours("a", hour-24*40))
	synctest.Test(t, func(t *testing.T) {
		bkt := belated{fill(t), t, new(sync.Once)}
		blocktest.Upload(t, bkt.Memory, dir)
		e := executor(t, bkt)
		e.opts.Policy.Retention = map[block.Resolution]time.Duration{block.Raw: 30 * 24 * time.Hour}
		e.opts.Policy.DeleteDelay, e.opts.Policy.NoDownsampling = 0, true
		build := e.build
		e.build = func(ctx context.Context, o output) error { // the lease is held for this
			<-time.After(time.Minute)
			return build(ctx, o)
		}
		if err := e.Run(t.Context()); err != nil {
			t.Error(err)
		}
		if left, err := blockio.Objects(t.Context(), bkt, old.ULID); err != nil || len(left) > 0 {
			t.Errorf("%s expired and is still there: %v, error %v", old.ULID, left, err)
		}
	})
}

// plain is a bucket that knows no conditions, careless one that ignores them.
type plain struct{ objstore.Bucket }

type careless struct{ *bucket.Memory }

func (c careless) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	return "", c.Upload(ctx, name, r)
}

// forgetful replaces whatever there is.
type forgetful struct{ *bucket.Memory }

func (f forgetful) PutIfMatch(ctx context.Context, name string, content []byte, _ string) (string, error) {
	return "", f.Upload(ctx, name, bytes.NewReader(content))
}

func TestWithoutConditionalWritesOneProcessWorksOnTheBucket(t *testing.T) {
	for name, bkt := range map[string]objstore.Bucket{
		"the provider has none": plain{bucket.NewMemory()}, "the store ignores that something is there": careless{bucket.NewMemory()},
		"the store ignores what is there": forgetful{bucket.NewMemory()},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { oneProcessWorks(t, bkt) })
		})
	}
}

func oneProcessWorks(t *testing.T, bkt objstore.Bucket) {
	t.Helper()
	a, b := executor(t, bkt), executor(t, bkt)
	for _, e := range []*Executor{a, b} {
		var log bytes.Buffer
		e.log = slog.New(slog.NewTextHandler(&log, nil))
		if err := e.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		const says = "one process works"
		if page := ask(t, e, "/").Body.String(); !strings.Contains(log.String(), says) || !strings.Contains(page, says) || e.Report().Leases != leaseOfBucket {
			t.Errorf("nobody is told: report %q, log %s", e.Report().Leases, log.String())
		}
	}
	held, err := a.leases.acquire(t.Context(), a.leases.key(stream))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.leases.acquire(t.Context(), b.leases.key(`{c="us"}`)); !errors.Is(err, errHeld) {
		t.Errorf("got %v, want %v", err, errHeld)
	}
	held.release(t.Context())
}

// slow answers a second later.
type slow struct{ objstore.Bucket }

func (s slow) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := s.Bucket.Get(ctx, name)
	<-time.After(time.Second)
	return r, err
}

func TestOneOfSeveralThatTakeAnAdvisoryLeaseAtTheSameInstantHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bkt := bucket.NewMemory()
		won := make(chan *lease, 3)
		for range cap(won) {
			l := processLeases(bkt)
			l.store, l.whole = advisory{slow{bkt}}, true
			go func() {
				h, err := l.acquire(t.Context(), l.key(stream))
				if err != nil && !errors.Is(err, errHeld) {
					t.Error(err)
				}
				won <- h
			}()
		}
		var held []*lease
		for range cap(won) {
			if h := <-won; h != nil {
				held = append(held, h)
			}
		}
		if len(held) != 1 {
			t.Errorf("%d processes hold the lease", len(held))
		}
		for _, h := range held {
			h.release(t.Context())
		}
	})
}

package compact

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/bucket"
)

var errDied = errors.New("the process died")

// machine is what a simulated process runs on: it dies, stands still, has a clock
// that is wrong, and a network that delays, loses and fails.
type machine struct {
	world *simWorld
	skew  time.Duration
	kill  context.CancelFunc // ends the process

	mu     sync.Mutex
	chance *rand.Rand
	dead   bool
	frozen time.Time // until then nothing moves
}

// now is the wall clock of the machine.
func (m *machine) now() time.Time { return time.Now().Add(m.skew) }

// longestDelay bounds how long a request that was sent may stay on its way: less
// than the third of a lease for which its holder does not write any more.
const longestDelay = 15 * time.Second

// fate is what becomes of one operation.
type fate struct {
	delay                   time.Duration
	stall                   time.Duration // the machine stands still first
	failBefore, failAfter   bool
	crashBefore, crashAfter bool
	arrives                 bool // a request whose caller gave up takes effect all the same
}

func (m *machine) fate() fate {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := fate{delay: time.Duration(1+m.chance.IntN(50)) * time.Millisecond, arrives: m.chance.IntN(2) == 0}
	if !m.world.rough() {
		return f
	}
	switch p := m.chance.IntN(1000); {
	case p < 8:
		f.failBefore = true
	case p < 16:
		f.failAfter = true
	case p < 18:
		f.crashBefore = true
	case p < 20:
		f.crashAfter = true
	case p < 30:
		f.delay = time.Duration(m.chance.Int64N(int64(longestDelay)))
	case p < 33:
		f.stall = time.Duration(10+m.chance.IntN(300)) * time.Second
	case p < 35:
		f.stall = time.Duration(1+m.chance.IntN(8)) * time.Hour
	}
	return f
}

// thaw waits as long as the machine stands still. What the process waits for goes
// on meanwhile, so it notices afterwards that time has passed.
func (m *machine) thaw(stall time.Duration) error {
	m.mu.Lock()
	if until := time.Now().Add(stall); stall > 0 && until.After(m.frozen) {
		m.world.see("stood still")
		m.frozen = until
	}
	m.mu.Unlock()
	for {
		m.mu.Lock()
		wait, dead := time.Until(m.frozen), m.dead
		m.mu.Unlock()
		if dead {
			return errDied
		}
		if wait <= 0 {
			return nil
		}
		<-time.After(wait)
	}
}

func (m *machine) die() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.dead = true
	m.world.see("died")
	m.kill()
	return errDied
}

// attempt lets an operation happen, or not, as the machine has it.
func attempt[T any](ctx context.Context, m *machine, effect func(context.Context) (T, error)) (result T, err error) {
	f := m.fate()
	if err := m.thaw(f.stall); err != nil {
		return result, err
	}
	if f.crashBefore {
		return result, m.die()
	}
	if err := ctx.Err(); err != nil {
		return result, context.Cause(ctx)
	}
	if f.failBefore {
		m.world.see("lost on the way")
		return result, fmt.Errorf("lost on the way: %w", bucket.ErrTransient)
	}
	begun := time.Now()
	select {
	case <-time.After(f.delay):
	case <-ctx.Done():
		if f.arrives {
			m.world.later.Go(func() { //nolint:contextcheck // nobody waits for it
				<-time.After(f.delay - time.Since(begun))
				m.world.see("arrived late")
				_, _ = effect(context.Background())
			})
		}
		return result, context.Cause(ctx)
	}
	result, err = effect(ctx)
	switch {
	case f.crashAfter:
		return result, m.die()
	case err == nil && f.failAfter:
		m.world.see("answer lost")
		err = fmt.Errorf("the answer was lost: %w", bucket.ErrTransient)
	}
	if err := m.thaw(0); err != nil {
		return result, err
	}
	return result, err
}

// simBucket is the bucket as a machine reaches it.
type simBucket struct {
	*bucket.Memory
	machine *machine
}

var (
	_ objstore.Bucket  = simBucket{}
	_ bucket.Lister    = simBucket{}
	_ bucket.Versioned = simBucket{}
)

func (b simBucket) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	found, err := attempt(ctx, b.machine, func(ctx context.Context) (found []bucket.Object, err error) {
		err = b.Memory.List(ctx, prefix, after, func(o bucket.Object) error {
			found = append(found, o)
			return nil
		})
		return found, err
	})
	if err != nil {
		return err
	}
	for _, o := range found {
		if err := fn(o); err != nil {
			return err
		}
	}
	return nil
}

func (b simBucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	return attempt(ctx, b.machine, func(ctx context.Context) (io.ReadCloser, error) { return b.Memory.Get(ctx, name) })
}

// versionOf is what GetVersion gives.
type versionOf struct {
	content []byte
	etag    string
}

func (b simBucket) GetVersion(ctx context.Context, name string) (content []byte, etag string, err error) {
	v, err := attempt(ctx, b.machine, func(ctx context.Context) (v versionOf, err error) {
		v.content, v.etag, err = b.Memory.GetVersion(ctx, name)
		return v, err
	})
	return v.content, v.etag, err
}

func (b simBucket) Upload(ctx context.Context, name string, r io.Reader, _ ...objstore.ObjectUploadOption) error {
	_, err := b.write(ctx, name, r, func(ctx context.Context, content []byte) (string, error) {
		return "", b.Memory.Upload(ctx, name, bytes.NewReader(content))
	})
	return err
}

func (b simBucket) PutIfAbsent(ctx context.Context, name string, r io.Reader) (string, error) {
	return b.write(ctx, name, r, func(ctx context.Context, content []byte) (string, error) {
		return b.Memory.PutIfAbsent(ctx, name, bytes.NewReader(content))
	})
}

func (b simBucket) PutIfMatch(ctx context.Context, name string, content []byte, etag string) (string, error) {
	return b.write(ctx, name, bytes.NewReader(content), func(ctx context.Context, content []byte) (string, error) {
		return b.Memory.PutIfMatch(ctx, name, content, etag)
	})
}

func (b simBucket) write(ctx context.Context, name string, r io.Reader, put func(ctx context.Context, content []byte) (string, error)) (string, error) {
	content, err := io.ReadAll(r)
	if err != nil {
		return "", err
	}
	return attempt(ctx, b.machine, func(ctx context.Context) (etag string, err error) {
		err = b.machine.world.write(ctx, name, content, func() (err error) {
			etag, err = put(ctx, content)
			return err
		})
		return etag, err
	})
}

func (b simBucket) Delete(ctx context.Context, name string) error {
	_, err := attempt(ctx, b.machine, func(ctx context.Context) (string, error) {
		return "", b.machine.world.write(ctx, name, nil, func() error { return b.Memory.Delete(ctx, name) })
	})
	return err
}

package pagecache

import (
	"context"
	"maps"
	"math/rand"
	"sync"
	"testing"
)

// shared is a remote cache inside this process.
type shared struct {
	mu     sync.Mutex
	values map[string][]byte
}

func newShared() *shared { return &shared{values: map[string][]byte{}} }

func (s *shared) Get(_ context.Context, keys []string) map[string][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := map[string][]byte{}
	for _, k := range keys {
		if v, ok := s.values[k]; ok {
			found[k] = v
		}
	}
	return found
}

func (s *shared) Set(key string, value []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
}

func (s *shared) Delete(_ context.Context, keys ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		delete(s.values, k)
	}
}

func remoteOptions(r Remote) Options {
	o := testOptions(1 << 30)
	o.Remote = r
	return o
}

func TestWhatOneProcessReadAnotherFinds(t *testing.T) {
	f, r := newFake(10*pageSize), newShared()
	mustRead(t, newCache(t, f, remoteOptions(r)), f, pageSize-100, 300) // on two pages
	f.took()
	c := newCache(t, f, remoteOptions(r))
	u := new(Usage)
	if err := c.Read(WithUsage(t.Context(), u), f.object(), make([]byte, 200), pageSize-50); err != nil {
		t.Fatal(err)
	}
	if requests, _ := f.took(); requests != 0 || u.FromRemote.Load() != 200 {
		t.Errorf("%d requests and %d bytes from the remote cache, want none and 200", requests, u.FromRemote.Load())
	}
	mustRead(t, c, f, pageSize-50, 200)
	if len(r.values) != 2 {
		t.Errorf("%d values in the remote cache, want a page each", len(r.values))
	}
}

func TestARemotePageGrows(t *testing.T) {
	f, r := newFake(pageSize), newShared()
	for _, off := range []int64{100, 30_000, 60_000} { // each in a process of its own
		mustRead(t, newCache(t, f, remoteOptions(r)), f, 90, 200)
		mustRead(t, newCache(t, f, remoteOptions(r)), f, off, 500)
	}
	f.took()
	c := newCache(t, f, remoteOptions(r))
	mustReadRanges(t, c, f, []Range{
		{Object: f.object(), Off: 90, Len: 510}, {Object: f.object(), Off: 30_100, Len: 400}, {Object: f.object(), Off: 60_000, Len: 1},
	})
	if requests, _ := f.took(); requests != 0 {
		t.Errorf("%d requests for what others have read, want none", requests)
	}
}

func TestLongRequestsAreNotKeptRemotely(t *testing.T) {
	f, r := newFake(20*pageSize), newShared()
	mustRead(t, newCache(t, f, remoteOptions(r)), f, 0, bulk)
	if len(r.values) != 0 {
		t.Errorf("%d values in the remote cache, want none of a long request", len(r.values))
	}
}

func TestWhatComesFromARemoteCacheIsKeptOnDisk(t *testing.T) {
	f, r, dir := newFake(pageSize), newShared(), t.TempDir()
	mustRead(t, newCache(t, f, remoteOptions(r)), f, 0, 1000)
	o := diskOptions(dir)
	o.Remote = r
	c := newCache(t, f, o)
	mustRead(t, c, f, 10, 10)
	c.disk.flush()
	c.mustClose(t)
	f.took()
	mustRead(t, newCache(t, f, diskOptions(dir)), f, 500, 500)
	if requests, _ := f.took(); requests != 0 {
		t.Errorf("%d requests for what came from the remote cache, want none", requests)
	}
}

func TestARemoteCacheIsNotTrusted(t *testing.T) {
	f := newFake(3 * pageSize)
	good := newShared()
	mustRead(t, newCache(t, f, remoteOptions(good)), f, 0, 3*pageSize)
	keys := make([]string, 0, 3)
	for n := range int64(3) {
		keys = append(keys, pageKey{f.object(), n}.remoteKey())
	}
	for name, spoil := range map[string]func(v []byte) []byte{
		"a bit":        func(v []byte) []byte { v[rand.Intn(len(v))] ^= 1 << rand.Intn(8); return v },
		"its end":      func(v []byte) []byte { return v[:rand.Intn(len(v))] },
		"all of it":    func([]byte) []byte { return []byte("hello") },
		"nothing left": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			r := &shared{values: map[string][]byte{}}
			for k, v := range good.values {
				r.values[k] = spoil(append([]byte(nil), v...))
			}
			c := newCache(t, f, remoteOptions(r))
			f.took()
			mustRead(t, c, f, 100, 2*pageSize)
			if requests, _ := f.took(); requests == 0 {
				t.Error("no request, although nothing in the remote cache is right")
			}
			mustRead(t, newCache(t, f, remoteOptions(r)), f, 200, 1000)
		})
	}
	t.Run("the page of another", func(t *testing.T) {
		r := &shared{values: maps.Clone(good.values)}
		r.values[keys[0]], r.values[keys[1]] = r.values[keys[1]], r.values[keys[0]]
		c := newCache(t, f, remoteOptions(r))
		mustRead(t, c, f, 0, 3*pageSize)
	})
	t.Run("what a reader found wrong", func(t *testing.T) {
		r := &shared{values: maps.Clone(good.values)}
		newCache(t, f, remoteOptions(r)).Forget(f.object(), pageSize+10, 10)
		if _, ok := r.values[keys[1]]; ok || len(r.values) != 2 {
			t.Errorf("%d values are left, want those of the other two pages", len(r.values))
		}
	})
}

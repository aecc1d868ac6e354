package fetcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// watched is a bucket that counts reads and answers some of them with an error.
type watched struct {
	*bucket.Memory

	mu     sync.Mutex
	reads  []string
	broken map[string]error // by object name; "" is the listing
}

func (b *watched) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads = append(b.reads, name)
	if err := b.broken[name]; err != nil {
		return nil, err
	}
	return b.Memory.Get(ctx, name)
}

func (b *watched) List(ctx context.Context, prefix, after string, fn func(bucket.Object) error) error {
	n := 0
	return b.Memory.List(ctx, prefix, after, func(o bucket.Object) error {
		if n++; n > 2 && b.broken[""] != nil {
			return b.broken[""] // the second page of the listing
		}
		return fn(o)
	})
}

// seen gives the reads since the last call, sorted.
func (b *watched) seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	reads := b.reads
	b.reads = nil
	slices.Sort(reads)
	return reads
}

func (b *watched) put(t *testing.T, name, content string) {
	t.Helper()
	if err := b.Upload(t.Context(), name, strings.NewReader(content)); err != nil {
		t.Fatal(err)
	}
}

func (b *watched) remove(t *testing.T, name string) {
	t.Helper()
	if err := b.Delete(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

func newBucket() *watched { return &watched{Memory: bucket.NewMemory(), broken: map[string]error{}} }

func newFetcher(b bucket.Reader, cacheDir string) *Fetcher {
	o := Defaults()
	o.CacheDir = cacheDir
	return New(b, o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
}

// hours is a block of one sample each hour of [from, to).
func hours(t *testing.T, b *watched, from, to int) *block.Meta {
	t.Helper()
	return blocktest.InBucket(t, b, blocktest.Spec{
		Load: fmt.Sprintf("load 1h\n\tup 0+1x%d", to-from-1), Offset: time.Duration(from) * time.Hour,
		Labels: map[string]string{"cluster": "eu"},
	})
}

func fetch(t *testing.T, f *Fetcher) *block.Set {
	t.Helper()
	set, err := f.Fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestAVersionIsThatOfIndexAndChunks(t *testing.T) {
	b := newBucket()
	id := hours(t, b, 0, 2).ULID
	hours(t, b, 2, 4)
	version := func() string {
		t.Helper()
		set := fetch(t, newFetcher(b, t.TempDir()))
		if len(set.Blocks) != 2 || set.Blocks[0].Version == set.Blocks[1].Version {
			t.Fatalf("versions of two blocks: %+v", set.Blocks)
		}
		i := slices.IndexFunc(set.Blocks, func(e *block.Entry) bool { return e.Meta.ULID == id })
		names := slices.Sorted(maps.Keys(set.Blocks[i].ETags))
		if want := []string{block.SegmentFile(1), block.IndexFile}; !slices.Equal(names, want) || set.Blocks[i].ETags[block.IndexFile] == "" {
			t.Fatalf("ETags are %v, want those of %v", set.Blocks[i].ETags, want)
		}
		return set.Blocks[i].Version
	}
	first := version()
	b.put(t, block.ObjectName(id, string(block.NoCompactMark)), `{"id":"`+id.String()+`","version":1,"no_compact_time":1}`)
	if got := version(); got != first {
		t.Errorf("a mark changes the version from %s to %s", first, got)
	}
	for _, rel := range []string{block.IndexFile, block.SegmentFile(1)} {
		b.put(t, block.ObjectName(id, rel), "other content")
		got := version()
		if got == first {
			t.Errorf("the version is still %s after %s was written anew", got, rel)
		}
		first = got
	}
}

// text writes a set with the names that the test gave to its blocks.
func text(set *block.Set, names map[ulid.ULID]string) string {
	var b strings.Builder
	for _, e := range set.Blocks {
		fmt.Fprintf(&b, "%s: %d objects", names[e.Meta.ULID], len(e.Objects))
		for _, m := range []*block.Mark{e.Deletion, e.NoCompact, e.NoDownsample} {
			if m != nil {
				fmt.Fprintf(&b, ", %s at %d", m.Kind, m.Time)
			}
		}
		b.WriteByte('\n')
	}
	for _, p := range set.Partial {
		fmt.Fprintf(&b, "%s: partial, %d objects, marked: %t\n", names[p.ID], len(p.Objects), p.Deletion != nil)
	}
	for _, u := range set.Unreadable {
		fmt.Fprintf(&b, "%s: unreadable\n", names[u.ID])
	}
	return b.String()
}

func mark(id ulid.ULID, kind block.MarkKind, at int64) string {
	data, err := block.EncodeMark(block.Mark{Kind: kind, ID: id, Time: at})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestASetSaysAllThatABucketHolds(t *testing.T) {
	b := newBucket()
	second, first := hours(t, b, 2, 4), hours(t, b, 0, 2)
	going, broken, foreign := hours(t, b, 4, 6), hours(t, b, 6, 8), hours(t, b, 8, 10)
	names := map[ulid.ULID]string{first.ULID: "first", second.ULID: "second", going.ULID: "going", broken.ULID: "broken", foreign.ULID: "foreign"}

	for i, kind := range block.MarkKinds() {
		b.put(t, block.MarkName(second.ULID, kind), mark(second.ULID, kind, int64(100+i)))
	}
	b.put(t, block.MarkName(first.ULID, block.NoCompactMark), "{ not JSON")
	b.put(t, block.MarkName(going.ULID, block.DeletionMark), mark(going.ULID, block.DeletionMark, 7))
	b.remove(t, block.MetaName(going.ULID))
	newest := time.Now().Add(time.Hour).Truncate(time.Second)
	b.SetLastModified(block.IndexName(going.ULID), newest)
	b.put(t, block.MetaName(broken.ULID), `{"version": 7}`)
	r, err := b.Memory.Get(t.Context(), block.MetaName(first.ULID))
	if err != nil {
		t.Fatal(err)
	}
	other, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	b.put(t, block.MetaName(foreign.ULID), string(other))
	for _, name := range []string{"debug/metas/" + first.ULID.String() + ".json", "README", "lost+found/"} {
		b.put(t, name, "{}")
	}

	f := newFetcher(b, "")
	set := fetch(t, f)
	const want = `first: 4 objects
second: 6 objects, deletion-mark.json at 100, no-compact-mark.json at 101, no-downsample-mark.json at 102
going: partial, 3 objects, marked: true
broken: unreadable
foreign: unreadable
`
	if got := text(set, names); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	if got := set.Partial[0].LastModified; !got.Equal(newest) {
		t.Errorf("the partial block's newest object is of %s, want %s", got, newest)
	}
	if got := set.Blocks[0].Objects[block.IndexFile]; got == 0 {
		t.Error("the size of the index is not known")
	}
	for _, u := range set.Unreadable {
		if !errors.Is(u.Err, block.ErrCorrupt) || !strings.Contains(u.Err.Error(), u.ID.String()) {
			t.Errorf("error of %s: got %v, want %v with the object's name", u.ID, u.Err, block.ErrCorrupt)
		}
	}
	for state, want := range map[string]float64{"complete": 1, "marked": 1, "partial": 1, "unreadable": 2} {
		if got := testutil.ToFloat64(f.metrics.blocks.WithLabelValues(state)); got != want {
			t.Errorf("metric of %s blocks: got %v, want %v", state, got, want)
		}
	}
}

func TestOnlyWhatIsNewIsRead(t *testing.T) {
	b := newBucket()
	first := hours(t, b, 0, 2)
	bad := hours(t, b, 2, 4)
	b.put(t, block.MetaName(bad.ULID), "{")
	f := newFetcher(b, "")
	fetch(t, f)
	b.seen()

	fetch(t, f)
	if got := b.seen(); len(got) > 0 {
		t.Errorf("nothing is new, yet these were read: %v", got)
	}
	third := hours(t, b, 4, 6)
	b.put(t, block.MarkName(first.ULID, block.DeletionMark), mark(first.ULID, block.DeletionMark, 1))
	b.seen() // the upload's own reads
	fetch(t, f)
	want := []string{block.MarkName(first.ULID, block.DeletionMark), block.MetaName(third.ULID)}
	slices.Sort(want)
	if got := b.seen(); !slices.Equal(got, want) {
		t.Errorf("read %v, want %v", got, want)
	}
	b.put(t, block.MarkName(first.ULID, block.DeletionMark), mark(first.ULID, block.DeletionMark, 2))
	if got := fetch(t, f).Blocks[0].Deletion.Time; got != 2 {
		t.Errorf("time of the rewritten mark: got %d, want 2", got)
	}
	b.remove(t, block.MarkName(first.ULID, block.DeletionMark))
	if got := fetch(t, f).Blocks[0].Deletion; got != nil {
		t.Errorf("the removed mark is still there: %+v", got)
	}
}

func TestARestartReadsFromDisk(t *testing.T) {
	b, dir := newBucket(), filepath.Join(t.TempDir(), "metas")
	first, second := hours(t, b, 0, 2), hours(t, b, 2, 4)
	b.put(t, block.MarkName(second.ULID, block.NoCompactMark), mark(second.ULID, block.NoCompactMark, 5))
	fetch(t, newFetcher(b, dir))
	b.seen()

	restarted := fetch(t, newFetcher(b, dir)).Blocks
	if len(restarted) != 2 || restarted[1].NoCompact == nil {
		t.Errorf("got %d blocks, want 2, the second of them marked", len(restarted))
	}
	if got := b.seen(); len(got) > 0 {
		t.Errorf("read from the bucket: %v, want nothing", got)
	}

	file := filepath.Join(dir, journalFile)
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func([]byte) []byte{
		"a byte is another": func(b []byte) []byte { b[len(b)-100] ^= 1; return b },
		"its end is gone":   func(b []byte) []byte { return b[:len(b)-100] },
	} {
		if err := os.WriteFile(file, damage(slices.Clone(whole)), 0o600); err != nil {
			t.Fatal(err)
		}
		for i, want := range []int{1, 0} { // the last record is read again, and kept again
			if got := len(fetch(t, newFetcher(b, dir)).Blocks); got != 2 {
				t.Errorf("%s: got %d blocks, want 2", name, got)
			}
			if got := b.seen(); len(got) != want {
				t.Errorf("%s, start %d: read from the bucket: %v, want %d objects", name, i, got, want)
			}
		}
	}
	b.put(t, block.MetaName(first.ULID), encoded(t, first)+"\n")
	b.seen()
	for i, want := range []int{1, 0} {
		fetch(t, newFetcher(b, dir))
		if got := b.seen(); len(got) != want {
			t.Errorf("start %d after a change: read from the bucket: %v, want %d objects", i, got, want)
		}
	}
}

func encoded(t *testing.T, m *block.Meta) string {
	t.Helper()
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLocalCopiesDoNotGrowForEver(t *testing.T) {
	b, dir := newBucket(), t.TempDir()
	kept := hours(t, b, 0, 2)
	f := newFetcher(b, dir)
	for _, name := range []string{tmpPrefix + "123", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 300 {
		b.put(t, block.MarkName(kept.ULID, block.NoCompactMark), mark(kept.ULID, block.NoCompactMark, int64(i)))
		fetch(t, f)
	}
	data, err := os.ReadFile(filepath.Join(dir, journalFile))
	if err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(data, []byte("{")); got > 110 {
		t.Errorf("got %d records of two objects", got)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 || entries[0].Name() != journalFile || entries[1].Name() != "notes.txt" {
		t.Errorf("left on disk: %v, %v; want the journal and what is not ours", entries, err)
	}
	b.seen()
	if got := fetch(t, newFetcher(b, dir)).Blocks[0].NoCompact.Time; got != 299 || len(b.seen()) > 0 {
		t.Errorf("after a restart: got the mark of %d, want 299 without a read", got)
	}
}

func TestAnErrorStaysWithItsBlock(t *testing.T) {
	b := newBucket()
	first, second, third := hours(t, b, 0, 2), hours(t, b, 2, 4), hours(t, b, 4, 6)
	names := map[ulid.ULID]string{first.ULID: "first", second.ULID: "second", third.ULID: "third"}
	b.put(t, block.MarkName(second.ULID, block.NoCompactMark), mark(second.ULID, block.NoCompactMark, 5))
	b.broken[block.MetaName(first.ULID)] = bucket.ErrThrottled
	b.broken[block.MarkName(second.ULID, block.NoCompactMark)] = bucket.ErrThrottled
	b.broken[block.MetaName(third.ULID)] = bucket.ErrNotFound // deleted since it was listed

	var log bytes.Buffer
	f := New(b, Defaults(), slog.New(slog.NewTextHandler(&log, nil)), prometheus.NewRegistry())
	set := fetch(t, f)
	for name, want := range map[string]int{
		block.MetaName(first.ULID): 1, block.MarkName(second.ULID, block.NoCompactMark): 1, block.MetaName(third.ULID): 0,
	} {
		if got := strings.Count(log.String(), "object="+name); got != want {
			t.Errorf("log lines of %s: got %d, want %d in\n%s", name, got, want, log.String())
		}
	}
	if got, want := text(set, names), "first: unreadable\nsecond: unreadable\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for _, u := range set.Unreadable {
		if !errors.Is(u.Err, bucket.ErrTransient) {
			t.Errorf("error of %s: got %v, want a transient one", names[u.ID], u.Err)
		}
	}
	clear(b.broken)
	if got, want := text(fetch(t, f), names), "first: 3 objects\nsecond: 4 objects, no-compact-mark.json at 5\nthird: 3 objects\n"; got != want {
		t.Errorf("after the outage got\n%swant\n%s", got, want)
	}
}

func TestAListingThatBreaksOffGivesNoSet(t *testing.T) {
	b := newBucket()
	hours(t, b, 0, 2)
	f := newFetcher(b, "")
	began := time.Now()
	last := fetch(t, f)
	if last.Listed.Before(began) || last.Listed.After(time.Now()) {
		t.Errorf("the set was listed at %s, want a time since %s", last.Listed, began)
	}
	b.seen()
	b.broken[""] = bucket.ErrTransient
	if set, err := f.Fetch(t.Context()); !errors.Is(err, bucket.ErrTransient) || set != nil {
		t.Errorf("got %v, %v; want no set and %v", set, err, bucket.ErrTransient)
	}
	if got := testutil.ToFloat64(f.metrics.failures); got != 1 {
		t.Errorf("failures counted: got %v, want 1", got)
	}
	if got, want := testutil.ToFloat64(f.metrics.lastSync), float64(last.Listed.UnixMilli())/1000; got != want {
		t.Errorf("time of the last look: got %v, want %v, that of the last whole one", got, want)
	}
	clear(b.broken)
	if got := len(fetch(t, f).Blocks); got != 1 {
		t.Errorf("after the outage: got %d blocks, want 1", got)
	}
	if got := b.seen(); len(got) > 0 {
		t.Errorf("read after the outage: %v, want nothing, for nothing is new", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if set, err := f.Fetch(ctx); !errors.Is(err, context.Canceled) || set != nil {
		t.Errorf("got %v, %v; want no set and %v", set, err, context.Canceled)
	}
}

func TestALookThatWasBrokenOffLeavesLessToTheNext(t *testing.T) {
	b, dir := newBucket(), t.TempDir()
	first, second := hours(t, b, 0, 2), hours(t, b, 2, 4)
	ctx, cancel := context.WithCancel(t.Context())
	stuck := &stopped{watched: b, after: 1, stop: cancel}
	o := Defaults()
	o.CacheDir, o.Concurrency = dir, 1
	f := New(stuck, o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	b.seen()
	if set, err := f.Fetch(ctx); !errors.Is(err, context.Canceled) || set != nil {
		t.Fatalf("got %v, %v; want no set and %v", set, err, context.Canceled)
	}
	done := b.seen()
	if len(done) != 1 {
		t.Fatalf("read before the end: %v, want one object", done)
	}
	want := []string{block.MetaName(first.ULID), block.MetaName(second.ULID)}
	want = slices.DeleteFunc(want, func(name string) bool { return name == done[0] })
	for _, next := range []*Fetcher{newFetcher(b, dir), f} {
		if got := len(fetch(t, next).Blocks); got != 2 {
			t.Errorf("got %d blocks, want 2", got)
		}
		if got := b.seen(); !slices.Equal(got, want) {
			t.Errorf("read %v, want %v", got, want)
		}
	}
}

// stopped ends the look after some reads.
type stopped struct {
	*watched
	after int
	stop  func()
}

func (b *stopped) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	if b.after == 0 {
		return b.watched.Get(ctx, name)
	}
	b.after--
	r, err := b.watched.Get(ctx, name)
	if b.after == 0 {
		b.stop()
	}
	return r, err
}

func TestOptions(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
	if err := (Options{}).Validate(); err == nil || !strings.Contains(err.Error(), "--block-meta-fetch-concurrency") {
		t.Errorf("got error %v, want one that names the flag", err)
	}
}

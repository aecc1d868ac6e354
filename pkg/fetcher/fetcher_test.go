package fetcher

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
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

	copies, err := filepath.Glob(filepath.Join(dir, first.ULID.String()+"*"))
	if err != nil || len(copies) != 1 {
		t.Fatalf("copies of the first block: %v, %v; want one", copies, err)
	}
	if err := os.Truncate(copies[0], 0); err != nil {
		t.Fatal(err)
	}
	b.remove(t, block.MetaName(second.ULID))
	b.remove(t, block.MarkName(second.ULID, block.NoCompactMark))
	for _, name := range []string{tmpPrefix + "123", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(fetch(t, newFetcher(b, dir)).Blocks); got != 1 {
		t.Errorf("got %d blocks, want 1", got)
	}
	if got, want := b.seen(), []string{block.MetaName(first.ULID)}; !slices.Equal(got, want) {
		t.Errorf("read from the bucket: %v, want %v, whose copy is empty", got, want)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 || left[0].Name() != filepath.Base(copies[0]) || left[1].Name() != "notes.txt" {
		t.Errorf("left on disk: %v, %v; want the copy of the first block and what is not ours", left, err)
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

func TestOptions(t *testing.T) {
	if err := Defaults().Validate(); err != nil {
		t.Errorf("the defaults are not valid: %v", err)
	}
	if err := (Options{}).Validate(); err == nil || !strings.Contains(err.Error(), "--block-meta-fetch-concurrency") {
		t.Errorf("got error %v, want one that names the flag", err)
	}
}

package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/series"
	"github.com/varve-io/varve/pkg/storeapi"
	"github.com/varve-io/varve/pkg/storeapi/storeapitest"
)

// ups is a block of the series up{job="0"}, up{job="1"}, … with samples every 15 s.
func ups(n int, from, to int64, level int) blocktest.Spec {
	s := blocktest.Spec{Labels: map[string]string{"cluster": "eu"}, MinTime: from, MaxTime: to, Level: level}
	for i := range n {
		values := make([]float64, (to-from)/15_000)
		for j := range values {
			values[j] = float64(j * (i + 1))
		}
		s.Series = append(s.Series, blocktest.Floats(labels.FromStrings("__name__", "up", "job", fmt.Sprintf("%04d", i)), from, 15_000, values...))
	}
	return s
}

func selectUp(mint, maxt int64) *storeapi.Request {
	return &storeapi.Request{MinTime: mint, MaxTime: maxt, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")}}
}

// ask returns the answer as text: one line for each series with its number of
// samples, then the warnings.
func ask(t testing.TB, g *Gateway, req *storeapi.Request) (string, error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got, warnings, err := series.Collect(g.Series(ctx, req))
	if len(warnings) > 0 {
		return text(t, got, req) + errors.Join(warnings.AsErrors()...).Error(), err
	}
	return text(t, got, req), err
}

func text(t testing.TB, got []series.Series, req *storeapi.Request) string {
	t.Helper()
	var b strings.Builder
	for _, s := range got {
		times := map[int64]bool{}
		for _, c := range s.Chunks {
			for _, p := range storeapitest.Decode(t, c) {
				if p.T >= req.MinTime && p.T <= req.MaxTime {
					times[p.T] = true
				}
			}
		}
		fmt.Fprintf(&b, "%s %d\n", s.Labels.Get("job"), len(times))
	}
	return b.String()
}

func mustAsk(t testing.TB, g *Gateway, req *storeapi.Request) string {
	t.Helper()
	got, err := ask(t, g, req)
	if err != nil {
		t.Fatalf("series: %v", err)
	}
	return got
}

// TestABlockThatIsWrittenAnewIsReadAnew changes the objects of a block, whose labels and
// lengths stay, under a gateway with warm caches.
func TestABlockThatIsWrittenAnewIsReadAnew(t *testing.T) {
	bkt := bucket.NewMemory()
	old, spec := noise(20, 0), noise(20, 0)
	for _, s := range spec.Series {
		for i := range s.Samples {
			s.Samples[i].V = -s.Samples[i].V // another sign, one other bit
		}
	}
	was := add(t, bkt, old)
	was.Version = "1"
	g := open(t, bkt, nil, was)
	req := selectUp(0, hour)
	collect := func(g *Gateway) []series.Series {
		t.Helper()
		got, warnings, err := series.Collect(g.Series(t.Context(), req))
		if err != nil || len(warnings) > 0 || len(got) != 20 {
			t.Fatalf("%d series: %v, %v", len(got), warnings, err)
		}
		return got
	}
	same := func(a, b series.Series) bool {
		return slices.EqualFunc(a.Chunks, b.Chunks, func(a, b series.Chunk) bool { return bytes.Equal(a.Data, b.Data) })
	}
	before := collect(g)

	dir, meta := blocktest.Dir(t, spec)
	meta.ULID = was.Meta.ULID
	is := upload(t, bkt, dir, meta)
	is.Version = "2"
	syncBlocks(t, g, is)
	after, want := collect(g), collect(open(t, bkt, nil, is))
	if slices.EqualFunc(before, want, same) || !slices.EqualFunc(after, want, same) {
		t.Error("the answer is not that of the new objects")
	}
}

func TestBlocksAppearAndDisappear(t *testing.T) {
	bkt := bucket.NewMemory()
	first, second := add(t, bkt, ups(1, 0, hour, 1)), add(t, bkt, ups(1, hour, 2*hour, 1))
	g := open(t, bkt, nil, first)
	all := selectUp(0, 2*hour)
	if got, want := mustAsk(t, g, all), "0000 240\n"; got != want {
		t.Errorf("one block: got %q, want %q", got, want)
	}
	syncBlocks(t, g, first, second)
	if got, want := mustAsk(t, g, all), "0000 480\n"; got != want {
		t.Errorf("two blocks: got %q, want %q", got, want)
	}

	// A request that runs keeps its blocks; one that begins later does not see them.
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	running := g.Series(ctx, all)
	syncBlocks(t, g, second)
	if got, want := mustAsk(t, g, all), "0000 240\n"; got != want {
		t.Errorf("the second block: got %q, want %q", got, want)
	}
	got, warnings, err := series.Collect(running)
	if err != nil || len(warnings) > 0 || text(t, got, all) != "0000 480\n" {
		t.Errorf("the request that ran: got %q (%v, %v)", text(t, got, all), warnings, err)
	}
	if files, err := os.ReadDir(filepath.Join(g.opts.Dir, "directories")); err != nil || len(files) != 1 || files[0].Name() != second.Meta.ULID.String() {
		t.Errorf("page directories on disk: %v (%v), want that of the second block", files, err)
	}
	syncBlocks(t, g)
	if got := mustAsk(t, g, all); got != "" {
		t.Errorf("no block: got %q", got)
	}
}

func TestABlockWhoseMetaCannotBeReadAnyMoreStays(t *testing.T) {
	bkt := bucket.NewMemory()
	known, other := add(t, bkt, ups(1, 0, hour, 1)), add(t, bkt, ups(1, hour, 2*hour, 1))
	g := open(t, bkt, nil, known)
	set := &block.Set{Unreadable: []block.Unreadable{{ID: known.Meta.ULID, Err: io.ErrUnexpectedEOF}, {ID: other.Meta.ULID, Err: io.ErrUnexpectedEOF}}}
	if err := g.Sync(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	if got, want := mustAsk(t, g, selectUp(0, 2*hour)), "0000 240\n"; got != want {
		t.Errorf("got %q, want %q: the block that was read before", got, want)
	}
	syncBlocks(t, g)
	if got := mustAsk(t, g, selectUp(0, 2*hour)); got != "" {
		t.Errorf("got %q of a block that is gone", got)
	}
}

func TestAGatewayIsUnavailableBeforeItsBlocksAreKnownAndAfterItIsClosed(t *testing.T) {
	g := open(t, bucket.NewMemory(), nil)
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	fresh, err := New(bucket.NewMemory(), g.opts, g.log, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	for name, g := range map[string]*Gateway{"closed": g, "fresh": fresh} {
		_, infoErr := g.Info(t.Context())
		_, seriesErr := ask(t, g, selectUp(0, 1))
		_, _, labelsErr := g.LabelNames(t.Context(), &storeapi.LabelsRequest{})
		for _, err := range []error{infoErr, seriesErr, labelsErr} {
			if !errors.Is(err, storeapi.ErrUnavailable) {
				t.Errorf("%s: error is %v, want %v", name, err, storeapi.ErrUnavailable)
			}
		}
	}
}

// damage changes bytes of an object.
func damage(t testing.TB, bkt *bucket.Memory, name string, change func([]byte) []byte) {
	t.Helper()
	content, _, err := bkt.GetVersion(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	if err := bkt.Upload(t.Context(), name, bytes.NewReader(change(content))); err != nil {
		t.Fatal(err)
	}
}

func TestABadBlockIsAWarningOrAnError(t *testing.T) {
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x55; return b }
	}
	for name, tc := range map[string]struct {
		object string
		change func([]byte) []byte
		want   string // the answer without the bad block, or without the bad chunk
	}{
		"an index that is no index":    {"index", func(b []byte) []byte { return make([]byte, len(b)) }, "0000 240\n0001 240\n"},
		"an index that is cut off":     {"index", func(b []byte) []byte { return b[:len(b)/2] }, "0000 240\n0001 240\n"},
		"a chunk with a wrong byte":    {"chunks/000001", flip(30), "0000 360\n0001 480\n"},
		"a chunk with a wrong length":  {"chunks/000001", func(b []byte) []byte { b[8] = 0xff; b[9] |= 0x80; return b }, "0000 360\n0001 480\n"},
		"a chunk of unknown encoding":  {"chunks/000001", flip(10), "0000 360\n0001 480\n"},
		"a segment that is cut off":    {"chunks/000001", func(b []byte) []byte { return b[:len(b)-40] }, "0000 240\n0001 240\n"},
		"a segment that is not there":  {"chunks/000001", nil, "0000 240\n0001 240\n"},
		"an index that is not there":   {"index", nil, "0000 240\n0001 240\n"},
		"a series entry with an error": {"index", flip(60), ""},
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			good, bad := add(t, bkt, ups(2, 0, hour, 1)), add(t, bkt, ups(2, hour, 2*hour, 1))
			bad.ETags = nil // what rots has the version that it had
			object := block.ObjectName(bad.Meta.ULID, tc.object)
			if tc.change == nil {
				if err := bkt.Delete(t.Context(), object); err != nil {
					t.Fatal(err)
				}
			} else {
				damage(t, bkt, object, tc.change)
			}
			g := open(t, bkt, nil, good, bad)
			req := selectUp(0, 2*hour)
			got := mustAsk(t, g, req)
			if !strings.HasPrefix(got, tc.want) || !strings.Contains(got, bad.Meta.ULID.String()) || !strings.Contains(got, "1970-01-01T01:00:00Z") {
				t.Errorf("got %q, want %q and a warning that names block and range", got, tc.want)
			}
			req.Partial = storeapi.Abort
			if _, err := ask(t, g, req); err == nil || !strings.Contains(err.Error(), bad.Meta.ULID.String()) {
				t.Errorf("abort: error is %v, want one that names block %s", err, bad.Meta.ULID)
			}
			if _, _, err := g.LabelNames(t.Context(), &storeapi.LabelsRequest{MaxTime: hour - 1}); err != nil {
				t.Errorf("labels of the good block: %v", err)
			}
		})
	}
}

func TestABlockThatVanishesIsReplacedByWhatItBecame(t *testing.T) {
	bkt := bucket.NewMemory()
	// Labels so long that an answer takes several batches.
	spec := func(from, to int64, level int) blocktest.Spec {
		s := ups(300, from, to, level)
		for i := range s.Series {
			s.Series[i].Labels = labels.NewBuilder(s.Series[i].Labels).Set("long", strings.Repeat("x", 2000)).Labels()
		}
		return s
	}
	const end = 10 * 15_000
	first, second := add(t, bkt, spec(0, end, 1)), add(t, bkt, spec(end, 2*end, 1))
	merged := add(t, bkt, spec(0, 2*end, 2))
	merged.Meta.Compaction.Sources = block.SortedIDs([]ulid.ULID{first.Meta.ULID, second.Meta.ULID})
	var lines strings.Builder
	for i := range 300 {
		fmt.Fprintf(&lines, "%04d 20\n", i)
	}
	want := lines.String()
	for name, taken := range map[string]int{"before the first series": 0, "in the middle": 70} {
		t.Run(name, func(t *testing.T) {
			vanishing := &vanishingBucket{Reader: bkt, prefix: first.Meta.ULID.String(), open: make(chan struct{})}
			g := open(t, vanishing, func(o *Options) { o.RequestBytes, o.Cache.MemoryBytes = minRequestBytes, 0 }, first, second)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			req := selectUp(0, 2*end)
			set := g.Series(ctx, req)
			if taken > 0 {
				close(vanishing.open)
			}
			var got []series.Series
			for range taken {
				if !set.Next() {
					t.Fatalf("the set ended after %d series: %v", len(got), set.Err())
				}
				got = append(got, *set.At())
			}
			syncBlocks(t, g, merged)
			vanishing.gone.Store(true)
			if taken == 0 {
				close(vanishing.open)
			}
			rest, warnings, err := series.Collect(set)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("series: %v, %v", err, warnings)
			}
			if got := text(t, append(got, rest...), req); got != want {
				t.Errorf("got %.200q, want %.200q", got, want)
			}
			if vanishing.missed.Load() == 0 {
				t.Error("nothing was asked of the block that is gone")
			}
		})
	}
}

// vanishingBucket is a bucket that answers once it is open, and in which the
// objects of a block are gone at some point, which breaks the answers under way.
type vanishingBucket struct {
	bucket.Reader
	prefix string
	open   chan struct{}
	gone   atomic.Bool
	missed atomic.Int64
}

func (v *vanishingBucket) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	<-v.open
	if v.gone.Load() && strings.HasPrefix(name, v.prefix) {
		v.missed.Add(1)
		return nil, fmt.Errorf("read %s: %w", name, bucket.ErrNotFound)
	}
	rc, err := v.Reader.GetRange(ctx, name, off, length)
	return readerFunc{rc, func(p []byte) (int, error) {
		if v.gone.Load() && strings.HasPrefix(name, v.prefix) {
			return 0, io.ErrUnexpectedEOF
		}
		return rc.Read(p)
	}}, err
}

// readerFunc is a body that is read by a function.
type readerFunc struct {
	io.Closer
	read func(p []byte) (int, error)
}

func (r readerFunc) Read(p []byte) (int, error) { return r.read(p) }

func TestLimitsSayWhatToChange(t *testing.T) {
	bkt := bucket.NewMemory()
	entries := []*block.Entry{add(t, bkt, ups(20, 0, hour, 1)), add(t, bkt, ups(20, hour, 2*hour, 1))}
	for flag, change := range map[string]func(*Options){
		flagTouchedSeries:   func(o *Options) { o.Limits.TouchedSeries = 39 },
		flagResponseSeries:  func(o *Options) { o.Limits.ResponseSeries = 19 },
		flagSamples:         func(o *Options) { o.Limits.Samples = 9_599 },
		flagResponseSamples: func(o *Options) { o.Limits.ResponseSamples = 9_599 },
		flagBytes:           func(o *Options) { o.Limits.DownloadedBytes = 10_000 },
	} {
		t.Run(flag, func(t *testing.T) {
			g := open(t, bkt, change, entries...)
			_, err := ask(t, g, selectUp(0, 2*hour))
			if !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), flag+" is ") || !strings.Contains(err.Error(), `{__name__="up"} needs`) {
				t.Errorf("error is %v, want an ErrLimit that names %s and the selector", err, flag)
			}
			if err == nil || !strings.Contains(err.Error(), "a matcher on job (leaves about 1 series in 20)") {
				t.Errorf("error is %v, want one that says what would cut the answer", err)
			}
			req := selectUp(0, 2*hour)
			req.Matchers = append(req.Matchers, labels.MustNewMatcher(labels.MatchEqual, "job", "0007"))
			if got, want := mustAsk(t, g, req), "0007 480\n"; got != want {
				t.Errorf("below the limit: got %q, want %q", got, want)
			}
		})
	}
	t.Run("exactly at the limits", func(t *testing.T) {
		g := open(t, bkt, func(o *Options) {
			o.Limits = Limits{TouchedSeries: 40, ResponseSeries: 20, Samples: 9_600, ResponseSamples: 9_600}
		}, entries...)
		mustAsk(t, g, selectUp(0, 2*hour))
	})
}

// TestBytesOfIndexesAreLimited has a request that reads no chunk, and one for labels.
func TestBytesOfIndexesAreLimited(t *testing.T) {
	bkt := bucket.NewMemory()
	entries := add(t, bkt, ups(1000, 0, hour/60, 1))
	g := open(t, bkt, func(o *Options) { o.Limits.DownloadedBytes = 20_000 }, entries)
	of := func(value string) *storeapi.LabelsRequest {
		return &storeapi.LabelsRequest{MaxTime: hour, Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchRegexp, "job", value), labels.MustNewMatcher(labels.MatchEqual, "__name__", "up")}}
	}
	req := selectUp(0, hour)
	req.SkipChunks = true
	if _, err := ask(t, g, req); !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), flagBytes+" is 20000") ||
		!strings.Contains(err.Error(), "a matcher on job (leaves about 1 series in 64)") {
		t.Errorf("error is %v, want an ErrLimit that names %s and what would cut the answer", err, flagBytes)
	}
	early := open(t, bkt, func(o *Options) { o.Limits.DownloadedBytes = 2000 }, entries)
	for _, want := range []string{flagBytes + " is 2000", `job=~"0.+[0-9]" has most to be looked through, 16000 bytes of a block`, "a matcher on job (leaves about 1 series in 1000)"} {
		req.Matchers = of("0.+[0-9]").Matchers
		if _, err := ask(t, early, req); !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), want) {
			t.Errorf("before series are known: error is %v, want an ErrLimit with %q", err, want)
		}
	}

	for range 2 { // the second time the bytes are cached, and count as well
		if _, _, err := g.LabelValues(t.Context(), "job", of("0.+[0-9]")); !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), `limit exceeded: {job=~"0.+[0-9]",__name__="up"} needs`) {
			t.Errorf("label values: error is %v, want an ErrLimit", err)
		}
	}
	if got, _, err := g.LabelValues(t.Context(), "job", of("000[1-3]")); err != nil || len(got) != 3 {
		t.Errorf("values of three series: got %q (%v)", got, err)
	}
}

func TestLabelsHeldInMemoryAreLimited(t *testing.T) {
	bkt := bucket.NewMemory()
	s := ups(0, 0, hour, 1)
	for i := range 4000 {
		s.Series = append(s.Series, blocktest.Floats(labels.FromStrings("__name__", "up", "job", fmt.Sprintf("%0200d", i), "zone", "a"), 0, 15_000, 1))
	}
	g := open(t, bkt, func(o *Options) { o.RequestBytes = minRequestBytes }, add(t, bkt, s))
	req := selectUp(0, hour)
	if _, err := ask(t, g, req); err != nil {
		t.Errorf("in the order of the index: %v", err)
	}
	req.WithoutLabels = []string{"zone"} // must be sorted anew
	if _, err := ask(t, g, req); !errors.Is(err, storeapi.ErrLimit) || !strings.Contains(err.Error(), flagMemory) {
		t.Errorf("error is %v, want an ErrLimit that names %s", err, flagMemory)
	}
}

// TestRowsThatAreSortedAnewAreInTheBudget takes labels out of 4000 series, whose rows are
// held then: by the request's account, and by that of all requests.
func TestRowsThatAreSortedAnewAreInTheBudget(t *testing.T) {
	const n, size, perRow = 4000, 16 << 20, 500
	bkt := bucket.NewMemory()
	s := ups(0, 0, hour, 1)
	for i := range n {
		s.Series = append(s.Series, blocktest.Floats(labels.FromStrings("__name__", "up", "job", fmt.Sprintf("%0200d", i), "zone", "a"), 0, 15_000, 1))
	}
	g := open(t, bkt, func(o *Options) { o.RequestBytes, o.MemoryBytes, o.MaxConcurrency = size, size, 1 }, add(t, bkt, s))
	for _, without := range [][]string{nil, {"zone"}} {
		ctx, end := context.WithCancel(t.Context())
		req := selectUp(0, hour)
		req.WithoutLabels = without
		set := g.Series(ctx, req)
		if !set.Next() {
			t.Fatal(set.Err())
		}
		r := set.(*answer).request
		held, want := r.usage.held.Load(), int64(0)
		if without != nil {
			want = n * perRow
		}
		if held < want || want == 0 && held > n*refBytes || r.share.size() < heldPart*held {
			t.Errorf("without %v: %d bytes are held in a share of %d, want %d or more", without, held, r.share.size(), want)
		}
		if free := g.budget.most.free; g.budget.free.TryAcquire(free - heldPart*held + 1) {
			t.Errorf("without %v: what is held is not taken from all memory", without)
		}
		end()
		if err := g.budget.free.Acquire(t.Context(), g.budget.most.free); err != nil { // until all is given back
			t.Fatal(err)
		}
		g.budget.free.Release(g.budget.most.free)
	}
}

func TestRequestsWaitForTheirTurn(t *testing.T) {
	bkt := bucket.NewMemory()
	g := open(t, bkt, func(o *Options) { o.MaxConcurrency = 1 }, add(t, bkt, ups(3, 0, hour, 1)))
	first, end := context.WithCancel(t.Context())
	defer end()
	held := g.Series(first, selectUp(0, hour))
	waiting, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := series.Collect(g.Series(waiting, selectUp(0, hour))); !errors.Is(err, context.Canceled) {
		t.Errorf("a request beyond the limit: error is %v, want %v", err, context.Canceled)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() { mustAsk(t, g, selectUp(0, hour)) })
	}
	if !held.Next() {
		t.Errorf("the first request: %v", held.Err())
	}
	end() // an answer that nobody reads to its end gives its turn back with its context
	wg.Wait()
}

func TestManyBlocksAndSegmentsAtOnce(t *testing.T) {
	bkt := bucket.NewMemory()
	var entries []*block.Entry
	for i := range int64(100) {
		entries = append(entries, add(t, bkt, ups(2, i*600_000, (i+1)*600_000, 1)))
	}
	g := open(t, bkt, func(o *Options) { o.RequestBytes = minRequestBytes }, entries...)
	want := "0000 4000\n0001 4000\n"
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if got := mustAsk(t, g, selectUp(0, 100*600_000)); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	wg.Wait()
}

func TestInfoOfNothing(t *testing.T) {
	g := open(t, bucket.NewMemory(), nil)
	info, err := g.Info(t.Context())
	if err != nil || info.MinTime <= info.MaxTime || len(info.Streams) > 0 {
		t.Errorf("info of no blocks is %+v (%v)", info, err)
	}
}

func TestPageDirectoriesAreUsedAgainAndDamagedOnesAreNot(t *testing.T) {
	bkt := bucket.NewMemory()
	e := add(t, bkt, ups(2, 0, hour, 1))
	dir := t.TempDir()
	counted := &counting{Reader: bkt}
	path := filepath.Join(dir, "directories", e.Meta.ULID.String())
	var whole []byte
	// The third is made from pages on disk.
	for i, want := range []int64{1, 0, 0} {
		counted.indexes.Store(0)
		g := open(t, counted, func(o *Options) { o.Dir = dir }, e)
		if got, want := mustAsk(t, g, selectUp(0, hour)), "0000 240\n0001 240\n"; got != want {
			t.Errorf("start %d: got %q, want %q", i, got, want)
		}
		if got := counted.indexes.Load(); got != want {
			t.Errorf("start %d: %d indexes were read whole, want %d", i, got, want)
		}
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(path)
		if err != nil || i > 0 && !bytes.Equal(content, whole) {
			t.Errorf("start %d: the page directory has %d bytes instead of %d, or others (%v)", i, len(content), len(whole), err)
		}
		whole = content
		if i == 1 {
			if err := os.WriteFile(path, make([]byte, len(whole)), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// counting counts requests for indexes from their first byte on: small ones are read whole.
type counting struct {
	bucket.Reader
	indexes atomic.Int64
}

func (c *counting) GetRange(ctx context.Context, name string, off, length int64) (io.ReadCloser, error) {
	if strings.HasSuffix(name, "/index") && off == 0 {
		c.indexes.Add(1)
	}
	return c.Reader.GetRange(ctx, name, off, length)
}

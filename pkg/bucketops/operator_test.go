package bucketops

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
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/planner"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when tests happen: long after all samples.
func noon() time.Time { return time.Date(1970, 3, 1, 12, 0, 0, 0, time.UTC) }

func operator(t *testing.T, bkt objstore.Bucket) *Operator {
	t.Helper()
	o := Defaults()
	o.Dir = t.TempDir()
	op := New(bkt, o, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	op.now = noon
	return op
}

const load = blocktest.BreakableLoad

// spec is a block of one replica.
func spec(replica string) blocktest.Spec {
	return blocktest.Spec{Load: load, Labels: map[string]string{"cluster": "eu", "replica": replica}}
}

// ends says how actions ended: "delete 01… done".
func ends(actions []Action) string {
	var lines []string
	for _, a := range actions {
		lines = append(lines, fmt.Sprintf("%s %s %s\n", a.Do, a.Block, a.Status))
	}
	slices.Sort(lines)
	return strings.Join(lines, "")
}

// contents gives every object of a bucket.
func contents(t *testing.T, bkt objstore.Bucket) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := bucket.List(t.Context(), bkt, "", "", func(o bucket.Object) error {
		r, err := bkt.Get(t.Context(), o.Name)
		if err != nil {
			return err
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		all[o.Name] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mark(t *testing.T, bkt objstore.Bucket, id ulid.ULID, kind block.MarkKind, at time.Time) {
	t.Helper()
	if err := blockio.Mark(t.Context(), bkt, block.Mark{Kind: kind, ID: id, Time: at.Unix(), Reason: "test"}); err != nil {
		t.Fatal(err)
	}
}

func TestCleanupDeletesWhatWasMarkedLongEnough(t *testing.T) {
	bkt := bucket.NewMemory()
	old, fresh, live := blocktest.InBucket(t, bkt, spec("a")), blocktest.InBucket(t, bkt, spec("b")), blocktest.InBucket(t, bkt, spec("c"))
	mark(t, bkt, old.ULID, block.DeletionMark, noon().Add(-49*time.Hour))
	mark(t, bkt, fresh.ULID, block.DeletionMark, noon().Add(-47*time.Hour))
	partial := ulid.MustNew(1, strings.NewReader("0123456789"))
	for _, rel := range []string{"index", "chunks/000001"} {
		if err := bkt.Upload(t.Context(), block.ObjectName(partial, rel), strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		bkt.SetLastModified(block.ObjectName(partial, rel), noon().Add(-50*time.Hour))
	}

	log := buckettest.NewLog(bkt)
	op := operator(t, log)
	op.opts.DryRun = true
	got, err := op.Cleanup(t.Context(), Selection{}, planner.Defaults())
	want := fmt.Sprintf("delete %s planned\ndelete %s planned\n", partial, old.ULID)
	if err != nil || ends(got) != want || len(log.Writes()) > 0 {
		t.Errorf("dry run: got %s%v, writes %v, want %s", ends(got), err, log.Writes(), want)
	}
	op.opts.DryRun = false
	got, err = op.Cleanup(t.Context(), Selection{}, planner.Defaults())
	if want := strings.ReplaceAll(want, Planned, Done); err != nil || ends(got) != want {
		t.Errorf("got %s%v, want %s", ends(got), err, want)
	}
	left, err := op.Blocks(t.Context(), Selection{})
	if err != nil || len(left) != 2 || left[0].Meta.ULID == old.ULID || left[1].Meta.ULID == old.ULID {
		t.Errorf("left are %v, %v, want %s and %s", left, err, fresh.ULID, live.ULID)
	}
	if first := slices.IndexFunc(log.Writes(), func(w string) bool { return strings.Contains(w, old.ULID.String()) }); log.Writes()[first] != "delete "+block.MetaName(old.ULID) {
		t.Errorf("the first write to the block is %q, want its meta.json deleted", log.Writes()[first])
	}
}

func TestCleanupKeepsToTheSelection(t *testing.T) {
	bkt := bucket.NewMemory()
	a, b := blocktest.InBucket(t, bkt, spec("a")), blocktest.InBucket(t, bkt, spec("b"))
	for _, m := range []*block.Meta{a, b} {
		mark(t, bkt, m.ULID, block.DeletionMark, noon().Add(-90*time.Hour))
	}
	got, err := operator(t, bkt).Cleanup(t.Context(), Selection{IDs: []ulid.ULID{b.ULID}}, planner.Defaults())
	if want := fmt.Sprintf("delete %s done\n", b.ULID); err != nil || ends(got) != want {
		t.Errorf("got %s%v, want %s", ends(got), err, want)
	}
}

func TestRetentionWaitsForWhatLivesLonger(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	op := operator(t, bkt)
	policy := planner.Defaults()
	policy.Retention[block.Raw] = 48 * time.Hour
	got, err := op.Retention(t.Context(), Selection{}, policy)
	if err != nil || len(got) > 0 {
		t.Errorf("before downsampling: got %s%v, want nothing", ends(got), err)
	}
	if got, err := op.Downsample(t.Context(), Selection{}, policy); err != nil || strings.Count(ends(got), Done) != 2 {
		t.Fatalf("downsampling: got %s%v, want two blocks", ends(got), err)
	}
	got, err = op.Retention(t.Context(), Selection{}, policy)
	if want := fmt.Sprintf("mark %s done\n", m.ULID); err != nil || ends(got) != want {
		t.Errorf("got %s%v, want %s", ends(got), err, want)
	}
	policy.Retention[block.Raw] = time.Hour
	if _, err = op.Retention(t.Context(), Selection{}, policy); err == nil || !strings.Contains(err.Error(), "--retention.resolution-raw") {
		t.Errorf("a retention that contradicts itself: got %v", err)
	}
}

func TestDownsamplingMakesSoundBlocksOnce(t *testing.T) {
	bkt := bucket.NewMemory()
	b := spec("a")
	b.Load += "  once{pod=\"a\"} _x20 7\n  mixed{pod=\"a\"} 1x100 {{schema:0 count:5 sum:7 buckets:[1 2 2]}}x100 _x100 3x20\n"
	blocktest.InBucket(t, bkt, b)
	op := operator(t, bkt)
	got, err := op.Downsample(t.Context(), Selection{}, planner.Defaults())
	if err != nil || strings.Count(ends(got), Done) != 2 {
		t.Fatalf("got %s%v, want 5m and 1h", ends(got), err)
	}
	verdicts, err := op.Verify(t.Context(), Selection{})
	if err != nil || len(verdicts) != 3 {
		t.Errorf("got %v, %v, want three blocks without findings", verdicts, err)
	}
	if got, err := op.Downsample(t.Context(), Selection{}, planner.Defaults()); err != nil || len(got) > 0 {
		t.Errorf("again: got %s%v, want nothing", ends(got), err)
	}
}

func TestDownsamplingLeavesBrokenBlocksAlone(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	flip(t, bkt, block.SegmentName(m.ULID, 1), 20)
	got, err := operator(t, bkt).Downsample(t.Context(), Selection{}, planner.Defaults())
	if err == nil || !strings.Contains(err.Error(), "chunks/000001 at 8: checksum") || len(got) != 1 {
		t.Errorf("got %s%v, want an error that names the chunk", ends(got), err)
	}
}

// flip changes a byte of an object.
func flip(t *testing.T, bkt objstore.Bucket, name string, offset int) {
	t.Helper()
	data := []byte(contents(t, bkt)[name])
	data[offset] ^= 0x40
	if err := bkt.Upload(t.Context(), name, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
}

func TestACopyGoesOnAfterACrashAtEveryWrite(t *testing.T) {
	from := bucket.NewMemory()
	a, b := blocktest.InBucket(t, from, spec("a")), blocktest.InBucket(t, from, spec("b"))
	mark(t, from, a.ULID, block.NoCompactMark, noon())
	mark(t, from, b.ULID, block.DeletionMark, noon())
	want := contents(t, from)
	delete(want, block.MarkName(b.ULID, block.DeletionMark))

	for _, moment := range []buckettest.Moment{buckettest.Before, buckettest.After} {
		for n := 1; ; n++ {
			to := bucket.NewMemory()
			dying := buckettest.CrashAt(to, n, moment)
			_, err := operator(t, from).Replicate(t.Context(), Selection{}, dying)
			if !dying.Crashed() {
				if n < 7 {
					t.Errorf("only %d writes", n-1)
				}
				break
			}
			if !errors.Is(err, buckettest.ErrCrashed) {
				t.Fatalf("crash at write %d: error is %v", n, err)
			}
			log := buckettest.NewLog(to)
			if got, err := operator(t, from).Replicate(t.Context(), Selection{}, log); err != nil {
				t.Fatalf("after a crash at write %d: %v\n%s", n, err, ends(got))
			}
			if got := contents(t, to); !equal(got, want) {
				t.Errorf("after a crash at write %d: got %d objects, want %d", n, len(got), len(want))
			}
			checkOrder(t, log.Writes())
		}
	}
}

// checkOrder makes sure that nothing of a block is written behind its meta.json.
func checkOrder(t *testing.T, writes []string) {
	t.Helper()
	complete := map[string]bool{}
	for _, w := range writes {
		id, rel, _ := strings.Cut(strings.Fields(w)[1], "/")
		if complete[id] {
			t.Errorf("%s comes after the block's meta.json", w)
		}
		complete[id] = complete[id] || rel == block.MetaFile
	}
}

func equal(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for name, data := range a {
		if b[name] != data {
			return false
		}
	}
	return true
}

func TestACopyOverwritesNothing(t *testing.T) {
	from := bucket.NewMemory()
	a, b := blocktest.InBucket(t, from, spec("a")), blocktest.InBucket(t, from, spec("b"))
	to := bucket.NewMemory()
	if err := to.Upload(t.Context(), block.IndexName(a.ULID), strings.NewReader("other")); err != nil {
		t.Fatal(err)
	}
	got, err := operator(t, from).Replicate(t.Context(), Selection{}, to)
	if err == nil || !strings.Contains(err.Error(), "index with 5 bytes") {
		t.Errorf("error is %v, want one that names the index", err)
	}
	if left := contents(t, to); left[block.IndexName(a.ULID)] != "other" || left[block.MetaName(a.ULID)] != "" {
		t.Error("the other index was overwritten, or the block completed")
	}
	if want := b.ULID.String() + " done"; !strings.Contains(ends(got), want) {
		t.Errorf("got %s, want %s", ends(got), want)
	}
	again, _ := operator(t, from).Replicate(t.Context(), Selection{IDs: []ulid.ULID{b.ULID}}, to)
	if want := fmt.Sprintf("copy %s unchanged\n", b.ULID); ends(again) != want {
		t.Errorf("again: got %s, want %s", ends(again), want)
	}
	other := *b
	other.Stats.NumSamples++
	data, _ := other.Encode()
	if err := to.Upload(t.Context(), block.MetaName(b.ULID), bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := operator(t, from).Replicate(t.Context(), Selection{IDs: []ulid.ULID{b.ULID}}, to); err == nil || !strings.Contains(err.Error(), "another block of this name") {
		t.Errorf("another meta.json: error is %v", err)
	}
}

func TestUploadOfADataDirectory(t *testing.T) {
	dir := t.TempDir()
	plain := spec("")
	plain.Labels = nil
	_, first := blocktest.DirIn(t, dir, plain)
	plain.Offset, plain.Level = 2*time.Hour, 2
	_, compacted := blocktest.DirIn(t, dir, plain)
	plain.Offset, plain.Level = 4*time.Hour, 1
	brokenDir, broken := blocktest.DirIn(t, dir, plain)
	blocktest.Flip(t, filepath.Join(brokenDir, "chunks/000001"), 20)
	for _, other := range []string{"wal", "chunks_head", "01ARZ3NDEKTSV4RRFFQ69G5FAV.tmp-for-creation"} {
		if err := os.MkdirAll(filepath.Join(dir, other), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	bkt := bucket.NewMemory()
	op := operator(t, bkt)
	in := Import{Path: dir, Labels: map[string]string{"cluster": "eu"}}
	got, err := op.UploadBlocks(t.Context(), in)
	if err == nil || !strings.Contains(err.Error(), "chunks/000001 at 8: checksum") {
		t.Errorf("error is %v, want one on the broken block", err)
	}
	if want := fmt.Sprintf("upload %s done\n", first.ULID); !strings.HasPrefix(ends(got), want) || len(got) != 2 {
		t.Errorf("got %s, want %s", ends(got), want)
	}
	meta, err := blockio.ReadMeta(t.Context(), bkt, first.ULID)
	if err != nil || meta.Thanos.Source != "bucket.upload" || meta.Labels().String() != `{cluster="eu"}` || !meta.Thanos.UploadTime.Equal(noon()) {
		t.Errorf("got %+v, %v", meta, err)
	}
	in.Compacted = true
	if err := os.RemoveAll(filepath.Join(dir, broken.ULID.String())); err != nil {
		t.Fatal(err)
	}
	got, err = op.UploadBlocks(t.Context(), in)
	if want := fmt.Sprintf("upload %s unchanged\nupload %s done\n", first.ULID, compacted.ULID); err != nil || ends(got) != want {
		t.Errorf("got %s%v, want %s", ends(got), err, want)
	}
	in.Labels = map[string]string{"cluster": "us"}
	if _, err := op.UploadBlocks(t.Context(), in); err == nil || !strings.Contains(err.Error(), `{cluster="eu"}`) {
		t.Errorf("other labels: error is %v", err)
	}
	if _, err := op.UploadBlocks(t.Context(), Import{Path: dir}); err == nil || !strings.Contains(err.Error(), "--label") {
		t.Errorf("no labels: error is %v", err)
	}
	want := blocktest.Text(blocktest.Read(t, filepath.Join(dir, first.ULID.String())))
	if text := blocktest.Text(blocktest.Read(t, blocktest.Download(t, bkt, first.ULID))); text != want {
		t.Errorf("samples differ:\n%s\nwant\n%s", text, want)
	}
}

func TestAnErrorOfOneBlockIsItsOwn(t *testing.T) {
	bkt := bucket.NewMemory()
	a, b := blocktest.InBucket(t, bkt, spec("a")), blocktest.InBucket(t, bkt, spec("b"))
	failing := buckettest.FailAt(bkt, buckettest.Create, 1, buckettest.Before, errors.New("no luck"))
	got, err := operator(t, failing).Mark(t.Context(), []ulid.ULID{a.ULID, b.ULID}, block.NoCompactMark, "why")
	if err == nil || !strings.Contains(err.Error(), a.ULID.String()) || strings.Contains(err.Error(), b.ULID.String()) {
		t.Errorf("error is %v, want one on %s alone", err, a.ULID)
	}
	if got[1].Status != Done {
		t.Errorf("got %s", ends(got))
	}
}

func TestADeletionThatHasBegunIsNotTakenBack(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	mark(t, bkt, m.ULID, block.DeletionMark, noon())
	if err := bkt.Delete(t.Context(), block.MetaName(m.ULID)); err != nil {
		t.Fatal(err)
	}
	if _, err := operator(t, bkt).Unmark(t.Context(), []ulid.ULID{m.ULID}, block.DeletionMark); err == nil || !strings.Contains(err.Error(), "deletion has begun") {
		t.Errorf("error is %v", err)
	}
}

func TestOperationsEndWithTheirContext(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	got, err := operator(t, bkt).Mark(ctx, []ulid.ULID{m.ULID}, block.NoCompactMark, "why")
	if !errors.Is(err, context.Canceled) || got[0].Status == Done {
		t.Errorf("got %s%v", ends(got), err)
	}
}

// TestOnARealServer copies blocks between two buckets of one, checks, and deletes them.
func TestOnARealServer(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	var buckets []objstore.Bucket
	for _, name := range []string{"source", "target"} {
		bkt, err := bucket.Open(t.Context(), bucket.Options{Config: buckettest.CreateBucket(t, endpoint, name)}, slog.New(slog.DiscardHandler), nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { bkt.Close() })
		buckets = append(buckets, bkt)
	}
	from, to := buckets[0], buckets[1]
	a, b := blocktest.InBucket(t, from, spec("a")), blocktest.InBucket(t, from, spec("b"))
	if got, err := operator(t, from).Replicate(t.Context(), Selection{}, to); err != nil || strings.Count(ends(got), Done) != 2 {
		t.Fatalf("copy: got %s%v", ends(got), err)
	}
	flip(t, to, block.SegmentName(b.ULID, 1), 20)
	op := operator(t, to)
	verdicts, err := op.Verify(t.Context(), Selection{})
	if !errors.Is(err, ErrFindings) || len(verdicts) != 2 {
		t.Errorf("verify: got %v, %v", verdicts, err)
	}
	if got, err := op.Downsample(t.Context(), Selection{Resolutions: nil, IDs: []ulid.ULID{a.ULID}}, planner.Defaults()); err != nil || strings.Count(ends(got), Done) != 1 {
		t.Errorf("downsample: got %s%v", ends(got), err)
	}
	repaired, err := op.Repair(t.Context(), []ulid.ULID{b.ULID}, Repairing{ReplicaLabels: []string{"replica"}})
	if err != nil || strings.Count(ends(repaired), Done) != 2 || strings.Count(ends(repaired), Filled) != 1 {
		t.Fatalf("repair: got %s%v", ends(repaired), err)
	}
	how := rewriting(t, `[{matchers: '{pod="b"}'}]`, "")
	if got, err := op.Rewrite(t.Context(), []ulid.ULID{ulid.MustParse(repaired[0].What)}, how); err != nil || strings.Count(ends(got), Done) != 2 {
		t.Errorf("rewrite: got %s%v", ends(got), err)
	}
	if _, err := op.Mark(t.Context(), []ulid.ULID{a.ULID, b.ULID}, block.DeletionMark, "test"); err != nil {
		t.Error(err)
	}
	policy := planner.Defaults()
	policy.DeleteDelay = 0
	if got, err := op.Cleanup(t.Context(), Selection{}, policy); err != nil || strings.Count(ends(got), Done) != 2 {
		t.Errorf("cleanup: got %s%v", ends(got), err)
	}
	if left := contents(t, to); len(left) != 3*3+1 {
		t.Errorf("%d objects are left, want those of the three blocks that were made, and a mark", len(left))
	}
}

func TestCleanupAbortsUploadsThatNobodyGoesOnWith(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	yaml := buckettest.CreateBucket(t, endpoint, "left")
	bkt, err := bucket.Open(t.Context(), bucket.Options{Config: yaml}, slog.New(slog.DiscardHandler), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	buckettest.LeaveUpload(t, endpoint, "left", id+"/chunks/000001")
	buckettest.LeaveUpload(t, endpoint, "left", "somebody/else's")
	op := operator(t, bkt)
	op.now = time.Now // the store's clock is real
	policy := planner.Defaults()
	clean := func(dry bool, s Selection) string {
		op.opts.DryRun = dry
		got, err := op.Cleanup(t.Context(), s, policy)
		if err != nil {
			t.Fatal(err)
		}
		return ends(got)
	}
	if got := clean(false, Selection{}); got != "" {
		t.Errorf("of a fresh upload: got %s", got)
	}
	op.now = func() time.Time { return time.Now().Add(policy.PartialAge + time.Hour) }
	labelled := Selection{Matchers: []*labels.Matcher{labels.MustNewMatcher(labels.MatchEqual, "cluster", "eu")}}
	for _, step := range []struct {
		dry  bool
		sel  Selection
		want string
	}{
		{false, labelled, ""},
		{true, Selection{}, "abort " + id + " planned\n"},
		{false, Selection{}, "abort " + id + " done\n"},
		{false, Selection{}, ""},
	} {
		if got := clean(step.dry, step.sel); got != step.want {
			t.Errorf("got %q, want %q", got, step.want)
		}
	}
}

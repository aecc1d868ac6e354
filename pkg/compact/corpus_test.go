package compact

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/promslog"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/bucketops"
)

// mended stands in place of a reason where merging mends the damage, or does not meet it.
const mended reason = ""

// quarantine says of the damages of blocktest.Corpus for what reason the block is
// set aside when it is merged with its replica.
func quarantine() map[string]reason {
	return map[string]reason{
		"a chunk's byte":            chunkChecksum,
		"a chunk's length":          chunkChecksum,
		"a chunk that is none":      chunkUnreadable,
		"a truncated segment":       incomplete,
		"an empty segment":          incomplete,
		"a missing segment":         incomplete,
		"the magic of a segment":    chunkUnreadable,
		"the version of a segment":  chunkUnreadable,
		"all segments":              incomplete,
		"no index":                  incomplete,
		"an empty index":            incomplete,
		"the magic of the index":    indexUnreadable,
		"the version of the index":  indexUnreadable,
		"a symbol":                  indexChecksum,
		"the length of the symbols": indexUnreadable,
		"the number of symbols":     indexUnreadable,
		"a series entry":            indexChecksum,
		"the length of a series":    indexUnreadable,
		"the table of contents":     indexUnreadable,
		"an index cut in postings":  incomplete,
		"an index cut in series":    incomplete,
		"an index cut in symbols":   incomplete,
		"postings":                  mended, // nobody reads them
		"the table of postings":     mended,
		"a label that is another":   mended, // the series comes twice and is merged
		"series out of order":       seriesOrder,
		"a symbol that is not":      indexUnreadable,
		"another time range":        mended, // the merged block has the range of both
		"other counts":              mended,
		"times of another chunk":    mended,
		"chunks that lie elsewhere": chunkUnreadable,
		"chunks out of order":       mended,
		"a chunk twice":             mended,
		"a chunk of absurd times":   wrongTimes,
		"samples out of order":      mended, // by who decodes the chunk
		"a chunk of no encoding":    chunkUnreadable,
		"labels out of order":       seriesOrder,
	}
}

// pair is a broken block of replica a in a stream of its own and a sound one of replica b.
func pair(t *testing.T, bkt objstore.Bucket, damage blocktest.Damage, stream string) (bad *block.Meta) {
	t.Helper()
	spec := func(replica string) blocktest.Spec {
		return blocktest.Spec{Labels: map[string]string{"cluster": stream, "replica": replica}}
	}
	dir, _ := blocktest.Breakable(t, spec("a"))
	bad = damage.In(t, bkt, dir)
	dir, _ = blocktest.Breakable(t, spec("b"))
	blocktest.Upload(t, bkt, dir)
	return bad
}

// of gives what live says of a stream.
func of(lines []string, stream string) []string {
	return slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return !strings.Contains(l, `{cluster="`+stream+`"`) })
}

// keeping is an executor under which the raw blocks of the healthy stream expire.
func keeping(t *testing.T, bkt objstore.Bucket) *Executor {
	t.Helper()
	e := executor(t, bkt)
	e.opts.Policy.Retention = map[block.Resolution]time.Duration{block.Raw: 10 * 24 * time.Hour}
	return e
}

// TestBrokenBlocksHaltNothing puts one broken block at a time beside a healthy
// stream. That is merged, downsampled and expired as without it; the broken one is
// named with its reason, keeps its samples in spite of retention, and repair saves
// what can be read.
func TestBrokenBlocksHaltNothing(t *testing.T) {
	fill := replicas(t, 2)
	reference := fill(t)
	if err := keeping(t, reference).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := live(t, reference)
	for _, damage := range blocktest.Corpus() {
		t.Run(damage.Name, func(t *testing.T) {
			because, ok := quarantine()[damage.Name]
			if !ok {
				t.Fatal("nobody says what comes of it")
			}
			bkt := fill(t)
			bad := pair(t, bkt, damage, "us")
			err := keeping(t, bkt).Run(t.Context())
			if got := of(live(t, bkt), "eu"); !slices.Equal(got, want) {
				t.Errorf("the healthy stream: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
			checkNamed(t, bkt, bad.ULID, because, err)
			if err := keeping(t, bkt).Run(t.Context()); err != nil {
				t.Errorf("a second run, with the block set aside: %v", err)
			}
			if because != mended {
				repairAndGoOn(t, bkt, bad.ULID)
			}
		})
	}
}

// checkNamed makes sure that a block was set aside for the reason and is still there, or was merged.
func checkNamed(t *testing.T, bkt bucket.Reader, id ulid.ULID, because reason, err error) {
	t.Helper()
	set := fetch(t, bkt)
	entry := set.Find(id)
	if because == mended {
		if err != nil || entry.NoCompact != nil || entry.Deletion == nil {
			t.Errorf("the block is not merged: no-compact %v, deletion %v, error %v", entry.NoCompact, entry.Deletion, err)
		}
		return
	}
	switch corrupt, ok := errors.AsType[*corruptError](err); {
	case !ok || corrupt.id != id:
		t.Errorf("got error %v, want one that blames %s", err, id)
	case entry.NoCompact == nil || entry.NoCompact.Reason != string(because) || entry.NoCompact.Details == "":
		t.Errorf("set aside with %+v, want %s and details", entry.NoCompact, because)
	case entry.Deletion != nil && !downsampledTo(set, id, block.OneHour):
		t.Errorf("marked for deletion before it was downsampled: %+v", entry.Deletion)
	}
}

// downsampledTo reports whether readers see a block of the resolution that holds what another does.
func downsampledTo(set *block.Set, id ulid.ULID, r block.Resolution) bool {
	return slices.ContainsFunc(set.Blocks, func(e *block.Entry) bool {
		return e.Deletion == nil && e.Meta.Resolution() == r && slices.Contains(e.Meta.Origin(), id)
	})
}

// repairAndGoOn makes what is readable of a block into a new one, which is downsampled where the broken one was not.
func repairAndGoOn(t *testing.T, bkt objstore.Bucket, id ulid.ULID) {
	t.Helper()
	o := bucketops.Defaults()
	o.Dir = t.TempDir()
	done, err := bucketops.New(bkt, o, promslog.NewNopLogger(), nil).Repair(t.Context(), []ulid.ULID{id}, bucketops.Repairing{})
	if err != nil {
		if !strings.Contains(err.Error(), "no sample can be read") {
			t.Errorf("repair: %v", err)
		}
		return
	}
	if err := keeping(t, bkt).Run(t.Context()); err != nil {
		t.Errorf("a run after the repair: %v", err)
	}
	made := ulid.MustParse(done[0].What)
	if downsampledTo(fetch(t, bkt), id, block.FiveMin) {
		return
	}
	t.Errorf("nothing became of block %s, which %s was repaired to", made, id)
}

// What merging replicas mends, because it decodes them, is met otherwise where a block is merged with
// the next one of its own replica, and its chunks are passed on as they are.
func TestABrokenBlockAmongNeighbours(t *testing.T) {
	dir, _ := blocktest.Breakable(t, blocktest.Spec{Labels: map[string]string{"cluster": "us"}})
	next, _ := blocktest.Breakable(t, blocktest.Spec{Offset: 2 * time.Hour, Labels: map[string]string{"cluster": "us"}})
	for name, because := range map[string]reason{
		"postings":                mended,
		"the table of postings":   mended,
		"a label that is another": mended,
		"another time range":      mended,
		"other counts":            mended,
		"times of another chunk":  mended,
		"chunks out of order":     mended,
		"a chunk twice":           mended,
		"a chunk of absurd times": mended, // it overlaps the next, so it is decoded
		"samples out of order":    wrongTimes,
		"labels out of order":     seriesOrder,
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			bad := blocktest.DamageNamed(t, name).In(t, bkt, dir)
			blocktest.Upload(t, bkt, next)
			checkNamed(t, bkt, bad.ULID, because, executor(t, bkt).Run(t.Context()))
		})
	}
}

// What is wrong with a block is met in downsampling too, where no merge comes before.
func TestABrokenBlockThatStandsAloneIsNamedToo(t *testing.T) {
	dir, _ := blocktest.Breakable(t, blocktest.Spec{Labels: map[string]string{"cluster": "us"}})
	for name, because := range map[string]reason{
		"a chunk's byte":         chunkChecksum,
		"a chunk that is none":   chunkUnreadable,
		"series out of order":    seriesOrder,
		"another time range":     wrongTimes,
		"times of another chunk": mended,
	} {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			bad := blocktest.DamageNamed(t, name).In(t, bkt, dir)
			err := executor(t, bkt).Run(t.Context())
			mark := fetch(t, bkt).Find(bad.ULID).NoDownsample
			if because == mended && (mark != nil || err != nil) {
				t.Errorf("set aside with %+v and error %v", mark, err)
			}
			if because != mended && (mark == nil || mark.Reason != string(because)) {
				t.Errorf("set aside with %+v and error %v, want %s", mark, err, because)
			}
		})
	}
}

// A block whose meta.json is unusable, or claims times that cannot be, belongs to no
// stream: it is left alone, and named.
func TestAnAbsurdMetaHaltsNothing(t *testing.T) {
	fill := replicas(t, 2)
	reference := fill(t)
	if err := keeping(t, reference).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := live(t, reference)
	for name, change := range map[string]func(m *block.Meta) string{
		"no JSON":           func(*block.Meta) string { return "<html>" },
		"empty":             func(*block.Meta) string { return "" },
		"of another format": func(m *block.Meta) string { m.Version = 7; return "" },
		"of the far future": func(m *block.Meta) string { m.MaxTime = math.MaxInt64; return "" },
		"from before time":  func(m *block.Meta) string { m.MinTime = math.MinInt64; return "" },
		"going back":        func(m *block.Meta) string { m.MinTime, m.MaxTime = m.MaxTime, m.MinTime; return "" },
	} {
		t.Run(name, func(t *testing.T) {
			bkt := fill(t)
			bad := blocktest.InBucket(t, bkt, twoHours("a", hour+10))
			text := change(bad)
			if text == "" && name != "empty" {
				data, err := bad.Encode()
				if err != nil {
					t.Fatal(err)
				}
				text = string(data)
			}
			if err := bkt.Upload(t.Context(), block.MetaName(bad.ULID), strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
			e := keeping(t, bkt)
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, line := range live(t, bkt) {
				if !strings.HasPrefix(line, bad.ULID.String()) {
					got = append(got, line)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the others: got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// TestABucketFullOfBrokenBlocks has all damages at once, on a real store.
func TestABucketFullOfBrokenBlocks(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	bkt, err := bucket.Open(t.Context(), bucket.Options{Config: buckettest.CreateBucket(t, endpoint, "broken")}, promslog.NewNopLogger(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	bad := map[string]ulid.ULID{}
	for i, damage := range blocktest.Corpus() {
		bad[damage.Name] = pair(t, bkt, damage, fmt.Sprint("us", i)).ULID
	}
	blocktest.InBucket(t, bkt, twoHours("a", hour))
	blocktest.InBucket(t, bkt, twoHours("b", hour))
	compactor := keeping(t, bkt)
	compactor.opts.Concurrency, compactor.opts.DownsampleConcurrency = 8, 8
	err = compactor.Run(t.Context())
	set := fetch(t, bkt)
	for _, e := range set.Blocks {
		if e.Deletion == nil && e.Meta.Thanos.Labels["cluster"] == "eu" && e.Meta.Resolution() == block.Raw {
			t.Errorf("block %s of the healthy stream is not expired", e.Meta.ULID)
		}
	}
	for name, id := range bad {
		entry := set.Find(id)
		if because := quarantine()[name]; because != mended &&
			(entry.NoCompact == nil || entry.NoCompact.Reason != string(because) || !strings.Contains(err.Error(), id.String())) {
			t.Errorf("%s: set aside with %+v, want %s, and the error to name %s", name, entry.NoCompact, because, id)
		}
	}
}

package bucketops

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

// pristine is a sound block of replica a, to be broken in many ways.
type pristine struct {
	dir     string
	written []blocktest.Series
}

func newPristine(t *testing.T) pristine {
	t.Helper()
	dir, _ := blocktest.Dir(t, spec("a"))
	blocktest.Segmented(t, dir, 400)
	return pristine{dir, blocktest.Read(t, dir)}
}

// broken puts the block into a bucket and breaks it there.
func (p pristine) broken(t *testing.T, bkt *bucket.Memory, damage func(d target)) *block.Meta {
	t.Helper()
	meta := blocktest.Upload(t, bkt, p.dir)
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(p.dir)); err != nil {
		t.Fatal(err)
	}
	damage(target{t, dir})
	for name, was := range contents(t, bkt) {
		id, rel, _ := block.ParseName(name)
		if id != meta.ULID || !isData(rel) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(dir, rel))
		switch {
		case errors.Is(err, os.ErrNotExist):
			err = bkt.Delete(t.Context(), name)
		case err == nil && string(data) != was:
			err = bkt.Upload(t.Context(), name, bytes.NewReader(data))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return meta
}

// put brings objects into a bucket.
func put(t *testing.T, bkt *bucket.Memory, objects map[string]string) {
	t.Helper()
	for name, data := range objects {
		if err := bkt.Upload(t.Context(), name, strings.NewReader(data)); err != nil {
			t.Fatal(err)
		}
	}
}

// target is the local copy of a block that is to be broken.
type target struct {
	t   *testing.T
	dir string
}

func (d target) flip(rel string, offset int64) {
	d.t.Helper()
	blocktest.Flip(d.t, filepath.Join(d.dir, rel), offset)
}

func (d target) entries() []int64 { return blocktest.SeriesEntries(d.t, d.dir) }

func (d target) truncate(rel string, n int64) {
	d.t.Helper()
	if err := os.Truncate(filepath.Join(d.dir, rel), n); err != nil {
		d.t.Fatal(err)
	}
}

func (d target) remove(rel string) {
	d.t.Helper()
	if err := os.Remove(filepath.Join(d.dir, rel)); err != nil {
		d.t.Fatal(err)
	}
}

func (d target) toc() *index.TOC {
	d.t.Helper()
	data, err := os.ReadFile(filepath.Join(d.dir, block.IndexFile))
	if err != nil {
		d.t.Fatal(err)
	}
	toc, err := index.NewTOCFromByteSlice(bytesOf(data))
	if err != nil {
		d.t.Fatal(err)
	}
	return toc
}

type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }

// rename gives one series the labels of another.
func (d target) rename(series, as int) {
	d.t.Helper()
	var other []byte
	blocktest.Patch(d.t, d.dir, d.entries()[as], func(c []byte) { other = slices.Clone(c[:5]) })
	blocktest.Patch(d.t, d.dir, d.entries()[series], func(c []byte) { copy(c, other) })
}

// bySeries gives the texts of all samples by their series.
func bySeries(list []blocktest.Series) map[string]map[string]bool {
	all := map[string]map[string]bool{}
	for _, s := range list {
		samples := map[string]bool{}
		for _, p := range s.Samples {
			samples[blocktest.Text([]blocktest.Series{{Samples: []blocktest.Sample{p}}})] = true
		}
		all[s.Labels.String()] = samples
	}
	return all
}

func count(all map[string]map[string]bool) (n int) {
	for _, s := range all {
		n += len(s)
	}
	return n
}

// corpus breaks blocks, each in one way. Of the 1054 samples of four series so many
// can be salvaged.
func corpus() map[string]struct {
	damage  func(d target)
	samples int // -1 if nothing can be read
} {
	return map[string]struct {
		damage  func(d target)
		samples int
	}{
		"a chunk's byte":            {func(d target) { d.flip("chunks/000002", 20) }, 934},
		"a chunk's length":          {func(d target) { d.flip("chunks/000001", 8) }, 903},
		"a truncated segment":       {func(d target) { d.truncate("chunks/000002", 50) }, 873},
		"a missing segment":         {func(d target) { d.remove("chunks/000003") }, -2},
		"a segment without magic":   {func(d target) { d.flip("chunks/000002", 0) }, 1054},
		"an index without magic":    {func(d target) { d.flip("index", 0) }, 1054},
		"a symbol":                  {func(d target) { d.flip("index", 16) }, -1},
		"no index":                  {func(d target) { d.remove("index") }, -1},
		"a series entry":            {func(d target) { d.flip("index", d.entries()[1]+3) }, 753},
		"the table of contents":     {func(d target) { d.truncate("index", int64(d.toc().PostingsTable)+9) }, 1054},
		"an index cut in series":    {func(d target) { d.truncate("index", d.entries()[2]+5) }, 452},
		"postings":                  {func(d target) { d.flip("index", int64(d.toc().Postings)+9) }, 1054},
		"the table of postings":     {func(d target) { d.flip("index", int64(d.toc().PostingsTable)+9) }, 1054},
		"a series that comes twice": {func(d target) { d.rename(2, 1) }, -3},
		"series out of order":       {func(d target) { d.rename(1, 3) }, -3},
	}
}

func TestRepairSalvagesAllThatCanBeRead(t *testing.T) {
	sound := newPristine(t)
	for name, tc := range corpus() {
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			source := sound.broken(t, bkt, tc.damage)
			before := contents(t, bkt)
			op := operator(t, bkt)
			op.opts.DryRun = true
			planned, dryErr := op.Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{})
			if !maps.Equal(contents(t, bkt), before) {
				t.Fatal("the dry run changed the bucket")
			}
			op.opts.DryRun = false
			got, err := op.Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{})
			if tc.samples == -1 {
				if err == nil || dryErr == nil || !strings.Contains(err.Error(), "no sample can be read") || !maps.Equal(contents(t, bkt), before) {
					t.Errorf("got %v, %v, want an error and the bucket as it was", err, dryErr)
				}
				return
			}
			if err != nil || dryErr != nil {
				t.Fatalf("%v, %v\n%s", err, dryErr, ends(got))
			}
			if a, b := lostOf(planned), lostOf(got); a != b {
				t.Errorf("the dry run says\n%s\nbut lost is\n%s", a, b)
			}
			made := ulid.MustParse(got[0].What)
			checkRepaired(t, bkt, source, made)
			salvaged, known := bySeries(blocktest.Read(t, blocktest.Download(t, bkt, made))), bySeries(sound.written)
			if n := count(salvaged); tc.samples > 0 && n != tc.samples {
				t.Errorf("%d samples salvaged, want %d", n, tc.samples)
			}
			if n := count(salvaged); n < count(known) && lostOf(got) == "" && tc.samples != -3 {
				t.Errorf("%d of %d samples salvaged, and nothing is listed as lost", n, count(known))
			}
			for series, samples := range salvaged {
				for s := range samples {
					if tc.samples != -3 && !known[series][s] {
						t.Errorf("sample %s of %s was never written", s, series)
					}
				}
			}
			again, err := op.Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{DeleteSource: true})
			if err != nil || again[0].Status != Unchanged || !strings.Contains(ends(again), "mark "+source.ULID.String()+" done") {
				t.Errorf("again, with the source deleted: got %v\n%s", err, ends(again))
			}
		})
	}
}

// lostOf gives what is listed as lost.
func lostOf(actions []Action) string {
	var lines []string
	for _, a := range actions {
		if a.Do == "lost" {
			lines = append(lines, fmt.Sprintf("%s (%s): %s\n", a.What, a.Why, a.Status))
		}
	}
	return strings.Join(lines, "")
}

// checkRepaired makes sure that the new block is sound and the one that readers use,
// whatever family they are of, and that the source is there, marked.
func checkRepaired(t *testing.T, bkt *bucket.Memory, source *block.Meta, made ulid.ULID) {
	t.Helper()
	op := operator(t, bkt)
	if v, err := op.Verify(t.Context(), Selection{IDs: []ulid.ULID{made}}); err != nil {
		t.Errorf("the new block: %v %v", v, err)
	}
	set, err := op.blocks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := set.Find(source.ULID), set.Find(made)
	if by := block.Superseded(set.Blocks)[source.ULID]; by != made {
		t.Errorf("readers use %s, want %s", by, made)
	}
	if made.Compare(source.ULID) >= 0 {
		t.Errorf("Thanos keeps %s, want %s", source.ULID, made)
	}
	if old.NoCompact == nil || old.Deletion != nil {
		t.Errorf("marks of the source: no-compact %v, deletion %v", old.NoCompact, old.Deletion)
	}
	if !slices.Equal(fresh.Meta.Origin(), source.Origin()) || fresh.Meta.TimeRange() != source.TimeRange() || fresh.Meta.Labels().String() != source.Labels().String() {
		t.Errorf("got %+v of %+v", fresh.Meta, source)
	}
}

func TestRepairFillsFromTheOtherReplica(t *testing.T) {
	sound, beside := newPristine(t), bucket.NewMemory()
	blocktest.InBucket(t, beside, spec("b")) // the same samples
	us := spec("b")
	us.Labels = map[string]string{"cluster": "us", "replica": "b"}
	us.Load = strings.ReplaceAll(load, "pod", "node")
	blocktest.InBucket(t, beside, us) // another stream
	others := contents(t, beside)
	for name, tc := range corpus() {
		if tc.samples == -1 {
			continue
		}
		t.Run(name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			source := sound.broken(t, bkt, tc.damage)
			put(t, bkt, others)
			got, err := operator(t, bkt).Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{ReplicaLabels: []string{"replica"}})
			if err != nil {
				t.Fatal(err)
			}
			made := ulid.MustParse(got[0].What)
			checkRepaired(t, bkt, source, made)
			if tc.samples == -3 {
				return // a label was another: the samples are there, under the wrong name
			}
			text := blocktest.Text(blocktest.Read(t, blocktest.Download(t, bkt, made)))
			if want := blocktest.Text(sound.written); text != want {
				t.Errorf("got\n%s\nwant\n%s\n%s", text, want, lostOf(got))
			}
			if strings.Contains(lostOf(got), ": lost\n") {
				t.Errorf("listed as lost:\n%s", lostOf(got))
			}
		})
	}
}

func TestOnlyHolesAreFilled(t *testing.T) {
	bkt := bucket.NewMemory()
	sound := newPristine(t)
	source := sound.broken(t, bkt, func(d target) { d.flip("chunks/000002", 20) })
	b := spec("b")
	b.Load = strings.ReplaceAll(load, "1+1x300", "1000+1x300")
	blocktest.InBucket(t, bkt, b) // other values, so that one sees whose samples they are
	got, err := operator(t, bkt).Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{ReplicaLabels: []string{"replica"}})
	if err != nil || strings.Count(lostOf(got), Filled) != 1 {
		t.Fatalf("%v\n%s", err, lostOf(got))
	}
	fresh := blocktest.Read(t, blocktest.Download(t, bkt, ulid.MustParse(got[0].What)))
	foreign, all := 0, 0
	for i, s := range fresh {
		for j, p := range s.Samples {
			all++
			if w := sound.written[i].Samples[j]; w.T == p.T && w.V != p.V {
				foreign++
			}
		}
	}
	if foreign != 120 || all != 1054 {
		t.Errorf("%d of %d samples are from the other replica, want 120 of 1054", foreign, all)
	}
}

func TestRepairOfASoundBlockDoesNothing(t *testing.T) {
	bkt := bucket.NewMemory()
	m := blocktest.InBucket(t, bkt, spec("a"))
	before := contents(t, bkt)
	got, err := operator(t, bkt).Repair(t.Context(), []ulid.ULID{m.ULID}, Repairing{DeleteSource: true})
	if want := fmt.Sprintf("write %s unchanged\n", m.ULID); err != nil || ends(got) != want || !maps.Equal(contents(t, bkt), before) {
		t.Errorf("got %s%v, want %s", ends(got), err, want)
	}
}

func TestRepairGoesOnAfterACrashAtEveryWrite(t *testing.T) {
	damage := func(d target) { d.flip("chunks/000002", 20) }
	sound, whole := newPristine(t), bucket.NewMemory()
	source := sound.broken(t, whole, damage)
	before := contents(t, whole)
	how := Repairing{DeleteSource: true}
	if _, err := operator(t, whole).Repair(t.Context(), []ulid.ULID{source.ULID}, how); err != nil {
		t.Fatal(err)
	}
	want := contents(t, whole)
	for _, moment := range []buckettest.Moment{buckettest.Before, buckettest.After} {
		for n := 1; ; n++ {
			bkt := bucket.NewMemory()
			put(t, bkt, before)
			dying := buckettest.CrashAt(bkt, n, moment)
			_, err := operator(t, dying).Repair(t.Context(), []ulid.ULID{source.ULID}, how)
			if !dying.Crashed() {
				if n < 5 {
					t.Errorf("only %d writes", n-1)
				}
				break
			}
			if err == nil {
				t.Fatalf("crash at write %d: no error", n)
			}
			if got, err := operator(t, bkt).Repair(t.Context(), []ulid.ULID{source.ULID}, how); err != nil {
				t.Fatalf("after a crash at write %d: %v\n%s", n, err, ends(got))
			}
			if got := contents(t, bkt); !maps.Equal(got, want) {
				t.Errorf("after a crash at write %d: %v, want %v", n, slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
		}
	}
}

func TestABlockThatWasReplacedIsNotRepaired(t *testing.T) {
	bkt := bucket.NewMemory()
	source := newPristine(t).broken(t, bkt, func(d target) { d.flip("chunks/000002", 20) })
	merged := spec("a")
	merged.Level = 2
	dir, meta := blocktest.Dir(t, merged)
	meta.Compaction.Sources = source.Origin()
	meta.Thanos.UploadTime = noon()
	if err := blockio.Upload(t.Context(), bkt, dir, meta); err != nil {
		t.Fatal(err)
	}
	if _, err := operator(t, bkt).Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{}); err == nil || !strings.Contains(err.Error(), meta.ULID.String()) {
		t.Errorf("error is %v, want one that names %s", err, meta.ULID)
	}
}

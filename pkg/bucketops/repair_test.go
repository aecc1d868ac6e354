package bucketops

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"

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
	dir, _ := blocktest.Breakable(t, spec("a"))
	return pristine{dir, blocktest.Read(t, dir)}
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

// salvageable says of the damages of blocktest.Corpus how many of the 1054 samples
// of four series can be read.
func salvageable() map[string]int {
	return map[string]int{
		"a chunk's byte":            934,
		"a chunk's length":          903,
		"a chunk that is none":      903,
		"a truncated segment":       873,
		"an empty segment":          873,
		"a missing segment":         873,
		"the magic of a segment":    1054,
		"the version of a segment":  1054,
		"all segments":              noSample,
		"no index":                  noSample,
		"an empty index":            noSample,
		"the magic of the index":    1054,
		"the version of the index":  noSample,
		"a symbol":                  1054,
		"the length of the symbols": 1054,
		"the number of symbols":     1054,
		"a series entry":            753,
		"the length of a series":    753,
		"the table of contents":     1054,
		"an index cut in postings":  1054,
		"an index cut in series":    452,
		"an index cut in symbols":   noSample,
		"postings":                  1054,
		"the table of postings":     1054,
		"a label that is another":   relabeled,
		"series out of order":       relabeled,
		"a symbol that is not":      753,
		"another time range":        160,
		"other counts":              1054,
		"times of another chunk":    1054,
		"chunks that lie elsewhere": 753,
		"chunks out of order":       1054,
		"a chunk twice":             1054,
		"a chunk of absurd times":   1054,
		"samples out of order":      934,
		"a chunk of no encoding":    903,
		"labels out of order":       1054,
	}
}

// What else a damage can mean for its block.
const (
	noSample  = -1 // can be read
	relabeled = -2 // is a label, so that samples are there under a name that was never written
)

func TestRepairSalvagesAllThatCanBeRead(t *testing.T) {
	sound := newPristine(t)
	for _, damage := range blocktest.Corpus() {
		t.Run(damage.Name, func(t *testing.T) {
			readable, ok := salvageable()[damage.Name]
			if !ok {
				t.Fatal("nobody says what can be salvaged")
			}
			bkt := bucket.NewMemory()
			source := damage.In(t, bkt, sound.dir)
			before := contents(t, bkt)
			op := operator(t, bkt)
			op.opts.DryRun = true
			planned, dryErr := op.Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{})
			if !maps.Equal(contents(t, bkt), before) {
				t.Fatal("the dry run changed the bucket")
			}
			op.opts.DryRun = false
			got, err := op.Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{})
			if readable == noSample {
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
			if n := count(salvaged); readable > 0 && n != readable {
				t.Errorf("%d samples salvaged, want %d", n, readable)
			}
			if n := count(salvaged); n < count(known) && lostOf(got) == "" && readable != relabeled {
				t.Errorf("%d of %d samples salvaged, and nothing is listed as lost", n, count(known))
			}
			for series, samples := range salvaged {
				for s := range samples {
					if readable != relabeled && !known[series][s] {
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
	for _, damage := range blocktest.Corpus() {
		readable := salvageable()[damage.Name]
		if readable == noSample {
			continue
		}
		t.Run(damage.Name, func(t *testing.T) {
			bkt := bucket.NewMemory()
			source := damage.In(t, bkt, sound.dir)
			put(t, bkt, others)
			got, err := operator(t, bkt).Repair(t.Context(), []ulid.ULID{source.ULID}, Repairing{ReplicaLabels: []string{"replica"}})
			if err != nil {
				t.Fatal(err)
			}
			made := ulid.MustParse(got[0].What)
			checkRepaired(t, bkt, source, made)
			if readable == relabeled || damage.Name == "another time range" {
				return // samples are there under the wrong name, or outside of what the block says it has
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
	source := blocktest.DamageNamed(t, "a chunk's byte").In(t, bkt, sound.dir)
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
	sound, whole := newPristine(t), bucket.NewMemory()
	source := blocktest.DamageNamed(t, "a chunk's byte").In(t, whole, sound.dir)
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
	source := blocktest.DamageNamed(t, "a chunk's byte").In(t, bkt, newPristine(t).dir)
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

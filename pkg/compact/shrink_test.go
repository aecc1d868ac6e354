package compact

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockwriter"
	"github.com/varve-io/varve/pkg/planner"
)

// cramped builds blocks of at most so many sources; more of them end with err.
func cramped(e *Executor, most int, err error) (tried *[]int) {
	tried = &[]int{}
	build := e.build
	e.build = func(ctx context.Context, o output) error {
		if len(o.sources) > 1 {
			*tried = append(*tried, len(o.sources))
		}
		if len(o.sources) > most {
			return fmt.Errorf("write block %s: %w", o.meta.ULID, err)
		}
		return build(ctx, o)
	}
	return tried
}

func TestAJobThatTakesTooMuchIsDoneInParts(t *testing.T) {
	for name, err := range map[string]error{
		"the disk is full": syscall.ENOSPC, "a quota is reached": syscall.EDQUOT,
		"memory is short": syscall.ENOMEM, "the format has no room": blockwriter.ErrTooLarge,
	} {
		t.Run(name, func(t *testing.T) {
			fill := replicas(t, 8)
			reference, bkt := fill(t), fill(t)
			if err := executor(t, reference).Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			e := executor(t, bkt)
			tried := cramped(e, 3, err)
			if err := e.Run(t.Context()); err != nil {
				t.Fatal(err)
			}
			if largest := slices.Max(*tried); largest <= 3 {
				t.Errorf("jobs had %v sources, want one that was too large", *tried)
			}
			if got, want := samplesOf(live(t, bkt)), samplesOf(live(t, reference)); !slices.Equal(got, want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

// samplesOf leaves out names and levels.
func samplesOf(lines []string) []string {
	out := slices.Clone(lines)
	for i, l := range out {
		_, l, _ = strings.Cut(l, " ")
		before, after, _ := strings.Cut(l, " level ")
		_, after, _ = strings.Cut(after, ", ")
		out[i] = before + " " + after
	}
	slices.Sort(out)
	return out
}

// What cannot become smaller is left for an hour, and nothing is marked: another
// process, or this one later, may have the room.
func TestTheSmallestJobThatFindsNoRoomIsHeld(t *testing.T) {
	bkt := replicas(t, 4)(t)
	e := executor(t, bkt)
	cramped(e, 1, syscall.ENOSPC)
	if err := e.Run(t.Context()); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	for _, b := range fetch(t, bkt).Blocks {
		if b.NoCompact != nil || b.Deletion != nil {
			t.Errorf("block %s is marked", b.Meta.ULID)
		}
	}
	r := e.Report()
	i := slices.IndexFunc(r.Waiting, func(w Waiting) bool { return w.Class == string(resource) })
	if i < 0 || r.Waiting[i].For != string(forPause) || len(r.Waiting[i].Blocks) != fewest || r.Waiting[i].Until == nil || time.Until(*r.Waiting[i].Until) < time.Minute {
		t.Errorf("waiting are %+v", r.Waiting)
	}
}

// Where the format itself has no room for two blocks no process has, and the larger
// one is left as it is for good, as Thanos does it.
func TestABlockThatIsTooLargeForAnyMergeStandsAlone(t *testing.T) {
	bkt := replicas(t, 4)(t)
	e := executor(t, bkt)
	cramped(e, 1, blockwriter.ErrTooLarge)
	if err := e.Run(t.Context()); !errors.Is(err, blockwriter.ErrTooLarge) {
		t.Errorf("got %v, want %v", err, blockwriter.ErrTooLarge)
	}
	marked := block.Select(fetch(t, bkt).Blocks, func(b *block.Entry) bool { return b.NoCompact != nil && b.NoCompact.Reason == string(tooLarge) })
	if len(marked) != 9 { // of four blocks in each of three resolutions the last has nobody to be merged with
		t.Errorf("%d blocks stand alone, want 9", len(marked))
	}
	if err := e.Run(t.Context()); err != nil {
		t.Errorf("the next run: %v", err)
	}
}

func TestFit(t *testing.T) {
	// Times of blocks in hours, and the size of each. Those of no size have been merged.
	type blk struct{ from, to, size int64 }
	for name, tc := range map[string]struct {
		blocks []blk
		bound  int
		want   string // the places of those that stay
	}{
		"what is few enough stays":                   {[]blk{{0, 2, 1}, {2, 4, 1}}, 2, "[0 1]"},
		"the smallest neighbours come first":         {[]blk{{0, 2, 9}, {2, 4, 2}, {4, 6, 1}, {6, 8, 5}}, 2, "[1 2]"},
		"replicas stay together":                     {[]blk{{0, 2, 5}, {0, 2, 5}, {2, 4, 1}, {2, 4, 9}}, 2, "[0 1]"},
		"replicas that are too many are cut":         {[]blk{{0, 2, 1}, {2, 4, 1}, {2, 4, 1}, {2, 4, 1}}, 2, "[1 2]"},
		"what was merged meets the next replica":     {[]blk{{0, 2, 1}, {0, 2, 1}, {0, 2, 0}}, 2, "[2 0]"},
		"a single block waits for its large sibling": {[]blk{{0, 2, 1}, {2, 4, 1}, {3, 4, 1}, {3, 5, 1}, {5, 6, 1}}, 2, "[1 2]"},
	} {
		t.Run(name, func(t *testing.T) {
			job := planner.Compact{Group: block.GroupKey{Stream: "s"}}
			sizes, places := map[ulid.ULID]int64{}, map[ulid.ULID]int{}
			for i, b := range tc.blocks {
				m := &block.Meta{ULID: ulid.ULID{byte(i + 1)}, MinTime: b.from, MaxTime: b.to}
				if b.size > 0 {
					m.Thanos.Labels = map[string]string{"replica": strconv.Itoa(i)}
				}
				sizes[m.ULID], places[m.ULID] = b.size, i
				job.Sources = append(job.Sources, m)
			}
			e := &Executor{bounds: map[block.GroupKey]bound{job.Group: {sources: tc.bound, until: time.Now().Add(time.Hour)}}}
			e.opts.Policy.ReplicaLabels = []string{"replica"}
			fitted := e.fit(job, sizes).(planner.Compact)
			var got []int
			for _, m := range fitted.Sources {
				got = append(got, places[m.ULID])
				if len(tc.blocks) > tc.bound && !fitted.Range.Covers(m.TimeRange()) {
					t.Errorf("range %v is not that of the sources", fitted.Range)
				}
			}
			if fmt.Sprint(got) != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
		})
	}
}

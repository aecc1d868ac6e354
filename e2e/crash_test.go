package e2e

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

// TestACompactorKilledAtAnyWriteEndsInTheSameBlocks is scenario g: SIGKILL ahead
// of each write to the bucket and right behind it, then a second run.
func TestACompactorKilledAtAnyWriteEndsInTheSameBlocks(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	end := twoWeeks(time.Now())
	dirs := generate(ctx, t, pair(nil, nil), history.Options{
		Start: end.Add(-24 * time.Hour), End: end, Interval: 5 * time.Minute, BlockRange: 8 * time.Hour,
		Processes: history.Processes(3),
	})
	names := []string{"reference"}
	for n := range maxWrites {
		names = append(names, fmt.Sprintf("before-%d", n+1), fmt.Sprintf("after-%d", n+1))
	}
	s3 := startS3(ctx, t, c, names...)
	k := killer{cluster: c, s3: s3, dirs: dirs}

	want, writes := k.reference(ctx, t)
	if writes < 10 || writes > maxWrites {
		t.Fatalf("an undisturbed run writes %d times, want 10 to %d", writes, maxWrites)
	}
	t.Logf("an undisturbed run writes %d times", writes)
	for n := 1; n <= writes; n++ {
		for _, when := range []string{"before", "after"} {
			name := fmt.Sprintf("%s-%d", when, n)
			if got := k.interrupted(ctx, t, name, when, n); !reflect.DeepEqual(got, want) {
				t.Errorf("killed %s write %d: got\n%s\nwant\n%s", when, n, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
	}
}

// maxWrites is how many writes an undisturbed run may need.
const maxWrites = 40

// killer runs compactors against copies of one bucket.
type killer struct {
	cluster *harness.Cluster
	s3      *harness.S3
	dirs    []string
}

// reference is the state after an undisturbed run and the number of its writes.
func (k killer) reference(ctx context.Context, t *testing.T) (state []string, writes int) {
	t.Helper()
	w := must(harness.WatchWrites(k.s3.Endpoint))(t)
	defer w.Close()
	b := k.upload(ctx, t, "reference")
	w.Arm(nil, nil)
	compactOnce(ctx, t, k.cluster, "compact-reference", k.args(t, w.Endpoint, "reference")...)
	return bucketState(ctx, t, b), w.Count()
}

func (k killer) upload(ctx context.Context, t *testing.T, name string) history.Bucket {
	t.Helper()
	b := bucketOf(k.s3, name)
	if err := b.Upload(ctx, k.dirs, func() {}); err != nil {
		t.Fatal(err)
	}
	return b
}

// args make a compactor keep every block that it replaces, so that states can be compared.
func (k killer) args(t *testing.T, endpoint, name string) []string {
	t.Helper()
	config := (&harness.S3{Endpoint: endpoint}).ObjstoreConfig(name)
	return must(k.cluster.CompactArgs(config, "--delete-delay=48h", "--debug.lease-duration=2s"))(t)
}

// interrupted kills a run at its n-th write, runs another to its end and returns the state.
func (k killer) interrupted(ctx context.Context, t *testing.T, name, when string, n int) []string {
	t.Helper()
	w := must(harness.WatchWrites(k.s3.Endpoint))(t)
	defer w.Close()
	b := k.upload(ctx, t, name)
	args := k.args(t, w.Endpoint, name)

	started := make(chan *harness.Component, 1)
	kill := func(at int) {
		if at == n {
			p := <-started
			_ = p.Kill() // its end is waited for below
			started <- p
		}
	}
	switch when {
	case "before":
		w.Arm(func(at int) bool { kill(at); return at < n }, nil)
	case "after":
		w.Arm(func(at int) bool { return at <= n }, kill)
	}
	p := must(k.cluster.Launch(harness.ComponentOptions{Binary: "compact", Name: "compact-" + name, Args: args}))(t)
	started <- p
	if err := p.Wait(ctx); err == nil {
		t.Errorf("killed %s write %d: the compactor ended by itself", when, n)
	}
	compactOnce(ctx, t, k.cluster, "compact-"+name+"-again", k.args(t, k.s3.Endpoint, name)...)
	return bucketState(ctx, t, b)
}

// bucketState lists every object with its content's identity, but for times of
// upload and marking.
func bucketState(ctx context.Context, t *testing.T, b history.Bucket) []string {
	t.Helper()
	sums := must(b.Sums(ctx, func(key string) bool {
		return !strings.HasSuffix(key, ".json")
	}))(t)
	var state []string
	for _, key := range must(b.Keys(ctx))(t) {
		state = append(state, key+" "+sums[key])
	}
	for _, m := range blocks(ctx, t, b) {
		state = append(state, fmt.Sprintf("%+v", m))
	}
	slices.Sort(state)
	return state
}

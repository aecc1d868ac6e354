package sidecar_test

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
	"github.com/prometheus/prometheus/model/labels"
	"github.com/thanos-io/objstore"

	"github.com/varve-io/varve/internal/metrictest"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/sidecar"
)

func external() labels.Labels { return labels.FromStrings("cluster", "eu", "replica", "a") }

// local writes a block of two hours into a Prometheus' data directory and makes
// its meta.json what Prometheus writes, without a section of Thanos.
func local(t *testing.T, dir string, hour int, change func(*block.Meta)) ulid.ULID {
	t.Helper()
	at, meta := blocktest.DirIn(t, dir, blocktest.Spec{
		Load: "load 1m\n\tup 0+1x30", Offset: time.Duration(hour) * time.Hour,
		MinTime: int64(hour) * 3_600_000, MaxTime: int64(hour+2) * 3_600_000,
	})
	meta.Thanos = block.Thanos{}
	if change != nil {
		change(meta)
	}
	data, err := meta.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at, block.MetaFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return meta.ULID
}

type ship struct {
	dir string
	log bytes.Buffer
	reg *prometheus.Registry
	*sidecar.Shipper
}

func shipper(t *testing.T, bkt objstore.Bucket, dir string, change func(*sidecar.ShipperOptions)) *ship {
	t.Helper()
	o := sidecar.ShipperDefaults()
	o.Dir = dir
	if change != nil {
		change(&o)
	}
	s := &ship{dir: dir, reg: prometheus.NewRegistry()}
	var err error
	if s.Shipper, err = sidecar.NewShipper(bkt, o, slog.New(slog.NewTextHandler(&s.log, nil)), s.reg); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *ship) ship(t *testing.T) {
	t.Helper()
	if err := s.Ship(t.Context(), external()); err != nil {
		t.Fatalf("ship: %v", err)
	}
}

// state is the state file.
func state(t *testing.T, dir string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, "thanos.shipper.json"))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func stateOf(ids ...ulid.ULID) string {
	if len(ids) == 0 {
		return "{\n\t\"version\": 1,\n\t\"uploaded\": []\n}\n"
	}
	lines := make([]string, len(ids))
	for i, id := range ids {
		lines[i] = "\t\t\"" + id.String() + "\""
	}
	return "{\n\t\"version\": 1,\n\t\"uploaded\": [\n" + strings.Join(lines, ",\n") + "\n\t]\n}\n"
}

// complete are the blocks of the bucket, each of them verified by reading it back.
func complete(t *testing.T, bkt objstore.Bucket) (ids []ulid.ULID) {
	t.Helper()
	err := bucket.List(t.Context(), bkt, "", "", func(o bucket.Object) error {
		if id, rel, ok := block.ParseName(o.Name); ok && rel == block.MetaFile {
			ids = append(ids, id)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		dir := filepath.Join(t.TempDir(), id.String())
		meta, err := blockio.Download(t.Context(), bkt, id, dir)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(blocktest.Read(t, dir)); n != 1 {
			t.Errorf("block %s has %d series, want 1", id, n)
		}
		if got := meta.Labels(); !labels.Equal(got, external()) || meta.Thanos.Source != block.SourceSidecar || meta.Thanos.UploadTime.IsZero() {
			t.Errorf("block %s has labels %s, source %q, upload time %s", id, got, meta.Thanos.Source, meta.Thanos.UploadTime)
		}
	}
	return ids
}

func wantBlocks(t *testing.T, bkt objstore.Bucket, want ...ulid.ULID) {
	t.Helper()
	slices.SortFunc(want, ulid.ULID.Compare)
	if got := complete(t, bkt); !slices.Equal(got, want) {
		t.Errorf("the bucket has blocks %v, want %v", got, want)
	}
}

func TestBlocksAreShippedOldestFirst(t *testing.T) {
	dir, bkt := t.TempDir(), buckettest.NewLog(bucket.NewMemory())
	second, first := local(t, dir, 4, nil), local(t, dir, 2, nil)
	s := shipper(t, bkt, dir, nil)
	s.ship(t)
	wantBlocks(t, bkt, first, second)
	if got, want := state(t, dir), stateOf(first, second); got != want {
		t.Errorf("state file is\n%swant\n%s", got, want)
	}
	var metas []string
	for _, op := range bkt.Writes() {
		if strings.HasSuffix(op, block.MetaFile) {
			metas = append(metas, op)
		}
	}
	if want := []string{"upload " + block.MetaName(first), "upload " + block.MetaName(second)}; !slices.Equal(metas, want) {
		t.Errorf("blocks were completed in the order %v, want %v", metas, want)
	}
	if left, err := os.ReadDir(filepath.Join(dir, "thanos/upload")); err != nil || len(left) > 0 {
		t.Errorf("left in the staging directory: %v (%v)", left, err)
	}

	bkt.Reset()
	s.ship(t)
	if all := bkt.All(); len(all) > 0 {
		t.Errorf("a second round without news asked the bucket: %v", all)
	}
}

func TestWhatIsNotShipped(t *testing.T) {
	for name, tc := range map[string]struct {
		change  func(*block.Meta)
		options func(*sidecar.ShipperOptions)
		want    int
	}{
		"an empty block":    {func(m *block.Meta) { m.Stats.NumSamples = 0 }, nil, 0},
		"a compacted block": {func(m *block.Meta) { m.Compaction.Level = 2 }, nil, 0},
		"unless compacted ones are wanted": {
			func(m *block.Meta) { m.Compaction.Level, m.Compaction.Sources = 2, []ulid.ULID{ulid.MustNew(1, nil)} },
			func(o *sidecar.ShipperOptions) { o.Compacted = sidecar.ShipCompacted }, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir, bkt := t.TempDir(), bucket.NewMemory()
			local(t, dir, 2, tc.change)
			shipper(t, bkt, dir, tc.options).ship(t)
			if got := complete(t, bkt); len(got) != tc.want {
				t.Errorf("shipped %v, want %d", got, tc.want)
			}
		})
	}
}

func TestACompactedBlockOfShippedSourcesIsNotShipped(t *testing.T) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	source := local(t, dir, 2, nil)
	s := shipper(t, bkt, dir, func(o *sidecar.ShipperOptions) { o.Compacted = sidecar.ShipCompacted })
	s.ship(t)
	merged := local(t, dir, 4, func(m *block.Meta) { m.Compaction.Level, m.Compaction.Sources = 2, []ulid.ULID{source} })
	if err := os.RemoveAll(filepath.Join(dir, source.String())); err != nil {
		t.Fatal(err)
	}
	s.ship(t)
	wantBlocks(t, bkt, source)
	if got, want := state(t, dir), stateOf(merged); got != want {
		t.Errorf("state file is\n%swant\n%s", got, want)
	}
}

func TestABadBlockDoesNotHoldUpTheOthers(t *testing.T) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	noIndex, noMeta, good := local(t, dir, 2, nil), local(t, dir, 4, nil), local(t, dir, 6, nil)
	for _, name := range []string{filepath.Join(noIndex.String(), block.IndexFile), filepath.Join(noMeta.String(), block.MetaFile)} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	s := shipper(t, bkt, dir, nil)
	s.ship(t)
	wantBlocks(t, bkt, good)
	for _, id := range []ulid.ULID{noIndex, noMeta} {
		if !strings.Contains(s.log.String(), id.String()) {
			t.Errorf("the log does not name block %s:\n%s", id, s.log.String())
		}
	}
	want := `
# HELP varve_sidecar_ship_failures_total Attempts to ship a block that ended in an error.
# TYPE varve_sidecar_ship_failures_total counter
varve_sidecar_ship_failures_total 2
# HELP varve_sidecar_unshipped_blocks Finished blocks that are not in the bucket yet.
# TYPE varve_sidecar_unshipped_blocks gauge
varve_sidecar_unshipped_blocks 1
`
	if err := testutil.GatherAndCompare(s.reg, strings.NewReader(want), "varve_sidecar_ship_failures_total", "varve_sidecar_unshipped_blocks"); err != nil {
		t.Error(err)
	}
	if age := metrictest.Value(t, s.reg, "varve_sidecar_oldest_unshipped_block_age_seconds"); age < 3600 {
		t.Errorf("age of the oldest unshipped block is %v s, want years", age)
	}
}

func TestNothingIsShippedWithoutExternalLabels(t *testing.T) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	local(t, dir, 2, nil)
	err := shipper(t, bkt, dir, nil).Ship(t.Context(), labels.EmptyLabels())
	if err == nil || !strings.Contains(err.Error(), "global.external_labels") {
		t.Errorf("error is %v, want one that names global.external_labels", err)
	}
	if got := complete(t, bkt); len(got) > 0 {
		t.Errorf("shipped %v", got)
	}
}

func TestTheStateFileIsRebuilt(t *testing.T) {
	for name, content := range map[string]string{
		"when it is gone":                "",
		"when it is damaged":             `{"version": 1, "uplo`,
		"when it has another version":    `{"version": 2, "uploaded": []}`,
		"when it names blocks long gone": `{"version": 1, "uploaded": ["01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T"]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir, bkt := t.TempDir(), buckettest.NewLog(bucket.NewMemory())
			id := local(t, dir, 2, nil)
			s := shipper(t, bkt, dir, nil)
			s.ship(t)
			path := filepath.Join(dir, "thanos.shipper.json")
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if content != "" {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			bkt.Reset()
			s.ship(t)
			if got, want := state(t, dir), stateOf(id); got != want {
				t.Errorf("state file is\n%swant\n%s", got, want)
			}
			if w := bkt.Writes(); len(w) > 0 {
				t.Errorf("the complete block was written again: %v", w)
			}
		})
	}
}

func TestTheStateFileForgetsBlocksThatAreGone(t *testing.T) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	gone, stays := local(t, dir, 2, nil), local(t, dir, 4, nil)
	s := shipper(t, bkt, dir, nil)
	s.ship(t)
	if err := os.RemoveAll(filepath.Join(dir, gone.String())); err != nil {
		t.Fatal(err)
	}
	s.ship(t)
	if got, want := state(t, dir), stateOf(stays); got != want {
		t.Errorf("state file is\n%swant\n%s", got, want)
	}
}

// A process that dies at any write to the bucket, before it has its effect or
// after, is followed by one that ships every block completely, and only once.
func TestACrashAtAnyWriteEndsInCompleteBlocks(t *testing.T) {
	for _, when := range []buckettest.Moment{buckettest.Before, buckettest.After} {
		for n := 1; ; n++ {
			dir, inner := t.TempDir(), bucket.NewMemory()
			first, second := local(t, dir, 2, nil), local(t, dir, 4, nil)
			dying := buckettest.CrashAt(inner, n, when)
			s := shipper(t, dying, dir, nil)
			if err := s.Ship(t.Context(), external()); err != nil {
				t.Fatalf("crash at write %d: %v", n, err)
			}
			log := buckettest.NewLog(inner)
			shipper(t, log, dir, nil).ship(t)
			wantBlocks(t, inner, first, second)
			if got, want := state(t, dir), stateOf(first, second); got != want {
				t.Errorf("crash at write %d: state file is\n%swant\n%s", n, got, want)
			}
			if !dying.Crashed() {
				if n < 4 {
					t.Errorf("two blocks were shipped with %d writes", n)
				}
				break
			}
		}
	}
}

// hooked is a bucket with something to happen before each upload.
type hooked struct {
	objstore.Bucket
	before func(id ulid.ULID) error
}

func (b hooked) Upload(ctx context.Context, name string, r io.Reader, o ...objstore.ObjectUploadOption) error {
	id, _, _ := block.ParseName(name)
	if err := b.before(id); err != nil {
		return err
	}
	return b.Bucket.Upload(ctx, name, r, o...)
}

// Prometheus' retention takes a block away in the middle of its upload.
func TestABlockDeletedMeanwhileIsShippedFromItsLinks(t *testing.T) {
	for name, fault := range map[string]error{"at once": nil, "after an error": errors.New("the bucket is away")} {
		t.Run(name, func(t *testing.T) {
			dir, inner := t.TempDir(), bucket.NewMemory()
			id := local(t, dir, 2, nil)
			var once sync.Once
			s := shipper(t, hooked{inner, func(id ulid.ULID) (err error) {
				once.Do(func() { err = errors.Join(os.RemoveAll(filepath.Join(dir, id.String())), fault) })
				return err
			}}, dir, nil)
			s.ship(t)
			s.ship(t)
			wantBlocks(t, inner, id)
			if got, want := state(t, dir), stateOf(); got != want {
				t.Errorf("state file is\n%swant\n%s", got, want)
			}
			if left, err := os.ReadDir(filepath.Join(dir, "thanos/upload")); err != nil || len(left) > 0 {
				t.Errorf("left in the staging directory: %v (%v)", left, err)
			}
		})
	}
}

// A process died while it made links, or before it removed them.
func TestRemainsOfStagingDoNotMatter(t *testing.T) {
	dir, bkt := t.TempDir(), bucket.NewMemory()
	id := local(t, dir, 2, nil)
	for _, name := range []string{
		filepath.Join(id.String(), "chunks", "000001"), filepath.Join(id.String(), block.MetaFile),
		"01J8XPPZ6EZJ7QYJ4ZQJ0V4R5T/index",
	} {
		path := filepath.Join(dir, "thanos/upload", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte("half"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	shipper(t, bkt, dir, nil).ship(t)
	wantBlocks(t, bkt, id)
	if left, err := os.ReadDir(filepath.Join(dir, "thanos/upload")); err != nil || len(left) > 0 {
		t.Errorf("left in the staging directory: %v (%v)", left, err)
	}
}

func TestShippingMayBeHeldBackByFlags(t *testing.T) {
	const two, day = 2 * time.Hour, 24 * time.Hour
	for name, tc := range map[string]struct {
		flags   promclient.Flags
		options func(*sidecar.ShipperOptions)
		ok      bool
	}{
		"equal durations":             {promclient.Flags{MinBlock: two, MaxBlock: two}, nil, true},
		"local compaction":            {promclient.Flags{Dir: "/prometheus", MinBlock: two, MaxBlock: day}, nil, false},
		"compaction waits for us":     {promclient.Flags{Dir: "/prometheus", MinBlock: two, MaxBlock: day, DelayCompactFile: "/prometheus/thanos.shipper.json"}, nil, true},
		"compaction waits for others": {promclient.Flags{Dir: "/prometheus", MinBlock: two, MaxBlock: day, DelayCompactFile: "/prometheus/other.json"}, nil, false},
		"the operator knows better":   {promclient.Flags{MinBlock: two, MaxBlock: day}, func(o *sidecar.ShipperOptions) { o.Durations = sidecar.AnyDurations }, true},
	} {
		t.Run(name, func(t *testing.T) {
			o := sidecar.ShipperDefaults()
			if tc.options != nil {
				tc.options(&o)
			}
			err := o.CheckFlags(tc.flags)
			if (err == nil) != tc.ok {
				t.Errorf("got error %v, want ok: %t", err, tc.ok)
			}
			if err != nil && (strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "max-block-duration")) {
				t.Errorf("the error is not one clear line: %v", err)
			}
		})
	}
}

func TestShipperRefusesWhatItCannotUse(t *testing.T) {
	for name, change := range map[string]func(*sidecar.ShipperOptions){
		"a data directory that is absent":   func(o *sidecar.ShipperOptions) { o.Dir = filepath.Join(o.Dir, "absent") },
		"a state file in another directory": func(o *sidecar.ShipperOptions) { o.StateFile = "../state.json" },
	} {
		t.Run(name, func(t *testing.T) {
			o := sidecar.ShipperDefaults()
			o.Dir = t.TempDir()
			change(&o)
			_, err := sidecar.NewShipper(bucket.NewMemory(), o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err == nil || !strings.Contains(fmt.Sprint(err), "--") {
				t.Errorf("got error %v, want one that names the flag", err)
			}
		})
	}
}

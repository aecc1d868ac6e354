package pagecache

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/varve-io/varve/internal/logtest"
)

// diskOptions keep nothing in memory.
func diskOptions(dir string) Options {
	o := testOptions(0)
	o.Dir, o.DiskBytes = dir, minDisk
	return o
}

func (c *Cache) mustClose(t testing.TB) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// dirSize returns bytes and number of the files in a directory.
func dirSize(t testing.TB, dir string) (size int64, files int) {
	t.Helper()
	for _, path := range segmentFiles(t, dir) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
		files++
	}
	return size, files
}

func segmentFiles(t testing.TB, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(dir, "*.[fk]*"))
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// copyDir makes a copy as a crash would leave the original.
func copyDir(t testing.TB, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(filepath.Join(to, "pages"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(to, "pages")
}

func TestDiskSurvivesARestart(t *testing.T) {
	f := newFake(40 * pageSize)
	dir := filepath.Join(t.TempDir(), "pages")
	c := newCache(t, f, diskOptions(dir))
	ranges := []Range{{Off: 5, Len: 300}, {Off: 70000, Len: 4096}, {Off: 5 * pageSize, Len: 3 * pageSize}}
	for i := range ranges {
		ranges[i].Object = f.object()
	}
	mustReadRanges(t, c, f, ranges)
	c.disk.flush()
	crashed := copyDir(t, dir)
	c.mustClose(t)
	size, _ := dirSize(t, dir)
	if most := int64(300+4096+3*pageSize) + 8<<10; size > most {
		t.Errorf("%d bytes on disk, want at most %d", size, most)
	}
	torn := copyDir(t, crashed)
	appendTo(t, segmentFiles(t, torn)[0], make([]byte, 1000)) // a crash of the machine may leave this

	for name, dir := range map[string]string{"after a stop": dir, "after a crash": crashed, "after a torn write": torn} {
		t.Run(name, func(t *testing.T) {
			for range 2 { // a restart leaves what a restart finds
				c := newCache(t, f, diskOptions(dir))
				f.took()
				mustReadRanges(t, c, f, ranges)
				if requests, _ := f.took(); requests != 0 {
					t.Errorf("%d requests for what is on disk, want none", requests)
				}
				mustRead(t, c, f, 20*pageSize, 10)
				if requests, _ := f.took(); requests != 1 {
					t.Errorf("%d requests for what is not on disk, want 1", requests)
				}
				c.Forget(f.object(), 20*pageSize, 10)
				c.mustClose(t)
			}
		})
	}
}

func appendTo(t testing.TB, path string, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
}

func TestUsageCountsDisk(t *testing.T) {
	f := newFake(4 * pageSize)
	c := newCache(t, f, diskOptions(t.TempDir()))
	mustRead(t, c, f, 100, 1000)
	c.disk.flush()
	u := new(Usage)
	if err := c.Read(WithUsage(t.Context(), u), f.object(), make([]byte, 500), 200); err != nil {
		t.Fatal(err)
	}
	if u.FromDisk.Load() != 500 || u.Requests.Load() != 0 {
		t.Errorf("%d bytes from disk and %d requests, want 500 and none", u.FromDisk.Load(), u.Requests.Load())
	}
}

func TestDiskIsBounded(t *testing.T) {
	f := newFake(2000 * pageSize)
	dir := t.TempDir()
	c := newCache(t, f, diskOptions(dir))
	rnd := rand.New(rand.NewSource(1))
	for range 150 {
		for range 10 {
			n := 1 + rnd.Int63n(3*pageSize)
			mustRead(t, c, f, rnd.Int63n(f.object().Size-n), n)
		}
		c.disk.flush()
		if size, files := dirSize(t, dir); size > minDisk || files > 2*segmentShare {
			t.Fatalf("%d bytes in %d files, limit %d", size, files, minDisk)
		}
	}
	if n := testutil.ToFloat64(c.metrics.diskEvictions); n == 0 {
		t.Error("nothing was evicted")
	}
	c.mustClose(t)
	if size, _ := dirSize(t, dir); size > minDisk {
		t.Fatalf("%d bytes after a stop, limit %d", size, minDisk)
	}
	// Small records are bounded in number, for the sake of the index in memory.
	c = newCache(t, f, diskOptions(dir))
	for i := range int64(2000) {
		mustRead(t, c, f, i*pageSize, 1)
		mustRead(t, c, f, i*pageSize+100, 1)
		mustRead(t, c, f, i*pageSize+200, 1)
	}
	c.disk.flush()
	if most := c.disk.mostRecords(); c.disk.index.live > most {
		t.Errorf("%d records, want at most %d", c.disk.index.live, most)
	}
}

func TestAScanLeavesWhatIsUsedOnDisk(t *testing.T) {
	f := newFake(1000 * pageSize)
	c := newCache(t, f, diskOptions(t.TempDir()))
	const hot = 16
	useHot := func() (requests int64) {
		f.took()
		for i := range int64(hot) {
			mustRead(t, c, f, f.object().Size-(i+1)*pageSize, pageSize/2)
		}
		c.disk.flush()
		requests, _ = f.took()
		return requests
	}
	scan := func(from, to int64) {
		for i := from; i < to; i++ {
			mustRead(t, c, f, i*pageSize, pageSize)
			if i%16 == 0 {
				c.disk.flush() // so that nothing is skipped
			}
		}
		c.disk.flush()
	}
	useHot()
	useHot()
	scan(0, 300) // more than there is room for
	if requests := useHot(); requests > hot/4 {
		t.Errorf("after a scan %d of %d hot pages had to be read again", requests, hot)
	}
	scan(300, 900)
	if requests := useHot(); requests > hot/4 {
		t.Errorf("after a long scan %d of %d hot pages had to be read again", requests, hot)
	}
}

// Whatever happens to the files, answers are right.
func TestFilesThatChangeNeverChangeAnswers(t *testing.T) {
	f := newFake(200 * pageSize)
	damages := map[string]func(rnd *rand.Rand, path string, b []byte) error{
		"bits flip": func(rnd *rand.Rand, path string, b []byte) error {
			for range 1 + len(b)/5000 {
				b[rnd.Intn(len(b))] ^= 1 << rnd.Intn(8)
			}
			return os.WriteFile(path, b, 0o600)
		},
		"blocks are lost": func(rnd *rand.Rand, path string, b []byte) error {
			at := rnd.Intn(len(b))
			clear(b[at:min(at+4096, len(b))])
			return os.WriteFile(path, b, 0o600)
		},
		"blocks are swapped": func(rnd *rand.Rand, path string, b []byte) error {
			at, from := rnd.Intn(len(b)), rnd.Intn(len(b))
			copy(b[at:], bytes.Clone(b[from:min(from+100000, len(b))]))
			return os.WriteFile(path, b, 0o600)
		},
		"ends are cut off": func(rnd *rand.Rand, path string, b []byte) error { return os.Truncate(path, int64(rnd.Intn(len(b)))) },
		"files vanish":     func(_ *rand.Rand, path string, _ []byte) error { return os.Remove(path) },
		"the directory vanishes": func(_ *rand.Rand, path string, _ []byte) error {
			return os.RemoveAll(filepath.Dir(path))
		},
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			rnd := rand.New(rand.NewSource(7))
			dir := filepath.Join(t.TempDir(), "pages")
			c := newCache(t, f, diskOptions(dir))
			for round := range 8 {
				for range 3 {
					mustReadRanges(t, c, f, randomRanges(rnd, f.object()))
				}
				c.disk.flush()
				if round%4 == 3 {
					c.mustClose(t)
				}
				for _, path := range segmentFiles(t, dir) {
					b, err := os.ReadFile(path)
					if err != nil || len(b) == 0 || rnd.Intn(3) == 0 {
						continue
					}
					if err := damage(rnd, path, b); err != nil {
						t.Fatal(err)
					}
				}
				if round%4 == 3 {
					c = newCache(t, f, diskOptions(dir))
				}
				if c.disk == nil {
					t.Fatal("the disk is given up")
				}
			}
			if up := testutil.ToFloat64(c.metrics.diskUp); up != 1 {
				t.Error("the disk is said to be down")
			}
		})
	}
}

func TestADiskThatCannotBeUsedIsSaidOnceAndHurtsNoRead(t *testing.T) {
	f := newFake(20 * pageSize)
	block := func(t *testing.T, dir string) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	share := func(t *testing.T, dir string) {
		t.Helper()
		newCache(t, f, diskOptions(dir))
	}
	for name, tc := range map[string]struct {
		before, while func(t *testing.T, dir string)
	}{
		"from the start":          {before: block},
		"used by another process": {before: share},
		"later":                   {while: block},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "pages")
			if tc.before != nil {
				tc.before(t, dir)
			}
			o := diskOptions(dir)
			o.MemoryBytes = 1 << 30
			log := new(logtest.Buffer)
			c, err := New(f, o, slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			defer c.mustClose(t)
			if tc.while != nil {
				tc.while(t, dir)
			}
			for i := range int64(20) {
				mustRead(t, c, f, i*pageSize, 100)
				mustRead(t, c, f, i*pageSize, 100)
				if c.disk != nil {
					c.disk.flush()
				}
			}
			if n := strings.Count(log.String(), "\n"); n != 1 {
				t.Errorf("%d log lines, want 1:\n%s", n, log)
			}
			if up := testutil.ToFloat64(c.metrics.diskUp); up != 0 {
				t.Error("the disk is said to be up")
			}
		})
	}
}

func TestForgottenBytesLeaveTheDiskToo(t *testing.T) {
	f := newFake(4 * pageSize)
	c := newCache(t, f, diskOptions(t.TempDir()))
	for range 50 {
		mustRead(t, c, f, 10, 1000)
		f.content[20]++
		c.Forget(f.object(), 20, 1) // written or not
		mustRead(t, c, f, 10, 1000)
		f.content[20]++
		c.disk.flush()
		c.Forget(f.object(), 20, 1)
	}
}

func TestIndexOfRecordsIsRight(t *testing.T) {
	for seed := range int64(15) {
		rnd := rand.New(rand.NewSource(seed))
		x := newDiskIndex()
		known := map[uint64][]int32{} // youngest first
		for range 1500 {
			key := uint64(rnd.Intn(20))
			if rnd.Intn(3) > 0 {
				i := x.add(row{place{key: key}, rnd.Uint32()}, 1)
				known[key] = append([]int32{i}, known[key]...)
				known[key] = known[key][:min(len(known[key]), maxChain)]
			} else if all := known[key]; len(all) > 0 {
				at := rnd.Intn(len(all))
				x.remove(all[at])
				known[key] = append(append([]int32{}, all[:at]...), all[at+1:]...)
			}
			live := 0
			for _, all := range known {
				live += len(all)
			}
			if got := x.find(key); fmt.Sprint(got) != fmt.Sprint(append([]int32(nil), known[key]...)) || x.live != live {
				t.Fatalf("seed %d: records of %d are %v of %d, want %v of %d", seed, key, got, x.live, known[key], live)
			}
		}
	}
}

func BenchmarkReadFromDisk(b *testing.B) {
	f := newFake(64 * pageSize)
	for name, n := range map[string]int64{"4KiB": 4 << 10, "64KiB": 64 << 10} {
		b.Run(name, func(b *testing.B) {
			c := newCache(b, f, diskOptions(b.TempDir()))
			c.buffers.spoil = nil
			for i := range int64(64) {
				mustRead(b, c, f, i*pageSize, n)
			}
			c.disk.flush()
			p := make([]byte, n)
			b.ReportAllocs()
			b.SetBytes(n)
			for i := int64(0); b.Loop(); i++ {
				if err := c.Read(b.Context(), f.object(), p, i%64*pageSize); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAFullDiskIsLeftSomeRoom(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		f := newFake(300 * pageSize)
		log := new(logtest.Buffer)
		c, err := New(f, diskOptions(dir), slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry())
		if err != nil {
			t.Fatal(err)
		}
		defer c.mustClose(t)
		read := func(from, to int64) {
			for i := from; i < to; i++ {
				mustRead(t, c, f, i*pageSize, pageSize)
				if i%16 == 0 {
					c.disk.flush()
				}
			}
			c.disk.flush()
		}
		read(0, 200)
		before, _ := dirSize(t, dir)
		c.disk.judge(syscall.ENOSPC) // the writer is idle
		read(200, 210)
		if now, _ := dirSize(t, dir); now != before {
			t.Errorf("%d bytes on a disk that was full, were %d: it is to be left alone for a while", now, before)
		}
		<-time.After(diskPause + time.Second)
		read(210, 220)
		if now, _ := dirSize(t, dir); now > before*8/10 {
			t.Errorf("%d bytes on a disk that was full, were %d", now, before)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d log lines, want one when the disk was full and one when it was not:\n%s", n, log)
		}
	})
}

// BenchmarkScan reads 64 MiB that are new to a cache, as wide queries do.
func BenchmarkScan(b *testing.B) {
	f := newFake(64 << 20)
	for name, o := range map[string]Options{
		"neither": testOptions(0), "memory": testOptions(32 << 20), "disk": diskOptions(b.TempDir()),
		"both": func() Options { o := diskOptions(b.TempDir()); o.MemoryBytes = 32 << 20; return o }(),
	} {
		b.Run(name, func(b *testing.B) {
			c := newCache(b, f, o)
			c.buffers.spoil = nil
			b.ReportAllocs()
			b.SetBytes(f.object().Size)
			var before, after syscall.Rusage
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &before)
			for i := 0; b.Loop(); i++ {
				o := f.object()
				o.Name = fmt.Sprint("scan ", i)
				for off := int64(0); off < o.Size; off += 4 << 20 {
					lease, err := c.ReadRanges(b.Context(), []Range{{Object: o, Off: off, Len: 4 << 20}})
					if err != nil {
						b.Fatal(err)
					}
					lease.Release()
				}
			}
			_ = syscall.Getrusage(syscall.RUSAGE_SELF, &after)
			cpu := time.Duration(after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano())
			b.ReportMetric(float64(cpu)/float64(b.N)/float64(f.object().Size), "cpu-ns/B")
		})
	}
}

func TestALongReadIsKeptOnDiskFromTheSecondTimeOn(t *testing.T) {
	f := newFake(4 * bulk)
	c := newCache(t, f, diskOptions(t.TempDir()))
	const short = pageSize / 2
	for i, want := range []struct{ read, kept int64 }{{bulk + short, short}, {bulk, bulk + short}, {0, bulk + short}} {
		mustRead(t, c, f, 0, bulk)
		mustRead(t, c, f, 2*bulk, short)
		c.disk.flush()
		if _, bytes := f.took(); bytes != want.read {
			t.Errorf("reading it the %d. time: %d bytes came from the bucket, want %d", i+1, bytes, want.read)
		}
		if size, _ := dirSize(t, c.opts.Dir); size < want.kept || size > want.kept+want.kept/2 {
			t.Errorf("after the %d. time %d bytes are on disk, want %d and a little", i+1, size, want.kept)
		}
	}
}

func TestARequestThatReadsAPageInPartsReadsItOnce(t *testing.T) {
	f := newFake(4 * bulk)
	c := newCache(t, f, diskOptions(t.TempDir()))
	read := func(u *Usage) {
		t.Helper()
		const middle = bulk + pageSize/2
		for _, r := range []Range{{Object: f.object(), Len: middle}, {Object: f.object(), Off: middle, Len: bulk}} {
			lease, err := c.ReadRanges(WithUsage(t.Context(), u), []Range{r})
			if err != nil {
				t.Fatal(err)
			}
			lease.Release()
		}
		c.disk.flush()
	}
	read(new(Usage))
	if size, _ := dirSize(t, c.opts.Dir); size >= pageSize/2 {
		t.Errorf("%d bytes are on disk after the first reading", size)
	}
	read(new(Usage))
	if size, _ := dirSize(t, c.opts.Dir); size < 2*bulk {
		t.Errorf("%d bytes are on disk after the second reading, want %d", size, 2*bulk)
	}
}

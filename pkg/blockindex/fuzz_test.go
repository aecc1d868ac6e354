package blockindex_test

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
)

// FuzzIndex reads an index in which bytes were changed, all checksums set right
// again, so that what lies behind them is reached too.
func FuzzIndex(f *testing.F) {
	v2, err := os.ReadFile(writeIndex(f, randomSeries(40, 5)))
	check(f, err)
	v1, err := os.ReadFile(filepath.Join(prometheusTestdata(f, "index_format_v1"), "index"))
	check(f, err)
	f.Add(false, uint32(5), []byte{1})
	f.Add(false, uint32(40), []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Add(true, uint32(9), []byte{0xff})
	for off := uint32(0); off < uint32(len(v2)); off += 61 {
		f.Add(false, off, []byte{0xff, 0xff, 0xff, 0x7f})
	}
	for back := uint32(1); back <= 52; back += 4 {
		f.Add(false, uint32(len(v2))-back, []byte{0x7f, 0xff})
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, old bool, off uint32, change []byte) {
		b := append([]byte(nil), v2...)
		if old {
			b = append([]byte(nil), v1...)
		}
		copy(b[off%uint32(len(b)):], change)
		repair(b)
		readAll(t, dir, b)
	})
}

// FuzzIndexBytes reads any bytes at all.
func FuzzIndexBytes(f *testing.F) {
	v2, err := os.ReadFile(writeIndex(f, randomSeries(3, 6)))
	check(f, err)
	f.Add(v2)
	f.Add(v2[:len(v2)-1])
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, given []byte) {
		b := append([]byte(nil), given...)
		repair(b)
		readAll(t, dir, b)
	})
}

// FuzzDirectory reads with a page directory in which bytes were changed, some with
// their checksums set right again. What it ends in is an answer or an error.
func FuzzDirectory(f *testing.F) {
	all := randomSeries(150, 7)
	content, err := os.ReadFile(writeIndex(f, all))
	check(f, err)
	dir := f.TempDir()
	_, err = directories(f, dir, 0).Open(f.Context(), "x", &memory{content: content}, 0)
	check(f, err)
	good, err := os.ReadFile(filepath.Join(dir, "x"))
	check(f, err)
	for off := uint32(0); off < uint32(len(good)); off += 499 {
		f.Add(off, []byte{0xff}, off%2 == 0)
		f.Add(off, []byte{0xff, 0xff, 0xff, 0x7f}, off%2 == 1)
	}
	want := len(matching(all, nil))
	ends := pageEnds(good)
	if len(ends) < 5 || ends[len(ends)-1] != len(good) {
		f.Fatalf("pages end at %v of %d", ends, len(good))
	}
	f.Fuzz(func(t *testing.T, off uint32, change []byte, mended bool) {
		b := append([]byte(nil), good...)
		off %= uint32(len(b))
		copy(b[off:], change)
		if mended {
			mend(b, ends, int(off))
		}
		check(t, os.WriteFile(filepath.Join(dir, "x"), b, 0o600))
		x, err := directories(t, dir, 1<<20).Open(t.Context(), "x", &memory{content: content}, 0)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		got, err := readIndex(t, x)
		if !mended && (err != nil || got != want) {
			t.Fatalf("%d series (%v), want %d", got, err, want)
		}
	})
}

// pageEnds finds where the pages of a directory, and what stands behind them, end:
// each in its checksum.
func pageEnds(b []byte) (ends []int) {
	sum, table := uint32(0), crc32.MakeTable(crc32.Castagnoli)
	begin := 0
	for end := 0; end+4 <= len(b); end++ {
		if end > begin && sum == binary.BigEndian.Uint32(b[end:]) {
			begin = end + 4
			ends = append(ends, begin)
			sum, end = 0, begin-1
			continue
		}
		sum = crc32.Update(sum, table, b[end:end+1])
	}
	return ends
}

// mend sets the checksum of the page with off right.
func mend(b []byte, ends []int, off int) {
	i, _ := slices.BinarySearch(ends, off+1)
	begin := 0
	if i > 0 {
		begin = ends[i-1]
	}
	binary.BigEndian.PutUint32(b[ends[i]-4:], crc32.Checksum(b[begin:ends[i]-4], crc32.MakeTable(crc32.Castagnoli)))
}

func readAll(t *testing.T, dir string, b []byte) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, "x")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	x, err := directories(t, dir, 1<<20).Open(t.Context(), "x", &memory{content: b}, 0)
	if err != nil {
		mustBeCorrupt(t, err)
		return
	}
	_, err = readIndex(t, x)
	mustBeCorrupt(t, err)
}

// readIndex reads all there is and returns the number of series.
func readIndex(t *testing.T, x *blockindex.Index) (series int, err error) {
	t.Helper()
	names, err := x.LabelNames(t.Context())
	errs := []error{err}
	for _, name := range names {
		_, err := labelValues(t, x, name, 0)
		errs = append(errs, err)
		for _, m := range []*labels.Matcher{
			matcher(labels.MatchEqual, name, "value-7"),
			matcher(labels.MatchRegexp, name, "value-1.*|1"),
			matcher(labels.MatchNotEqual, name, ""),
		} {
			_, err := x.Select(t.Context(), m)
			errs = append(errs, err)
			_, err = x.LabelNames(t.Context(), m)
			errs = append(errs, err)
			_, err = labelValues(t, x, "few", 3, m)
			errs = append(errs, err)
		}
	}
	s, err := x.Select(t.Context())
	errs = append(errs, err)
	r := x.Series(s)
	var e blockindex.Entry
	for r.Next(t.Context(), math.MinInt64, math.MaxInt64, &e) {
		series++
	}
	for _, err := range append(errs, r.Err()) {
		if err != nil {
			return series, err
		}
	}
	return series, nil
}

// repair sets the checksums of the table of contents and of the sections right.
func repair(b []byte) {
	if len(b) < 60 {
		return
	}
	sum := func(begin, end int) {
		binary.BigEndian.PutUint32(b[end:], crc32.Checksum(b[begin:end], crc32.MakeTable(crc32.Castagnoli)))
	}
	section := func(off uint64) {
		if off > uint64(len(b))-60 {
			return
		}
		begin := int(off) + 4
		if end := begin + int(binary.BigEndian.Uint32(b[off:])); end <= len(b)-56 {
			sum(begin, end)
		}
	}
	toc := b[len(b)-52:]
	symbols, series := binary.BigEndian.Uint64(toc), binary.BigEndian.Uint64(toc[8:])
	section(symbols)
	section(binary.BigEndian.Uint64(toc[40:]))
	// Series entries, one after the other, and postings lists.
	for off := series; off < uint64(len(b))-60; {
		n, size := binary.Uvarint(b[off:])
		end := off + uint64(max(size, 0)) + n
		if size <= 0 || n > uint64(len(b)) || end > uint64(len(b))-56 {
			break
		}
		sum(int(off)+size, int(end))
		off = (end + 4 + 15) / 16 * 16
	}
	if postings := binary.BigEndian.Uint64(toc[32:]); postings < uint64(len(b)) {
		for off := postings; off < uint64(len(b))-60; {
			section(off)
			off += 8 + uint64(binary.BigEndian.Uint32(b[off:]))
		}
	}
	sum(len(b)-52, len(b)-4)
}

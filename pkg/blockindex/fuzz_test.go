package blockindex_test

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockindex"
)

// prometheusTestdata is a directory of test data in the Prometheus module.
func prometheusTestdata(t testing.TB, name string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	check(t, err)
	return filepath.Join(strings.TrimSpace(string(out)), "tsdb", "testdata", name)
}

// memory is a Source.
type memory []byte

func (m memory) ReadAt(_ context.Context, p []byte, off int64) error {
	if off < 0 || off+int64(len(p)) > int64(len(m)) {
		return errors.New("read outside of the index")
	}
	copy(p, m[off:])
	return nil
}
func (m memory) Size() int64  { return int64(len(m)) }
func (m memory) Close() error { return nil }

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
	f.Fuzz(func(t *testing.T, old bool, off uint32, change []byte) {
		b := memory(append([]byte(nil), v2...))
		if old {
			b = memory(append([]byte(nil), v1...))
		}
		copy(b[off%uint32(len(b)):], change)
		repair(b)
		readAll(t, b)
	})
}

// FuzzIndexBytes reads any bytes at all.
func FuzzIndexBytes(f *testing.F) {
	v2, err := os.ReadFile(writeIndex(f, randomSeries(3, 6)))
	check(f, err)
	f.Add(v2)
	f.Add(v2[:len(v2)-1])
	f.Fuzz(func(t *testing.T, given []byte) {
		b := append([]byte(nil), given...)
		repair(b)
		readAll(t, b)
	})
}

func readAll(t *testing.T, b memory) {
	t.Helper()
	x, err := blockindex.Open(t.Context(), b)
	if err != nil {
		mustBeCorrupt(t, err)
		return
	}
	for _, name := range x.LabelNames() {
		_, err := x.LabelValues(t.Context(), name, 0)
		mustBeCorrupt(t, err)
		for _, m := range []*labels.Matcher{
			labels.MustNewMatcher(labels.MatchEqual, name, "value-7"),
			labels.MustNewMatcher(labels.MatchRegexp, name, "value-1.*|1"),
		} {
			_, err := x.Select(t.Context(), m)
			mustBeCorrupt(t, err)
		}
	}
	refs, err := x.Select(t.Context())
	mustBeCorrupt(t, err)
	reader := x.SeriesReader()
	var e blockindex.Entry
	for _, ref := range refs {
		_, err := reader.Read(t.Context(), ref, math.MinInt64, math.MaxInt64, &e)
		mustBeCorrupt(t, err)
	}
}

func mustBeCorrupt(t *testing.T, err error) {
	t.Helper()
	if err != nil && !errors.Is(err, blockindex.ErrCorrupt) {
		t.Fatalf("error is %v, want one that is %v", err, blockindex.ErrCorrupt)
	}
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

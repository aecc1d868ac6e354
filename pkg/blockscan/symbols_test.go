package blockscan_test

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
)

// TestSymbolsAreLearntFromPostings breaks the table of symbols, and mostly something else. What comes
// out has its own labels; where nothing vouches for them, nothing comes out.
func TestSymbolsAreLearntFromPostings(t *testing.T) {
	const learnt = "names and values of labels are taken from the table of postings"
	for name, tc := range map[string]struct {
		damage func(d damaged)
		kept   int
		why    string // a part of the finding
	}{
		"nothing else":               {damage: func(damaged) {}, kept: 4, why: learnt},
		"strings that no series has": {damage: func(d damaged) { d.addSymbols("", "0", "b0", "pods", "zz") }, kept: 4, why: learnt},
		"the only series that has a string": {
			damage: func(d damaged) { d.flip(blocktest.SeriesEntries(d.t, d.dir)[2] + 3) }, kept: 3, why: learnt,
		},
		"the table of contents":  {damage: func(d damaged) { d.flip(int64(len(d.index())) - 20) }, why: "the table of contents does not say where"},
		"the table of postings":  {damage: func(d damaged) { d.flip(d.postingsTable() + 9) }, why: "table of postings: checksum"},
		"a list of postings":     {damage: func(d damaged) { d.flip(d.postingsTable() - 6) }, why: `postings of pod="c": checksum`},
		"postings of each other": {damage: func(d damaged) { d.swapLastPostings() }, why: "has other series in its postings"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, meta := written(t, blocktest.Spec{})
			before := strings.Split(blocktest.Text(blocktest.Read(t, dir)), "\n")
			tc.damage(damaged{t, dir})
			damaged{t, dir}.flip(16)

			var why []string
			for _, f := range verify(t, dir, meta) {
				if strings.HasPrefix(f.Detail, "symbol table: ") {
					why = append(why, f.Detail)
				}
			}
			if len(why) != 1 || !strings.Contains(why[0], tc.why) {
				t.Errorf("found %q of the symbols, want one that says %q", why, tc.why)
			}
			got, _ := read(t, dir, meta)
			kept := 0
			for line := range strings.SplitSeq(strings.TrimSpace(got), "\n") {
				if line != "" {
					kept++
				}
				if !slices.Contains(before, line) {
					t.Errorf("this was never written: %s", line)
				}
			}
			if kept != tc.kept {
				t.Errorf("%d series came out, want %d:\n%s", kept, tc.kept, got)
			}
		})
	}
}

// damaged is a local block whose index is being broken.
type damaged struct {
	t   *testing.T
	dir string
}

func (d damaged) file() string { return filepath.Join(d.dir, block.IndexFile) }

func (d damaged) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d damaged) index() []byte {
	d.t.Helper()
	data, err := os.ReadFile(d.file())
	d.must(err)
	return data
}

// postingsTable is where the table of postings begins, and all lists end.
func (d damaged) postingsTable() int64 {
	d.t.Helper()
	toc, err := index.NewTOCFromByteSlice(byteSlice(d.index()))
	d.must(err)
	return int64(toc.PostingsTable)
}

type byteSlice []byte

func (b byteSlice) Len() int                    { return len(b) }
func (b byteSlice) Range(start, end int) []byte { return b[start:end] }

func (d damaged) flip(offset int64) {
	d.t.Helper()
	blocktest.Flip(d.t, d.file(), offset)
}

// swapLastPostings gives each of the last two labels, which one series has, the series of the other.
func (d damaged) swapLastPostings() {
	d.t.Helper()
	data := d.index()
	const list = 4 + 8 + crc32.Size // length, number of series, one series, checksum
	two := data[d.postingsTable()-2*list:][:2*list]
	last, other := slices.Clone(two[list:]), slices.Clone(two[:list])
	if binary.BigEndian.Uint64(last) != 8<<32|1 || binary.BigEndian.Uint64(other) != 8<<32|1 {
		d.t.Fatalf("the last lists are %x and %x, want two of one series", other, last)
	}
	copy(two, last)
	copy(two[list:], other)
	d.must(os.WriteFile(d.file(), data, 0o600))
}

// addSymbols writes the index anew with more symbols, as Prometheus does for series that a block has no sample of.
func (d damaged) addSymbols(more ...string) {
	d.t.Helper()
	r, err := index.NewFileReader(d.file(), index.DecodePostingsRaw)
	d.must(err)
	defer r.Close()
	for it := r.Symbols(); it.Next(); {
		more = append(more, it.At())
	}
	slices.Sort(more)
	w, err := index.NewWriter(context.Background(), d.file()+".new")
	d.must(err)
	for _, s := range slices.Compact(more) {
		d.must(w.AddSymbol(s))
	}
	all, err := r.Postings(context.Background(), "", "")
	d.must(err)
	for all.Next() {
		var l labels.ScratchBuilder
		var metas []chunks.Meta
		d.must(r.Series(all.At(), &l, &metas))
		d.must(w.AddSeries(all.At(), l.Labels(), metas...))
	}
	d.must(all.Err())
	d.must(w.Close())
	d.must(os.Rename(d.file()+".new", d.file()))
}

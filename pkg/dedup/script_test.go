package dedup

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/value"

	"github.com/varve-io/varve/pkg/chunkcodec"
	"github.com/varve-io/varve/pkg/series"
)

// A script is a situation somebody met. Its lines:
//
//	replica NAME from DURATION every DURATION: VALUES
//	chosen: NAME FIRST-LAST, …       the runs of the result, in seconds; ~FIRST-LAST are stale markers
//	resets: N                        how often the result falls
//
// Values are as in promqltest: 5, 1+2x10, _ for no sample, _x10, stale.
// Everything is checked again with each half of the result asked for on its own.
type script struct {
	names  []string
	inputs []chunkcodec.Samples
	chosen string
	resets string
}

func parseScript(t *testing.T, text string) (s script) {
	t.Helper()
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		head, tail, _ := strings.Cut(line, ":")
		switch f := strings.Fields(head); {
		case line == "" || line[0] == '#':
		case f[0] == "replica" && len(f) == 6:
			from, err1 := time.ParseDuration(f[3])
			every, err2 := time.ParseDuration(f[5])
			if err1 != nil || err2 != nil {
				t.Fatalf("line %q: %v %v", line, err1, err2)
			}
			s.names = append(s.names, f[1])
			s.inputs = append(s.inputs, values(t, from.Milliseconds(), every.Milliseconds(), tail))
		case f[0] == "chosen":
			s.chosen = strings.TrimSpace(tail)
		case f[0] == "resets":
			s.resets = strings.TrimSpace(tail)
		default:
			t.Fatalf("line %q is not understood", line)
		}
	}
	return s
}

func values(t *testing.T, at, every int64, text string) (out chunkcodec.Samples) {
	t.Helper()
	for field := range strings.FieldsSeq(text) {
		what, times := field, 1
		if before, after, ok := strings.Cut(field, "x"); ok {
			what = before
			if _, err := fmt.Sscan(after, &times); err != nil {
				t.Fatalf("value %q: %v", field, err)
			}
		}
		var v, d float64
		switch what {
		case "_":
			at += every * int64(times)
			continue
		case "stale":
			v = stale()
		default:
			if n, err := fmt.Sscanf(what, "%g+%g", &v, &d); n == 0 {
				t.Fatalf("value %q: %v", field, err)
			}
			if strings.Contains(field, "x") {
				times++
			}
		}
		for i := range times {
			if d != 0 { // a sum would make an ordinary NaN of a stale marker
				out.AppendFloat(0, at, v+d*float64(i))
			} else {
				out.AppendFloat(0, at, v)
			}
			at += every
		}
	}
	return out
}

// runs names the replica that each part of the result came from.
func (s *script) runs(got *chunkcodec.Samples) string {
	type run struct {
		name        string
		first, last int64
	}
	var all []run
	for i, at := range got.T {
		name := "?"
		for r := range s.inputs {
			if j, found := slices.BinarySearch(s.inputs[r].T, at); found && math.Float64bits(s.inputs[r].V[j]) == math.Float64bits(got.V[i]) {
				name = s.names[r]
				break
			}
		}
		name += " "
		if value.IsStaleNaN(got.V[i]) {
			name += "~"
		}
		if n := len(all); n > 0 && all[n-1].name == name {
			all[n-1].last = at
			continue
		}
		all = append(all, run{name, at, at})
	}
	var out []string
	for _, r := range all {
		out = append(out, fmt.Sprintf("%s%g-%g", r.name, float64(r.first)/1000, float64(r.last)/1000))
	}
	return strings.Join(out, ", ")
}

func countFalls(s *chunkcodec.Samples) (n int) {
	prev := math.Inf(-1)
	for _, v := range s.V {
		if value.IsStaleNaN(v) {
			continue
		}
		if v < prev {
			n++
		}
		prev = v
	}
	return n
}

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/scripts/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := parseScript(t, string(text))
			var in [][]series.Chunk
			for i := range s.inputs {
				in = append(in, []series.Chunk{chunk(t, &s.inputs[i], 0, s.inputs[i].Len())})
			}
			got := unpack(t, dedupe(t, in...))
			if runs := s.runs(got); runs != s.chosen {
				t.Errorf("chosen\n got %s\nwant %s", runs, s.chosen)
			}
			if falls := strconv.Itoa(countFalls(got)); falls != s.resets {
				t.Errorf("resets: got %s, want %s", falls, s.resets)
			}
			middle := got.T[got.Len()/2]
			var halves chunkcodec.Samples
			for _, part := range [][2]int64{{0, middle}, {middle, math.MaxInt64}} {
				lo, hi := Widen(part[0], part[1]-1)
				half := cut(unpack(t, dedupe(t, within(in, lo, hi)...)), part[0], part[1])
				halves.Append(half, 0, half.Len())
			}
			if d := difference(&halves, got); d != "" {
				t.Errorf("in two halves: %s", d)
			}
		})
	}
}

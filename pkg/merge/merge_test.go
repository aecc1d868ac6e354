package merge

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/util/annotations"

	"github.com/varve-io/varve/pkg/series"
)

// parse reads "a/r1:10-20=x,20-30=y b:0-5=z": series named a and b, the first of
// replica r1, with chunks of these times and bytes.
func parse(t testing.TB, text string) []series.Series {
	t.Helper()
	var out []series.Series
	for field := range strings.FieldsSeq(text) {
		head, tail, _ := strings.Cut(field, ":")
		name, replica, _ := strings.Cut(head, "/")
		s := series.Series{Labels: labels.FromStrings("name", name), Replica: replica}
		for c := range strings.SplitSeq(tail, ",") {
			var chunk series.Chunk
			var data string
			if _, err := fmt.Sscanf(c, "%d-%d=%s", &chunk.MinTime, &chunk.MaxTime, &data); err != nil {
				t.Fatalf("parse chunk %q: %v", c, err)
			}
			chunk.Data = []byte(data)
			s.Chunks = append(s.Chunks, chunk)
		}
		out = append(out, s)
	}
	return out
}

func format(all []series.Series) string {
	var fields []string
	for _, s := range all {
		name := s.Labels.Get("name")
		if s.Replica != "" {
			name += "/" + s.Replica
		}
		var chunks []string
		for _, c := range s.Chunks {
			chunks = append(chunks, fmt.Sprintf("%d-%d=%s", c.MinTime, c.MaxTime, c.Data))
		}
		fields = append(fields, name+":"+strings.Join(chunks, ","))
	}
	return strings.Join(fields, " ")
}

func TestSets(t *testing.T) {
	for name, tc := range map[string]struct {
		sets []string
		want string
	}{
		"no sets give nothing":                           {nil, ""},
		"one set passes":                                 {[]string{"a:0-1=x b:0-1=y"}, "a:0-1=x b:0-1=y"},
		"sets interleave by labels":                      {[]string{"a:0-1=x c:0-1=x", "", "b:0-1=y d:0-1=y"}, "a:0-1=x b:0-1=y c:0-1=x d:0-1=y"},
		"replicas stay apart and are neighbours":         {[]string{"a/r2:0-1=x", "a/r1:0-1=x"}, "a/r1:0-1=x a/r2:0-1=x"},
		"equal series of several sets are joined":        {[]string{"a:20-30=z", "a:0-10=x", "a:10-20=y"}, "a:0-10=x,10-20=y,20-30=z"},
		"repeated neighbours of one set are joined":      {[]string{"a:20-30=z a:0-10=x b:0-1=x"}, "a:0-10=x,20-30=z b:0-1=x"},
		"an identical chunk is kept once":                {[]string{"a:0-10=x,10-20=y", "a:0-10=x,10-20=y2"}, "a:0-10=x,10-20=y,10-20=y2"},
		"chunks with equal times sort by their contents": {[]string{"a:0-10=y", "a:0-10=x", "a:0-10=y"}, "a:0-10=x,0-10=y"},
	} {
		t.Run(name, func(t *testing.T) {
			var sets []series.Set
			for _, s := range tc.sets {
				sets = append(sets, series.NewSet(parse(t, s), nil))
			}
			got, _, err := series.Collect(Sets(sets...))
			if err != nil {
				t.Fatal(err)
			}
			if f := format(got); f != tc.want {
				t.Errorf("got  %s\nwant %s", f, tc.want)
			}
		})
	}
}

func TestInputsAreNotWrittenTo(t *testing.T) {
	in := parse(t, "a:20-30=z,40-50=q")
	in[0].Chunks = in[0].Chunks[:1:2] // room to append over the second chunk
	second := in[0].Chunks[:2][1]
	if _, _, err := series.Collect(Sets(series.NewSet(in, nil), series.NewSet(parse(t, "a:0-10=x"), nil))); err != nil {
		t.Fatal(err)
	}
	if got := in[0].Chunks[:2][1]; got.MinTime != second.MinTime || in[0].Chunks[0].MinTime != 20 {
		t.Errorf("input was changed: %v", in[0].Chunks[:2])
	}
}

func TestAnErrorEndsTheSetAndWarningsAreKept(t *testing.T) {
	boom := errors.New("boom")
	var w1, w2 annotations.Annotations
	w1.Add(errors.New("one"))
	w2.Add(errors.New("two"))
	m := Sets(
		series.NewSet(parse(t, "a:0-1=x z:0-1=x"), w1),
		&failing{Set: series.NewSet(parse(t, "b:0-1=x"), w2), err: boom},
	)
	got, warnings, err := series.Collect(m)
	if !errors.Is(err, boom) {
		t.Errorf("got error %v, want %v", err, boom)
	}
	if f := format(got); f != "a:0-1=x" {
		t.Errorf("got %s; a series that may lack chunks of the broken set must not come", f)
	}
	if len(warnings) != 2 {
		t.Errorf("got warnings %v, want both", warnings)
	}
	if m.Next() {
		t.Error("the set went on after its error")
	}
}

type failing struct {
	series.Set
	err error
}

func (f *failing) Err() error { return f.err }

func TestAllErrorsAreKept(t *testing.T) {
	one, two := errors.New("one"), errors.New("two")
	_, _, err := series.Collect(Sets(series.ErrSet(one), series.EmptySet(), series.ErrSet(two)))
	if !errors.Is(err, one) || !errors.Is(err, two) {
		t.Errorf("got %v, want both errors", err)
	}
}

func TestAnUnsortedSetIsAnError(t *testing.T) {
	_, _, err := series.Collect(Sets(series.NewSet(parse(t, "b:0-1=x a:0-1=x"), nil), series.EmptySet()))
	if !errors.Is(err, ErrUnsorted) {
		t.Errorf("got %v, want ErrUnsorted", err)
	}
}

// FuzzMerge deals series over sets as the bytes say and compares with sorting everything.
func FuzzMerge(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add([]byte("some bytes that deal series over five sets, equal ones among them"), uint8(5))
	f.Fuzz(func(t *testing.T, deal []byte, n uint8) {
		sets := make([][]series.Series, n%9+1)
		var all []series.Series
		for i := 0; i+2 < len(deal); i += 3 {
			s := series.Series{
				Labels:  labels.FromStrings("name", string('a'+rune(deal[i]%5))),
				Replica: []string{"", "r1", "r2"}[deal[i]/5%3],
				Chunks:  []series.Chunk{{MinTime: int64(deal[i+1] % 8), MaxTime: 8, Data: []byte{'a' + deal[i+1]/8%3}}},
			}
			to := int(deal[i+2]) % len(sets)
			sets[to] = append(sets[to], s)
			all = append(all, s)
		}
		var in []series.Set
		for _, s := range sets {
			slices.SortStableFunc(s, func(a, b series.Series) int { return series.Compare(&a, &b) })
			in = append(in, series.NewSet(s, nil))
		}
		got, _, err := series.Collect(Sets(in...))
		if err != nil {
			t.Fatal(err)
		}
		if g, w := format(got), format(naive(all)); g != w {
			t.Errorf("got  %s\nwant %s", g, w)
		}
	})
}

// naive merges by sorting.
func naive(all []series.Series) (out []series.Series) {
	slices.SortStableFunc(all, func(a, b series.Series) int { return series.Compare(&a, &b) })
	for _, s := range all {
		if n := len(out); n > 0 && series.Compare(&out[n-1], &s) == 0 {
			out[n-1].Chunks = append(slices.Clip(out[n-1].Chunks), s.Chunks...)
			continue
		}
		out = append(out, s)
	}
	for i := range out {
		if len(out[i].Chunks) > 1 {
			out[i].Chunks = normalize(slices.Clone(out[i].Chunks))
		}
	}
	return out
}

package pagecache

import (
	"fmt"
	"math/rand"
	"strings"
	"testing"
)

// wanted makes pieces of text such as "a:0+10 a:50+10": object, offset and length in KiB.
func wanted(t *testing.T, text string) (pieces []*piece) {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		name, at, _ := strings.Cut(word, ":")
		var off, n int64
		if _, err := fmt.Sscanf(at, "%d+%d", &off, &n); err != nil {
			t.Fatalf("%s: %v", word, err)
		}
		for off, end := off<<10, (off+n)<<10; off < end; {
			k := pageKey{Object{Name: name, Size: 1 << 40}, off / pageSize}
			to := min((k.n+1)*pageSize, end)
			pieces = append(pieces, &piece{key: k, off: off, end: to})
			off = to
		}
	}
	return pieces
}

func sorted(pieces []*piece) []*piece {
	sortPieces(pieces)
	return pieces
}

func TestPlan(t *testing.T) {
	cheap := price{always: 4 << 10, most: 100 << 10, free: 8, part: 1 << 20}
	busy := cheap
	busy.free = 2
	for name, tc := range map[string]struct {
		price      price
		want, text string
	}{
		"neighbours are one request":                    {cheap, "a:0+10 a:10+100", "a:0+110"},
		"order does not matter":                         {cheap, "a:10+100 b:5+1 a:0+10", "a:0+110 b:5+1"},
		"a small gap is read over":                      {cheap, "a:0+10 a:14+10", "a:0+24"},
		"a larger one is not while requests are free":   {cheap, "a:0+10 a:15+10", "a:0+10 a:15+10"},
		"objects stay apart":                            {cheap, "a:0+10 b:10+10", "a:0+10 b:10+10"},
		"the nearest are joined when requests wait":     {busy, "a:0+10 a:40+10 a:55+10", "a:0+10 a:40+25"},
		"until no more wait":                            {busy, "a:0+40 a:50+40 a:100+40 a:160+40", "a:0+140 a:160+40"},
		"but not for more bytes than are wanted":        {busy, "a:0+10 a:50+10 a:95+10", "a:0+10 a:50+10 a:95+10"},
		"nor over a gap that takes longer":              {busy, "a:0+200 a:301+200 a:700+200", "a:0+200 a:301+200 a:700+200"},
		"a long range is read in parallel":              {cheap, "a:1+2560", "a:1+1343 a:1344+1217"},
		"one of less than two parts is not":             {cheap, "a:0+2047", "a:0+2047"},
		"parts begin and end at what is wanted":         {cheap, "a:0+1000 a:1003+21 a:1027+1200", "a:0+1152 a:1152+1075"},
		"nothing is planned for nothing":                {cheap, "", ""},
		"gaps behind what was joined count as they are": {busy, "a:0+30 a:35+30 b:0+30 b:36+30", "a:0+65 b:0+66"},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			for _, p := range plan(sorted(wanted(t, tc.want)), tc.price) {
				got = append(got, fmt.Sprintf("%s:%d+%d", p.object.Name, p.off>>10, (p.end-p.off)>>10))
			}
			if got := strings.Join(got, " "); got != tc.text {
				t.Errorf("plan of %q:\n got %s\nwant %s", tc.want, got, tc.text)
			}
		})
	}
}

// Whatever the pieces and the price: each piece is in one part, parts are disjoint,
// no longer than two, and read at most twice what is wanted beyond small gaps.
func TestPlansAreSound(t *testing.T) {
	for seed := range int64(500) {
		rnd := rand.New(rand.NewSource(seed))
		var text strings.Builder
		at := map[string]int64{}
		for range 1 + rnd.Intn(60) {
			name := string("ab"[rnd.Intn(2)])
			gap, n := rnd.Int63n(1<<rnd.Intn(12)), 1+rnd.Int63n(1<<rnd.Intn(13))
			fmt.Fprintf(&text, "%s:%d+%d ", name, at[name]+gap, n)
			at[name] += gap + n
		}
		pieces := wanted(t, text.String())
		p := price{always: 4 << 10, most: 1 << rnd.Intn(22), free: 1 + rnd.Intn(20), part: 1 << 20}
		var sum, read, small int64
		seen := map[*piece]bool{}
		end := map[string]int64{}
		for _, part := range plan(sorted(pieces), p) {
			if part.off < end[part.object.Name] {
				t.Fatalf("seed %d: parts overlap at %d", seed, part.off)
			}
			end[part.object.Name] = part.end
			read += part.end - part.off
			small += p.always * int64(len(part.pieces))
			if part.end-part.off > 2*p.part {
				t.Fatalf("seed %d: a part of %d bytes", seed, part.end-part.off)
			}
			var wanted int64
			for _, piece := range part.pieces {
				if seen[piece] || piece.off < part.off || piece.end > part.end || piece.key.object != part.object {
					t.Fatalf("seed %d: piece %d+%d is in the part %d+%d, or in two", seed, piece.off, piece.end, part.off, part.end)
				}
				seen[piece] = true
				wanted += piece.end - piece.off
			}
			if wanted != part.wanted {
				t.Fatalf("seed %d: a part of %d wanted bytes says %d", seed, wanted, part.wanted)
			}
			sum += wanted
		}
		if len(seen) != len(pieces) {
			t.Fatalf("seed %d: %d of %d pieces are planned", seed, len(seen), len(pieces))
		}
		if read > 2*sum+small {
			t.Fatalf("seed %d: %d bytes are read for %d", seed, read, sum)
		}
	}
}

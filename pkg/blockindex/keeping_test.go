package blockindex

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestMemoryOfSharedTextsIsCountedOnce takes and drops texts in any order, some of which have the hash of
// others, and counts what those take that pages have.
func TestMemoryOfSharedTextsIsCountedOnce(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	shared := newSharedTexts()
	used := map[*texts]int{}
	var pages []*texts
	var counted, same int64
	for range 20_000 {
		if len(pages) > 0 && (len(pages) > 40 || rnd.IntN(2) == 0) {
			i := rnd.IntN(len(pages))
			one := pages[i]
			pages[i], pages = pages[len(pages)-1], pages[:len(pages)-1]
			counted -= shared.drop(one)
			if used[one]--; used[one] == 0 {
				delete(used, one)
			}
			continue
		}
		key := fmt.Sprintf("key %d", rnd.IntN(30))
		ends := []uint32{uint32(rnd.IntN(2)), uint32(len(key))}
		one := shared.find([]byte(key), ends)
		if one.all != key || !slices.Equal(one.ends, ends) {
			t.Fatalf("got the texts %q cut at %d, want %q at %d", one.all, one.ends, key, ends)
		}
		if used[one]++; used[one] > 1 {
			same++
		}
		pages = append(pages, one)
		counted += shared.take(one)
		want := int64(0)
		for each := range used {
			want += each.memory()
		}
		if counted != want {
			t.Fatalf("%d bytes are counted, want %d", counted, want)
		}
	}
	if same < 1000 {
		t.Errorf("%d of 10000 pages shared their texts, want more", same)
	}
}

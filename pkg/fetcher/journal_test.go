package fetcher

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// FuzzJournal loads a file of any content, adds a record to it, and loads it again.
func FuzzJournal(f *testing.F) {
	whole := journal{dir: f.TempDir()}
	for _, content := range []string{"{}", "", "\x00\n"} {
		if err := whole.add(&record{Object: "a/meta.json", ETag: "1", Modified: 2, Content: []byte(content)}); err != nil {
			f.Fatal(err)
		}
	}
	if err := whole.flush(); err != nil {
		f.Fatal(err)
	}
	seed, err := os.ReadFile(whole.path())
	if err != nil {
		f.Fatal(err)
	}
	for _, b := range [][]byte{nil, seed, seed[:len(seed)-3], []byte("00000000 {}\n"), []byte("\n\n"), make([]byte, 100)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		j := journal{dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(j.dir, journalFile), content, 0o600); err != nil {
			t.Fatal(err)
		}
		before := loaded(t, &j)
		added := record{Object: "b/meta.json", ETag: "e", Modified: 1, Content: content}
		if err := j.add(&added); err != nil {
			t.Fatal(err)
		}
		if err := j.flush(); err != nil {
			t.Fatal(err)
		}
		if got, want := loaded(t, &j), append(before, added); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
}

func loaded(t *testing.T, j *journal) []record {
	t.Helper()
	var all []record
	if err := j.load(func(r *record) { all = append(all, *r) }); err != nil {
		t.Fatal(err)
	}
	return all
}

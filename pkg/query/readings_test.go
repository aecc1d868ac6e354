package query

import (
	"os"
	"strings"
	"testing"

	"github.com/prometheus/prometheus/promql/parser"
)

// names are all functions and aggregations that PromQL has.
func names() []string {
	var all []string
	for name := range parser.Functions {
		all = append(all, name)
	}
	for item, name := range parser.ItemTypeStr {
		if item.IsAggregator() {
			all = append(all, name)
		}
	}
	return all
}

func TestTheTableNamesEveryFunction(t *testing.T) {
	all := names()
	if len(all) < 90 {
		t.Fatalf("got %d functions and aggregations, want those of PromQL", len(all))
	}
	for _, name := range all {
		if _, known := readingOf(name); !known {
			t.Errorf("%s: readings.go does not say what it reads over downsampled data", name)
		}
	}
	if _, known := readingOf("no_such_function"); known {
		t.Error("no_such_function: got a reading, want none")
	}
}

func TestTheDesignNoteNamesEveryFunction(t *testing.T) {
	note, err := os.ReadFile("../../docs/design/0013-resolutions.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names() {
		if !strings.Contains(string(note), "`"+name+"`") {
			t.Errorf("%s: the table of the design note lacks it", name)
		}
	}
}

package blockwriter

import (
	"errors"
	"fmt"
	"strconv"
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/index"
)

// nowhere is a file that forgets.
type nowhere struct{}

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) Close() error                { return nil }
func (nowhere) Abort()                      {}

// TestSeriesBeyond64GiBAreRefused pretends that as much was written before.
func TestSeriesBeyond64GiBAreRefused(t *testing.T) {
	var names []string
	for n := range 10 {
		names = append(names, strconv.Itoa(n))
	}
	syms := NewSymbols()
	if err := syms.AddAll(index.NewStringListIter(names)); err != nil {
		t.Fatal(err)
	}
	w := newIndexWriter(nowhere{}, syms, Defaults())
	w.pos = 64<<30 - 3*seriesAlign + 1
	for n, name := range names {
		err := w.add(labels.FromStrings("0", name), nil)
		if fits := n < 2; fits != (err == nil) || (!fits && !errors.Is(err, ErrTooLarge)) {
			t.Errorf("series %d: got error %v", n, err)
		}
	}
}

// TestSymbolsGrow puts in more strings than the first hash table has places for.
func TestSymbolsGrow(t *testing.T) {
	var forward, backward []string
	for n := range 5000 {
		forward = append(forward, fmt.Sprintf("%05d", n))
		backward = append(backward, fmt.Sprintf("%05d", 6000-n))
	}
	syms := NewSymbols()
	for _, list := range [][]string{forward, backward, forward} {
		if err := syms.AddAll(index.NewStringListIter(list)); err != nil {
			t.Fatal(err)
		}
	}
	syms.rank()
	if syms.Len() != 6001 {
		t.Fatalf("got %d symbols, want 6001", syms.Len())
	}
	for n := range uint32(6001) {
		str := fmt.Sprintf("%05d", n)
		if got, err := syms.rankOf(str); err != nil || got != n || !syms.is(n, str) {
			t.Fatalf("%s has rank %d (%v) and is %s at %d", str, got, err, syms.ofRank(n), n)
		}
	}
	place, err := syms.Add("00007")
	if err != nil || place != 7 || syms.At(place) != "00007" {
		t.Errorf("a string that is there: got place %d (%v), want 7", place, err)
	}
	if _, err := syms.rankOf("6001"); !errors.Is(err, errNoSymbol) {
		t.Errorf("a string that was not added: got error %v", err)
	}
}

package main

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// kind is what a request asks for.
type kind int

const (
	kindGet kind = iota
	kindList
	kindHead
	kindOther
)

// classify says what a request asks for, and of which block.
func classify(r *http.Request) (k kind, group string) {
	_, object, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	group, _, _ = strings.Cut(object, "/")
	switch {
	case r.Method == http.MethodHead:
		return kindHead, group
	case r.Method != http.MethodGet:
		return kindOther, group
	case object == "":
		return kindList, ""
	}
	return kindGet, group
}

// request is one that was answered.
type request struct {
	kind         kind
	group        string
	bytes, taken int64 // of the answer, and of what it was about
	began, ended time.Time
}

// traffic is what went through a proxy.
type traffic struct {
	gets, lists, heads, others int
	bytes, written             int64
	reads                      map[string][]request // of objects, by block
}

func (t *traffic) add(r request) {
	t.bytes += r.bytes
	t.written += r.taken
	switch r.kind {
	case kindGet:
		t.gets++
		if t.reads == nil {
			t.reads = map[string][]request{}
		}
		t.reads[r.group] = append(t.reads[r.group], r)
	case kindList:
		t.lists++
	case kindHead:
		t.heads++
	case kindOther:
		t.others++
	}
}

// trips is the largest number of reads of one block of which each began after the
// one before had ended: no block had more round trips that waited for each other.
func (t *traffic) trips() int {
	longest := 0
	for _, reads := range t.reads {
		longest = max(longest, chain(reads))
	}
	return longest
}

// chain counts the longest row of requests that do not overlap: always take next what ends first.
func chain(reads []request) int {
	slices.SortFunc(reads, func(a, b request) int { return a.ended.Compare(b.ended) })
	n := 0
	var last time.Time
	for _, r := range reads {
		if !r.began.Before(last) {
			n, last = n+1, r.ended
		}
	}
	return n
}

func (t *traffic) requests() int { return t.gets + t.lists + t.heads + t.others }

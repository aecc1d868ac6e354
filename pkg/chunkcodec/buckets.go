package chunkcodec

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/prometheus/prometheus/model/histogram"
)

var errSpans = errors.New("spans that go back, or beyond 32 bits")

// countBuckets returns how many buckets the spans of one side hold.
func countBuckets(spans []histogram.Span) (n int, err error) {
	index := int64(0)
	for i, s := range spans {
		index += int64(s.Offset) + int64(s.Length)
		if i > 0 && s.Offset < 0 || s.Length > math.MaxInt32 || index != int64(int32(index)) {
			return 0, fmt.Errorf("%w: %w", ErrInvalid, errSpans)
		}
		n += int(s.Length)
	}
	return n, nil
}

// sameSpans compares spans, which the histograms of one source mostly share.
func sameSpans(a, b []histogram.Span) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || slices.Equal(a, b))
}

// cursor stands at one bucket after the other of a side.
type cursor struct {
	spans    []histogram.Span // the one it stands in, and those after
	in       uint32           // the position in that span
	index    int              // of the bucket
	position int              // among the buckets of the side
	ok       bool             // it stands at a bucket
}

func newCursor(spans []histogram.Span) cursor {
	c := cursor{spans: spans}
	if len(spans) > 0 {
		c.index = int(spans[0].Offset)
		c.settle()
	}
	return c
}

// settle moves on to a span that has the bucket.
func (c *cursor) settle() {
	for c.in == c.spans[0].Length {
		c.spans, c.in = c.spans[1:], 0
		if len(c.spans) == 0 {
			c.ok = false
			return
		}
		c.index += int(c.spans[0].Offset)
	}
	c.ok = true
}

func (c *cursor) next() {
	c.in++
	c.index++
	c.position++
	c.settle()
}

// tally is a cursor that knows the count of its bucket.
type tally[B int64 | float64] struct {
	cursor
	buckets []B // integers are differences from the bucket before
	count   B
}

func newTally[B int64 | float64](spans []histogram.Span, buckets []B) tally[B] {
	t := tally[B]{cursor: newCursor(spans), buckets: buckets}
	t.look()
	return t
}

func (t *tally[B]) look() {
	if !t.ok {
		return
	}
	now := t.buckets[t.position]
	if _, differences := any(now).(int64); differences {
		now += t.count
	}
	t.count = now
}

func (t *tally[B]) next() {
	t.cursor.next()
	t.look()
}

// take returns the count at an index, 0 if there is no such bucket, and moves on behind it.
func (t *tally[B]) take(index int) (count B, ok bool) {
	if !t.ok || t.index != index {
		return 0, false
	}
	count = t.count
	t.next()
	return count, true
}

// spread writes the counts of a histogram into dst, which has a place for each
// bucket of a wider layout; those it lacks are empty.
func spread[B int64 | float64](dst []B, layout, spans []histogram.Span, buckets []B) []B {
	h, at := newTally(spans, buckets), newCursor(layout)
	_, differences := any(B(0)).(int64)
	before := B(0)
	for i := range dst {
		count, _ := h.take(at.index)
		if dst[i] = count; differences {
			dst[i] -= before
		}
		before = count
		at.next()
	}
	return dst
}

// union is how the buckets of a histogram go together with those of a chunk, on one side.
type union struct {
	spans []histogram.Span // all of them
	gains bool             // the chunk lacks buckets of the histogram
	lacks bool             // the histogram lacks buckets of the chunk
	falls bool             // a bucket counts less than in the histogram before
}

// unite finds the union of the spans of a chunk with those of the histogram
// now, which comes after the chunk's last one. The spans are appended to dst.
func unite[B int64 | float64](dst, chunk []histogram.Span, last, now tally[B]) union {
	u := union{spans: dst}
	for have, end := newCursor(chunk), 0; have.ok || now.ok; {
		index := have.index
		if !have.ok || now.ok && now.index < index {
			index = now.index
		}
		before, _ := last.take(index)
		count, ok := now.take(index)
		switch {
		case !have.ok || have.index != index:
			u.gains = true
		case !ok:
			u.lacks = true
			u.falls = u.falls || before != 0
			have.next()
		default:
			u.falls = u.falls || before > count
			have.next()
		}
		if n := len(u.spans); n > 0 && index == end {
			u.spans[n-1].Length++
		} else {
			u.spans = append(u.spans, histogram.Span{Offset: int32(index - end), Length: 1})
		}
		end = index + 1
	}
	return u
}

// falls reports whether a bucket counts less than before; both are those of the same spans.
func falls[B int64 | float64](before, now []B) bool {
	before = before[:len(now)]
	if _, differences := any(B(0)).(int64); !differences {
		for i, count := range now {
			if before[i] > count {
				return true
			}
		}
		return false
	}
	var was, is B // an overflow wraps around, as it does in Prometheus
	for i, difference := range now {
		was += before[i]
		if is += difference; was > is {
			return true
		}
	}
	return false
}

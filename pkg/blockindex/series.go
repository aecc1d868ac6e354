package blockindex

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

// Chunk is a chunk as an index knows it.
type Chunk struct {
	Ref chunks.BlockChunkRef
	// MinTime and MaxTime are the times of the first and the last sample, both
	// inclusive, Unix milliseconds.
	MinTime, MaxTime int64
}

// Entry is a series as an index has it.
type Entry struct {
	Labels labels.Labels
	// Chunks are all chunks of the series, in the order of the index.
	Chunks []Chunk
	// Next is the first chunk of the series that follows in the index: in the same
	// segment, the last of Chunks ends there at the latest. Zero means unknown.
	Next chunks.BlockChunkRef
}

// SeriesReader reads the entries of a selection. It is used by one goroutine.
type SeriesReader struct {
	x      *Index
	window int64 // bytes that entries may take
	refs   []uint32
	read   int // how many of refs were read
	ahead  bool
	coming *entryBatch // what is read ahead
	rest   []*labels.Matcher
	// matchers are all that the first series must match, to see that postings and
	// symbols mean the same; nil afterwards.
	matchers []*labels.Matcher
	err      error

	buf      []byte      // that what is held lies in, but for long entries
	entries  []heldEntry // that held lies in
	held     []heldEntry
	ready    []rawEntry // of the first of held, with symbols looked up
	taken    int        // of ready
	room     []rawEntry // that ready lies in
	pairs    []uint64   // symbols of the labels, names and values in turn
	symbols  symbolReader
	looked   bool              // the symbols of ready were looked up
	texts    []lastSymbol      // what was last found in the places of pairs
	verdicts []map[uint64]bool // of each matcher of the rest, by symbol of the value
	added    []labels.Label    // to those of the series, sorted
	builder  labels.ScratchBuilder
	sharing  *sharing // or nil
}

// heldEntry is a series entry that was read, and what was read of those that follow.
type heldEntry struct {
	ref  uint32
	read []byte
}

// rawEntry is a series entry without its length and checksum.
type rawEntry struct {
	ref    uint32
	body   []byte
	behind []byte // what was read of the entry that follows
}

const (
	// MaxWindow is how many bytes series entries take at most that are held at once, and
	// minWindow the least that is worth a read.
	MaxWindow = 1 << 20
	minWindow = 16 << 10
	// maxTypical is the most that is read of an entry whose length is not known.
	maxTypical = 16 << 10
	// perHeld is what an entry takes while it is held, besides its own bytes, and perReady
	// about what it takes with its symbols. Two thirds of the window are for the former.
	perHeld  = 32
	perReady = 160
	// windowPerSymbol is one symbol to be remembered for so many bytes of the window.
	windowPerSymbol = 128
	// windowPerVerdict is one answer of a matcher to be remembered for so many bytes of
	// the window.
	windowPerVerdict = 64
)

// Series returns a reader of the series that s selects.
func (x *Index) Series(s Selection) *SeriesReader {
	r := &SeriesReader{x: x, refs: s.Refs, rest: s.Rest, matchers: s.matchers, builder: labels.NewScratchBuilder(16)}
	r.Window(MaxWindow)
	for range s.Rest {
		r.verdicts = append(r.verdicts, map[uint64]bool{})
	}
	return r
}

// Window bounds about how many bytes are held at once, which are MaxWindow if nothing is
// said: for who reads many indexes side by side.
func (r *SeriesReader) Window(bytes int64) {
	r.window = min(max(bytes, minWindow), MaxWindow)
	r.symbols = symbolReader{x: r.x, room: r.window}
}

// Next reads the next series that has a chunk with samples in [mint, maxt] into e,
// whose Chunks it reuses. It returns false at the end and after an error.
func (r *SeriesReader) Next(ctx context.Context, mint, maxt int64, e *Entry) bool {
	for {
		raw, d, ok := r.next(ctx)
		if !ok {
			return false
		}
		var err error
		if e.Chunks, err = appendChunks(e.Chunks[:0], &d); err != nil {
			return r.fail(raw.ref, err)
		}
		overlaps := false
		for _, c := range e.Chunks {
			overlaps = overlaps || c.MinTime <= maxt && mint <= c.MaxTime
		}
		if !overlaps {
			continue
		}
		e.Next = firstChunk(raw.behind)
		if e.Labels, err = r.labels(ctx); err != nil {
			return r.fail(raw.ref, err)
		}
		return true
	}
}

// Err is the error that ended reading early.
func (r *SeriesReader) Err() error { return r.err }

func (r *SeriesReader) fail(ref uint32, err error) bool {
	r.err = fmt.Errorf("series %d: %w", ref, err)
	return false
}

// next moves to the next series that the matchers accept, of which pairs has the
// symbols and d what follows them.
func (r *SeriesReader) next(ctx context.Context) (raw rawEntry, d decoder, ok bool) {
	for r.err == nil {
		if r.taken == len(r.ready) {
			if len(r.ready) == len(r.held) && r.read == len(r.refs) {
				return raw, d, false
			}
			if r.err = r.prepare(ctx); r.err != nil {
				break
			}
		}
		raw = r.ready[r.taken]
		r.taken++
		d = decoder{b: raw.body}
		r.pairs = d.pairs(r.pairs[:0])
		if d.bad {
			return raw, d, r.fail(raw.ref, corruptf("entry ends early"))
		}
		accepted, err := r.accepts(ctx)
		switch {
		case err != nil:
			r.fail(raw.ref, err)
		case accepted:
			if err := r.verify(ctx); err != nil {
				return raw, d, r.fail(raw.ref, err)
			}
			return raw, d, true
		}
	}
	return raw, d, false
}

// prepare makes the next entries ready, after reading some if none are held.
func (r *SeriesReader) prepare(ctx context.Context) error {
	r.held = r.held[len(r.ready):]
	r.ready, r.taken, r.looked = nil, 0, false
	runtime.Gosched() // as in scan
	if len(r.held) == 0 {
		if err := r.load(ctx); err != nil {
			return err
		}
	}
	n := min(len(r.held), int(r.window/3/perReady)+1)
	if cap(r.room) < n {
		r.room = make([]rawEntry, n)
	}
	r.ready = r.room[:n]
	for i, h := range r.held[:n] {
		r.ready[i] = rawEntry{ref: h.ref, behind: h.read}
		if err := r.x.parse(&r.ready[i]); err != nil {
			return fmt.Errorf("series %d: %w", h.ref, err)
		}
	}
	return nil
}

// Add adds labels to those of every series, in the place of the series' own of that name.
func (r *SeriesReader) Add(all labels.Labels) {
	all.Range(func(l labels.Label) {
		if l.Value != "" {
			r.added = append(r.added, l)
		}
	})
}

// Ahead calls fn with the chunks of the series that come next, the last one that Next
// brought among them, as far as it is known without reading whether they are selected,
// until it returns false. What it says of the entries is not verified yet. It is over
// when fn has returned, and next is as in an Entry.
func (r *SeriesReader) Ahead(fn func(all []Chunk, next chunks.BlockChunkRef) bool) {
	var all []Chunk
	for _, h := range r.upcoming() {
		e := rawEntry{ref: h.ref, behind: h.read}
		body, ok := e.cut(r.x.dir.version)
		d := decoder{b: body}
		d.skipPairs()
		var err error
		if all, err = appendChunks(all[:0], &d); !ok || err != nil {
			return
		}
		if !fn(all, firstChunk(e.behind)) {
			return
		}
	}
}

// Starts is Ahead for who wants all chunks of a series: first is the first of them.
func (r *SeriesReader) Starts(fn func(first, next chunks.BlockChunkRef) bool) {
	var behind []byte // the last entry
	var next chunks.BlockChunkRef
	for _, h := range r.upcoming() {
		first := next
		if len(behind) == 0 || &behind[0] != &h.read[0] { // another one lies between them
			first = firstChunk(h.read)
		}
		e := rawEntry{ref: h.ref, behind: h.read}
		if _, ok := e.cut(r.x.dir.version); !ok {
			return
		}
		behind, next = e.behind, firstChunk(e.behind)
		if !fn(first, next) {
			return
		}
	}
}

// upcoming are the entries that are held from the last one on that Next brought; none if
// some of them may not be selected.
func (r *SeriesReader) upcoming() []heldEntry {
	if len(r.rest) > 0 {
		return nil
	}
	return r.held[max(0, min(r.taken, len(r.held))-1):]
}

// parse takes the body off the front of what was read, and the padding after it.
func (x *Index) parse(e *rawEntry) error {
	b := e.behind
	var ok bool
	if e.body, ok = e.cut(x.dir.version); !ok {
		return corruptf("length of the entry")
	}
	if begin, size := entrySize(b); checksum(e.body) != binary.BigEndian.Uint32(b[begin+len(e.body):]) {
		if off, err := x.position(e.ref); err == nil {
			x.src.Forget(off, size)
		}
		return corruptf("checksum of the entry")
	}
	return nil
}

// cut takes an entry off the front of what was read, and the padding after it.
func (e *rawEntry) cut(version int) (body []byte, ok bool) {
	b := e.behind
	begin, size := entrySize(b)
	if size == 0 || size > int64(len(b)) {
		return nil, false
	}
	body = b[begin : size-4]
	if version != index.FormatV1 {
		size = (size + seriesAlign - 1) / seriesAlign * seriesAlign
	}
	e.behind = b[min(size, int64(len(b))):]
	return body, true
}

// appendChunks decodes the chunk references of a series entry.
func appendChunks(dst []Chunk, d *decoder) ([]Chunk, error) {
	count := d.uvarint()
	var ref, maxt int64
	for i := range count {
		var c Chunk
		if i == 0 {
			c.MinTime = d.varint()
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref = int64(d.uvarint())
		} else {
			c.MinTime = maxt + int64(d.uvarint())
			c.MaxTime = c.MinTime + int64(d.uvarint())
			ref += d.varint()
		}
		if d.bad {
			break
		}
		maxt = c.MaxTime
		c.Ref = chunks.BlockChunkRef(ref)
		dst = append(dst, c)
	}
	if d.bad {
		return dst, corruptf("entry ends early")
	}
	return dst, nil
}

// firstChunk returns the first chunk of the entry at the front of b, or zero.
func firstChunk(b []byte) chunks.BlockChunkRef {
	d := decoder{b: b}
	d.uvarint() // length
	d.skipPairs()
	if d.uvarint() == 0 {
		return 0
	}
	d.varint()
	d.uvarint()
	first := d.uvarint()
	if d.bad {
		return 0
	}
	return chunks.BlockChunkRef(first)
}

// labels returns the label set of pairs.
func (r *SeriesReader) labels(ctx context.Context) (labels.Labels, error) {
	if r.sharing != nil {
		return r.sharedLabels(ctx)
	}
	err := r.build(ctx)
	return r.builder.Labels(), err
}

// build brings the label set of pairs into the builder.
func (r *SeriesReader) build(ctx context.Context) error {
	r.builder.Reset()
	last, added := "", r.added
	for i := 0; i < len(r.pairs); i += 2 {
		name, err := r.text(ctx, i)
		if err != nil {
			return err
		}
		value, err := r.text(ctx, i+1)
		if err != nil {
			return err
		}
		if name <= last {
			return corruptf("label %q follows %q", name, last)
		}
		last = name
		for len(added) > 0 && added[0].Name < name {
			r.builder.Add(added[0].Name, added[0].Value)
			added = added[1:]
		}
		if len(added) > 0 && added[0].Name == name {
			continue
		}
		r.builder.Add(name, value)
	}
	for _, l := range added {
		r.builder.Add(l.Name, l.Value)
	}
	return nil
}

// value returns the value of a label of the series that next has moved to, and its symbol.
// It may share the memory of a page.
func (r *SeriesReader) value(ctx context.Context, name string) (value string, ref uint64, err error) {
	for i := 0; i < len(r.pairs); i += 2 {
		n, err := r.text(ctx, i)
		if err != nil {
			return "", 0, err
		}
		if n == name {
			value, err = r.text(ctx, i+1)
			return value, r.pairs[i+1], err
		}
	}
	return "", 0, nil
}

// accepts applies the rest of the matchers to the labels of pairs.
func (r *SeriesReader) accepts(ctx context.Context) (bool, error) {
	for i, m := range r.rest {
		value, ref, err := r.value(ctx, m.Name)
		if err != nil {
			return false, err
		}
		if value == "" {
			if !m.Matches("") {
				return false, nil
			}
			continue
		}
		verdict, ok := r.verdicts[i][ref]
		if !ok {
			verdict = m.Matches(value)
			if int64(len(r.verdicts[i])) >= r.window/windowPerVerdict {
				clear(r.verdicts[i])
			}
			r.verdicts[i][ref] = verdict
		}
		if !verdict {
			return false, nil
		}
	}
	return true, nil
}

// verify compares the first series that was accepted with all matchers.
func (r *SeriesReader) verify(ctx context.Context) error {
	for _, m := range r.matchers {
		value, _, err := r.value(ctx, m.Name)
		if err != nil {
			return err
		}
		if !m.Matches(value) {
			return corruptf("%s=%q where the postings say {%s}", m.Name, value, m)
		}
	}
	r.matchers = nil
	return nil
}

// lastSymbol is what was last found in a place of pairs; without text it is nothing.
type lastSymbol struct {
	knownSymbol
	page *page // of this or an earlier one, or nil: that of the next is mostly the same
}

// text returns the string of the i-th symbol of pairs, which may share the memory of a
// page. Most are those of the entry before.
func (r *SeriesReader) text(ctx context.Context, i int) (string, error) {
	k := r.last(i)
	if ref := r.pairs[i]; k.ref != ref || k.text == "" {
		text, err := r.symbol(ctx, k, ref)
		if err != nil {
			return "", err
		}
		k.knownSymbol = knownSymbol{ref, text}
	}
	return k.text, nil
}

// last is what was last found in the i-th place of pairs.
func (r *SeriesReader) last(i int) *lastSymbol {
	if i >= len(r.texts) {
		r.texts = append(r.texts, make([]lastSymbol, i+1-len(r.texts))...)
	}
	return &r.texts[i]
}

// heldPage returns the page that spans a symbol if it is held or can be, else nil.
func (r *SeriesReader) heldPage(ctx context.Context, k *lastSymbol, ref uint64) (*page, error) {
	if k.page != nil && k.page.spans(ref) {
		return k.page, nil
	}
	p, err := r.symbols.page(ctx, ref)
	if p != nil {
		k.page = p
	}
	return p, err
}

// symbol returns the string of a symbol.
func (r *SeriesReader) symbol(ctx context.Context, k *lastSymbol, ref uint64) (string, error) {
	p, err := r.heldPage(ctx, k, ref)
	if err != nil {
		return "", err
	}
	if p != nil {
		if text, ok := p.symbol(ref); ok {
			return text, nil
		}
	}
	if !r.looked {
		entries := r.ready[r.taken-1:]
		if len(r.rest) > 0 {
			entries = nil // most may not be accepted, and few of their symbols be needed
		}
		const perSeries = 32 // symbols, if none occurs twice
		if err := r.symbols.lookUp(ctx, entries, min(perSeries*len(r.refs), int(r.window/windowPerSymbol))); err != nil {
			return "", err
		}
		r.looked = true
	}
	return r.symbols.remembered(ctx, ref)
}

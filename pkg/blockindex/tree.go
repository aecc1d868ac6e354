package blockindex

import (
	"context"
	"sort"
)

// A tree is a sorted list of keys with numbers, cut into pages. Pages that do not
// fit into one have pages above them, which hold the first key of each page below,
// the first number at that key, and where the page is. A page stands behind all
// pages below it, and those of neighbours do not mix.
type tree struct {
	off, size uint64 // of the page at the top; no size means no entries
	level     uint64 // of pages above those with the entries
	columns   int    // numbers of an entry
}

const (
	// maxColumns is the most numbers that an entry has.
	maxColumns = 5
	// maxLevel is far above what any index needs: a page has some 100 below it.
	maxLevel = 32
)

// The numbers of a page above others.
const (
	childFirst = iota
	childOff
	childSize
	childColumns
)

// treeWriter writes entries that come in order of their keys.
type treeWriter struct {
	out    *pageWriter
	levels []*pageBuilder
}

func newTreeWriter(out *pageWriter, columns int) *treeWriter {
	return &treeWriter{out: out, levels: []*pageBuilder{newPageBuilder(columns)}}
}

func (w *treeWriter) add(key []byte, numbers ...uint64) { w.addTo(0, key, numbers...) }

// addShared is add for a caller that knows how many bytes the key shares with the one before.
// A writer gets all its entries by one of the two.
func (w *treeWriter) addShared(shared int, key []byte, numbers ...uint64) {
	b := w.levels[0]
	if b.addShared(shared, key, numbers...); b.full() {
		w.flush(0)
	}
}

func (w *treeWriter) addTo(level int, key []byte, numbers ...uint64) {
	b := w.levels[level]
	if b.add(key, numbers...); b.full() && (level == 0 || b.count > 1) {
		w.flush(level)
	}
}

// flush writes the page of a level and notes it one level up.
func (w *treeWriter) flush(level int) {
	b := w.levels[level]
	off, size := w.out.write(b.finish())
	if level+1 == len(w.levels) {
		w.levels = append(w.levels, newPageBuilder(childColumns))
	}
	w.addTo(level+1, b.first, b.firstNum, off, size)
}

// finish writes what is left and returns the tree. The writer begins a new one.
func (w *treeWriter) finish() tree {
	t := tree{columns: w.levels[0].columns}
	for level := 0; level < len(w.levels); level++ {
		switch b := w.levels[level]; {
		case b.count == 0:
		case level+1 < len(w.levels):
			w.flush(level)
		default:
			t.level = uint64(level)
			t.off, t.size = w.out.write(b.finish())
		}
	}
	w.levels = w.levels[:1]
	return t
}

// lastKey is the index of the last entry whose key is not above key, or zero.
func (p *page) lastKey(key string) int {
	return max(sort.Search(p.len(), func(i int) bool { return p.key(i) > key })-1, 0)
}

// firstKey is the index of the first entry whose key is not below key.
func (p *page) firstKey(key string) int {
	return sort.Search(p.len(), func(i int) bool { return p.key(i) >= key })
}

// lastNumber is the index of the last entry whose first number is not above n, or zero.
func (p *page) lastNumber(n uint64) int {
	return max(sort.Search(p.len(), func(i int) bool { return p.number(i, 0) > n })-1, 0)
}

// leaf returns the page with the entries where choose leads to from the top.
func (x *Index) leaf(ctx context.Context, t tree, choose func(p *page) int) (*page, error) {
	for {
		p, err := x.treePage(ctx, t)
		if err != nil || t.level == 0 {
			return p, err
		}
		if t, err = t.child(p, choose(p), 0); err != nil {
			return nil, err
		}
	}
}

// treePage returns the page at the top of t.
func (x *Index) treePage(ctx context.Context, t tree) (*page, error) {
	p, err := x.page(ctx, t.off, t.size)
	if err != nil {
		return nil, err
	}
	if t.level > 0 && p.columns != childColumns || t.level == 0 && p.columns != t.columns {
		return nil, errDirectory
	}
	return p, nil
}

// child is the tree below the i-th entry of the page at the top of t, whose pages
// begin at low or behind it.
func (t tree) child(p *page, i int, low uint64) (tree, error) {
	if i >= p.len() {
		return tree{}, errDirectory
	}
	c := tree{off: p.number(i, childOff), size: p.number(i, childSize), level: t.level - 1, columns: t.columns}
	if c.off < low || c.off >= t.off || c.size > t.off-c.off {
		return tree{}, errDirectory
	}
	return c, nil
}

// leaves calls fn for the pages with entries in order, beginning with the one that
// holds from or would, until fn returns false.
func (x *Index) leaves(ctx context.Context, t tree, from string, fn func(p *page) (more bool, err error)) error {
	if t.size == 0 {
		return nil
	}
	_, err := x.walk(ctx, t, 0, from, fn)
	return err
}

// walk is leaves for pages that begin at low or behind it. Since each lies behind
// those walked before, even a hostile file is walked once at most.
func (x *Index) walk(ctx context.Context, t tree, low uint64, from string, fn func(*page) (bool, error)) (more bool, err error) {
	p, err := x.treePage(ctx, t)
	if err != nil {
		return false, err
	}
	if t.level == 0 {
		return fn(p)
	}
	for i := p.lastKey(from); i < p.len(); i++ {
		c, err := t.child(p, i, low)
		if err != nil {
			return false, err
		}
		if more, err := x.walk(ctx, c, low, from, fn); err != nil || !more {
			return false, err
		}
		low = c.off + c.size
	}
	return true, nil
}

package blockindex

import (
	"context"
	"fmt"
	"path/filepath"
	"sync/atomic"

	"github.com/prometheus/prometheus/tsdb/index"
)

// seriesAlign is what a reference to a series is multiplied with, since version 2.
const seriesAlign = 16

// Index answers from the index of one block. It is safe for concurrent use and
// needs no closing.
type Index struct {
	src       Source
	dirs      *Directories
	chunks    uint64 // of the block; zero means unknown
	path      string // of the page directory
	id        uint64 // among those opened
	dir       directory
	repairing chan struct{} // holds a token while the directory is made again
	// typical is with how many bytes a series entry is read when its length is not known.
	typical atomic.Int64
}

// Open returns the index that src holds, of a block with so many chunks; zero means
// unknown. Its page directory is kept under name; if there is none, or one that is
// damaged, it is made from the tail of the index, and from its symbols if it has more
// of them than its series. An index that cannot be one is ErrCorrupt.
func (d *Directories) Open(ctx context.Context, name string, src Source, chunks uint64) (*Index, error) {
	x := &Index{src: src, dirs: d, chunks: chunks, path: filepath.Join(d.dir, name), repairing: make(chan struct{}, 1)}
	dir, err := readDirectory(x.path)
	if err != nil || dir.size != src.Size() {
		if dir, err = d.build(ctx, x); err != nil {
			return nil, fmt.Errorf("make page directory: %w", err)
		}
	}
	x.dir = dir
	d.mu.Lock()
	d.opened++
	x.id = d.opened
	d.mu.Unlock()
	const least, most = 128, 4096
	x.typical.Store(min(max(2*x.entryBytes(), least), most))
	return x, nil
}

// Size is the length of the index in bytes.
func (x *Index) Size() int64 { return x.dir.size }

// entryBytes is the length of a series entry on average.
func (x *Index) entryBytes() int64 {
	return (x.dir.seriesEnd - x.dir.seriesBegin) / max(x.dir.all.count(), 1)
}

// position is where the entry of a series begins.
func (x *Index) position(ref uint32) (int64, error) {
	off := uint64(ref)
	if x.dir.version != index.FormatV1 && off <= uint64(x.dir.seriesEnd) {
		off *= seriesAlign
	}
	if off < uint64(x.dir.seriesBegin) || off >= uint64(x.dir.seriesEnd) {
		return 0, corruptf("series %d is not among the series entries", ref)
	}
	return int64(off), nil
}

// maxRef is the largest reference to a series that can be.
func (x *Index) maxRef() uint32 {
	end := uint64(x.dir.seriesEnd)
	if x.dir.version != index.FormatV1 {
		end /= seriesAlign
	}
	return uint32(min(end, 1<<32-1))
}

// label is what the directory says of a label name.
type label struct {
	values int64 // how many
	posts  int64 // bytes of postings of all of them
	tree   tree  // of the values
}

func (p *page) label(i int) (label, error) {
	l := label{
		values: int64(p.number(i, nameValues)),
		posts:  int64(p.number(i, namePosts)),
		tree:   tree{off: p.number(i, nameTreeOff), size: p.number(i, nameTreeSize), level: p.number(i, nameTreeLevel), columns: valueColumns},
	}
	if l.tree.level >= maxLevel || l.values < 0 || l.posts < 0 {
		return l, errDirectory
	}
	return l, nil
}

// label looks a label name up.
func (x *Index) label(ctx context.Context, name string) (l label, ok bool, err error) {
	if x.dir.names.size == 0 {
		return l, false, nil
	}
	p, err := x.leaf(ctx, x.dir.names, func(p *page) int { return p.lastKey(name) })
	if err != nil {
		return l, false, err
	}
	i := p.firstKey(name)
	if i == p.len() || p.key(i) != name {
		return l, false, nil
	}
	l, err = p.label(i)
	return l, err == nil, err
}

// postings looks one value of a label up.
func (x *Index) postings(ctx context.Context, l label, value string) (at extent, ok bool, err error) {
	if l.tree.size == 0 {
		return at, false, nil
	}
	p, err := x.leaf(ctx, l.tree, func(p *page) int { return p.lastKey(value) })
	if err != nil {
		return at, false, err
	}
	i := p.firstKey(value)
	if i == p.len() || p.key(i) != value {
		return at, false, nil
	}
	return p.extent(i), true, nil
}

func (p *page) extent(i int) extent {
	return extent{int64(p.number(i, valueOff)), int64(p.number(i, valueSize))}
}

// eachLabel calls fn for the label names in order until it returns false.
func (x *Index) eachLabel(ctx context.Context, fn func(name string, l label) (bool, error)) error {
	return x.leaves(ctx, x.dir.names, "", func(p *page) (bool, error) {
		for i := range p.len() {
			l, err := p.label(i)
			if err != nil {
				return false, err
			}
			if more, err := fn(p.key(i), l); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	})
}

// eachValue calls fn for the values of a label from one on, in order, until it returns false.
func (x *Index) eachValue(ctx context.Context, l label, from string, fn func(value string, at extent) (bool, error)) error {
	return x.leaves(ctx, l.tree, from, func(p *page) (bool, error) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		for i := p.firstKey(from); i < p.len(); i++ {
			if more, err := fn(p.key(i), p.extent(i)); err != nil || !more {
				return false, err
			}
		}
		return true, nil
	})
}

// symbol returns the string by which series entries mean ref.
func (x *Index) symbol(ctx context.Context, ref uint64) (string, error) {
	p, err := x.symbolLeaf(ctx, ref)
	if err != nil {
		return "", err
	}
	if p.spans(ref) {
		if text, ok := p.symbol(ref); ok {
			return text, nil
		}
	}
	return "", corruptf("there is no symbol %d", ref)
}

// symbolLeaf returns the page that has the symbol, if any has.
func (x *Index) symbolLeaf(ctx context.Context, ref uint64) (*page, error) {
	if x.dir.symbols.size == 0 {
		return nil, corruptf("symbol %d of none", ref)
	}
	return x.leaf(ctx, x.dir.symbols, func(p *page) int { return p.lastNumber(ref) })
}

// spans reports whether a symbol is on the page if it is one.
func (p *page) spans(ref uint64) bool {
	n := p.len()
	return n > 0 && p.number(0, 0) <= ref && ref <= p.number(n-1, 0)
}

// symbol returns a symbol of a page that spans it.
func (p *page) symbol(ref uint64) (text string, ok bool) {
	i, ok := p.find(ref)
	if !ok {
		return "", false
	}
	return p.key(i), true
}

// place is where a symbol of a page that spans it stands, or zero.
func (p *page) place(ref uint64) symbolPlace {
	i, ok := p.find(ref)
	if !ok {
		return symbolPlace{}
	}
	return symbolPlace{p.self, uint32(i)}
}

// find says which key a symbol of a page that spans it is.
func (p *page) find(ref uint64) (i int, ok bool) {
	if p.numbers == nil { // as references do, but in version 1
		return int(ref - p.first), true
	}
	i = p.lastNumber(ref)
	return i, p.number(i, 0) == ref
}

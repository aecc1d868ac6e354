package blockindex

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Directories keeps the page directories of many indexes: on local disk as files,
// one for each index, and in memory as pages under one limit. A page directory
// says where an index has its postings and what its symbols are. It is made from
// the index when it is not there, or is damaged, and may be deleted at any time.
// A Directories is safe for concurrent use; no other may use its files.
type Directories struct {
	dir     string
	most    int64 // bytes of pages in memory
	metrics *metrics
	spares  sync.Pool // of *spare
	tails   sync.Pool // of *[]byte, in which tails of indexes were
	scratch sync.Pool // of *pageScratch
	texts   *sharedTexts

	mu     sync.Mutex
	pages  map[pageKey]*list.Element // of *keptPage
	recent *list.List                // of *keptPage, the one used last in front
	bytes  int64
	opened uint64  // indexes so far
	tail   float64 // share of an index, chunk references aside, that its tail needed of late; zero means unknown
}

// pageKey names a page: its place in the directory of the n-th index opened.
type pageKey struct{ index, off uint64 }

type keptPage struct {
	key  pageKey
	page *page
}

// bookkeeping is what a page that is kept takes besides its own memory.
const bookkeeping = 200

// suffix ends the names of files that are being written.
const suffix = ".tmp"

// NewDirectories returns the directories in a folder, which it creates. Their pages
// take maxBytes of memory at most, besides those in use.
func NewDirectories(dir string, maxBytes int64, reg prometheus.Registerer) (*Directories, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, fmt.Errorf("make folder of page directories: %w", err)
	}
	d := &Directories{dir: dir, most: maxBytes, metrics: newMetrics(reg), pages: map[pageKey]*list.Element{}, texts: newSharedTexts(), recent: list.New()}
	// What was being written when the process ended is of no use.
	return d, d.remove(func(name string) bool { return strings.HasSuffix(name, suffix) })
}

// Sweep removes the files of indexes that keep does not want. One that is still
// used makes its file again.
func (d *Directories) Sweep(keep func(name string) bool) error {
	return d.remove(func(name string) bool { return !strings.HasSuffix(name, suffix) && !keep(name) })
}

// remove deletes the files whose names are unwanted.
func (d *Directories) remove(unwanted func(name string) bool) error {
	files, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("list page directories: %w", err)
	}
	var errs []error
	for _, f := range files {
		if unwanted(f.Name()) {
			if err := os.Remove(filepath.Join(d.dir, f.Name())); !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// cached returns a page that is in memory.
func (d *Directories) cached(k pageKey) *page {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.pages[k]
	if e == nil {
		return nil
	}
	d.recent.MoveToFront(e)
	return e.Value.(*keptPage).page
}

// keep puts a page into memory and makes room for it.
func (d *Directories) keep(k pageKey, p *page) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.pages[k]; ok || p.memory()+bookkeeping > d.most {
		return
	}
	d.pages[k] = d.recent.PushFront(&keptPage{k, p})
	for d.bytes += p.own() + bookkeeping + d.texts.take(p.texts); d.bytes > d.most; {
		old := d.recent.Remove(d.recent.Back()).(*keptPage)
		delete(d.pages, old.key)
		d.bytes -= old.page.own() + bookkeeping + d.texts.drop(old.page.texts)
	}
	d.metrics.bytes.Set(float64(d.bytes))
}

// guessTail is how many bytes at the end of an index of size bytes are read, so
// that its table of contents and its postings offset table are among them.
func (d *Directories) guessTail(size int64, chunks uint64) int64 {
	const share, surplus, least, most = 0.33, 1.04, 4 << 10, 8 << 20
	d.mu.Lock()
	defer d.mu.Unlock()
	guess := share
	if d.tail > 0 {
		guess = surplus * d.tail
	}
	return min(size, max(least, min(most, int64(guess*withoutChunks(size, chunks)))))
}

// withoutChunks is about what an index takes besides the references of chunks, of
// which its labels and their postings are a steady share.
func withoutChunks(size int64, chunks uint64) float64 {
	const reference = 14 // bytes
	return max(float64(size)-reference*float64(chunks), float64(size)/8)
}

// learnTail notes that an index of size bytes needed its last n bytes.
func (d *Directories) learnTail(n, size int64, chunks uint64) {
	const weight = 0.2
	d.mu.Lock()
	defer d.mu.Unlock()
	share := float64(n) / withoutChunks(size, chunks)
	if d.tail == 0 {
		d.tail = share
	}
	d.tail += weight * (share - d.tail)
}

// page returns the page at off of the index's directory, which is made again if
// it is damaged or gone.
func (x *Index) page(ctx context.Context, off, size uint64) (*page, error) {
	k := pageKey{x.id, off}
	if p := x.dirs.cached(k); p != nil {
		return p, nil
	}
	x.dirs.metrics.misses.Inc()
	p, err := x.readPage(off, size)
	if err != nil {
		if p, err = x.repair(ctx, off, size); err != nil {
			return nil, err
		}
	}
	x.dirs.keep(k, p)
	return p, nil
}

// readPage reads a page from disk. The file is open only meanwhile, so that any
// number of blocks needs no file descriptor.
func (x *Index) readPage(off, size uint64) (*page, error) {
	if size > uint64(x.dir.at) || off > uint64(x.dir.at)-size {
		return nil, errDirectory
	}
	f, err := os.Open(x.path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	scratch, ok := x.dirs.scratch.Get().(*pageScratch)
	if !ok {
		scratch = &pageScratch{}
	}
	defer x.dirs.scratch.Put(scratch)
	scratch.page = slices.Grow(scratch.page[:0], int(size))[:size]
	if _, err := f.ReadAt(scratch.page, int64(off)); err != nil {
		return nil, err
	}
	return scratch.decode(x.dirs.texts.find)
}

// repair makes the directory again, unless somebody else just did, and reads a page of it.
func (x *Index) repair(ctx context.Context, off, size uint64) (*page, error) {
	select {
	case x.repairing <- struct{}{}:
		defer func() { <-x.repairing }()
	case <-ctx.Done():
		return nil, fmt.Errorf("make page directory %s again: %w", x.path, ctx.Err())
	}
	if p, err := x.readPage(off, size); err == nil {
		return p, nil
	}
	dir, err := x.dirs.build(ctx, x)
	if err != nil {
		return nil, fmt.Errorf("make page directory %s again: %w", x.path, err)
	}
	if dir != x.dir {
		return nil, corruptf("the index is not what it was")
	}
	p, err := x.readPage(off, size)
	if err != nil {
		return nil, fmt.Errorf("read page directory %s: %w", x.path, err)
	}
	return p, nil
}

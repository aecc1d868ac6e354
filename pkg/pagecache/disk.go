package pagecache

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/prometheus/prometheus/tsdb/fileutil"
)

const (
	// A limit is cut into 32 segments, into more if they would be larger than 64 MiB,
	// but not into more than 256 of up to 2 GiB: each is an open file.
	segmentShare = 32
	goodSegment  = 64 << 20
	mostSegments = 256
	maxSegment   = 2 << 30
	// minDisk has segments that hold the largest record.
	minDisk = segmentShare * 512 << 10
	// recordCharge is the least that a record takes of the limit, so that the index
	// in memory stays below 2 % of what is on disk.
	recordCharge = 4 << 10
	// goodWrite is how many bytes are worth a write, and a small disk's segment is worth
	// segmentWrites.
	goodWrite     = 512 << 10
	segmentWrites = 8
	// maxQueued are bytes that wait to be written; what comes while there are more is
	// not kept on disk.
	maxQueued = 16 << 20
	// mostPassed is how many pages are remembered that were read in long requests; as many
	// bytes of them are told apart from what is read for the first time as 4 GiB have.
	mostPassed = 64 << 10
	// diskPause is how long a disk that cannot be written to is left alone, and
	// lookInterval how often somebody looks whether its files are still there.
	diskPause    = time.Minute
	lookInterval = time.Second
)

// disk keeps pages in segments on local disk, under a byte limit. What was read is
// written behind the reader's back to fresh segments; of the oldest of those, the
// records that were used go on to kept segments and the others leave. So a scan
// passes through the fresh segments, which have a tenth of the room when it is
// scarce, and leaves the kept ones alone, as in memory.
//
// Nothing on disk is trusted: a record that is not what was written is forgotten.
// Nothing is fatal: a disk that fails is left alone for a while.
type disk struct {
	dir     string
	limit   int64
	segment int64 // length from which on a segment is finished
	log     *slog.Logger
	metrics *metrics
	pool    *buffers
	lock    fileutil.Releaser

	mu       sync.Mutex
	index    *diskIndex
	ghosts   ghosts[struct{}]
	passed   ghosts[uint64] // pages that were read in long requests and not kept, with the number of who read them first
	segments map[uint32]*segment
	queue    []job
	queued   int64
	more     *sync.Cond // the queue has grown, or closed is set
	writing  bool
	forgot   map[uint64]bool // keys that were forgotten while the writer works
	idle     *sync.Cond      // the queue was written
	closed   bool
	retryAt  time.Time // after an error: until then the disk is left alone

	// The writer's own.
	sealed [2][]*segment // oldest first, by generation
	active [2]*segment   // that is written to, or nil
	next   uint32        // number of the next segment
	staged staged
	room   int64 // at most limit; less on a disk that was full
	looked time.Time
	done   chan struct{}
}

// job is a record to be written: extents of a page, which lie in a buffer that the job
// holds. A record that was forgotten has none.
type job struct {
	page    pageKey
	extents []extent
	held    *buffer
}

// staged is records of one generation that are written together.
type staged struct {
	generation generation
	data       []byte
	places     []place
}

// size is about the length of the record.
func (j job) size() int64 {
	n := int64(recordHeader + len(j.page.object.Name) + len(j.page.object.Version) + extentHeader*len(j.extents))
	return n + extents(j.extents).size()
}

// segmentLength is from where on a segment is finished.
func segmentLength(limit int64) int64 {
	return min(max(min(limit/segmentShare, goodSegment), limit/mostSegments), maxSegment)
}

// openDisk returns the disk tier in a directory, with what is there of an earlier run.
func openDisk(o Options, pool *buffers, log *slog.Logger, m *metrics) (*disk, error) {
	dir, limit := o.Dir, o.DiskBytes
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	lock, _, err := fileutil.Flock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fmt.Errorf("lock %s, which belongs to one process at a time: %w", dir, err)
	}
	d := &disk{
		dir: dir, limit: limit, room: limit, segment: segmentLength(limit),
		log: log, metrics: m, pool: pool, lock: lock, index: newDiskIndex(), segments: map[uint32]*segment{},
		forgot: map[uint64]bool{}, done: make(chan struct{}),
	}
	d.more, d.idle = sync.NewCond(&d.mu), sync.NewCond(&d.mu)
	if err := d.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("look for cached pages in %s: %w", dir, err), d.closeFiles())
	}
	d.publish()
	go d.write()
	return d, nil
}

// load takes over the segments of an earlier run, oldest first.
func (d *disk) load() error {
	entries, err := os.ReadDir(d.dir) // sorted by name, so by number
	if err != nil {
		return err
	}
	for _, e := range entries {
		for _, g := range []generation{fresh, kept} {
			var number uint32
			if n, err := fmt.Sscanf(e.Name(), "%08x."+g.String(), &number); n == 1 && err == nil && segmentPath(d.dir, number, g) == filepath.Join(d.dir, e.Name()) {
				if err := d.loadSegment(&segment{number: number, generation: g, path: segmentPath(d.dir, number, g)}); err != nil {
					return err
				}
				d.next = max(d.next, number+1)
			}
		}
	}
	for d.tooMuch(0) {
		d.evict()
	}
	return nil
}

// loadSegment takes over a segment. One that is none is removed.
func (d *disk) loadSegment(s *segment) error {
	var err error
	if s.file, err = os.OpenFile(s.path, os.O_RDWR, 0); err != nil {
		return err
	}
	rows, err := s.load()
	if errors.Is(err, errCorrupt) || d.segments[s.number] != nil {
		d.metrics.diskCorrupt.Inc()
		return errors.Join(s.file.Close(), os.Remove(s.path))
	}
	if err != nil {
		return errors.Join(err, s.file.Close())
	}
	for _, r := range rows {
		s.records = append(s.records, d.index.add(r, s.number))
	}
	d.segments[s.number] = s
	d.sealed[s.generation] = append(d.sealed[s.generation], s)
	return nil
}

// candidate is a record that may have what is wanted.
type candidate struct {
	number int32
	record
	file *os.File
}

// again reports whether a page was read before in a long request, of somebody else: one that
// reads it part by part does so once. It notes that it was.
func (d *disk) again(k pageKey, reader uint64) bool {
	key := k.diskKey()
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.index.find(key)) > 0 {
		return true
	}
	by, ok := d.passed.known[key]
	d.passed.add(key, reader, mostPassed)
	return ok && by != reader
}

// has reports whether a read of the page is worth a try.
func (d *disk) has(k pageKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, ok := d.index.heads[k.diskKey()]
	return ok
}

// candidates returns the records of a page, the youngest first.
func (d *disk) candidates(key uint64) (found []candidate) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.index.find(key) {
		r := d.index.records[i]
		found = append(found, candidate{i, r, d.segments[r.segment].file})
	}
	return found
}

// read returns those of the pieces of a page that the disk has, as a part, or nil.
// The pieces are sorted.
func (d *disk) read(k pageKey, pieces []*piece) *part {
	base := k.n * pageSize
	p := newPart(k.object, pieces)
	for _, c := range d.candidates(k.diskKey()) {
		var missing []*piece
		for _, piece := range pieces {
			if parts := touched(piece.off-base, piece.end-base); piece.part == nil && parts&c.touched == parts {
				missing = append(missing, piece)
			}
		}
		if len(missing) == 0 {
			continue
		}
		buffer := d.pool.get(int64(c.length))
		p.takeAll(missing, d.extents(k, c, buffer), d.pool)
		d.pool.put(buffer)
	}
	if len(p.pieces) == 0 {
		return nil
	}
	return p
}

// newPart returns a part that pieces of one page can be taken into.
func newPart(o Object, pieces []*piece) *part {
	return &part{object: o, off: pieces[0].off, end: pieces[len(pieces)-1].end}
}

// takeAll copies the pieces that extents cover.
func (p *part) takeAll(pieces []*piece, x extents, pool *buffers) {
	for _, piece := range pieces {
		if e, ok := x.covering(piece.off, piece.end); ok {
			p.take(piece, e, pool)
		}
	}
}

// take copies a piece out of an extent that covers it.
func (p *part) take(piece *piece, e extent, pool *buffers) {
	if p.data == nil {
		p.own(pool, pool.get(p.end-p.off))
	}
	piece.part, piece.bytes = p, p.data[piece.off-p.off:piece.end-p.off]
	copy(piece.bytes, e.slice(piece.off, piece.end))
	p.pieces = append(p.pieces, piece)
	p.wanted += piece.end - piece.off
}

// extents reads a record into a buffer. What cannot be read or is not what was written
// is forgotten; a record of another page gives nothing.
func (d *disk) extents(k pageKey, c candidate, buffer []byte) extents {
	_, err := c.file.ReadAt(buffer, int64(c.pos))
	if errors.Is(err, os.ErrClosed) {
		return nil // it has left meanwhile
	}
	var of pageKey
	var x extents
	if err == nil {
		of, x, err = decodeRecord(buffer)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.index.is(c.number, c.record) {
		return nil // forgotten or gone meanwhile
	}
	switch {
	case err != nil:
		d.metrics.diskCorrupt.Inc()
		d.index.remove(c.number)
		return nil
	case of != k:
		return nil
	}
	r := &d.index.records[c.number]
	r.uses = min(r.uses+1, maxUses)
	return x
}

// use counts a use of a page in memory, where the disk does not see it.
func (d *disk) use(k pageKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.index.find(k.diskKey()) {
		r := &d.index.records[i]
		r.uses = min(r.uses+1, maxUses)
	}
}

// pausing reports whether the disk is left alone after an error.
func (d *disk) pausing() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.retryAt.IsZero() && time.Now().Before(d.retryAt)
}

// keep has extents of a page written, which lie in a buffer, or are never overwritten if
// held is nil, unless too much waits already. It reports whether it will be.
func (d *disk) keep(k pageKey, x []extent, held *buffer) bool {
	if len(k.object.Name) > maxName || len(k.object.Version) > maxName || d.pausing() {
		return false
	}
	j := job{k, x, held}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.queued+j.size() > maxQueued {
		d.metrics.diskSkipped.Inc()
		return false
	}
	held.retain()
	d.queue = append(d.queue, j)
	d.queued += j.size()
	d.more.Signal()
	return true
}

// forget drops all records of a page, those too that are still to be written.
func (d *disk) forget(k pageKey) {
	key := k.diskKey()
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.index.find(key) {
		d.index.remove(i)
	}
	for i, j := range d.queue {
		if j.page == k {
			d.queue[i].extents = nil
		}
	}
	if d.writing {
		d.forgot[key] = true
	}
}

// flush waits until all that was kept is written.
func (d *disk) flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.writing || len(d.queue) > 0 {
		d.idle.Wait()
	}
}

// close writes what waits and finishes the segments.
func (d *disk) close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.more.Signal()
	d.mu.Unlock()
	<-d.done
	var errs []error
	for g, s := range d.active {
		if s != nil && d.finish(generation(g)) != nil {
			errs = append(errs, os.Remove(s.path)) // a cache may be lost
		}
	}
	return errors.Join(append(errs, d.closeFiles())...)
}

func (d *disk) closeFiles() error {
	var errs []error
	for _, s := range d.segments {
		errs = append(errs, s.file.Close())
	}
	return errors.Join(append(errs, d.lock.Release())...)
}

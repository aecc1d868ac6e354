package pagecache

import (
	"sync"

	"github.com/cespare/xxhash/v2"
)

const (
	// pageOverhead and extentOverhead are what bookkeeping costs, so that the limit
	// bounds memory and not only bytes of objects.
	pageOverhead   = 256
	extentOverhead = 40
	// shardBytes is the least that a shard of the memory tier holds, and maxShards
	// how many there are at most: enough that cores do not wait for each other.
	shardBytes = 4 << 20
	maxShards  = 32
)

// memory keeps pages under a byte limit, and knows which of their missing bytes
// are on their way. Its shards share nothing.
type memory struct{ shards []*shard }

func newMemory(limit int64, m *metrics) *memory {
	n := 1
	for n < maxShards && limit/int64(2*n) >= shardBytes {
		n *= 2
	}
	mem := &memory{}
	for range n {
		mem.shards = append(mem.shards, &shard{
			limit:   limit / int64(n),
			pages:   map[uint64]*page{},
			coming:  map[pageKey][]*piece{},
			metrics: m,
			used:    func(pageKey) {},
		})
	}
	return mem
}

// hash spreads pages over shards and stands for them where a key would be too much.
func (k pageKey) hash() uint64 {
	h := xxhash.Sum64String(k.object.Name) ^ uint64(k.n)*0x9e3779b97f4a7c15
	return h ^ h>>29
}

func (m *memory) shard(k pageKey) *shard { return m.at(k.hash()) }

// at returns the shard of a hash.
func (m *memory) at(hash uint64) *shard { return m.shards[hash&uint64(len(m.shards)-1)] }

// get returns the bytes [off, end) of a page if they are there in one piece.
func (m *memory) get(k pageKey, off, end int64) []byte {
	h := k.hash()
	return m.at(h).get(h, k, off, end)
}

// tell has used called for pages that are used again and again, under a shard's lock.
func (m *memory) tell(used func(pageKey)) {
	for _, s := range m.shards {
		s.used = used
	}
}

// shard is a part of the memory tier. New pages go to the small queue, which has
// a tenth of the room; those that are used again while they are there go on to the
// main queue, the others leave, and only their hashes are remembered for a while:
// who returns within that time goes to the main queue at once. So a scan passes
// through the small queue and leaves the main one alone (S3-FIFO).
type shard struct {
	limit   int64
	metrics *metrics
	used    func(pageKey) // is told of pages that are used again and again

	mu          sync.Mutex
	pages       map[uint64]*page // by hash; of two pages with one hash the later is there
	small, main queue
	ghosts      ghosts[struct{}]
	coming      map[pageKey][]*piece // sorted, disjoint
}

// page is what memory holds of a window of an object.
type page struct {
	key        pageKey
	extents    extents
	cost       int64
	uses       uint8 // since it came, at most maxUses
	in         *queue
	prev, next *page
}

const maxUses = 3

func (s *shard) get(hash uint64, k pageKey, off, end int64) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.pages[hash]
	if p == nil || p.key != k {
		return nil
	}
	e, ok := p.extents.covering(off, end)
	if !ok {
		return nil
	}
	p.use()
	return e.slice(off, end)
}

func (p *page) use() { p.uses = min(p.uses+1, maxUses) }

// add adds extents to a page and makes room for them. They are copied while nobody waits for
// the shard, for that may take long: once more, if the page changed meanwhile.
func (s *shard) add(k pageKey, more []extent) {
	before := s.extents(k)
	for {
		now, ok := s.swap(k, before, before.with(more))
		if ok {
			return
		}
		before = now
	}
}

// extents returns those of a page.
func (s *shard) extents(k pageKey) extents {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held(k)
}

// held is extents for who holds mu.
func (s *shard) held(k pageKey) extents {
	if p := s.pages[k.hash()]; p != nil && p.key == k {
		return p.extents
	}
	return nil
}

// swap gives a page other extents and makes room for them, if it still has those of before.
// It returns what the page has.
func (s *shard) swap(k pageKey, before, after extents) (now extents, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now = s.held(k); !now.same(before) {
		return now, false
	}
	s.keep(k, after)
	return after, true
}

// keep makes extents those of a page. The caller holds mu.
func (s *shard) keep(k pageKey, x extents) {
	h := k.hash()
	p := s.pages[h]
	if p != nil && p.key != k {
		s.drop(p)
		p = nil
	}
	if p == nil {
		if s.limit <= pageOverhead {
			return
		}
		p = &page{key: k}
		s.pages[h] = p
		if s.ghosts.remove(h) {
			s.main.push(p)
		} else {
			s.small.push(p)
		}
		s.metrics.memoryPages.Inc()
	}
	p.extents = x
	s.charge(p, pageOverhead+int64(len(p.extents))*extentOverhead+p.extents.size())
	for s.small.cost+s.main.cost > s.limit {
		s.evict()
	}
}

// charge sets what a page costs.
func (s *shard) charge(p *page, cost int64) {
	p.in.cost += cost - p.cost
	s.metrics.memoryBytes.Add(float64(cost - p.cost))
	p.cost = cost
}

// evict makes room by one page, or moves one on. The caller holds mu.
func (s *shard) evict() {
	if p := s.small.oldest; p != nil && (s.small.cost > s.limit/10 || s.main.oldest == nil) {
		if p.uses == 0 {
			s.drop(p)
			s.ghosts.add(p.key.hash(), struct{}{}, len(s.pages))
			return
		}
		s.used(p.key)
		s.small.remove(p)
		p.uses = 0
		s.main.push(p)
		return
	}
	p := s.main.oldest
	if p.uses == 0 {
		s.drop(p)
		return
	}
	s.used(p.key)
	s.main.remove(p)
	p.uses--
	s.main.push(p)
}

// forget removes a page if it is there.
func (s *shard) forget(k pageKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.pages[k.hash()]; p != nil {
		s.drop(p)
	}
}

// drop removes a page. The caller holds mu.
func (s *shard) drop(p *page) {
	p.in.remove(p)
	delete(s.pages, p.key.hash())
	s.metrics.memoryBytes.Sub(float64(p.cost))
	s.metrics.memoryPages.Dec()
}

// queue is first in, first out.
type queue struct {
	oldest, newest *page
	cost           int64
}

func (q *queue) push(p *page) {
	p.in, p.prev, p.next = q, q.newest, nil
	if q.newest != nil {
		q.newest.next = p
	} else {
		q.oldest = p
	}
	q.newest = p
	q.cost += p.cost
}

func (q *queue) remove(p *page) {
	if p.prev != nil {
		p.prev.next = p.next
	} else {
		q.oldest = p.next
	}
	if p.next != nil {
		p.next.prev = p.prev
	} else {
		q.newest = p.prev
	}
	q.cost -= p.cost
}

// ghosts are the hashes of pages that left, or were not kept, the oldest first, and what is known of each.
type ghosts[V any] struct {
	order []uint64
	known map[uint64]V
}

// minGhosts are remembered however few pages there are.
const minGhosts = 128

// add remembers a hash, and about as many others as there are pages.
func (g *ghosts[V]) add(h uint64, what V, pages int) {
	if g.known == nil {
		g.known = map[uint64]V{}
	}
	if _, ok := g.known[h]; !ok {
		g.known[h] = what
		g.order = append(g.order, h)
	}
	for len(g.order) > max(pages, minGhosts) {
		delete(g.known, g.order[0])
		g.order = g.order[1:]
	}
}

// remove forgets a hash and reports whether it was known. Its place in the order
// stays until its time comes.
func (g *ghosts[V]) remove(h uint64) bool {
	_, ok := g.known[h]
	delete(g.known, h)
	return ok
}

package fetcher

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/oklog/ulid/v2"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

const (
	// pageSize is how many objects S3 and its likes list in one request.
	pageSize = 1000
	// spans are listed side by side once the first page was not all. Each ends
	// inside a page, so more of them are quicker and cost up to a request each.
	spans = 4
)

// directory is what is known of one block.
type directory struct {
	objects map[string]int64  // sizes by relative name
	etags   map[string]string // of index and chunk segments
	data    uint64            // stands for their versions
	newest  time.Time
	small   []content // meta.json and marks, by relative name
}

// find gives meta.json or a mark, or nil.
func (d *directory) find(rel string) *content {
	for i := range d.small {
		if d.small[i].rel == rel {
			return &d.small[i]
		}
	}
	return nil
}

// content is one version of a meta.json or a mark, and what it says.
type content struct {
	rel     string
	version version
	// One of these is set once it was read.
	meta *block.Meta
	mark *block.Mark
	err  error
}

// final reports whether another read would bring nothing new.
func (c *content) final() bool {
	return c.meta != nil || c.mark != nil || errors.Is(c.err, block.ErrCorrupt)
}

// version tells two contents of one object name apart.
type version struct {
	etag           string
	size, modified int64
}

// hash stands for the version of a named object. Where there is an ETag its time says no more:
// a copy of the bucket has other times.
func (v version) hash(name string) uint64 {
	if v.etag != "" {
		return xxhash.Sum64String(fmt.Sprintf("%s\x00%d\x00%s", name, v.size, v.etag))
	}
	return xxhash.Sum64String(fmt.Sprintf("%s\x00%d\x00%d", name, v.size, v.modified))
}

// listing collects one look at a bucket.
type listing struct {
	bkt    bucket.Reader
	shared *shared

	mu   sync.Mutex
	dirs map[ulid.ULID]*directory
}

// list looks at the whole bucket, once, and forgets what is no part of a block.
// The first page is asked for alone. If it is full, the rest is listed in spans
// side by side, cut where the known blocks say that their objects are shared out
// evenly; if none is known, evenly over the time until now.
func (f *Fetcher) list(ctx context.Context, known []ulid.ULID, now time.Time) (map[ulid.ULID]*directory, error) {
	l := &listing{bkt: f.bkt, shared: f.shared, dirs: map[ulid.ULID]*directory{}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		n, until := 0, ""
		return l.span(ctx, "", func(o bucket.Object) bool {
			if until != "" && o.Name > until {
				return false
			}
			if n++; n == pageSize {
				cuts := append(cut(o.Name, known, now), "")
				until = cuts[0]
				for i, from := range cuts[:len(cuts)-1] {
					to := cuts[i+1]
					g.Go(func() error {
						return l.span(ctx, from, func(o bucket.Object) bool { return to == "" || o.Name <= to })
					})
				}
			}
			return true
		})
	})
	err := g.Wait()
	return l.dirs, err
}

// span lists the objects behind a name until one is not wanted.
func (l *listing) span(ctx context.Context, after string, wanted func(bucket.Object) bool) error {
	errEnd := errors.New("the end of the span")
	err := bucket.List(ctx, l.bkt, "", after, func(o bucket.Object) error {
		if !wanted(o) {
			return errEnd
		}
		l.add(o)
		return nil
	})
	if errors.Is(err, errEnd) {
		return nil
	}
	return err
}

func (l *listing) add(o bucket.Object) {
	id, rel, ok := block.ParseName(o.Name)
	if !ok {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	dir := l.dirs[id]
	if dir == nil {
		dir = &directory{objects: map[string]int64{}}
		l.dirs[id] = dir
	}
	rel = l.shared.name(rel)
	v := version{o.ETag, o.Size, o.LastModified.UnixNano()}
	dir.objects[rel] = o.Size
	if o.LastModified.After(dir.newest) {
		dir.newest = o.LastModified
	}
	if rel == block.IndexFile || strings.HasPrefix(rel, block.ChunksDir+"/") {
		dir.data ^= v.hash(rel) // in whatever order they are listed
		if o.ETag != "" {
			if dir.etags == nil {
				dir.etags = map[string]string{}
			}
			dir.etags[rel] = o.ETag
		}
	}
	if rel == block.MetaFile || slices.Contains(block.MarkKinds(), block.MarkKind(rel)) {
		dir.small = append(dir.small, content{rel: rel, version: v})
	}
}

// cut gives the names at which the part of the listing behind last is divided, in
// rising order. None of them is the name of an object of a block. known is sorted.
func cut(last string, known []ulid.ULID, now time.Time) []string {
	id, _, _ := block.ParseName(last) // the zero ULID, before all others, if it is not of a block
	from, _ := slices.BinarySearchFunc(known, id, ulid.ULID.Compare)
	var cuts []string
	for i := 1; i < spans; i++ {
		at := between(id, now, i)
		if rest := known[from:]; len(rest) > spans {
			at = rest[len(rest)*i/spans]
		}
		if name := at.String(); name > last && (len(cuts) == 0 || name > cuts[len(cuts)-1]) {
			cuts = append(cuts, name)
		}
	}
	return cuts
}

// between gives the first ULID of the i-th span of the time from a block until now.
func between(id ulid.ULID, now time.Time, i int) ulid.ULID {
	from, to := id.Time(), ulid.Timestamp(now)
	if to < from {
		to = from
	}
	var at ulid.ULID
	// A ULID begins with its time in milliseconds, in 48 bits.
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], from+(to-from)/spans*uint64(i))
	copy(at[:6], ms[2:])
	return at
}

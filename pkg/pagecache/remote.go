package pagecache

import (
	"context"
	"fmt"
	"slices"
)

// Remote is a cache of bytes by key that several processes share, such as memcached.
// It is asked when memory and disk have not what is wanted, and has no errors: what it
// does not bring in time is not there.
type Remote interface {
	// Get returns the values that are there. They belong to the caller.
	Get(ctx context.Context, keys []string) map[string][]byte
	// Set keeps a value, which is not changed afterwards, or does not.
	Set(key string, value []byte)
	// Delete drops values that turned out to be wrong.
	Delete(ctx context.Context, keys ...string)
}

// remoteKey stands for a page in a remote cache, whatever the process. The record that
// is kept there says whose it is, so that two pages of one key are told apart.
func (k pageKey) remoteKey() string { return fmt.Sprintf("varve:page:1:%016x", k.diskKey()) }

// fromRemote settles what the remote cache has of the pieces, which are sorted, and
// returns the others. What it has of a page beside them is remembered, so that the
// page is kept there as a whole.
func (b *batch) fromRemote(ctx context.Context, own []*piece) (parts []*part, missing []*piece) {
	remote := b.c.opts.Remote
	if remote == nil || len(own) == 0 {
		return nil, own
	}
	var keys []string
	for k := range pages(own) {
		keys = append(keys, k.remoteKey())
	}
	found := remote.Get(ctx, keys)
	var wrong []string
	for k, pieces := range pages(own) {
		value, ok := found[k.remoteKey()]
		if !ok {
			continue
		}
		of, x, err := decodeRecord(value)
		if err != nil {
			b.c.metrics.remoteCorrupt.Inc()
			wrong = append(wrong, k.remoteKey())
		}
		if err != nil || of != k {
			continue
		}
		if b.found == nil {
			b.found = map[pageKey]extents{}
		}
		b.found[k] = x
		p := newPart(k.object, pieces)
		p.takeAll(pieces, x, &b.c.buffers)
		if len(p.pieces) > 0 {
			b.c.keep(k, x, p.pieces)
			b.remote += p.wanted
			parts = append(parts, p)
		}
	}
	if len(wrong) > 0 {
		remote.Delete(ctx, wrong...)
	}
	return parts, slices.DeleteFunc(own, func(p *piece) bool { return p.part != nil })
}

// keep settles pieces of a page that came from the remote cache with the extents x.
func (c *Cache) keep(k pageKey, x extents, pieces []*piece) {
	if c.disk != nil {
		c.disk.keep(k, x, nil)
	}
	s := c.memory.shard(k)
	s.hold(k, pieces)
	s.settle(k, pieces, nil)
}

// tell has extents of a page that came from the bucket kept in the remote cache,
// together with what was found there.
func (b *batch) tell(k pageKey, x []extent) {
	if len(k.object.Name) > maxName || len(k.object.Version) > maxName {
		return
	}
	record, _ := encodeRecord(nil, k, b.found[k].with(x))
	b.c.opts.Remote.Set(k.remoteKey(), record)
}

package bucketops

import (
	"context"

	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/blockscan"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/merge"
	"github.com/varve-io/varve/pkg/series"
)

// filler walks through the series of the other replicas beside those of a broken block.
type filler struct {
	set  series.Set
	cur  *series.Series // not handed out yet; nil before the first and after the last
	done bool
}

func newFiller(ctx context.Context, src *sources, replicaLabels []string) *filler {
	var sets []series.Set
	for i, b := range src.fills {
		_, replica := series.Final(labels.EmptyLabels(), src.metas[i].Labels(), replicaLabels)
		sets = append(sets, &ofReplica{b.Scan(ctx, quiet), replica})
	}
	return &filler{set: dedup.NewSet(merge.Sets(sets...), dedup.Defaults())}
}

// upTo passes the series before that of the labels to skipped, and returns that one, or nil.
func (f *filler) upTo(l labels.Labels, skipped func(*series.Series) error) (*series.Series, error) {
	for f.next() {
		switch c := labels.Compare(f.cur.Labels, l); {
		case c > 0:
			return nil, nil
		case c == 0:
			s := f.cur
			f.cur = nil
			return s, nil
		}
		if err := skipped(f.cur); err != nil {
			return nil, err
		}
		f.cur = nil
	}
	return nil, f.set.Err()
}

// rest passes the series that are left to skipped.
func (f *filler) rest(skipped func(*series.Series) error) error {
	for f.next() {
		if err := skipped(f.cur); err != nil {
			return err
		}
		f.cur = nil
	}
	return f.set.Err()
}

// next makes sure that there is a current series.
func (f *filler) next() bool {
	if f.cur == nil && !f.done {
		if f.done = !f.set.Next(); !f.done {
			f.cur = f.set.At()
		}
	}
	return f.cur != nil
}

// ofReplica says where the series of a scan come from.
type ofReplica struct {
	*blockscan.Scanner

	replica string
}

// At returns the current series.
func (r *ofReplica) At() *series.Series {
	s := *r.Scanner.At()
	s.Replica = r.replica
	return &s
}

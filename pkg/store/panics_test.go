package store

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/varve-io/varve/pkg/blockindex"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/storeapi"
)

func TestABlockThatPanicsIsMissingAlone(t *testing.T) {
	bkt := bucket.NewMemory()
	good, bad := add(t, bkt, ups(2, 0, hour, 1)), add(t, bkt, ups(2, hour, 2*hour, 1))
	g := open(t, bkt, nil, good, bad)
	mustAsk(t, g, selectUp(0, hour-1))
	defer func(used *blockindex.Directories) { g.indexes = used }(g.indexes)
	g.indexes = nil // now it panics that the index of the bad block is opened, which the good one's is
	names := func(name string) bool {
		return strings.Contains(name, bad.Meta.ULID.String()) && strings.Contains(name, panics.Err.Error())
	}

	req := selectUp(0, 2*hour)
	if got := mustAsk(t, g, req); !strings.HasPrefix(got, "0000 240\n0001 240\n") || !names(got) {
		t.Errorf("series: got %q, want those of the good block and a warning that names the bad one", got)
	}
	labelsOf := &storeapi.LabelsRequest{MaxTime: 2 * hour, Matchers: req.Matchers}
	got, warnings, err := g.LabelNames(t.Context(), labelsOf)
	if err != nil || !slices.Contains(got, "__name__") || len(warnings) != 1 || !names(warnings.AsErrors()[0].Error()) {
		t.Errorf("label names: got %q, warnings %v and %v, want those of the good block and a warning", got, warnings, err)
	}

	req.Partial, labelsOf.Partial = storeapi.Abort, storeapi.Abort
	if _, err := ask(t, g, req); !errors.Is(err, panics.Err) {
		t.Errorf("series that must be whole: got error %v, want an internal one", err)
	}
	if _, _, err := g.LabelNames(t.Context(), labelsOf); !errors.Is(err, panics.Err) {
		t.Errorf("label names that must be whole: got error %v, want an internal one", err)
	}
	if _, err := ask(t, g, selectUp(0, hour-1)); err != nil {
		t.Errorf("the good block after that: %v", err)
	}
}

func TestAPanicWhileChunksAreReadIsTheSpansError(t *testing.T) {
	s := &blockStream{} // of no request, which reading does not expect
	next := &span{read: make(chan struct{}), wanted: []wanted{{size: 100}}}
	s.load(t.Context(), next, nil)
	if <-next.read; !errors.Is(next.err, panics.Err) {
		t.Errorf("got error %v, want an internal one", next.err)
	}
}

package bucketops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v2"

	"github.com/varve-io/varve/pkg/block"
)

// Selection says which blocks an operation is about. Its zero value stands for all.
type Selection struct {
	// IDs names the blocks. It is an error if the bucket lacks one of them.
	IDs []ulid.ULID
	// MinTime and MaxTime choose the blocks with samples between them; zero for no limit.
	MinTime, MaxTime time.Time
	// Matchers and Rules look at external labels, rules also at __block_id.
	Matchers []*labels.Matcher
	Rules    []*relabel.Config
	// Unmarked leaves out blocks that are marked for deletion.
	Unmarked bool
	// Resolutions and Levels are those wanted; empty for all.
	Resolutions []block.Resolution
	Levels      func(level int) bool
}

// ParseRules reads the content of --selector.relabel-config.
func ParseRules(content []byte) ([]*relabel.Config, error) {
	var rules []*relabel.Config
	if err := yaml.UnmarshalStrict(content, &rules); err != nil {
		return nil, fmt.Errorf("parse relabel rules: %w", err)
	}
	for i, r := range rules {
		if r == nil {
			return nil, fmt.Errorf("relabel rule %d is empty", i+1)
		}
		if err := r.Validate(model.UTF8Validation); err != nil {
			return nil, fmt.Errorf("relabel rule %d: %w", i+1, err)
		}
	}
	return rules, nil
}

// ParseIDs reads the values of --id.
func ParseIDs(texts []string) ([]ulid.ULID, error) {
	var ids []ulid.ULID
	for _, text := range texts {
		id, err := ulid.ParseStrict(text)
		if err != nil {
			return nil, fmt.Errorf("--id=%s: it is no ULID: %w", text, err)
		}
		ids = append(ids, id)
	}
	return block.SortedIDs(ids), nil
}

// keep reports whether a block is selected.
func (s Selection) keep(e *block.Entry) bool {
	m := e.Meta
	switch {
	case len(s.IDs) > 0 && !slices.Contains(s.IDs, m.ULID),
		s.Unmarked && e.Deletion != nil,
		!s.MinTime.IsZero() && m.MaxTime <= s.MinTime.UnixMilli(),
		!s.MaxTime.IsZero() && m.MinTime > s.MaxTime.UnixMilli(),
		len(s.Resolutions) > 0 && !slices.Contains(s.Resolutions, m.Resolution()),
		s.Levels != nil && !s.Levels(m.Compaction.Level):
		return false
	}
	lset := m.Labels()
	for _, matcher := range s.Matchers {
		if !matcher.Matches(lset.Get(matcher.Name)) {
			return false
		}
	}
	b := labels.NewBuilder(lset)
	b.Set("__block_id", m.ULID.String())
	return relabel.ProcessBuilder(b, s.Rules...)
}

// of gives the selected blocks of a set, in its order.
func (s Selection) of(set *block.Set) ([]*block.Entry, error) {
	kept := block.Select(set.Blocks, s.keep)
	var errs []error
	for _, id := range s.IDs {
		if set.Find(id) == nil {
			errs = append(errs, fmt.Errorf("the bucket has no complete block %s", id))
		}
	}
	return kept, errors.Join(errs...)
}

// byName reports whether nothing is asked of a block that only its meta.json can tell, nor for single ones.
func (s Selection) byName() bool { return len(s.IDs) == 0 && len(s.Matchers) == 0 && len(s.Rules) == 0 }

// within is the part of a set that is selected. Blocks without a readable
// meta.json are in it if nothing but their names could choose them.
func (s Selection) within(set *block.Set) (*block.Set, error) {
	blocks, err := s.of(set)
	if err != nil {
		return nil, err
	}
	part := &block.Set{Listed: set.Listed, Blocks: blocks}
	if s.byName() {
		part.Partial, part.Unreadable = set.Partial, set.Unreadable
	}
	return part, nil
}

// Blocks gives the selected blocks, and logs what is in the bucket beside complete ones.
func (o *Operator) Blocks(ctx context.Context, s Selection) ([]*block.Entry, error) {
	set, err := o.blocks(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range set.Partial {
		o.log.Warn("not a block yet, or not any more: it has no meta.json", "block", p.ID, "objects", len(p.Objects), "last_modified", p.LastModified.UTC())
	}
	return s.of(set)
}

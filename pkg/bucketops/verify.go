package bucketops

import (
	"context"
	"errors"
	"fmt"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockscan"
)

// maxFindings is how many findings of one block are kept; the others are counted.
const maxFindings = 100

// Verdict is what is known of a block after reading all of it.
type Verdict struct {
	Block    ulid.ULID           `json:"block"`
	Findings []blockscan.Finding `json:"findings"`
	// More counts the findings beyond the first 100.
	More int `json:"more,omitempty"`

	stats blockscan.Stats
}

// ErrFindings says that a block, or more, is not as it should be.
var ErrFindings = errors.New("blocks with findings")

// Verify reads the selected blocks wholly: every file, checksum, series, chunk and
// sample, the postings, and the counts. If something is found, the error carries ErrFindings.
func (o *Operator) Verify(ctx context.Context, s Selection) ([]Verdict, error) {
	set, err := o.blocks(ctx)
	if err != nil {
		return nil, err
	}
	part, err := s.within(set)
	if err != nil {
		return nil, err
	}
	var verdicts []Verdict
	for _, u := range part.Unreadable {
		verdicts = append(verdicts, Verdict{Block: u.ID, Findings: []blockscan.Finding{
			{Kind: blockscan.Malformed, File: block.MetaFile, Offset: blockscan.Whole, Detail: u.Err.Error()},
		}})
	}
	var errs []error
	for _, e := range part.Blocks {
		var v Verdict
		err := o.withBlock(ctx, e, func(dir string) (err error) {
			v, err = verifyDir(ctx, dir, e.Meta)
			return err
		})
		if ctx.Err() != nil {
			return verdicts, ctx.Err()
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		verdicts = append(verdicts, v)
	}
	broken := 0
	for _, v := range verdicts {
		if len(v.Findings) > 0 {
			broken++
		}
	}
	if broken > 0 {
		errs = append(errs, fmt.Errorf("%w: %d of %d; repair salvages what can be read", ErrFindings, broken, len(verdicts)))
	}
	return verdicts, errors.Join(errs...)
}

// verifyDir reads a local block wholly.
func verifyDir(ctx context.Context, dir string, meta *block.Meta) (v Verdict, err error) {
	v.Block = meta.ULID
	b, err := blockscan.Open(dir, meta)
	if err != nil {
		return v, fmt.Errorf("open block %s: %w", meta.ULID, err)
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	v.stats, err = b.Verify(ctx, func(f blockscan.Finding) {
		if len(v.Findings) < maxFindings {
			v.Findings = append(v.Findings, f)
		} else {
			v.More++
		}
	})
	return v, err
}

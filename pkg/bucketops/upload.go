package bucketops

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/blockio"
	"github.com/varve-io/varve/pkg/bucket"
)

// sourceUpload is what Thanos writes into blocks that were uploaded by hand.
const sourceUpload block.Source = "bucket.upload"

// Import says which local blocks are uploaded, and as whose.
type Import struct {
	// Path is a Prometheus' data directory.
	Path string
	// Labels are the external labels that the blocks get.
	Labels map[string]string
	// Compacted uploads blocks of a level above 1, too.
	Compacted bool
}

// UploadBlocks brings the blocks of a Prometheus' data directory into the bucket. Each
// is read wholly before. A block that is there stays as it is.
func (o *Operator) UploadBlocks(ctx context.Context, in Import) ([]Action, error) {
	if len(in.Labels) == 0 {
		return nil, errors.New("no external labels; give at least one --label that tells this Prometheus from all others")
	}
	entries, err := os.ReadDir(in.Path)
	if err != nil {
		return nil, fmt.Errorf("look for blocks: %w", err)
	}
	var actions []Action
	var errs []error
	for _, e := range entries {
		id, err := ulid.ParseStrict(e.Name())
		if err != nil || !e.IsDir() {
			continue
		}
		dir := filepath.Join(in.Path, e.Name())
		meta, err := localMeta(dir, id)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case meta.Compaction.Level > 1 && !in.Compacted:
			o.log.Info("block left out, it was compacted; give --shipper.upload-compacted to upload it", "block", id, "level", meta.Compaction.Level)
			continue
		case meta.Stats.NumSamples == 0:
			o.log.Info("block left out, it has no sample", "block", id)
			continue
		case meta.Stats.NumTombstones > 0:
			o.log.Warn("block has tombstones, which are not uploaded: what they hide will be seen; let Prometheus clean them first", "block", id, "tombstones", meta.Stats.NumTombstones)
		}
		meta.Thanos = block.Thanos{Version: 1, Labels: in.Labels, Source: sourceUpload}
		actions = append(actions, Action{Do: "upload", Block: id, What: dir, Why: "as " + meta.Labels().String(), run: func(ctx context.Context) error {
			return o.uploadBlock(ctx, dir, meta)
		}})
	}
	done, err := o.act(ctx, "upload", actions)
	return done, errors.Join(append(errs, err)...)
}

func localMeta(dir string, id ulid.ULID) (*block.Meta, error) {
	data, err := os.ReadFile(filepath.Join(dir, block.MetaFile))
	if err != nil {
		return nil, err
	}
	meta, err := block.ParseMeta(data)
	if err != nil {
		return nil, fmt.Errorf("block in %s: %w", dir, err)
	}
	if meta.ULID != id {
		return nil, fmt.Errorf("block in %s: its %s is that of block %s", dir, block.MetaFile, meta.ULID)
	}
	return meta, nil
}

func (o *Operator) uploadBlock(ctx context.Context, dir string, meta *block.Meta) error {
	there, err := blockio.ReadMeta(ctx, o.bkt, meta.ULID)
	switch {
	case errors.Is(err, bucket.ErrNotFound):
	case err != nil:
		return err
	case !maps.Equal(there.Thanos.Labels, meta.Thanos.Labels):
		return fmt.Errorf("the bucket has this block with the external labels %s", there.Labels())
	default:
		return errUnchanged
	}
	v, err := verifyDir(ctx, dir, meta)
	if err != nil {
		return err
	}
	if len(v.Findings) > 0 {
		return fmt.Errorf("the block in %s is not sound (%s) and was not uploaded", dir, v.Findings[0])
	}
	present, err := blockio.Objects(ctx, o.bkt, meta.ULID)
	if err != nil {
		return err
	}
	if err := sameSizes(dir, present); err != nil {
		return err
	}
	meta.Thanos.UploadTime = o.now().UTC()
	return blockio.Upload(ctx, o.bkt, dir, meta)
}

// sameSizes makes sure that an upload that was broken off is gone on with, and
// that nothing else is overwritten.
func sameSizes(dir string, present map[string]int64) error {
	for _, rel := range slices.Sorted(maps.Keys(present)) {
		if !isData(rel) {
			continue
		}
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(rel)))
		if err != nil || info.Size() != present[rel] {
			return fmt.Errorf("the bucket has %s with %d bytes, which is not this block's; remove it (cleanup does, once it is two days old) and repeat", rel, present[rel])
		}
	}
	return nil
}

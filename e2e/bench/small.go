package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/varve-io/varve/e2e/history"
)

// smallObjects are those of a small block besides meta.json.
func smallObjects() []string { return []string{"index", "chunks/000001"} }

// fillSmall lays very many blocks into the server's directory, one behind the other
// until the end of the data. They differ in their meta.json alone, so nobody may read more of them.
func (d *dataset) fillSmall(ctx context.Context, dir string) error {
	template, err := history.Write(ctx, dir, replicas()[0], history.Options{
		Start: d.end().Add(-blockRange), End: d.end(), Interval: blockRange / 2, BlockRange: blockRange, Processes: d.processes[:4],
	})
	if err != nil {
		return err
	}
	contents := map[string][]byte{}
	for _, name := range append(smallObjects(), "meta.json") {
		if contents[name], err = os.ReadFile(filepath.Join(template[0], name)); err != nil {
			return err
		}
	}
	var meta map[string]any
	if err := json.Unmarshal(contents["meta.json"], &meta); err != nil {
		return err
	}
	for i := range d.blocks {
		if err := d.laySmall(i, meta, contents); err != nil {
			return err
		}
	}
	return nil
}

// laySmall lays the i-th block from the end.
func (d *dataset) laySmall(i int, meta map[string]any, contents map[string][]byte) error {
	to := d.end().Add(-time.Duration(i) * blockRange)
	var id ulid.ULID
	if err := errors.Join(id.SetTime(ulid.Timestamp(to)), id.SetEntropy([]byte("0123456789"))); err != nil {
		return err
	}
	meta["ulid"], meta["minTime"], meta["maxTime"] = id, to.Add(-blockRange).UnixMilli(), to.UnixMilli()
	meta["compaction"] = map[string]any{"level": 1, "sources": []ulid.ULID{id}}
	dir := filepath.Join(d.s3.Root, bucketSmall, id.String())
	if err := os.MkdirAll(filepath.Join(dir, "chunks"), 0o755); err != nil {
		return err
	}
	for _, name := range smallObjects() {
		if err := os.WriteFile(filepath.Join(dir, name), contents[name], 0o644); err != nil {
			return err
		}
	}
	data, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "meta.json"), data, 0o644)
}

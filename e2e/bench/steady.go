package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/varve-io/varve/e2e/harness"
	"github.com/varve-io/varve/e2e/history"
)

const (
	steadySeries = 1000
	twoWeeks     = 14 * 24 * time.Hour
)

// steady lets the blocks of two replicas arrive pair by pair and runs a compactor after
// each. What counts is how many bytes it moves for each that arrives. The data lie in
// the future, where no range is closed but by what follows it.
func (b *bench) steady(ctx context.Context, subj subject) (err error) {
	dir, err := b.cluster.Dir(subj.name, "steady")
	if err != nil {
		return err
	}
	arrivals, err := b.arrivals(ctx, filepath.Join(dir, "blocks"))
	if err != nil {
		return err
	}
	name := "steady-" + subj.name
	root := filepath.Join(b.data.s3.Root, name)
	if err := errors.Join(os.RemoveAll(root), os.MkdirAll(root, 0o755)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	p, err := newProxy(b.data.s3.Endpoint, distance{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()

	bucket := history.Bucket{Endpoint: b.data.s3.Endpoint, Name: name, AccessKey: harness.AccessKey, SecretKey: harness.SecretKey}
	objstore := (&harness.S3{Endpoint: p.Endpoint}).ObjstoreConfig(name)
	total := b.report.add("steady state", fmt.Sprintf("two replicas × %d series, %d arrivals", steadySeries, len(arrivals)), subj.name)
	var arrived int64
	for i, dirs := range append(arrivals, nil) { // in the end nothing is new
		if err := bucket.Upload(ctx, dirs, func() {}); err != nil {
			return err
		}
		for _, d := range dirs {
			n, err := usage(d)
			if err != nil {
				return err
			}
			arrived += n
		}
		one := &row{}
		if _, total.err = b.compactor(ctx, subj, objstore, filepath.Join(dir, "data"), one); total.err != nil {
			return total.err
		}
		one.traffic = p.take()
		b.logf("%s: steady state: arrival %d of %d: %s", subj.name, i+1, len(arrivals), one.wall.Round(time.Millisecond))
		if dirs == nil {
			b.report.note("%s: steady state: %d requests where nothing is new", subj.name, one.traffic.requests())
			continue
		}
		total.join(one)
	}
	moved := float64(total.traffic.bytes + total.traffic.written)
	b.report.note("%s: steady state: %s MiB arrived, %s MiB were read and %s MiB written: %.2f bytes moved for each",
		subj.name, mib(arrived), mib(total.traffic.bytes), mib(total.traffic.written), moved/float64(arrived))
	return nil
}

// arrivals are the directories of what arrives together.
func (b *bench) arrivals(ctx context.Context, dir string) ([][]string, error) {
	begin := time.UnixMilli((time.Now().UnixMilli()/twoWeeks.Milliseconds() + 1) * twoWeeks.Milliseconds())
	out := make([][]string, b.load.arrivals)
	for i, r := range replicas() {
		dirs, err := history.Write(ctx, filepath.Join(dir, strconv.Itoa(i)), r, history.Options{
			Start: begin, End: begin.Add(time.Duration(b.load.arrivals) * blockRange), Interval: interval, BlockRange: blockRange,
			Processes: processes(steadySeries),
		})
		if err != nil {
			return nil, err
		}
		for n, d := range dirs {
			if err := arrivedNow(filepath.Join(d, "meta.json")); err != nil {
				return nil, err
			}
			out[n] = append(out[n], d)
		}
	}
	return out, nil
}

// arrivedNow states a time of upload, or that of a block would be the one in its ULID.
func arrivedNow(file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var meta map[string]any
	if err := json.Unmarshal(data, &meta); err != nil {
		return err
	}
	meta["thanos"].(map[string]any)["upload_time"] = time.Now().UTC()
	if data, err = json.Marshal(meta); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

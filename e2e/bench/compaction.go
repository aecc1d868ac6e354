package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/varve-io/varve/e2e/harness"
)

// compaction measures a compactor that finds all blocks of two replicas at once,
// deduplicates, merges and downsamples them, and ends. Then a gateway is asked for what it left.
func (b *bench) compaction(ctx context.Context, subj subject) (err error) {
	bucket := "compact-" + subj.name
	if err := b.link(bucketRaw, bucket); err != nil {
		return err
	}
	root := filepath.Join(b.data.s3.Root, bucket)
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	before, err := usage(root)
	if err != nil {
		return err
	}
	row, disk, err := b.compactOnce(ctx, subj, bucket)
	if err != nil {
		return err
	}
	after, err := usage(root)
	if err != nil {
		return err
	}
	b.report.note("%s: local disk %s MiB at its peak; the bucket held %s MiB before and %s MiB after; read %s MiB",
		subj.name, mib(disk), mib(before), mib(after), mib(row.traffic.bytes))
	return b.afterwards(ctx, subj, bucket)
}

// link makes a bucket of the objects of another, which are never written to.
func (b *bench) link(from, to string) error {
	src, dst := filepath.Join(b.data.s3.Root, from), filepath.Join(b.data.s3.Root, to)
	if err := os.RemoveAll(dst); err != nil {
		return err
	}
	return filepath.WalkDir(src, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(src, path)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return os.MkdirAll(filepath.Join(dst, rel), 0o755)
		}
		return os.Link(path, filepath.Join(dst, rel))
	})
}

// compactOnce runs a compactor behind a proxy until it has nothing left to do. It
// returns the most that lay in its data directory.
func (b *bench) compactOnce(ctx context.Context, subj subject, bucket string) (r *row, disk int64, err error) {
	p, err := newProxy(b.data.s3.Endpoint, s3Distance())
	if err != nil {
		return nil, 0, err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	dir, err := b.cluster.Dir(subj.name, "compact")
	if err != nil {
		return nil, 0, err
	}
	r = b.report.add("compaction", fmt.Sprintf("two replicas × %d series × %d h", b.data.series, b.data.hours), subj.name)
	disk, r.err = b.compactor(ctx, subj, (&harness.S3{Endpoint: p.Endpoint}).ObjstoreConfig(bucket), dir, r)
	r.traffic = p.take()
	b.logf("%s: compaction: %s", subj.name, r.wall.Round(time.Millisecond))
	return r, disk, r.err
}

// compactor runs a compactor until it has nothing left to do, and notes what it used.
func (b *bench) compactor(ctx context.Context, subj subject, objstore, dir string, r *row) (disk int64, err error) {
	binary := subj.binary
	if binary == "" {
		if binary, err = b.cluster.Varve("compact"); err != nil {
			return 0, err
		}
	}
	http, err := harness.FreeAddress()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	process, err := b.cluster.Start(harness.Command{
		Name: subj.name + "-compact", Path: binary,
		Args: append([]string{
			"compact", "--http-address=" + http, "--data-dir=" + dir, "--objstore.config=" + objstore,
			"--deduplication.replica-label=" + replicaLabel, "--consistency-delay=0s", "--delete-delay=0s",
		}, subj.dedup()...),
	})
	if err != nil {
		return 0, err
	}
	disk, err = watch(ctx, process, r, dir)
	r.wall = time.Since(began)
	if err != nil {
		out, _ := process.Output()
		return 0, fmt.Errorf("%w; its log:\n%s", errors.Join(err, process.Kill()), out)
	}
	return disk, nil
}

// dedup are the flags by which a compactor makes one series of replicas that were
// scraped at different times; the peer's own default keeps the samples of both.
func (s subject) dedup() []string {
	if s.binary == "" {
		return nil
	}
	return []string{"--deduplication.func=penalty"}
}

// watch notes what a process uses until it ends, and returns the most that lay in dir.
func watch(ctx context.Context, p *harness.Process, r *row, dir string) (disk int64, err error) {
	m := meter{p.PID()}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-p.Done():
			return disk, p.Wait(ctx)
		case <-ctx.Done():
			return disk, context.Cause(ctx)
		case <-tick.C:
		}
		if cpu, err := m.cpu(); err == nil { // it may have ended just now
			r.cpu = cpu
		}
		if now, peak, err := m.memory(); err == nil && peak > 0 {
			r.rss, r.peak = now, peak
		}
		if n, err := usage(dir); err == nil {
			disk = max(disk, n)
		}
	}
}

// usage is how many bytes the files below a directory have.
func usage(dir string) (total int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // removed since it was seen
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			total += info.Size()
		}
		return err
	})
	return total, err
}

// afterwards asks a gateway for what the compactor left: every series once, and the samples of one replica.
func (b *bench) afterwards(ctx context.Context, subj subject, bucket string) error {
	o := sessionOptions{group: "after compaction", start: "start", bucket: bucket, dir: "compacted", direct: true}
	return b.session(ctx, subj, o, func(s *session) error {
		q := b.data.over(b.data.hours, metricNarrow)
		got, err := s.ask(ctx, q)
		if err != nil {
			return err
		}
		one := b.data.truthOf([]job{b.data.plan(bucketRaw)[0]}, q)
		b.report.note("%s: afterwards %s has %d series with %d samples; one replica had %d with %d",
			subj.name, strings.TrimSpace(q.String()), len(got.series), got.samples, len(one.series), one.samples)
		return nil
	})
}

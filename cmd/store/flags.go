package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/fetcher"
	"github.com/varve-io/varve/pkg/store"
)

// options is all an operator can set, one field per package that has settings.
type options struct {
	daemon  daemon.Options
	bucket  bucket.Options
	fetcher fetcher.Options
	store   store.Options
	shared  sharedCache
	every   time.Duration
}

func parse(args []string, usage io.Writer) (*options, error) {
	o := &options{
		daemon:  daemon.Defaults(),
		bucket:  bucket.Defaults(),
		fetcher: fetcher.Defaults(),
		store:   store.Defaults(),
		every:   3 * time.Minute,
	}
	f := daemon.NewFlags("store", "Answer for the blocks of one bucket.", usage)
	o.daemon.Bind(f)
	o.daemon.GRPC.Bind(f)
	f.Flag("objstore.config", "Object storage that holds the blocks, as objstore's YAML.").PlaceHolder("<content>").StringVar(&o.bucket.Config)
	f.Flag("objstore.config-file", "Path of a file with that YAML.").PlaceHolder("<path>").StringVar(&o.bucket.ConfigFile)
	selector := o.bindBlocks(f)
	finish := o.bindLimits(f)
	o.shared.bind(f)
	f.Ignore(ignored()...)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	finish()
	if err := o.shared.read(); err != nil {
		return nil, err
	}
	if !o.bucket.Configured() {
		return nil, errors.New("no object storage; give --objstore.config or --objstore.config-file")
	}
	content, err := selector.Read()
	if err != nil {
		return nil, err
	}
	if o.store.Selector, err = store.ParseSelector(content); err != nil {
		return nil, err
	}
	if o.every <= 0 {
		return nil, fmt.Errorf("--sync-block-duration=%s; give more than 0", o.every)
	}
	return o, errors.Join(o.daemon.Validate(), o.bucket.Validate(), o.fetcher.Validate(), o.store.Validate())
}

// bindBlocks declares the flags that say which blocks are answered for.
func (o *options) bindBlocks(f *daemon.Flags) *daemon.Content {
	var minTime, maxTime daemon.TimeOrDuration
	f.Flag("data-dir", "Directory for page directories of indexes and for cached pages; may be deleted while the store is stopped.").
		Default(o.store.Dir).StringVar(&o.store.Dir)
	f.Duration("sync-block-duration", "Time between two looks at the bucket.", &o.every)
	f.Flag("block-meta-fetch-concurrency", "Small objects read at a time when the bucket is looked at.").
		Default(strconv.Itoa(o.fetcher.Concurrency)).IntVar(&o.fetcher.Concurrency)
	f.Time("min-time", "Answer for nothing before this time: RFC3339, or a duration relative to now such as -6w.", "0000-01-01T00:00:00Z", &minTime)
	f.Time("max-time", "Answer for nothing after this time: RFC3339, or a duration relative to now such as -2h.", "9999-12-31T23:59:59Z", &maxTime)
	o.store.MinTime = func(now time.Time) time.Time { return minTime.At(now) }
	o.store.MaxTime = func(now time.Time) time.Time { return maxTime.At(now) }
	f.Duration("consistency-delay", "Age that a block must have to be answered for.", &o.store.ConsistencyDelay)
	f.Duration("ignore-deletion-marks-delay", "Time for which a block is answered for after it was marked for deletion. Keep it below the compactor's --delete-delay.", &o.store.IgnoreDeletionMarksDelay)
	return f.Content("selector.relabel-config", "Relabel rules (keep, drop, hashmod) over external labels and __block_id that choose the blocks to answer for.")
}

// bindLimits declares the flags that bound what requests take. The function it
// returns takes their values over after parsing.
func (o *options) bindLimits(f *daemon.Flags) (finish func()) {
	f.Flag("store.grpc.series-max-concurrency", "Requests for series or labels answered at once, a quarter of them only such as need little; others wait.").
		Default(strconv.Itoa(o.store.MaxConcurrency)).IntVar(&o.store.MaxConcurrency)
	limits := &o.store.Limits
	for _, l := range []struct {
		name, help string
		dst        *int64
	}{
		{"store.limits.request-series", "Series that one answer may have; 0 for no limit.", &limits.ResponseSeries},
		{"store.limits.request-samples", "Samples that one answer may have; 0 for no limit.", &limits.ResponseSamples},
		{"store.grpc.touched-series-limit", "Series that one request may match, counted in each block; 0 for no limit.", &limits.TouchedSeries},
		{"store.grpc.series-sample-limit", "Samples that one request may read; 0 for no limit.", &limits.Samples},
	} {
		f.Flag(l.name, l.help).Default("0").Int64Var(l.dst)
	}
	f.Duration("store.log-requests-longer-than", "Time from which on a request is logged with what it took, where the time went, and what it read; 0 for none. The level debug has all of them.", &o.store.LogLongerThan)
	downloaded := size(f, "store.grpc.downloaded-bytes-limit", "Bytes of indexes and chunks that one request may read, from a cache or the bucket; 0 for no limit.", 0)
	request := size(f, "store.request-bytes", "Memory that one request for series or labels may hold.", o.store.RequestBytes)
	memory := size(f, "store.memory-bytes", "Memory that all requests may hold together, others wait; 0 for half of what GOMEMLIMIT leaves beside the caches.", o.store.MemoryBytes)
	cache := size(f, "store.cache-bytes", "Memory for bytes of the bucket that were read; 0 for none.", o.store.Cache.MemoryBytes)
	disk := size(f, "store.cache-disk-bytes", "Room in the data directory for bytes of the bucket that were read; 0 for none.", o.store.Cache.DiskBytes)
	return func() {
		o.store.MemoryBytes = memory()
		o.store.Cache.DiskBytes = disk()
		limits.DownloadedBytes, o.store.RequestBytes, o.store.Cache.MemoryBytes = downloaded(), request(), cache()
	}
}

// size declares a flag that takes bytes, such as 256MB.
func size(f *daemon.Flags, name, help string, value int64) func() int64 {
	text := "0"
	if value > 0 {
		text = fmt.Sprintf("%dMB", value>>20)
	}
	bytes := f.Flag(name, help).Default(text).Bytes()
	return func() int64 { return int64(*bytes) }
}

// ignored lists Thanos' flags for which there is nothing to set here.
func ignored() []daemon.Ignored {
	const (
		wholeIndex = "indexes are read by exact ranges, without a header file"
		ownCache   = "what is read is cached in memory and on disk; see --store.cache-bytes and --store.cache-disk-bytes"
		noParquet  = "parquet blocks are not read"
		noWeb      = "the block viewer is not built yet"
		noSize     = "nothing is guessed"
	)
	return []daemon.Ignored{
		{Name: "cache-index-header", Switch: true, Reason: wholeIndex},
		{Name: "index-cache-size", Reason: ownCache},
		{Name: "chunk-pool-size", Reason: "requests are bounded by --store.request-bytes"},
		{Name: "block-discovery-strategy", Values: []string{"concurrent", "recursive"}, Reason: "the bucket is listed flat"},
		{Name: "block-sync-concurrency", Reason: "nothing is read of a block before a request needs it"},
		{Name: "store.enable-index-header-lazy-reader", Switch: true, Reason: wholeIndex},
		{Name: "store.index-header-lazy-reader-idle-timeout", Reason: wholeIndex},
		{Name: "store.index-header-lazy-download-strategy", Values: []string{"eager", "lazy"}, Reason: wholeIndex},
		{Name: "store.index-header-posting-offsets-in-mem-sampling", Reason: wholeIndex},
		{Name: "store.enable-lazy-expanded-postings", Switch: true},
		{Name: "store.posting-group-max-key-series-ratio"},
		{Name: "debug.series-batch-size", Reason: noSize},
		{Name: "debug.estimated-max-series-size", Reason: noSize},
		{Name: "debug.estimated-max-chunk-size", Reason: noSize},
		{Name: "debug.advertise-compatibility-label", Switch: true},
		{Name: "matcher-cache-size"},
		{Name: "web.disable", Switch: true, Reason: noWeb},
		{Name: "web.external-prefix", Reason: noWeb},
		{Name: "web.prefix-header", Reason: noWeb},
		{Name: "web.disable-cors", Switch: true, Reason: noWeb},
		{Name: "bucket-web-label", Reason: noWeb},
		{Name: "disable-admin-operations", Switch: true, Reason: noWeb},
		{Name: "objstore-parquet.config", Reason: noParquet},
		{Name: "objstore-parquet.config-file", Reason: noParquet},
	}
}

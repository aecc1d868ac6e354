package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/compact"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/fetcher"
)

// options is all an operator can set, one field per package that has settings.
type options struct {
	daemon  daemon.Options
	bucket  bucket.Options
	fetcher fetcher.Options
	compact compact.Options
	wait    bool
	every   time.Duration
}

func parse(args []string, usage io.Writer) (*options, error) {
	o := &options{
		daemon:  daemon.Defaults(),
		bucket:  bucket.Defaults(),
		fetcher: fetcher.Defaults(),
		compact: compact.Defaults(),
		every:   5 * time.Minute,
	}
	f := daemon.NewFlags("compact", "Merge, deduplicate, downsample, expire and delete the blocks of one bucket.", usage)
	o.daemon.Bind(f)
	f.Flag("objstore.config", "Object storage that holds the blocks, as objstore's YAML.").PlaceHolder("<content>").StringVar(&o.bucket.Config)
	f.Flag("objstore.config-file", "Path of a file with that YAML.").PlaceHolder("<path>").StringVar(&o.bucket.ConfigFile)
	f.Flag("wait", "Go on when nothing is left to do, and look at the bucket again after --wait-interval.").Short('w').BoolVar(&o.wait)
	f.Duration("wait-interval", "Time between two looks at the bucket.", &o.every)
	o.bindWork(f)
	finish := o.bindPolicy(f)
	f.Ignore(append(ignored(), refused()...)...)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if err := finish(); err != nil {
		return nil, err
	}
	o.compact.RefreshInterval = o.every
	if !o.bucket.Configured() {
		return nil, errors.New("no object storage; give --objstore.config or --objstore.config-file")
	}
	if o.every <= 0 {
		return nil, fmt.Errorf("--wait-interval=%s; give more than 0", o.every)
	}
	return o, errors.Join(o.daemon.Validate(), o.bucket.Validate(), o.fetcher.Validate(), o.compact.Validate())
}

// bindWork declares the flags that say how work is done.
func (o *options) bindWork(f *daemon.Flags) {
	f.Flag("data-dir", "Directory for the files of running jobs; may be deleted while the compactor is stopped.").
		Default(o.compact.Dir).StringVar(&o.compact.Dir)
	f.Flag("compact.concurrency", "Compactions that run at a time.").
		Default(strconv.Itoa(o.compact.Concurrency)).IntVar(&o.compact.Concurrency)
	f.Flag("downsample.concurrency", "Blocks that are downsampled at a time, beside the compactions.").
		Default(strconv.Itoa(o.compact.DownsampleConcurrency)).IntVar(&o.compact.DownsampleConcurrency)
	f.Flag("debug.lease-duration", "Time after which the streams of a compactor that does not answer are taken over.").
		Hidden().Default(model.Duration(o.compact.LeaseDuration).String()).SetValue((*model.Duration)(&o.compact.LeaseDuration))
	f.Flag("compact.blocks-fetch-concurrency", "For how many blocks one job fetches something at a time.").
		Default(strconv.Itoa(o.compact.FetchConcurrency)).IntVar(&o.compact.FetchConcurrency)
	f.Flag("block-meta-fetch-concurrency", "Small objects read at a time when the bucket is looked at.").
		Default(strconv.Itoa(o.fetcher.Concurrency)).IntVar(&o.fetcher.Concurrency)
}

// bindPolicy declares the flags that say what the bucket should become. The
// function it returns takes the values over after parsing.
func (o *options) bindPolicy(f *daemon.Flags) (finish func() error) {
	p := &o.compact.Policy
	f.Duration("consistency-delay", "Age that a block must have before it is worked on, unless a compactor wrote it.", &p.ConsistencyDelay)
	f.Duration("delete-delay", "Time between the mark on a replaced or expired block and its deletion. Keep it above the store's --ignore-deletion-marks-delay.", &p.DeleteDelay)
	resolutions := []block.Resolution{block.Raw, block.FiveMin, block.OneHour}
	keep := make([]time.Duration, len(resolutions))
	for i, r := range resolutions {
		f.Duration("retention.resolution-"+r.String(), "How long "+r.String()+" samples are kept; 0s for ever. They stay in any case until what outlives them is made of them.", &keep[i])
	}
	f.List("deduplication.replica-label", "External label on which replicas differ. Blocks that differ in it alone become one block without it.", &p.ReplicaLabels)
	function := f.Flag("deduplication.func", "How replicas become one series: default, penalty (as Thanos does) or chain (for exact copies).").
		Default(dedup.Default.String()).String()
	f.Flag("block.native-encodings", "Leave XOR2 chunks and start timestamps in merged blocks as they are. Thanos cannot read them.").
		BoolVar(&o.compact.NativeEncodings)
	f.Flag("downsampling.disable", "Make no blocks of coarser resolutions.").BoolVar(&p.NoDownsampling)
	index := f.Flag("compact.block-max-index-size", "Size that an index may have. What would get a larger one is split by series into blocks with the label "+block.ShardLabel+", which queries do not see.").
		Default("64GB").Bytes()
	whole := f.Flag("compact.block-max-size", "Size that a block may have, split in the same way; 0 for any.").
		Default("0").Bytes()
	levels := f.Flag("debug.block-ranges", "Ranges that blocks are merged to, rising.").Hidden().String()
	return func() (err error) {
		for i, r := range resolutions {
			p.Retention[r] = keep[i]
		}
		p.MaxIndexBytes, p.MaxBlockBytes = int64(*index), int64(*whole)
		if *levels != "" {
			if p.Levels, err = durations(*levels); err != nil {
				return fmt.Errorf("--debug.block-ranges: %w", err)
			}
		}
		if o.compact.Dedup.Func, err = dedup.ParseFunc(*function); err != nil {
			return fmt.Errorf("--deduplication.func: %w", err)
		}
		return nil
	}
}

// durations reads a comma-separated list in Prometheus' syntax.
func durations(list string) (out []time.Duration, err error) {
	for text := range strings.SplitSeq(list, ",") {
		d, err := model.ParseDuration(text)
		if err != nil {
			return nil, fmt.Errorf("range %q: %w", text, err)
		}
		out = append(out, time.Duration(d))
	}
	return out, nil
}

// refused are Thanos' flags that are not built yet and would make the compactor
// work on blocks that the operator excluded if they were ignored.
func refused() []daemon.Ignored {
	const whole = "this compactor works on the whole bucket; choosing blocks is not built yet"
	return []daemon.Ignored{
		{Name: "selector.relabel-config", Reason: whole, Refused: true},
		{Name: "selector.relabel-config-file", Reason: whole, Refused: true},
		{Name: "min-time", Reason: whole, Refused: true},
		{Name: "max-time", Reason: whole, Refused: true},
	}
}

// ignored lists Thanos' flags for which there is nothing to set here.
func ignored() []daemon.Ignored {
	const (
		noHalt = "an error belongs to one job, the others go on"
		noWeb  = "the status page needs no settings: its links are relative, and nothing can be changed through it"
	)
	list := []daemon.Ignored{
		{Name: "debug.halt-on-error", Switch: true, Reason: noHalt},
		{Name: "debug.accept-malformed-index", Switch: true, Reason: noHalt},
		{Name: "compact.skip-block-with-out-of-order-chunks", Switch: true, Reason: noHalt},
		{Name: "compact.enable-vertical-compaction", Switch: true, Reason: "overlapping blocks are always merged"},
		{Name: "debug.max-compaction-level"},
		{Name: "compact.cleanup-interval", Reason: "marked blocks are deleted whenever the bucket is looked at"},
		{Name: "compact.progress-interval", Reason: "the metrics of the backlog follow every plan"},
		{Name: "block-files-concurrency"},
		{Name: "block-discovery-strategy", Values: []string{"concurrent", "recursive"}, Reason: "the bucket is listed flat"},
		{Name: "hash-func", Values: []string{"", "SHA256"}},
	}
	for _, name := range []string{"bucket-web-label", "block-viewer.global.sync-block-interval", "block-viewer.global.sync-block-timeout", "web.route-prefix", "web.external-prefix", "web.prefix-header"} {
		list = append(list, daemon.Ignored{Name: name, Reason: noWeb})
	}
	for _, name := range []string{"web.disable", "web.disable-cors", "disable-admin-operations"} {
		list = append(list, daemon.Ignored{Name: name, Switch: true, Reason: noWeb})
	}
	return list
}

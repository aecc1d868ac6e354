package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/sidecar"
)

// shipEvery is the time between two looks at the local blocks.
const shipEvery = 30 * time.Second

// options is all an operator can set, one field per package that has settings.
type options struct {
	daemon     daemon.Options
	bucket     bucket.Options
	client     promclient.Options
	prometheus sidecar.PrometheusOptions
	shipper    sidecar.ShipperOptions
	store      sidecar.StoreOptions
}

func parse(args []string, usage io.Writer) (*options, error) {
	o := &options{
		daemon:     daemon.Defaults(),
		bucket:     bucket.Defaults(),
		client:     promclient.Defaults(),
		prometheus: sidecar.PrometheusDefaults(),
		shipper:    sidecar.ShipperDefaults(),
		store:      sidecar.StoreDefaults(),
	}
	f := daemon.NewFlags("sidecar", "Stand beside one Prometheus: ship its blocks and answer for its recent data.", usage)
	o.daemon.Bind(f)
	o.daemon.GRPC.Bind(f)
	httpClient := o.bindPrometheus(f)
	finishShipper := o.bindShipper(f)
	finishStore := o.bindStore(f)
	f.Ignore(ignored()...)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	finishShipper()
	finishStore()
	var err error
	if o.client.HTTPConfig, err = httpClient.Read(); err != nil {
		return nil, err
	}
	if err := errors.Join(o.daemon.Validate(), o.bucket.Validate(), o.client.Validate(), o.prometheus.Validate(), o.store.Validate()); err != nil {
		return nil, err
	}
	if o.bucket.Configured() {
		return o, o.shipper.Validate()
	}
	return o, nil
}

// bindPrometheus declares the flags that say where Prometheus is and how to ask it.
func (o *options) bindPrometheus(f *daemon.Flags) *daemon.Content {
	f.Flag("prometheus.url", "URL of Prometheus, with its path prefix.").Default(o.client.URL).StringVar(&o.client.URL)
	f.Duration("prometheus.ready_timeout", "Time that Prometheus may take to be up, with external labels, after the start.", &o.prometheus.ReadyTimeout)
	f.Duration("prometheus.get_config_interval", "Time between two looks at Prometheus' state and external labels.", &o.prometheus.Interval)
	f.Duration("prometheus.get_config_timeout", "Time for one such look.", &o.prometheus.Timeout)
	return f.Content("prometheus.http-client", "Client settings as YAML: basic_auth, bearer_token, tls_config, proxy_url, transport_config.")
}

// bindShipper declares the flags of shipping. The function it returns takes values
// over after parsing.
func (o *options) bindShipper(f *daemon.Flags) (finish func()) {
	f.Flag("objstore.config", "Object storage to ship blocks to, as objstore's YAML; without it nothing is shipped.").PlaceHolder("<content>").StringVar(&o.bucket.Config)
	f.Flag("objstore.config-file", "Path of a file with that YAML.").PlaceHolder("<path>").StringVar(&o.bucket.ConfigFile)
	f.Flag("tsdb.path", "Data directory of Prometheus; used for shipping alone.").Default(o.shipper.Dir).StringVar(&o.shipper.Dir)
	f.Flag("shipper.meta-file-name", "File in the data directory that lists what was shipped; Prometheus can wait for it with --storage.tsdb.delay-compact-file.path.").
		Default(o.shipper.StateFile).StringVar(&o.shipper.StateFile)
	compacted := f.Flag("shipper.upload-compacted", "Ship blocks that Prometheus has merged, too, unless their sources were shipped.").Bool()
	unequal := f.Flag("shipper.ignore-unequal-block-size", "Ship although Prometheus merges blocks by itself and does not wait.").Hidden().Bool()
	return func() {
		if *compacted {
			o.shipper.Compacted = sidecar.ShipCompacted
		}
		if *unequal {
			o.shipper.Durations = sidecar.AnyDurations
		}
	}
}

// bindStore declares the flags of answering. The function it returns takes values
// over after parsing.
func (o *options) bindStore(f *daemon.Flags) (finish func()) {
	var minTime daemon.TimeOrDuration
	f.Time("min-time", "Answer for nothing before this time: RFC3339, or a duration relative to now such as -1d.", "0000-01-01T00:00:00Z", &minTime)
	f.Flag("store.limits.request-series", "Series that one answer may have; 0 for no limit.").Default("0").Int64Var(&o.store.MaxSeries)
	f.Flag("store.limits.request-samples", "Samples that one answer may have; 0 for no limit.").Default("0").Int64Var(&o.store.MaxSamples)
	held := f.Flag("store.limits.request-held-bytes", "Bytes of series that one answer may hold back to put them in order.").
		Default(fmt.Sprintf("%dMB", o.store.MaxHeld>>20)).Bytes()
	return func() {
		o.store.MinTime = func() int64 { return minTime.At(time.Now()).UnixMilli() }
		o.store.MaxHeld = int64(*held)
	}
}

// ignored lists Thanos' flags for which there is nothing to set here.
func ignored() []daemon.Ignored {
	const (
		apart    = "no block waits for another one"
		reloader = "Prometheus is not reloaded from here; run prometheus-config-reloader beside it"
	)
	return []daemon.Ignored{
		{Name: "shipper.allow-out-of-order-uploads", Switch: true, Reason: apart},
		{Name: "shipper.skip-corrupted-blocks", Switch: true, Reason: apart},
		{Name: "shipper.upload-concurrency", Reason: "the files of a block travel in parallel"},
		{Name: "hash-func", Values: []string{"", "SHA256"}, Reason: "sizes are verified in the bucket, checksums by the store's protocol"},
		{Name: "reloader.config-file", Reason: reloader},
		{Name: "reloader.config-envsubst-file", Reason: reloader},
		{Name: "reloader.rule-dir", Reason: reloader},
		{Name: "reloader.watch-interval", Reason: reloader},
		{Name: "reloader.retry-interval", Reason: reloader},
		{Name: "reloader.method", Values: []string{"http", "signal"}, Reason: reloader},
		{Name: "reloader.process-name", Reason: reloader},
	}
}

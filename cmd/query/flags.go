package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/daemon"
	"github.com/varve-io/varve/pkg/dedup"
	"github.com/varve-io/varve/pkg/query"
	"github.com/varve-io/varve/pkg/query/promapi"
)

// options is all an operator can set, one field per package that has settings.
type options struct {
	daemon    daemon.Options
	client    query.ClientOptions
	endpoints query.EndpointOptions
	fanout    query.FanoutOptions
	query     query.Options
	limits    query.ResponseLimits
	api       promapi.Options
}

func parse(args []string, usage io.Writer) (*options, error) {
	o := &options{
		daemon:    daemon.Defaults(),
		client:    query.DefaultClientOptions(),
		endpoints: query.DefaultEndpointOptions(),
		fanout:    query.DefaultFanoutOptions(),
		query:     query.Defaults(),
		api:       promapi.Defaults(),
	}
	f := daemon.NewFlags("query", "PromQL over many Store APIs, for Grafana.", usage)
	o.daemon.Bind(f)
	o.daemon.GRPC.Bind(f)
	finishEndpoints := o.bindEndpoints(f)
	finishQuery := o.bindQuery(f)
	o.bindWeb(f)
	f.Ignore(append(ignored(), refused()...)...)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if err := errors.Join(finishEndpoints(), finishQuery()); err != nil {
		return nil, err
	}
	o.api.Flags = values(f)
	return o, errors.Join(o.daemon.Validate(), o.client.Validate(), o.endpoints.Validate(), o.fanout.Validate(), o.query.Validate(), o.api.Validate())
}

// bindEndpoints declares the flags that say whom to ask, and how.
func (o *options) bindEndpoints(f *daemon.Flags) (finish func() error) {
	e, c := &o.endpoints, &o.client
	f.Flag("endpoint", "Endpoint to ask: host:port, or dns+host:port, dnssrv+name, dnssrvnoa+name to find several through DNS. May be repeated.").
		PlaceHolder("<endpoint>").StringsVar(&e.Addresses)
	f.Flag("endpoint-strict", "host:port of an endpoint that is missed for as long as it does not answer. May be repeated.").
		PlaceHolder("<endpoint>").StringsVar(&e.Strict)
	for _, alias := range []string{"store", "rule", "target", "metadata", "exemplar", "endpoint-group"} {
		f.Flag(alias, "The same as --endpoint.").Hidden().StringsVar(&e.Addresses)
	}
	for _, alias := range []string{"store-strict", "endpoint-group-strict"} {
		f.Flag(alias, "The same as --endpoint-strict.").Hidden().StringsVar(&e.Strict)
	}
	f.Duration("store.sd-dns-interval", "Time between two look-ups of a name.", &e.DNSInterval)
	f.Duration("store.unhealthy-timeout", "Time for which an endpoint that does not answer is reported as missing.", &e.UnhealthyTimeout)
	f.Duration("store.response-timeout", "Time for which an endpoint may be silent during a request; 0 for no limit but that of the query.", &o.fanout.ResponseTimeout)
	f.Flag("endpoint.info-timeout", "Period and deadline of asking endpoints for what they hold.").Hidden().
		Default(e.InfoTimeout.String()).DurationVar(&e.InfoTimeout)
	f.Flag("grpc-client-tls-secure", "Use TLS to endpoints.").BoolVar(&c.Secure)
	f.Flag("grpc-client-tls-skip-verify", "Believe any certificate.").BoolVar(&c.SkipVerify)
	f.Flag("grpc-client-tls-cert", "Path of the client's certificate.").StringVar(&c.Cert)
	f.Flag("grpc-client-tls-key", "Path of its key.").StringVar(&c.Key)
	f.Flag("grpc-client-tls-ca", "Path of the authority that endpoints' certificates come from; empty for the system's.").StringVar(&c.CA)
	f.Flag("grpc-client-tls-min-version", "Lowest TLS version: 1.0, 1.1, 1.2 or 1.3.").Hidden().
		Default(c.MinVersion).EnumVar(&c.MinVersion, "1.0", "1.1", "1.2", "1.3")
	f.Flag("grpc-client-server-name", "Name that endpoints' certificates must have; empty for that of the address.").StringVar(&c.ServerName)
	f.Flag("grpc-compression", "Compression between here and endpoints: none or snappy.").Default(c.Compression).EnumVar(&c.Compression, "none", "snappy")
	selector := f.Flag("selector-label", "Label that this querier adds to what it announces to queriers above it. May be repeated.").
		PlaceHolder(`<name>="<value>"`).Strings()
	return func() (err error) {
		o.fanout.SelectorLabels, err = parseLabels(*selector)
		return err
	}
}

// bindQuery declares the flags of evaluation and its limits.
func (o *options) bindQuery(f *daemon.Flags) (finish func() error) {
	q := &o.query
	f.List("query.replica-label", "Label that tells replicas of one Prometheus apart. May be repeated.", &q.ReplicaLabels)
	f.Duration("query.timeout", "Time that a query may take.", &q.Timeout)
	f.Flag("query.max-concurrent", "Queries evaluated at once; others wait.").Default(strconv.Itoa(q.MaxConcurrent)).IntVar(&q.MaxConcurrent)
	f.Flag("query.max-concurrent-select", "Selectors of one query that are fetched at once.").Default(strconv.Itoa(q.MaxConcurrentSelect)).IntVar(&q.MaxConcurrentSelect)
	samples := f.Flag("query.max-samples", "Samples that one query may hold while it is evaluated; 0 for an eighth of the process' memory, at most 50 million.").Default("0").Int()
	perQuery := f.Flag("query.max-bytes", "Memory for the series of one query; 0 for a quarter of the process' memory.").Default("0").Bytes()
	total := f.Flag("query.max-total-bytes", "Memory for the series of all running queries; 0 for half of the process' memory.").Default("0").Bytes()
	function := f.Flag("deduplication.func", "How replicas become one series: default, penalty (as Thanos does) or chain (for exact copies).").
		Default(dedup.Default.String()).String()
	f.Duration("query.lookback-delta", "How far back an instant selector looks for a sample.", &q.LookbackDelta)
	f.Duration("query.default-evaluation-interval", "Step of a subquery that has none.", &q.DefaultEvaluationInterval)
	f.Duration("query.default-step", "Least step of a range query that has none.", &o.api.DefaultStep)
	f.Flag("query.auto-downsampling", "Use data as coarse as a fifth of the step unless a query says otherwise.").
		Default(strconv.FormatBool(q.AutoDownsampling)).BoolVar(&q.AutoDownsampling)
	instant := model.Duration(0)
	f.Flag("query.instant.default.max_source_resolution", "The same for instant queries.").Hidden().Default("0s").SetValue(&instant)
	f.Flag("query.partial-response", "Answer with what there is, and a warning, when an endpoint is missing, unless a query says otherwise.").
		Default(strconv.FormatBool(o.api.PartialResponse)).BoolVar(&o.api.PartialResponse)
	f.Duration("query.metadata.default-time-range", "How far back label and series calls without a start look; 0 for everything.", &o.api.MetadataRange)
	features := f.Flag("enable-feature", "Feature to switch on: promql-experimental-functions. May be repeated.").PlaceHolder("<feature>").
		Enums("promql-experimental-functions", "promql-negative-offset", "promql-at-modifier", "query-pushdown")
	f.Flag("store.limits.request-series", "Series that one answer of the Store API may have; 0 for no limit.").Default("0").Int64Var(&o.limits.Series)
	f.Flag("store.limits.request-samples", "Samples that one answer of the Store API may have; 0 for no limit.").Default("0").Int64Var(&o.limits.Samples)
	return func() (err error) {
		if q.Dedup.Func, err = dedup.ParseFunc(*function); err != nil {
			return fmt.Errorf("--deduplication.func: %w", err)
		}
		for _, feature := range *features {
			q.ExperimentalFunctions = q.ExperimentalFunctions || feature == "promql-experimental-functions"
		}
		q.InstantMaxSourceResolution = time.Duration(instant)
		q.MaxBytes, q.MaxTotalBytes = query.ByteLimits(processMemory())
		if q.MaxSamples = *samples; *samples == 0 {
			q.MaxSamples = query.SampleLimit(processMemory())
		}
		if *perQuery > 0 {
			q.MaxBytes = int64(*perQuery)
		}
		if *total > 0 {
			q.MaxTotalBytes = int64(*total)
		}
		return nil
	}
}

// bindWeb declares the flags of the HTTP API.
func (o *options) bindWeb(f *daemon.Flags) {
	f.Flag("web.route-prefix", "Path before the API's paths; empty for --web.external-prefix.").StringVar(&o.api.RoutePrefix)
	f.Flag("web.external-prefix", "Path under which users reach this querier.").StringVar(&o.api.ExternalPrefix)
	f.Flag("web.disable-cors", "Leave CORS headers out.").BoolVar(&o.api.DisableCORS)
}

// parseLabels reads name="value" texts.
func parseLabels(texts []string) (labels.Labels, error) {
	b := labels.NewBuilder(labels.EmptyLabels())
	for _, text := range texts {
		name, quoted, _ := strings.Cut(text, "=")
		value, err := strconv.Unquote(quoted)
		if err != nil || !model.UTF8Validation.IsValidLabelName(name) {
			return labels.EmptyLabels(), fmt.Errorf(`--selector-label=%s: give name="value"`, text)
		}
		b.Set(name, value)
	}
	return b.Labels(), nil
}

// processMemory is the memory that the process may take, in bytes: Go's own
// limit, else the container's, else 2 GiB.
func processMemory() int64 {
	const unknown = 2 << 30
	if limit := debug.SetMemoryLimit(-1); limit < 1<<60 {
		return limit
	}
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max")
	if err != nil {
		return unknown
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no limit
	if err != nil {
		return unknown
	}
	return limit
}

// values are the flags as /api/v1/status/flags shows them.
func values(f *daemon.Flags) map[string]string {
	all := map[string]string{}
	for _, flag := range f.Model().Flags {
		if !flag.Hidden {
			all[flag.Name] = flag.Value.String()
		}
	}
	return all
}

// ignored lists Thanos' flags for which there is nothing to set here.
func ignored() []daemon.Ignored {
	const (
		oneEngine = "there is one engine"
		local     = "queries are evaluated here"
		noTenants = "tenants are not told apart"
		partial   = "--query.partial-response decides for all of them"
		noUI      = "there is no page that would show it"
	)
	return []daemon.Ignored{
		{Name: "query.promql-engine", Values: []string{"prometheus", "thanos"}, Reason: oneEngine},
		{Name: "query.disable-fallback", Switch: true, Reason: oneEngine},
		{Name: "query.mode", Values: []string{"local", "distributed"}, Reason: local},
		{Name: "query.partition-label", Reason: local},
		{Name: "query.distributed-with-overlapping-interval", Switch: true, Reason: local},
		{Name: "query.dynamic-lookback-delta", Switch: true, Reason: "downsampled data are found with any lookback"},
		{Name: "query.active-query-path", Reason: "running queries are not written to disk"},
		{Name: "query.telemetry.request-duration-seconds-quantiles"},
		{Name: "query.telemetry.request-samples-quantiles"},
		{Name: "query.telemetry.request-series-seconds-quantiles"},
		{Name: "query.conn-metric.label"},
		{Name: "rule.partial-response", Switch: true, Reason: partial},
		{Name: "target.partial-response", Switch: true, Reason: partial},
		{Name: "metric-metadata.partial-response", Switch: true, Reason: partial},
		{Name: "exemplar.partial-response", Switch: true, Reason: partial},
		{Name: "status.partial-response", Switch: true, Reason: partial},
		{Name: "alert.query-url", Reason: noUI},
		{Name: "web.prefix-header", Reason: noUI},
		{Name: "query.tenant-header", Reason: noTenants},
		{Name: "query.default-tenant-id", Reason: noTenants},
		{Name: "query.tenant-certificate-field", Reason: noTenants},
		{Name: "query.tenant-label-name", Reason: noTenants},
		{Name: "grpc.proxy-strategy", Values: []string{"eager", "lazy"}},
		{Name: "query.lazy-retrieval-max-buffered-responses"},
		{Name: "store.sd-dns-resolver", Values: []string{"miekgdns", "golang"}, Reason: "Go's resolver is used"},
		{Name: "store.sd-interval"},
		{Name: "endpoint.sd-config-reload-interval"},
	}
}

// refused are Thanos' flags that are not built yet and would lead to wrong
// answers if they were ignored.
func refused() []daemon.Ignored {
	const (
		discovery = "endpoints are not read from files yet; give each as --endpoint"
		selection = "endpoints cannot be chosen by relabelling yet"
	)
	return []daemon.Ignored{
		{Name: "endpoint.sd-config", Reason: discovery, Refused: true},
		{Name: "endpoint.sd-config-file", Reason: discovery, Refused: true},
		{Name: "store.sd-files", Reason: discovery, Refused: true},
		{Name: "selector.relabel-config", Reason: selection, Refused: true},
		{Name: "selector.relabel-config-file", Reason: selection, Refused: true},
		{Name: "query.enforce-tenancy", Reason: "tenants are not told apart yet, so nothing would be enforced", Switch: true, Refused: true},
		{Name: "query.enable-x-functions", Reason: "xrate, xincrease and xdelta are not known here", Switch: true, Refused: true},
	}
}

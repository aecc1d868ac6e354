package promapi

import (
	"cmp"
	"context"
	"log/slog"
	"net/http"
	"path"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/klauspost/compress/gzhttp"
	"github.com/prometheus/common/version"

	"github.com/varve-io/varve/pkg/query"
)

// Options are the settings of the API.
type Options struct {
	// PartialResponse is what a request means that does not say.
	PartialResponse bool
	// DefaultStep is the least step of a range query without one.
	DefaultStep time.Duration
	// MetadataRange is how far label and series calls without a start look back; 0 means everything.
	MetadataRange time.Duration
	// DisableCORS leaves the CORS headers out.
	DisableCORS bool
	// RoutePrefix is put before every path; ExternalPrefix, under which users
	// reach us through a proxy, stands in when it is empty.
	RoutePrefix, ExternalPrefix string
	// Flags are what /api/v1/status/flags shows.
	Flags map[string]string
}

// Defaults returns the default settings.
func Defaults() Options {
	return Options{PartialResponse: true, DefaultStep: time.Second}
}

// Validate reports every setting that cannot work.
func (o Options) Validate() error {
	if o.DefaultStep < time.Second {
		return errDefaultStep
	}
	return nil
}

// endpoints tells about the endpoints.
type endpoints interface {
	Status() []query.EndpointStatus
}

// Backend is what the API calls.
type Backend struct {
	Engine    *query.Engine
	Endpoints endpoints
	Proxy     *query.Proxy
}

// API answers HTTP requests. It is an http.Handler.
type API struct {
	Backend
	opts    Options
	log     *slog.Logger
	now     func() time.Time
	started time.Time
	handler http.Handler
}

// Instrument wraps the handler of one endpoint, to count and time its requests.
type Instrument func(name string, h http.Handler) http.Handler

// New returns the API under <RoutePrefix>/api/v1.
func New(b Backend, o Options, log *slog.Logger, instrument Instrument) *API {
	a := &API{Backend: b, opts: o, log: log, now: time.Now, started: time.Now().UTC()}
	mux := http.NewServeMux()
	base := path.Join("/", cmp.Or(o.RoutePrefix, o.ExternalPrefix), "api/v1")
	handle := func(path, name string, fn endpoint, methods ...string) {
		h := instrument(name, a.serve(fn))
		for _, m := range methods {
			mux.Handle(m+" "+base+path, h)
		}
	}
	const get, post = http.MethodGet, http.MethodPost
	handle("/query", "query", a.instant, get, post)
	handle("/query_range", "query_range", a.rangeQuery, get, post)
	handle("/labels", "label_names", a.labelNames, get, post)
	handle("/label/{name}/values", "label_values", a.labelValues, get, post)
	handle("/series", "series", a.series, get, post)
	handle("/stores", "stores", a.stores, get)
	handle("/metadata", "metadata", a.metadata, get)
	handle("/rules", "rules", a.rules, get)
	handle("/alerts", "alerts", a.alerts, get)
	handle("/targets", "targets", a.targets, get)
	handle("/query_exemplars", "exemplars", a.exemplars, get, post)
	handle("/status/buildinfo", "status_build", a.buildInfo, get)
	handle("/status/flags", "status_flags", a.flags, get)
	handle("/status/runtimeinfo", "status_runtime", a.runtimeInfo, get)
	mux.Handle("OPTIONS "+base+"/", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	mux.HandleFunc(base+"/", func(w http.ResponseWriter, r *http.Request) {
		a.respondError(w, &apiError{kind: notFound, err: errNoSuchPath(r.URL.Path)})
	})
	a.handler = gzhttp.GzipHandler(a.cors(mux))
	return a
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.handler.ServeHTTP(w, r) }

func (a *API) cors(next http.Handler) http.Handler {
	if a.opts.DisableCORS {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Headers", "Accept, Accept-Encoding, Authorization, Content-Type, Origin")
		h.Set("Access-Control-Allow-Methods", "GET, POST, OPTIONS")
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Expose-Headers", "Date")
		next.ServeHTTP(w, r)
	})
}

// endpoint answers one request; an error is an *apiError or is taken for one of evaluation.
type endpoint func(ctx context.Context, p *params) (answer, error)

// serve parses the form, calls the endpoint and writes what it says.
func (a *API) serve(fn endpoint) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			a.respondError(w, badData("parse the form: %w", err))
			return
		}
		p := &params{api: a, form: r.Form, path: r.PathValue}
		ctx, cancel := p.context(r.Context())
		defer cancel()
		ans, err := fn(ctx, p)
		defer ans.close()
		if err == nil {
			err = p.err()
		}
		if err != nil {
			a.respondError(w, asAPIError(r.Context(), err))
			return
		}
		a.respond(w, p.form.Get("query"), ans)
	})
}

// buildInfo answers as the Prometheus whose PromQL we carry, because clients
// choose their features by that version.
func (a *API) buildInfo(context.Context, *params) (answer, error) {
	return answer{data: map[string]string{
		"version":   prometheusVersion(),
		"revision":  version.GetRevision(),
		"branch":    version.Branch,
		"buildUser": version.BuildUser,
		"buildDate": version.BuildDate,
		"goVersion": runtime.Version(),
	}}, nil
}

// prometheusVersion is the release of the Prometheus module: v0.315.0 is 3.15.0.
func prometheusVersion() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			var minor, patch int
			if m.Path == "github.com/prometheus/prometheus" && scanVersion(m.Version, &minor, &patch) {
				return formatVersion(minor, patch)
			}
		}
	}
	return formatVersion(315, 0)
}

func (a *API) flags(context.Context, *params) (answer, error) {
	return answer{data: a.opts.Flags}, nil
}

func (a *API) runtimeInfo(context.Context, *params) (answer, error) {
	return answer{data: map[string]any{
		"startTime":      a.started,
		"serverTime":     a.now().UTC(),
		"CWD":            "",
		"goroutineCount": runtime.NumGoroutine(),
		"GOMAXPROCS":     runtime.GOMAXPROCS(0),
		"GOMEMLIMIT":     debug.SetMemoryLimit(-1),
		"lastConfigTime": a.started,
	}}, nil
}

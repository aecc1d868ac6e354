package daemon

import (
	"errors"
	"fmt"
	"time"
)

// Options are the settings that every component has.
type Options struct {
	LogLevel  string // error, warn, info or debug
	LogFormat string // logfmt, json, or journald, which means logfmt
	DebugName string // added to every log line as name

	HTTPAddress string        // host:port; port 0 takes a free one
	HTTPGrace   time.Duration // for requests in flight when the process stops
	HTTPConfig  string        // path of an exporter-toolkit web configuration; empty: plain HTTP

	AutoMemLimit  bool    // set GOMEMLIMIT from the cgroup's limit
	MemLimitRatio float64 // GOMEMLIMIT's share of that limit, in (0,1]

	GRPC GRPCOptions

	flags *Flags // where New finds the flags without effect
}

// GRPCOptions are the settings of a component that answers gRPC. A component
// without gRPC leaves them zero.
type GRPCOptions struct {
	Address          string        // host:port; empty: no gRPC server
	Grace            time.Duration // for calls in flight when the process stops
	MaxConnectionAge time.Duration // after which a client is asked to connect anew

	Cert, Key, ClientCA string   // paths of PEM files; ClientCA makes client certificates mandatory
	MinVersion          string   // 1.0 to 1.3
	Ciphers, Curves     []string // Go's names; empty: Go's choice
}

// Defaults returns the settings of a component without a gRPC server.
func Defaults() Options {
	return Options{
		LogLevel:      "info",
		LogFormat:     "logfmt",
		HTTPAddress:   "0.0.0.0:10902",
		HTTPGrace:     2 * time.Minute,
		MemLimitRatio: 0.9,
	}
}

// GRPCDefaults returns the settings of a gRPC server without TLS.
func GRPCDefaults() GRPCOptions {
	return GRPCOptions{
		Address:          "0.0.0.0:10901",
		Grace:            2 * time.Minute,
		MaxConnectionAge: time.Hour,
		MinVersion:       "1.3",
	}
}

// Bind declares the flags of o in f; what o holds is their default.
func (o *Options) Bind(f *Flags) {
	o.BindLog(f)
	o.bindProcess(f)
}

// BindLog declares the flags of the log alone, for a program that ends by itself
// and serves nothing.
func (o *Options) BindLog(f *Flags) {
	o.flags = f
	f.Flag("log.level", "Least severe messages that are logged: error, warn, info or debug.").
		Default(o.LogLevel).EnumVar(&o.LogLevel, "error", "warn", "info", "debug")
	f.Flag("log.format", "Format of log lines: logfmt or json.").
		Default(o.LogFormat).EnumVar(&o.LogFormat, "logfmt", "json", "journald")
	f.Flag("debug.name", "Name added to log lines.").Hidden().StringVar(&o.DebugName)
}

func (o *Options) bindProcess(f *Flags) {
	f.Flag("http-address", "Address of the HTTP server: metrics, probes, profiles.").
		Default(o.HTTPAddress).StringVar(&o.HTTPAddress)
	f.Duration("http-grace-period", "Time for HTTP requests in flight when stopping.", &o.HTTPGrace)
	f.Flag("http.config", "Path of a web configuration (TLS, basic auth) as Prometheus' exporter-toolkit reads it.").
		Default(o.HTTPConfig).StringVar(&o.HTTPConfig)
	f.Flag("enable-auto-gomemlimit", "Set GOMEMLIMIT from the memory limit of the container.").
		BoolVar(&o.AutoMemLimit)
	f.Flag("auto-gomemlimit.ratio", "Share of that limit, above 0 and up to 1.").
		Default(fmt.Sprint(o.MemLimitRatio)).Float64Var(&o.MemLimitRatio)
	f.Ignore(
		Ignored{Name: "tracing.config", Reason: "tracing is not built yet"},
		Ignored{Name: "tracing.config-file", Reason: "tracing is not built yet"},
	)
}

// Bind declares the flags of the gRPC server in f; what o holds is their
// default, or GRPCDefaults if o has no address.
func (o *GRPCOptions) Bind(f *Flags) {
	if o.Address == "" {
		*o = GRPCDefaults()
	}
	f.Flag("grpc-address", "Address of the gRPC server.").Default(o.Address).StringVar(&o.Address)
	f.Duration("grpc-grace-period", "Time for gRPC calls in flight when stopping.", &o.Grace)
	f.Duration("grpc-server-max-connection-age", "Age at which a gRPC client is asked to connect anew.", &o.MaxConnectionAge)
	f.Flag("grpc-server-tls-cert", "Path of the server's certificate; empty for no TLS. Changed files are read again.").StringVar(&o.Cert)
	f.Flag("grpc-server-tls-key", "Path of the certificate's key.").StringVar(&o.Key)
	f.Flag("grpc-server-tls-client-ca", "Path of the authority that client certificates must come from; empty for none.").StringVar(&o.ClientCA)
	f.Flag("grpc-server-tls-min-version", "Lowest TLS version: 1.0, 1.1, 1.2 or 1.3.").
		Default(o.MinVersion).EnumVar(&o.MinVersion, "1.0", "1.1", "1.2", "1.3")
	f.List("grpc-server-tls-ciphers", "TLS 1.2 cipher suites, by Go's names.", &o.Ciphers)
	f.List("grpc-server-tls-curves", "TLS curves, by Go's names.", &o.Curves)
	f.Ignore(
		Ignored{Name: "request.logging-config", Reason: "request logging is not built yet"},
		Ignored{Name: "request.logging-config-file", Reason: "request logging is not built yet"},
	)
}

// Validate reports every setting that contradicts another or itself. It reads no
// files.
func (o Options) Validate() error {
	var errs []error
	if o.HTTPAddress == "" {
		errs = append(errs, errors.New("--http-address is empty; give host:port"))
	}
	if !(o.MemLimitRatio > 0 && o.MemLimitRatio <= 1) {
		errs = append(errs, fmt.Errorf("--auto-gomemlimit.ratio=%v is not above 0 and up to 1", o.MemLimitRatio))
	}
	return errors.Join(append(errs, o.GRPC.Validate())...)
}

// Validate reports every setting that contradicts another or itself. It reads no
// files.
func (o GRPCOptions) Validate() error {
	var errs []error
	if (o.Cert == "") != (o.Key == "") {
		errs = append(errs, errors.New("--grpc-server-tls-cert and --grpc-server-tls-key need each other"))
	}
	if o.ClientCA != "" && o.Cert == "" {
		errs = append(errs, errors.New("--grpc-server-tls-client-ca needs --grpc-server-tls-cert and --grpc-server-tls-key"))
	}
	_, err := o.tlsChoices()
	return errors.Join(append(errs, err)...)
}

package promclient

import (
	"errors"
	"fmt"
	"net/url"
)

// Options are the settings of a Client.
type Options struct {
	// URL is where Prometheus listens, with its path prefix (--prometheus.url).
	URL string
	// HTTPConfig is the YAML of --prometheus.http-client; empty means plain HTTP.
	HTTPConfig []byte
	// MaxFrame is the largest frame of remote read in bytes. Prometheus cuts its
	// frames at --storage.remote.read-max-bytes-in-frame, 1 MiB unless changed,
	// plus at most one chunk.
	MaxFrame int64
	// MaxAnswer is the largest answer in bytes of everything but streamed remote read.
	MaxAnswer int64
}

// Defaults returns the settings for a Prometheus on the same machine.
func Defaults() Options {
	return Options{URL: "http://localhost:9090", MaxFrame: 64 << 20, MaxAnswer: 256 << 20}
}

// Validate reports every setting that no client can be made of.
func (o Options) Validate() error {
	var errs []error
	if u, err := url.Parse(o.URL); err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		errs = append(errs, fmt.Errorf("--prometheus.url=%s is not a URL such as http://localhost:9090/prefix", o.URL))
	}
	if o.MaxFrame <= 0 || o.MaxAnswer <= 0 {
		errs = append(errs, fmt.Errorf("the limits of frames (%d) and answers (%d) must be above 0", o.MaxFrame, o.MaxAnswer))
	}
	return errors.Join(errs...)
}

package promclient

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"go.yaml.in/yaml/v2"
)

// httpConfig is the YAML of --prometheus.http-client: keys of Prometheus' own
// client configuration, and transport_config.
type httpConfig struct {
	BasicAuth       *config.BasicAuth     `yaml:"basic_auth"`
	Authorization   *config.Authorization `yaml:"authorization"`
	BearerToken     config.Secret         `yaml:"bearer_token"`
	BearerTokenFile string                `yaml:"bearer_token_file"`
	ProxyURL        config.URL            `yaml:"proxy_url"`
	TLS             config.TLSConfig      `yaml:"tls_config"`
	Transport       transportConfig       `yaml:"transport_config"`
}

// transportConfig sets net/http's transport; a zero number means no limit.
type transportConfig struct {
	MaxIdleConns          int            `yaml:"max_idle_conns"`
	MaxIdleConnsPerHost   int            `yaml:"max_idle_conns_per_host"`
	IdleConnTimeout       model.Duration `yaml:"idle_conn_timeout"`
	ResponseHeaderTimeout model.Duration `yaml:"response_header_timeout"`
	ExpectContinueTimeout model.Duration `yaml:"expect_continue_timeout"`
	MaxConnsPerHost       int            `yaml:"max_conns_per_host"`
	DisableCompression    bool           `yaml:"disable_compression"`
	TLSHandshakeTimeout   model.Duration `yaml:"tls_handshake_timeout"`
}

func defaultHTTPConfig() httpConfig {
	return httpConfig{Transport: transportConfig{
		MaxIdleConns:          100,
		MaxIdleConnsPerHost:   100,
		IdleConnTimeout:       model.Duration(90 * time.Second),
		ExpectContinueTimeout: model.Duration(10 * time.Second),
		TLSHandshakeTimeout:   model.Duration(10 * time.Second),
	}}
}

// newTransport makes a round tripper from YAML. Unknown keys are errors.
// Certificates and secrets in files are read again when they change.
func newTransport(content []byte) (http.RoundTripper, error) {
	c := defaultHTTPConfig()
	if err := yaml.UnmarshalStrict(content, &c); err != nil {
		return nil, fmt.Errorf("parse --prometheus.http-client: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("--prometheus.http-client: %w", err)
	}
	return c.roundTripper()
}

// validate applies Prometheus' own rules, by which it also folds the bearer
// token into authorization.
func (c *httpConfig) validate() error {
	common := config.HTTPClientConfig{
		BasicAuth: c.BasicAuth, Authorization: c.Authorization, BearerToken: c.BearerToken,
		BearerTokenFile: c.BearerTokenFile, TLSConfig: c.TLS, ProxyConfig: config.ProxyConfig{ProxyURL: c.ProxyURL},
	}
	if err := errors.Join(common.Validate(), c.TLS.Validate()); err != nil {
		return err
	}
	c.Authorization = common.Authorization
	return nil
}

func (c *httpConfig) roundTripper() (http.RoundTripper, error) {
	tlsConfig, err := config.NewTLSConfig(&c.TLS)
	if err != nil {
		return nil, fmt.Errorf("set up TLS to Prometheus: %w", err)
	}
	plain := func(tc *tls.Config) (http.RoundTripper, error) { return c.authenticate(c.transport(tc)), nil }
	files := config.TLSRoundTripperSettings{CA: secret(config.Secret(c.TLS.CA), c.TLS.CAFile)}
	files.Cert = secret(config.Secret(c.TLS.Cert), c.TLS.CertFile)
	files.Key = secret(c.TLS.Key, c.TLS.KeyFile)
	if files == (config.TLSRoundTripperSettings{}) {
		return plain(tlsConfig)
	}
	rt, err := config.NewTLSRoundTripper(tlsConfig, files, plain)
	if err != nil {
		return nil, fmt.Errorf("set up TLS to Prometheus: %w", err)
	}
	return rt, nil
}

func (c *httpConfig) transport(tc *tls.Config) *http.Transport {
	t := c.Transport
	rt := &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:       tc,
		MaxIdleConns:          t.MaxIdleConns,
		MaxIdleConnsPerHost:   t.MaxIdleConnsPerHost,
		IdleConnTimeout:       time.Duration(t.IdleConnTimeout),
		ResponseHeaderTimeout: time.Duration(t.ResponseHeaderTimeout),
		ExpectContinueTimeout: time.Duration(t.ExpectContinueTimeout),
		MaxConnsPerHost:       t.MaxConnsPerHost,
		DisableCompression:    t.DisableCompression,
		TLSHandshakeTimeout:   time.Duration(t.TLSHandshakeTimeout),
	}
	if c.ProxyURL.URL != nil {
		rt.Proxy = http.ProxyURL(c.ProxyURL.URL)
	}
	return rt
}

func (c *httpConfig) authenticate(rt http.RoundTripper) http.RoundTripper {
	if a := c.Authorization; a != nil {
		rt = config.NewAuthorizationCredentialsRoundTripper(a.Type, secret(a.Credentials, a.CredentialsFile), rt)
	}
	if b := c.BasicAuth; b != nil {
		rt = config.NewBasicAuthRoundTripper(secret(config.Secret(b.Username), b.UsernameFile), secret(b.Password, b.PasswordFile), rt)
	}
	return rt
}

// secret reads a text, or the file that holds it; nil is the absent secret.
func secret(text config.Secret, file string) config.SecretReader {
	switch {
	case text != "":
		return config.NewInlineSecret(string(text))
	case file != "":
		return config.NewFileSecret(file)
	}
	return nil
}

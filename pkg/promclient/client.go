package promclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/prometheus/common/version"
)

// Client asks one Prometheus. It is safe for concurrent use.
type Client struct {
	base *url.URL
	http *http.Client
	opts Options
}

// New returns a client. It asks nothing yet.
func New(o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	base, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("--prometheus.url: %w", err)
	}
	rt, err := newTransport(o.HTTPConfig)
	if err != nil {
		return nil, err
	}
	return &Client{base: base, http: &http.Client{Transport: rt}, opts: o}, nil
}

// URL is where the client asks.
func (c *Client) URL() string { return c.base.Redacted() }

// Close gives idle connections back. Streams that are being read go on.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ErrUnreachable marks errors of the way to Prometheus: no connection, a
// timeout, an answer that breaks off.
var ErrUnreachable = errors.New("no answer")

// StatusError is an answer of Prometheus other than 2xx.
type StatusError struct {
	Status  int    // of HTTP
	Type    string // errorType of the API, if any
	Message string // the API's error, or the beginning of the body
}

func (e *StatusError) Error() string {
	if e.Type != "" {
		return fmt.Sprintf("Prometheus answered %d, %s: %s", e.Status, e.Type, e.Message)
	}
	return fmt.Sprintf("Prometheus answered %d: %s", e.Status, e.Message)
}

// envelope is what every answer of the API is wrapped in.
type envelope struct {
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
}

// get asks the API with the parameters in the URL and decodes the data of the answer.
func (c *Client) get(ctx context.Context, path string, params url.Values, out any) (warnings []string, err error) {
	return c.ask(ctx, http.MethodGet, path, params, out)
}

// post is get with the parameters in the body, where they may be long.
func (c *Client) post(ctx context.Context, path string, params url.Values, out any) (warnings []string, err error) {
	return c.ask(ctx, http.MethodPost, path, params, out)
}

func (c *Client) ask(ctx context.Context, method, path string, params url.Values, out any) (warnings []string, err error) {
	u := c.base.JoinPath(path)
	var body io.Reader
	if method == http.MethodPost {
		body = strings.NewReader(params.Encode())
	} else {
		u.RawQuery = params.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("ask Prometheus: %w", err)
	}
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	data, err := c.read(req)
	if err != nil {
		return nil, err
	}
	var e envelope
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, fmt.Errorf("read answer of %s: %w; is --prometheus.url right?", u.Redacted(), err)
	}
	if err := json.Unmarshal(e.Data, out); err != nil {
		return nil, fmt.Errorf("read data of %s: %w", u.Redacted(), err)
	}
	return e.Warnings, nil
}

// read sends a request and returns the whole body of a good answer.
func (c *Client) read(req *http.Request) (_ []byte, err error) {
	res, err := c.do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	return c.whole(req, res.Body)
}

// whole reads a body that must not be longer than an answer may be.
func (c *Client) whole(req *http.Request, body io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(body, c.opts.MaxAnswer+1))
	if err != nil {
		return nil, unreachable(req, err)
	}
	if int64(len(data)) > c.opts.MaxAnswer {
		return nil, fmt.Errorf("read answer of %s: it is longer than %d bytes; add matchers or shorten the time range", req.URL.Redacted(), c.opts.MaxAnswer)
	}
	return data, nil
}

// do sends a request; the caller closes the body of a good answer.
func (c *Client) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", "varve-sidecar/"+version.Version)
	res, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(req, err)
	}
	if res.StatusCode/100 == 2 {
		return res, nil
	}
	const enough = 4 << 10 // of a body that may be anybody's error page
	text, err := io.ReadAll(io.LimitReader(res.Body, enough))
	return nil, errors.Join(statusError(res.StatusCode, text), err, res.Body.Close())
}

func statusError(status int, body []byte) *StatusError {
	var e envelope
	if err := json.Unmarshal(body, &e); err == nil && e.Error != "" {
		return &StatusError{Status: status, Type: e.ErrorType, Message: e.Error}
	}
	return &StatusError{Status: status, Message: string(bytes.TrimSpace(body))}
}

func unreachable(req *http.Request, err error) error {
	if inURL, ok := errors.AsType[*url.Error](err); ok { // it repeats method and URL, with parameters
		err = inURL.Err
	}
	return fmt.Errorf("ask %s: %w: %w", req.URL.Scheme+"://"+req.URL.Host+req.URL.Path, ErrUnreachable, err)
}

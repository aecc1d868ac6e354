package harness

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// PromAPI asks the Prometheus HTTP API of one server. Parameters beyond
// Prometheus' own (dedup, partial_response, …) go into Params. The zero value
// of Params is ready for use.
type PromAPI struct {
	// URL is the server's, without a trailing slash.
	URL string
	// Params are added to every request.
	Params url.Values
}

// With returns a copy that adds one parameter to every request.
func (a PromAPI) With(name, value string) PromAPI {
	params := url.Values{}
	for k, v := range a.Params {
		params[k] = append([]string(nil), v...)
	}
	params.Add(name, value)
	a.Params = params
	return a
}

// APIError is an answer whose status is not "success".
type APIError struct {
	// HTTPStatus is the HTTP status code.
	HTTPStatus int
	// Type is errorType (bad_data, execution, timeout, …), Message is error.
	Type, Message string
}

func (e *APIError) Error() string {
	return fmt.Sprintf("%d %s: %s", e.HTTPStatus, e.Type, e.Message)
}

// Sample is one float value at a time.
type Sample struct {
	// T is Unix milliseconds.
	T int64
	V float64
}

// UnmarshalJSON reads Prometheus' pair of seconds and quoted value.
func (s *Sample) UnmarshalJSON(b []byte) error {
	var (
		t float64
		v string
	)
	if err := json.Unmarshal(b, &[2]any{&t, &v}); err != nil {
		return fmt.Errorf("decode sample %s: %w", b, err)
	}
	value, err := strconv.ParseFloat(v, 64)
	s.T, s.V = int64(math.Round(t*1000)), value
	return err
}

// Series is one element of a vector or matrix. An instant vector's single
// sample stands in Samples.
type Series struct {
	Metric  map[string]string
	Samples []Sample
	// Histograms are native histogram samples as the server wrote them.
	Histograms []json.RawMessage
}

// UnmarshalJSON reads an element of either a vector or a matrix.
func (s *Series) UnmarshalJSON(b []byte) error {
	var e struct {
		Metric     map[string]string `json:"metric"`
		Value      *Sample           `json:"value"`
		Values     []Sample          `json:"values"`
		Histogram  json.RawMessage   `json:"histogram"`
		Histograms []json.RawMessage `json:"histograms"`
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	*s = Series{Metric: e.Metric, Samples: e.Values, Histograms: e.Histograms}
	if e.Value != nil {
		s.Samples = []Sample{*e.Value}
	}
	if e.Histogram != nil {
		s.Histograms = []json.RawMessage{e.Histogram}
	}
	return nil
}

// Answer is the result of a query.
type Answer struct {
	// Type is vector, matrix or scalar.
	Type string
	// Series in the server's order; a scalar is one series without labels.
	Series   []Series
	Warnings []string
	Infos    []string
}

// Query evaluates an expression at one instant.
func (a PromAPI) Query(ctx context.Context, expr string, at time.Time) (*Answer, error) {
	return a.query(ctx, "/api/v1/query", url.Values{"query": {expr}, "time": {seconds(at)}})
}

// Range is the time axis of a range query. Both ends are inclusive.
type Range struct {
	Start, End time.Time
	Step       time.Duration
}

// QueryRange evaluates an expression at every step of a range.
func (a PromAPI) QueryRange(ctx context.Context, expr string, r Range) (*Answer, error) {
	return a.query(ctx, "/api/v1/query_range", url.Values{
		"query": {expr},
		"start": {seconds(r.Start)},
		"end":   {seconds(r.End)},
		"step":  {strconv.FormatFloat(r.Step.Seconds(), 'f', -1, 64)},
	})
}

func (a PromAPI) query(ctx context.Context, path string, form url.Values) (*Answer, error) {
	resp, err := a.Get(ctx, path, form)
	if err != nil {
		return nil, err
	}
	var data struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	}
	if err := json.Unmarshal(resp.Data, &data); err != nil {
		return nil, fmt.Errorf("decode data of %s: %w", path, err)
	}
	answer := &Answer{Type: data.ResultType, Warnings: resp.Warnings, Infos: resp.Infos}
	switch data.ResultType {
	case "vector", "matrix":
		err = json.Unmarshal(data.Result, &answer.Series)
	case "scalar":
		var s Sample
		err = json.Unmarshal(data.Result, &s)
		answer.Series = []Series{{Samples: []Sample{s}}}
	default:
		err = fmt.Errorf("unknown result type %q", data.ResultType)
	}
	if err != nil {
		return nil, fmt.Errorf("decode result of %s: %w", path, err)
	}
	return answer, nil
}

// Labels returns the label names of the series that match any of the selectors,
// of all series when there are none.
func (a PromAPI) Labels(ctx context.Context, match ...string) ([]string, error) {
	var names []string
	err := a.decode(ctx, "/api/v1/labels", match, &names)
	return names, err
}

// LabelValues returns the values of one label of the matching series.
func (a PromAPI) LabelValues(ctx context.Context, name string, match ...string) ([]string, error) {
	var values []string
	err := a.decode(ctx, "/api/v1/label/"+url.PathEscape(name)+"/values", match, &values)
	return values, err
}

// SeriesLabels returns the label sets of the matching series (/api/v1/series).
func (a PromAPI) SeriesLabels(ctx context.Context, match ...string) ([]map[string]string, error) {
	var sets []map[string]string
	err := a.decode(ctx, "/api/v1/series", match, &sets)
	return sets, err
}

// StoreStatus is what a querier knows of one endpoint.
type StoreStatus struct {
	Name      string              `json:"name"`
	LastError *string             `json:"lastError"`
	LabelSets []map[string]string `json:"labelSets"`
	// MinTime and MaxTime are Unix milliseconds.
	MinTime int64 `json:"minTime"`
	MaxTime int64 `json:"maxTime"`
}

// Stores returns a querier's endpoints by component type (/api/v1/stores).
func (a PromAPI) Stores(ctx context.Context) (map[string][]StoreStatus, error) {
	var stores map[string][]StoreStatus
	err := a.decode(ctx, "/api/v1/stores", nil, &stores)
	return stores, err
}

func (a PromAPI) decode(ctx context.Context, path string, match []string, into any) error {
	form := url.Values{}
	if len(match) > 0 {
		form["match[]"] = match
	}
	resp, err := a.Get(ctx, path, form)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(resp.Data, into); err != nil {
		return fmt.Errorf("decode data of %s: %w", path, err)
	}
	return nil
}

// Response is the envelope around every answer.
type Response struct {
	Status    string          `json:"status"`
	Data      json.RawMessage `json:"data"`
	ErrorType string          `json:"errorType"`
	Error     string          `json:"error"`
	Warnings  []string        `json:"warnings"`
	Infos     []string        `json:"infos"`
}

// Get sends a GET. An answer that is not a success is an *APIError.
func (a PromAPI) Get(ctx context.Context, path string, form url.Values) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL+path+"?"+a.merged(form).Encode(), nil)
	if err != nil {
		return nil, err
	}
	return a.do(req)
}

// Post sends the form in the body, as Grafana does by default.
func (a PromAPI) Post(ctx context.Context, path string, form url.Values) (*Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.URL+path, strings.NewReader(a.merged(form).Encode()))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return a.do(req)
}

func (a PromAPI) do(req *http.Request) (_ *Response, err error) {
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer of %s: %w", req.URL.Path, err)
	}
	var r Response
	if err := json.Unmarshal(body, &r); err != nil {
		return nil, fmt.Errorf("decode answer of %s (%s): %w: %.200q", req.URL.Path, resp.Status, err, body)
	}
	if r.Status != "success" {
		return nil, fmt.Errorf("ask %s: %w", req.URL.Path, &APIError{HTTPStatus: resp.StatusCode, Type: r.ErrorType, Message: r.Error})
	}
	return &r, nil
}

func (a PromAPI) merged(form url.Values) url.Values {
	all := url.Values{}
	for _, values := range []url.Values{a.Params, form} {
		for k, v := range values {
			all[k] = append(all[k], v...)
		}
	}
	return all
}

// seconds writes a time as the API reads it, to the millisecond.
func seconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

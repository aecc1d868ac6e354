package promclient

import (
	"context"
	"net/url"
	"strconv"
)

// The calls in this file decode the data of Prometheus' answer into a value of
// the caller's, whose JSON form is Prometheus' own.

// Rules asks for the rule groups ({"groups": […]}). kind is alert or record, empty for both.
func (c *Client) Rules(ctx context.Context, kind string, into any) (warnings []string, err error) {
	p := url.Values{}
	if kind != "" {
		p.Set("type", kind)
	}
	return c.get(ctx, "api/v1/rules", p, into)
}

// Targets asks for the targets that are active, dropped, or any.
func (c *Client) Targets(ctx context.Context, state string, into any) (warnings []string, err error) {
	return c.get(ctx, "api/v1/targets", url.Values{"state": {state}}, into)
}

// Metadata asks for the metadata by metric; an empty metric means all, a limit
// below 0 means no limit.
func (c *Client) Metadata(ctx context.Context, metric string, limit int, into any) (warnings []string, err error) {
	p := url.Values{}
	if metric != "" {
		p.Set("metric", metric)
	}
	if limit >= 0 {
		p.Set("limit", strconv.Itoa(limit))
	}
	return c.get(ctx, "api/v1/metadata", p, into)
}

// Exemplars asks for the exemplars of the series in a query; times are inclusive
// Unix milliseconds.
func (c *Client) Exemplars(ctx context.Context, query string, start, end int64, into any) (warnings []string, err error) {
	p := url.Values{"query": {query}}
	setTime(p, "start", start)
	setTime(p, "end", end)
	return c.post(ctx, "api/v1/query_exemplars", p, into)
}

// TSDBStatus asks for the statistics of the head, each list of limit rows; 0
// leaves the number to Prometheus.
func (c *Client) TSDBStatus(ctx context.Context, limit int, into any) (warnings []string, err error) {
	p := url.Values{}
	if limit > 0 {
		p.Set("limit", strconv.Itoa(limit))
	}
	return c.get(ctx, "api/v1/status/tsdb", p, into)
}

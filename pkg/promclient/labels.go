package promclient

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
)

// Selection says of which series names, values or label sets are wanted.
type Selection struct {
	// MinTime and MaxTime are inclusive, Unix milliseconds. Prometheus narrows the
	// answer to the blocks that overlap, not to the samples.
	MinTime, MaxTime int64
	// Matchers are combined with AND; none means all series, except for Series,
	// which wants one that does not match the empty string.
	Matchers []*labels.Matcher
	// Limit is the largest number of results; 0 means all.
	Limit int
}

func (s Selection) params() url.Values {
	p := url.Values{}
	setTime(p, "start", s.MinTime)
	setTime(p, "end", s.MaxTime)
	if len(s.Matchers) > 0 {
		p.Set("match[]", selector(s.Matchers))
	}
	if s.Limit > 0 {
		p.Set("limit", strconv.Itoa(s.Limit))
	}
	return p
}

// setTime leaves out what no clock shows: Prometheus then takes its own extremes.
func setTime(p url.Values, name string, ms int64) {
	const year1, year9999 = -62135596800000, 253402300799999
	if ms > year1 && ms < year9999 {
		p.Set(name, strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64))
	}
}

func selector(ms []*labels.Matcher) string {
	texts := make([]string, len(ms))
	for i, m := range ms {
		texts[i] = m.String()
	}
	return "{" + strings.Join(texts, ",") + "}"
}

// truncated is how Prometheus warns of a limit that it was asked to keep.
const truncated = "results truncated due to limit"

// list asks for a list; a limit that was asked for is not worth a warning.
func (c *Client) list(ctx context.Context, method, path string, s Selection, out any) (warnings []string, err error) {
	all, err := c.ask(ctx, method, path, s.params(), out)
	for _, w := range all {
		if w != truncated {
			warnings = append(warnings, w)
		}
	}
	return warnings, err
}

// LabelNames returns the sorted names of the labels of the selected series.
func (c *Client) LabelNames(ctx context.Context, s Selection) (names, warnings []string, err error) {
	warnings, err = c.list(ctx, http.MethodPost, "api/v1/labels", s, &names)
	return names, warnings, err
}

// LabelValues returns the sorted values of one label of the selected series.
func (c *Client) LabelValues(ctx context.Context, name string, s Selection) (values, warnings []string, err error) {
	escaped := model.EscapeName(name, model.ValueEncodingEscaping)
	warnings, err = c.list(ctx, http.MethodGet, "api/v1/label/"+url.PathEscape(escaped)+"/values", s, &values)
	return values, warnings, err
}

// Series returns the label sets of the selected series in no particular order.
// External labels are not in them.
func (c *Client) Series(ctx context.Context, s Selection) (sets []labels.Labels, warnings []string, err error) {
	warnings, err = c.list(ctx, http.MethodPost, "api/v1/series", s, &sets)
	return sets, warnings, err
}

package query

// reading is what a function reads over downsampled data.
type reading struct {
	// aggregate is read over a range of the selector itself. Instant selectors,
	// those inside subqueries too, read the gauge.
	aggregate aggregate
	// rewritten functions read the gauge rightly only after rewriteForAggregates.
	rewritten bool
	// loss says what of the function's meaning downsampled data do not hold;
	// empty where none is lost, or no more than time below a window.
	loss string
}

// What downsampled data cannot say.
const (
	lostResets    = "counts at most one reset in each window of downsampled data"
	lostChanges   = "counts at most one change in each window of downsampled data"
	lostSpread    = "sees one average for each window of downsampled data, not the spread within"
	lostNeighbors = "compares averages of downsampled windows in place of single samples"
	lostStarts    = "has no answer over downsampled data, which keep no start timestamps"
)

// readingOf is the table: every function and aggregation of PromQL and what it
// reads. docs/design/0013-resolutions.md says it in words. A name that is not in
// it is not PromQL; it reads the gauge, as a bare selector does.
func readingOf(name string) (_ reading, known bool) {
	switch name {
	case "rate", "increase", "irate":
		return reading{aggregate: counter}, true
	case "resets":
		return reading{aggregate: resetting, loss: lostResets}, true
	case "changes":
		return reading{aggregate: changing, loss: lostChanges}, true
	case "sum_over_time":
		return reading{aggregate: sum}, true
	case "min_over_time", "ts_of_min_over_time":
		return reading{aggregate: minimum}, true
	case "max_over_time", "ts_of_max_over_time":
		return reading{aggregate: maximum}, true
	case "avg_over_time", "count_over_time":
		return reading{aggregate: gauge, rewritten: true}, true
	case "stddev_over_time", "stdvar_over_time", "mad_over_time", "quantile_over_time":
		return reading{aggregate: gauge, loss: lostSpread}, true
	case "idelta", "double_exponential_smoothing":
		return reading{aggregate: gauge, loss: lostNeighbors}, true
	case "start_timestamp":
		return reading{aggregate: gauge, loss: lostStarts}, true
	}
	return reading{aggregate: gauge}, readsGauge(name)
}

// readingOver is what a function reads that has rangeMillis of a selector before
// every look, 0 for an instant selector.
func readingOver(name string, rangeMillis int64) reading {
	r, _ := readingOf(name)
	if rangeMillis == 0 && name != "start_timestamp" {
		return reading{aggregate: gauge}
	}
	return r
}

// lossOf is the line that tells of a loss.
func lossOf(name string, r reading) string {
	if r.loss == "" {
		return ""
	}
	return name + " " + r.loss
}

// readsGauge lists what reads SUM over COUNT, held from the window's start to
// its end, and loses no more than time below a window.
func readsGauge(name string) bool {
	switch name {
	// Functions over a range.
	case "delta", "deriv", "predict_linear", "first_over_time", "last_over_time",
		"present_over_time", "absent_over_time", "ts_of_first_over_time", "ts_of_last_over_time":
	// Functions of an instant vector, by the value of each element alone.
	case "abs", "acos", "acosh", "asin", "asinh", "atan", "atanh", "ceil", "clamp", "clamp_max", "clamp_min", "cos", "cosh",
		"day_of_month", "day_of_week", "day_of_year", "days_in_month", "deg", "exp", "floor", "hour", "ln", "log10", "log2",
		"max_of", "min_of", "minute", "month", "rad", "round", "sgn", "sin", "sinh", "sqrt", "tan", "tanh", "year":
	// Functions of native and classic histograms.
	case "histogram_avg", "histogram_count", "histogram_fraction", "histogram_quantile", "histogram_quantiles",
		"histogram_stddev", "histogram_stdvar", "histogram_sum":
	// Functions of presence, time, labels and order.
	case "absent", "info", "label_join", "label_replace", "scalar", "sort", "sort_by_label", "sort_by_label_desc", "sort_desc",
		"timestamp", "vector":
	// Functions without a selector.
	case "end", "pi", "range", "start", "step", "time":
	// Aggregations over series.
	case "avg", "bottomk", "count", "count_values", "group", "limit_ratio", "limitk", "max", "min", "quantile",
		"stddev", "stdvar", "sum", "topk":
	default:
		return false
	}
	return true
}

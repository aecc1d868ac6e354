package block

// TimeRange is a half-open span of time. MinTime is inclusive, MaxTime
// exclusive, both Unix milliseconds, as in meta.json.
type TimeRange struct{ MinTime, MaxTime int64 }

// Overlaps reports whether the two ranges share an instant.
func (r TimeRange) Overlaps(o TimeRange) bool {
	return r.MinTime < o.MaxTime && o.MinTime < r.MaxTime
}

// Covers reports whether r holds all of o.
func (r TimeRange) Covers(o TimeRange) bool {
	return r.MinTime <= o.MinTime && o.MaxTime <= r.MaxTime
}

// Duration is the length of the range in milliseconds.
func (r TimeRange) Duration() int64 { return r.MaxTime - r.MinTime }

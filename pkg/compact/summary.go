package compact

import (
	"log/slog"
	"time"
)

// Summary sums a run up.
type Summary struct {
	StartedAt time.Time `json:"startedAt"`
	EndedAt   time.Time `json:"endedAt"`
	// Done, Failed and Quarantined count jobs done, attempts that ended with an error,
	// and blocks set aside; Left are jobs of the last plan that this process could not
	// do, of which another compactor has Elsewhere.
	Done        int `json:"done"`
	Failed      int `json:"failed"`
	Quarantined int `json:"quarantined"`
	Left        int `json:"left"`
	Elsewhere   int `json:"elsewhere"`
	// UploadsAborted counts uploads that nobody went on with.
	UploadsAborted int `json:"uploadsAborted"`
	// BytesRead and BytesWritten are what merging and downsampling moved.
	BytesRead    int64 `json:"bytesRead"`
	BytesWritten int64 `json:"bytesWritten"`
}

// LogValue is for a log line.
func (s Summary) LogValue() slog.Value {
	return slog.GroupValue(
		slog.Int("done", s.Done), slog.Int("failed", s.Failed), slog.Int("quarantined", s.Quarantined),
		slog.Int("left", s.Left), slog.Int("elsewhere", s.Elsewhere), slog.Int("uploads_aborted", s.UploadsAborted),
		slog.Int64("bytes_read", s.BytesRead), slog.Int64("bytes_written", s.BytesWritten),
		slog.Duration("took", s.EndedAt.Sub(s.StartedAt).Round(time.Millisecond)),
	)
}

// LastRun sums the last run up; it is zero before the end of the first.
func (e *Executor) LastRun() Summary {
	e.board.mu.Lock()
	defer e.board.mu.Unlock()
	return e.board.last
}

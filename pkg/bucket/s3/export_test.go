package s3

import (
	"context"
	"log/slog"
	"time"
)

// NewImpatient is New with another stallWait.
func NewImpatient(ctx context.Context, conf Config, wait time.Duration, log *slog.Logger) (*Bucket, error) {
	return newBucket(ctx, conf, wait, log)
}

package s3

import (
	"context"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// NewImpatient is New with another stallWait.
func NewImpatient(ctx context.Context, conf Config, wait time.Duration, log *slog.Logger) (*Bucket, error) {
	return newBucket(ctx, conf, wait, log)
}

// Settled returns the options of a client that asks the SDK each time where the bucket is,
// and those of one that knows, or the same if it cannot.
func Settled(ctx context.Context, conf Config) (asking, knowing s3.Options, err error) {
	asking, _, err = newOptions(ctx, conf, stallWait, slog.New(slog.DiscardHandler))
	asking.Region = conf.Region
	knowing = asking
	settle(ctx, &knowing, conf.Bucket)
	return asking, knowing, err
}

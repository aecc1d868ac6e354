package compact

import (
	"context"
	"errors"
	"time"

	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/bucket"
)

// uploadsInterval is how often pending uploads are looked at. They become old enough in days.
const uploadsInterval = time.Hour

// abortUploads frees what the store keeps of uploads whose process died: parts that
// no listing of objects shows. It needs no lease, for nobody goes on with an upload of
// that age, and says how many it aborted.
func (e *Executor) abortUploads(ctx context.Context) (aborted int, err error) {
	var old []bucket.PendingUpload
	err = bucket.PendingUploads(ctx, e.bkt, "", func(u bucket.PendingUpload) error {
		if _, _, ok := block.ParseName(u.Name); ok && !e.now().Before(u.Begun.Add(e.opts.Policy.PartialAge)) {
			old = append(old, u)
		}
		return nil
	})
	if errors.Is(err, errors.ErrUnsupported) {
		e.log.Debug("this object storage shows no unfinished uploads; its lifecycle rules have to remove them", "provider", e.bkt.Provider())
		return 0, nil
	}
	errs := []error{err}
	for _, u := range old {
		if err := bucket.AbortUpload(ctx, e.bkt, u); err != nil {
			errs = append(errs, err)
			continue
		}
		aborted++
		e.metrics.uploadsAborted.Inc()
		e.log.Info("unfinished upload aborted", "object", u.Name, "begun", u.Begun.UTC())
	}
	return aborted, errors.Join(errs...)
}

// sweep looks at pending uploads, beside everything else, if that was long ago.
func (s *schedule) sweep(ctx context.Context) {
	if !s.uploadsSeen.IsZero() && time.Since(s.uploadsSeen) < uploadsInterval {
		return
	}
	s.uploadsSeen = time.Now()
	s.sweeping = make(chan int, 1)
	go func() {
		n, err := s.abortUploads(ctx)
		if err != nil && ctx.Err() == nil {
			s.log.Warn("unfinished uploads not removed, tried again later", "retry_in", uploadsInterval, "err", err)
		}
		s.sweeping <- n
	}()
}

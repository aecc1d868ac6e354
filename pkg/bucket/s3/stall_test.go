package s3_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/s3"
)

// impatient opens a bucket that gives up an answer after so long without a byte.
func impatient(t *testing.T, c s3.Config, wait time.Duration) *s3.Bucket {
	t.Helper()
	b, err := s3.NewImpatient(t.Context(), c, wait, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return b
}

// send writes a part of an answer so that it arrives.
func send(t *testing.T, w http.ResponseWriter, part string) {
	t.Helper()
	if _, err := io.WriteString(w, part); err != nil {
		return // the client has given up
	}
	if err := http.NewResponseController(w).Flush(); err != nil {
		t.Errorf("flush: %v", err)
	}
}

func TestAnAnswerThatStallsIsGivenUp(t *testing.T) {
	const wait = 50 * time.Millisecond
	read := func(rc io.ReadCloser, err error) error {
		if err != nil {
			return fmt.Errorf("before the stall: %w", err)
		}
		_, err = io.ReadAll(rc)
		return errors.Join(err, rc.Close())
	}
	for name, tc := range map[string]struct {
		ask  func(ctx context.Context, b *s3.Bucket) error
		want string
	}{
		"an object": {func(ctx context.Context, b *s3.Bucket) error {
			return read(b.Get(ctx, "x/meta.json"))
		}, "read x/meta.json in bucket bkt"},
		"a range of an object": {func(ctx context.Context, b *s3.Bucket) error {
			return read(b.GetRange(ctx, "x/index", 0, 100))
		}, "read x/index in bucket bkt"},
		"an object with its version": {func(ctx context.Context, b *s3.Bucket) error {
			_, _, err := b.GetVersion(ctx, "x/lease")
			return err
		}, "read x/lease in bucket bkt"},
		"a listing": {func(ctx context.Context, b *s3.Bucket) error {
			return b.List(ctx, "x/", "", func(bucket.Object) error { return nil })
		}, "list x/ in bucket bkt"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			var requests atomic.Int32
			b := impatient(t, fake(t, func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				if r.Header.Get("Range") != "" {
					w.Header().Set("Content-Range", "bytes 0-99/1000")
				}
				w.Header().Set("Content-Length", "100")
				send(t, w, "<?xml version=\"1.0\"?><ListBucketResult>")
				<-r.Context().Done()
			}), wait)
			err := tc.ask(ctx, b)
			if !errors.Is(err, bucket.ErrTransient) {
				t.Fatalf("error is %v, want one marked ErrTransient", err)
			}
			for _, want := range []string{tc.want, "not a byte came for 50ms"} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error is %q, want one that says %q", err, want)
				}
			}
			if got := requests.Load(); got != 1 {
				t.Errorf("requests: got %d, want 1, so that the caller hears of it in time", got)
			}
		})
	}
}

func TestASlowAnswerThatMovesIsReadToItsEnd(t *testing.T) {
	const wait, parts = 500 * time.Millisecond, 12
	b := impatient(t, fake(t, func(w http.ResponseWriter, r *http.Request) {
		ticker := time.NewTicker(wait / 8)
		defer ticker.Stop()
		w.Header().Set("Content-Length", strconv.Itoa(parts))
		for range parts {
			select {
			case <-ticker.C:
				send(t, w, "x")
			case <-r.Context().Done():
				return
			}
		}
	}), wait)
	rc, err := b.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(rc)
	if want := strings.Repeat("x", parts); err != nil || string(got) != want {
		t.Errorf("read: got %q (%v), want %q", got, err, want)
	}
	if err := rc.Close(); err != nil {
		t.Error(err)
	}
}

func TestAReaderMayPauseLongerThanAnAnswerMayStall(t *testing.T) {
	const wait = 500 * time.Millisecond
	resume := make(chan struct{})
	b := impatient(t, fake(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "8")
		send(t, w, "0123")
		select {
		case <-resume:
			send(t, w, "4567")
		case <-r.Context().Done():
		}
	}), wait)
	rc, err := b.Get(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(rc, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	<-time.After(wait + wait/5)
	close(resume)
	rest, err := io.ReadAll(rc)
	if string(rest) != "4567" || err != nil {
		t.Errorf("the rest: got %q (%v), want 4567", rest, err)
	}
	if err := rc.Close(); err != nil {
		t.Error(err)
	}
}

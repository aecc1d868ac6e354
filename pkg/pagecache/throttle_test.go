package pagecache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/varve-io/varve/pkg/bucket"
)

// slowDown is an S3 server whose objects all have the same content, of each of which it
// refuses the first request, as long as it is busy.
type slowDown struct {
	content []byte
	busy    atomic.Bool
	refused atomic.Int64

	mu    sync.Mutex
	asked map[string]bool
}

func (s *slowDown) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	before := s.asked[r.URL.Path]
	s.asked[r.URL.Path] = true
	s.mu.Unlock()
	if before || !s.busy.Load() {
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.content))
		return
	}
	s.refused.Add(1)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(http.StatusServiceUnavailable)
	_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
}

// overS3 reads a bucket.
type overS3 struct{ bucket.Reader }

func (b overS3) GetRange(ctx context.Context, o Object, off, length int64) (io.ReadCloser, error) {
	return b.Reader.GetRange(ctx, o.Name, off, length)
}

func TestARefusalLowersConcurrencyAlsoIfTheClientAsksAgain(t *testing.T) {
	const most = 16
	for name, attempts := range map[string]int{"the client asks again": 10, "it gives up": 1} {
		t.Run(name, func(t *testing.T) {
			server := &slowDown{content: newFake(pageSize).content, asked: map[string]bool{}}
			l := httptest.NewServer(server)
			t.Cleanup(l.Close)
			bkt, err := bucket.Open(t.Context(), bucket.Options{Config: fmt.Sprintf(
				`{type: S3, config: {bucket: b, endpoint: %q, region: us-east-1, insecure: true, access_key: a, secret_key: s, max_retries: %d}}`,
				l.Listener.Addr(), attempts)}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = bkt.Close() })
			o := testOptions(0)
			o.Concurrency = most
			c := newCache(t, overS3{bkt}, o)
			object := 0
			read := func() { // others each time
				t.Helper()
				ranges := make([]Range, 2*o.Concurrency)
				for i := range ranges {
					ranges[i] = Range{Object: Object{Name: fmt.Sprint("object-", object), Size: pageSize}, Off: 5, Len: 1000}
					object++
				}
				sameBytes(t, c, server.content, ranges)
			}
			allowed := func() float64 { return testutil.ToFloat64(c.metrics.concurrency) }

			server.busy.Store(true)
			read()
			if n := allowed(); n >= most {
				t.Errorf("%v requests are allowed after each was refused once", n)
			}
			if n, refused := testutil.ToFloat64(c.metrics.throttled), server.refused.Load(); n < 1 || n > float64(refused) {
				t.Errorf("%v refusals are counted, of %d", n, refused)
			}
			server.busy.Store(false)
			for deadline := time.Now().Add(time.Minute); allowed() < most; read() {
				if time.Now().After(deadline) {
					t.Fatalf("%v requests are allowed long after the last refusal, want %d", allowed(), most)
				}
			}
		})
	}
}

func TestOnlyManyRefusalsLowerConcurrency(t *testing.T) {
	const most = 64
	for _, tc := range []struct {
		every  int // so many answers one is a refusal
		lowers bool
	}{{20, false}, {4, true}} {
		s := newSlots(most, newMetrics(prometheus.NewRegistry()))
		now, least := time.Now(), float64(most)
		for i := range 2000 {
			now = now.Add(time.Second)
			if i%tc.every == 0 {
				s.throttled(now, now)
			} else {
				s.succeeded()
			}
			least = min(least, s.limit)
		}
		if tc.lowers != (least < most/4) || !tc.lowers && least < most {
			t.Errorf("one answer of %d is a refusal: %v requests of %d are allowed at least", tc.every, least, most)
		}
		for i := 0; s.limit < most; i++ {
			if s.succeeded(); i > most*most {
				t.Fatalf("%v requests are allowed after %d good answers", s.limit, i)
			}
		}
	}
}

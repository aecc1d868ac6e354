package sidecar_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
	"testing"

	"github.com/golang/snappy"
	promconfig "github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/util/teststorage"

	"github.com/varve-io/varve/pkg/block/blocktest"
)

// remotePrometheus is Prometheus' own remote read over its own storage, without
// the rest of it, so that a test can spoil what is around.
type remotePrometheus struct {
	// announced are the external labels that the configuration shows, merged those that
	// remote read adds.
	announced, merged labels.Labels
	samplesOnly       bool  // as a Prometheus before 2.13
	cutAfter          int64 // bytes of an answer of remote read; 0 means all
	frame             int   // bytes after which a frame ends
}

func (p remotePrometheus) start(t *testing.T, list []blocktest.Series) (address string) {
	t.Helper()
	store := teststorage.New(t)
	app := store.Appender(context.Background())
	for _, s := range list {
		for _, x := range s.Samples {
			var err error
			if x.H != nil || x.FH != nil {
				_, err = app.AppendHistogram(0, s.Labels, x.T, x.H, x.FH)
			} else {
				_, err = app.Append(0, s.Labels, x.T, x.V)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := app.Commit(); err != nil {
		t.Fatal(err)
	}
	conf := promconfig.Config{GlobalConfig: promconfig.GlobalConfig{ExternalLabels: p.merged}}
	read := remote.NewReadHandler(discard(), nil, store, func() promconfig.Config { return conf }, 0, 10, p.frame)

	answer := func(data any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data}); err != nil {
				t.Error(err)
			}
		}
	}
	yaml, err := json.Marshal(map[string]any{"global": map[string]any{"external_labels": p.announced.Map()}})
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/-/ready", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "prometheus_tsdb_lowest_timestamp_seconds -1000")
	})
	mux.HandleFunc("/api/v1/status/config", answer(map[string]string{"yaml": string(yaml)}))
	mux.HandleFunc("/api/v1/status/buildinfo", answer(map[string]string{"version": "3.15.0"}))
	mux.HandleFunc("/api/v1/status/flags", answer(map[string]string{}))
	mux.HandleFunc("/api/v1/read", func(w http.ResponseWriter, r *http.Request) {
		if p.samplesOnly {
			acceptSamplesOnly(t, r)
		}
		if p.cutAfter > 0 {
			w = &cutWriter{ResponseWriter: w, left: p.cutAfter}
		}
		read.ServeHTTP(w, r)
	})
	srv := httptest.NewUnstartedServer(mux)
	srv.Config.ErrorLog = log.New(io.Discard, "", 0) // of answers that were not read to their end
	srv.Start()
	t.Cleanup(srv.Close)
	return srv.URL
}

// acceptSamplesOnly changes a request to that of an old client.
func acceptSamplesOnly(t *testing.T, r *http.Request) {
	t.Helper()
	packed, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	data, err := snappy.Decode(nil, packed)
	if err != nil {
		t.Error(err)
	}
	var m prompb.ReadRequest
	if err := m.Unmarshal(data); err != nil {
		t.Error(err)
	}
	m.AcceptedResponseTypes = nil
	if data, err = m.Marshal(); err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(snappy.Encode(nil, data)))
}

// cutWriter lets only the beginning of an answer through.
type cutWriter struct {
	http.ResponseWriter
	left int64
}

func (w *cutWriter) Write(b []byte) (int, error) {
	n := min(int64(len(b)), w.left)
	w.left -= n
	if _, err := w.ResponseWriter.Write(b[:n]); err != nil {
		return 0, err
	}
	if n < int64(len(b)) {
		panic(http.ErrAbortHandler)
	}
	return int(n), nil
}

func (w *cutWriter) Flush() { w.ResponseWriter.(http.Flusher).Flush() }

// switchable is a front that can be switched off.
type switchable struct{ off atomic.Bool }

func (s *switchable) set(off bool) { s.off.Store(off) }

func (s *switchable) proxy(to string) http.Handler {
	target, err := url.Parse(to)
	if err != nil {
		panic(err)
	}
	behind := httputil.NewSingleHostReverseProxy(target)
	behind.Transport = &http.Transport{DisableKeepAlives: true}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.off.Load() {
			http.Error(w, "Service Unavailable", http.StatusServiceUnavailable)
			return
		}
		behind.ServeHTTP(w, r)
	})
}

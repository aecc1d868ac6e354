package harness

import (
	"maps"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Writes stands between a component and an S3 server and sees every request
// that changes the bucket.
type Writes struct {
	// Endpoint is host:port, to be given to the component instead of the server's.
	Endpoint string

	mu     sync.Mutex
	n      int
	before func(n int) bool
	after  func(n int)
	srv    *http.Server
}

// WatchWrites starts a proxy in front of an S3 server. The caller closes it.
func WatchWrites(s3 string) (*Writes, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	forward := &httputil.ReverseProxy{
		// The signature covers the host that the client asked, so it stays.
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: s3})
			r.Out.Host = r.In.Host
		},
	}
	w := &Writes{Endpoint: l.Addr().String()}
	w.srv = &http.Server{Handler: w.handler(forward), ReadHeaderTimeout: time.Minute}
	go func() { _ = w.srv.Serve(l) }() // ends with Close
	return w, nil
}

// Close stops the proxy.
func (w *Writes) Close() error { return w.srv.Close() }

// Arm starts to count from one. before is called ahead of each write and says
// whether it takes place; after is called when it took place, ahead of its answer. Both may be nil.
func (w *Writes) Arm(before func(n int) bool, after func(n int)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n, w.before, w.after = 0, before, after
}

// Count is how many writes were seen since Arm.
func (w *Writes) Count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *Writes) handler(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead || strings.Contains(r.URL.Path, "/varve/leases/") { // leases are renewed by the clock
			forward.ServeHTTP(rw, r)
			return
		}
		w.mu.Lock()
		w.n++
		n, before, after := w.n, w.before, w.after
		w.mu.Unlock()
		if before != nil && !before(n) {
			panic(http.ErrAbortHandler) // the connection ends without an answer
		}
		if after == nil {
			forward.ServeHTTP(rw, r)
			return
		}
		answer := &held{header: http.Header{}}
		forward.ServeHTTP(answer, r)
		after(n)
		answer.release(rw)
	})
}

// held keeps an answer back.
type held struct {
	header http.Header
	code   int
	body   []byte
}

func (h *held) Header() http.Header { return h.header }
func (h *held) WriteHeader(code int) {
	if h.code == 0 {
		h.code = code
	}
}

func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	h.body = append(h.body, b...)
	return len(b), nil
}

func (h *held) release(w http.ResponseWriter) {
	maps.Copy(w.Header(), h.header)
	h.WriteHeader(http.StatusOK)
	w.WriteHeader(h.code)
	_, _ = w.Write(h.body) // whoever asked may have been killed meanwhile
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// distance is how far away a server is.
type distance struct {
	// firstByte is added to every answer.
	firstByte time.Duration
	// bytesPerSecond bounds one connection; 0 is no bound.
	bytesPerSecond float64
}

// s3Distance is what one of a region's own machines sees of S3.
func s3Distance() distance { return distance{firstByte: 20 * time.Millisecond, bytesPerSecond: 90e6} }

// faults are the shares of the reads of objects that go wrong.
type faults struct{ refused, hung, truncated float64 }

// proxy stands between a store gateway and an S3 server.
type proxy struct {
	// Endpoint is host:port, to be given to the gateway instead of the server's.
	Endpoint string

	upstream  string
	distance  distance
	transport *http.Transport // of all but reads
	reads     pipes
	server    *http.Server

	mu      sync.Mutex
	faults  faults
	random  *rand.Rand
	traffic traffic
}

// newProxy starts a proxy in front of a server. The caller closes it.
func newProxy(upstream string, d distance) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{
		Endpoint: l.Addr().String(),
		upstream: upstream,
		distance: d,
		transport: &http.Transport{
			MaxIdleConnsPerHost: 1024,
			DisableCompression:  true,
		},
		reads:  pipes{upstream: upstream},
		random: rand.New(rand.NewPCG(1, 2)),
	}
	p.server = &http.Server{
		Handler:           p,
		ReadHeaderTimeout: time.Minute,
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, paceKey{}, &pace{bytesPerSecond: d.bytesPerSecond})
		},
	}
	go func() { _ = p.server.Serve(l) }() // ends with Close
	return p, nil
}

// Close stops the proxy and breaks what it was answering.
func (p *proxy) Close() error {
	err := p.server.Close()
	p.transport.CloseIdleConnections()
	p.reads.close()
	return err
}

// breakReads lets reads go wrong from now on.
func (p *proxy) breakReads(f faults) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.faults = f
}

// take returns the traffic since the last call.
func (p *proxy) take() traffic {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.traffic
	p.traffic = traffic{}
	return t
}

// fault is what becomes of one request.
type fault int

const (
	none fault = iota
	refused
	hung
	truncated
)

// fate decides what becomes of a request of a kind.
func (p *proxy) fate(k kind) fault {
	if k != kindGet {
		return none
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch x := p.random.Float64(); {
	case x < p.faults.refused:
		return refused
	case x < p.faults.refused+p.faults.hung:
		return hung
	case x < p.faults.refused+p.faults.hung+p.faults.truncated:
		return truncated
	}
	return none
}

// ServeHTTP forwards one request.
func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	kind, group := classify(r)
	var sent int64
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.traffic.add(request{kind: kind, group: group, bytes: sent, taken: max(0, r.ContentLength), began: began, ended: time.Now()})
	}()
	if wait(r.Context(), p.distance.firstByte) != nil {
		return
	}
	fate := p.fate(kind)
	switch fate {
	case refused:
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>`)
		return
	case hung:
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case none, truncated:
	}
	resp, err := p.forward(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	maps.Copy(w.Header(), resp.Header)
	w.WriteHeader(resp.StatusCode)
	whole := resp.ContentLength
	if whole < 0 { // only a listing may be of unknown length
		whole = math.MaxInt64
	}
	if fate == truncated {
		whole /= 2
	}
	sent, err = p.copy(r.Context(), w, resp.Body, whole)
	if fate == truncated {
		_ = http.NewResponseController(w).Flush() // what was written shall arrive
	}
	if err != nil || fate == truncated {
		panic(http.ErrAbortHandler) // the connection ends inside the answer
	}
}

// forward hands a request on. The answer to a read is one whose body the kernel can forward.
func (p *proxy) forward(r *http.Request) (*http.Response, error) {
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host = "http", p.upstream
	out.RequestURI = "" // Host stays: the signature covers it
	if r.Method == http.MethodGet {
		return p.reads.roundTrip(out)
	}
	return p.transport.RoundTrip(out)
}

// step is how much is sent at a time: it takes 6 ms at the pace of S3, which is less than what a
// connection may catch up on.
const step = 512 << 10

// copy sends n bytes of a body, or all if it has less, at the pace of its connection. What comes
// from a connection goes to one without passing through this program's memory.
func (p *proxy) copy(ctx context.Context, w http.ResponseWriter, body io.Reader, n int64) (sent int64, err error) {
	pace, _ := ctx.Value(paceKey{}).(*pace)
	if piped, ok := body.(*pipedBody); ok {
		for sent < n && err == nil {
			size := min(step, n-sent)
			if err = pace.wait(ctx, size); err == nil {
				size, err = piped.sendTo(w, size)
				sent += size
			}
		}
		return sent, err
	}
	body = io.LimitReader(body, n)
	for {
		m, err := io.CopyN(w, body, step)
		sent += m
		if errors.Is(err, io.EOF) {
			return sent, nil
		}
		if err == nil {
			err = pace.wait(ctx, m)
		}
		if err != nil {
			return sent, fmt.Errorf("forward a body: %w", err)
		}
	}
}

// pace keeps a connection below its bandwidth. A connection of HTTP/1.1 serves one request at a time.
type pace struct {
	bytesPerSecond float64
	free           time.Time // when what was sent so far is through
}

type paceKey struct{}

// timerSlack is what a connection may catch up on, because timers are late.
const timerSlack = 10 * time.Millisecond

func (p *pace) wait(ctx context.Context, n int64) error {
	if p.bytesPerSecond == 0 {
		return nil
	}
	now := time.Now()
	if now.Sub(p.free) > timerSlack {
		p.free = now
	}
	p.free = p.free.Add(time.Duration(float64(n) / p.bytesPerSecond * float64(time.Second)))
	return wait(ctx, p.free.Sub(now))
}

// wait waits for a while; a millisecond is the least that is worth it.
func wait(ctx context.Context, d time.Duration) error {
	if d < time.Millisecond {
		return nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

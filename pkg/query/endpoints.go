package query

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"
	"golang.org/x/sync/errgroup"

	"github.com/varve-io/varve/pkg/panics"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Peer is the connection to one endpoint.
type Peer interface {
	storeapi.Store
	io.Closer
}

// Connect opens the connection to one host:port. It does not wait for the other side.
type Connect func(address string) (Peer, error)

// Endpoint is a process that answered its last Info call.
type Endpoint struct {
	Address string
	Info    storeapi.Info
	Peer    Peer
}

// Missing is data that should be there and cannot be had now.
type Missing struct {
	// Address is what is missing: host:port, or a configured name that does not resolve.
	Address string
	// Info is what the endpoint said last; Known is false when it never said anything.
	Info  storeapi.Info
	Known bool
	// Reason says why, and since when.
	Reason error
}

// EndpointStatus is one row of the endpoints page.
type EndpointStatus struct {
	Address   string
	Info      storeapi.Info
	LastCheck time.Time
	LastError error
}

// Endpoints is the set of all endpoints: configured addresses, what DNS made of
// them, and what each said of itself. An endpoint that stops answering, or that
// DNS stops naming, is missing and said to be so until the unhealthy timeout has
// passed. It is safe for concurrent use.
type Endpoints struct {
	opts     EndpointOptions
	connect  Connect
	resolver Resolver
	log      *slog.Logger
	metrics  *endpointMetrics
	now      func() time.Time

	mu    sync.Mutex
	names map[string]*name // by configured address
	peers map[string]*peer // by host:port
}

// name is a configured address.
type name struct {
	address  string
	strict   bool
	asked    time.Time // of the last look-up
	answered time.Time // of the last look-up with an answer
	empty    time.Time // since when the answer is empty
	found    []string
	err      error
}

// peer is one host:port.
type peer struct {
	address string
	conn    Peer
	strict  bool
	since   time.Time // first seen
	listed  time.Time // last time a name stood for it
	checked time.Time // last Info call that ended
	healthy time.Time // last Info call with an answer
	info    storeapi.Info
	err     error // of the last Info call
}

// NewEndpoints returns the set without having looked anything up; Refresh does.
// A nil resolver is the system's.
func NewEndpoints(o EndpointOptions, connect Connect, resolver Resolver, log *slog.Logger, reg prometheus.Registerer) *Endpoints {
	e := &Endpoints{
		opts: o, connect: connect, resolver: resolver, log: log, metrics: newEndpointMetrics(reg), now: time.Now,
		names: map[string]*name{}, peers: map[string]*peer{},
	}
	if resolver == nil {
		e.resolver = net.DefaultResolver
	}
	for _, address := range o.Addresses {
		e.names[address] = &name{address: address}
	}
	for _, address := range o.Strict {
		e.names[address] = &name{address: address, strict: true}
	}
	return e
}

// Refresh looks up the names that are due, asks every endpoint for its Info and
// lets go of those that have been missing for too long. Calls must not overlap.
func (e *Endpoints) Refresh(ctx context.Context) error {
	e.lookup(ctx)
	if err := e.reconcile(); err != nil {
		return err
	}
	e.poll(ctx)
	return nil
}

// Ready is nil once every configured address was resolved and every endpoint
// behind it asked. It names what is still open.
func (e *Endpoints) Ready() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, n := range e.names {
		if n.answered.IsZero() {
			return fmt.Errorf("endpoint %s is not resolved yet: %w", n.address, errors.Join(n.err))
		}
	}
	for _, p := range e.peers {
		if p.checked.IsZero() {
			return fmt.Errorf("endpoint %s was not asked yet", p.address)
		}
	}
	return nil
}

// Members returns the endpoints that answer, sorted by address, and what is missing.
func (e *Endpoints) Members() (up []Endpoint, missing []Missing) {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	for _, p := range e.peers {
		switch {
		case p.up():
			up = append(up, Endpoint{Address: p.address, Info: p.info, Peer: p.conn})
		case e.missed(p, now):
			missing = append(missing, Missing{Address: p.address, Info: p.info, Known: !p.healthy.IsZero(), Reason: p.reason()})
		}
	}
	for _, n := range e.names {
		if reason := e.unresolved(n, now); reason != nil {
			missing = append(missing, Missing{Address: n.address, Reason: reason})
		}
	}
	slices.SortFunc(up, func(a, b Endpoint) int { return strings.Compare(a.Address, b.Address) })
	slices.SortFunc(missing, func(a, b Missing) int { return strings.Compare(a.Address, b.Address) })
	return up, missing
}

// Status describes every known endpoint, sorted by address.
func (e *Endpoints) Status() []EndpointStatus {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := make([]EndpointStatus, 0, len(e.peers))
	for _, p := range e.peers {
		all = append(all, EndpointStatus{Address: p.address, Info: p.info, LastCheck: p.checked, LastError: p.err})
	}
	slices.SortFunc(all, func(a, b EndpointStatus) int { return strings.Compare(a.Address, b.Address) })
	return all
}

// Close closes every connection.
func (e *Endpoints) Close() (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for address, p := range e.peers {
		err = errors.Join(err, p.conn.Close())
		delete(e.peers, address)
	}
	return err
}

func (p *peer) up() bool { return !p.healthy.IsZero() && p.err == nil }

func (p *peer) reason() error {
	switch {
	case p.checked.IsZero():
		return errors.New("it was not asked yet")
	case p.healthy.IsZero():
		return fmt.Errorf("it has not answered since %s: %w", p.since.UTC().Format(time.RFC3339), p.err)
	}
	return fmt.Errorf("it has not answered since %s: %w", p.healthy.UTC().Format(time.RFC3339), p.err)
}

// missed reports whether a peer that does not answer still counts.
func (e *Endpoints) missed(p *peer, now time.Time) bool {
	last := p.healthy
	if last.IsZero() {
		last = p.since
	}
	return p.strict || now.Sub(last) <= e.opts.UnhealthyTimeout && !e.replaced(p)
}

// replaced reports whether a peer that no name stands for any more, as after a
// rollout, has a successor with the same data.
func (e *Endpoints) replaced(gone *peer) bool {
	if gone.healthy.IsZero() || e.listedNow(gone) {
		return false
	}
	for _, p := range e.peers {
		if p.up() && p.since.After(gone.since) && p.info.Component == gone.info.Component && sameSets(p.info.LabelSets, gone.info.LabelSets) {
			return true
		}
	}
	return false
}

func sameSets(a, b []labels.Labels) bool { return slices.EqualFunc(a, b, labels.Equal) }

func (e *Endpoints) listedNow(p *peer) bool {
	for _, n := range e.names {
		if slices.Contains(n.found, p.address) {
			return true
		}
	}
	return false
}

// unresolved says why a name stands for nothing, while that counts.
func (e *Endpoints) unresolved(n *name, now time.Time) error {
	switch {
	case n.answered.IsZero() && n.err != nil:
		return fmt.Errorf("it is not resolved: %w", n.err)
	case n.answered.IsZero():
		return errors.New("it is not resolved yet")
	case !n.empty.IsZero() && (n.strict || now.Sub(n.empty) <= e.opts.UnhealthyTimeout):
		return errors.New("DNS knows no address for it")
	}
	return nil
}

// lookup resolves the names that are due, side by side. A name whose look-up ends in an error keeps its last answer.
func (e *Endpoints) lookup(ctx context.Context) {
	e.mu.Lock()
	var due []*name
	now := e.now()
	for _, n := range e.names {
		static := !isLookup(n.address) && !n.answered.IsZero()
		if !static && (n.err != nil || n.asked.IsZero() || now.Sub(n.asked) >= e.opts.DNSInterval) {
			due = append(due, n)
		}
	}
	e.mu.Unlock()

	ctx, cancel := context.WithTimeout(ctx, e.opts.InfoTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(16)
	for _, n := range due {
		g.Go(func() error {
			found, err := resolve(ctx, e.resolver, n.address)
			e.answer(n, found, err)
			return nil
		})
	}
	_ = g.Wait() // no look-up returns an error; each is kept with its name
}

func (e *Endpoints) answer(n *name, found []string, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if isLookup(n.address) {
		e.metrics.dnsLookups.Inc()
	}
	n.asked = e.now()
	if err != nil {
		e.metrics.dnsFailures.Inc()
		if n.err == nil {
			e.log.Warn("endpoint address not resolved; its last answer stays in use", "address", n.address, "known", len(n.found), "err", err)
		}
		n.err = err
		return
	}
	n.err, n.answered, n.found = nil, n.asked, found
	switch {
	case len(found) > 0:
		n.empty = time.Time{}
	case n.empty.IsZero():
		n.empty = n.asked
		e.log.Warn("endpoint address stands for nothing", "address", n.address)
	}
}

// reconcile connects to new addresses and lets go of old ones.
func (e *Endpoints) reconcile() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	now := e.now()
	var errs []error
	for _, n := range e.names {
		for _, address := range n.found {
			p, known := e.peers[address]
			if !known {
				conn, err := e.connect(address)
				if err != nil {
					errs = append(errs, fmt.Errorf("connect to endpoint %s: %w", address, err))
					continue
				}
				p = &peer{address: address, conn: conn, since: now}
				e.peers[address] = p
			}
			p.listed, p.strict = now, p.strict || n.strict
		}
	}
	for address, p := range e.peers {
		// A peer that a name still stands for is asked again and again.
		if now.Sub(p.listed) > e.opts.UnhealthyTimeout {
			e.log.Info("endpoint left", "address", address, "component", p.info.Component)
			errs = append(errs, p.conn.Close())
			delete(e.peers, address)
		}
	}
	return errors.Join(errs...)
}

// poll asks every peer for its Info, each with one deadline.
func (e *Endpoints) poll(ctx context.Context) {
	e.mu.Lock()
	peers := make([]*peer, 0, len(e.peers))
	for _, p := range e.peers {
		peers = append(peers, p)
	}
	e.mu.Unlock()

	var g errgroup.Group
	g.SetLimit(64)
	for _, p := range peers {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, e.opts.InfoTimeout)
			defer cancel()
			var info storeapi.Info
			err := panics.Caught(func() (err error) {
				info, err = p.conn.Info(ctx)
				return err
			})
			e.heard(p, info, err)
			return nil
		})
	}
	_ = g.Wait() // no call returns an error; each is kept with its peer
	e.count()
}

func (e *Endpoints) heard(p *peer, info storeapi.Info, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	wasUp, first := p.up(), p.checked.IsZero()
	p.checked, p.err = e.now(), err
	if err != nil {
		e.metrics.infoFailures.Inc()
		if wasUp || first {
			e.log.Warn("endpoint does not answer", "address", p.address, "err", err)
		}
		return
	}
	p.healthy, p.info = p.checked, info
	if !wasUp {
		e.log.Info("endpoint answers", "address", p.address, "component", info.Component, "label_sets", len(info.LabelSets))
	}
}

func (e *Endpoints) count() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.metrics.endpoints.Reset()
	now := e.now()
	for _, p := range e.peers {
		component := p.info.Component
		if component == "" {
			component = "unknown"
		}
		switch {
		case p.up():
			e.metrics.endpoints.WithLabelValues(component, "up").Inc()
		case e.missed(p, now):
			e.metrics.endpoints.WithLabelValues(component, "missing").Inc()
		}
	}
}

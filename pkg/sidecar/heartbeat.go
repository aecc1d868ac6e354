package sidecar

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/promclient"
	"github.com/varve-io/varve/pkg/storeapi"
)

// Prometheus follows the state of the Prometheus beside us. Its methods may be
// called concurrently with Run.
type Prometheus struct {
	client  *promclient.Client
	opts    PrometheusOptions
	log     *slog.Logger
	metrics *prometheusMetrics
	up      chan struct{} // closed once Prometheus was up

	mu    sync.Mutex
	state State
	err   error // why it is not up; nil when it is
}

// State is what the last look at Prometheus found.
type State struct {
	// External are its external labels, never empty.
	External labels.Labels
	// Version is Prometheus' own, such as 3.15.0.
	Version string
	// MinTime is the time of its oldest sample, math.MinInt64 while unknown.
	MinTime int64
}

// Probe learns whether the process wants requests.
type Probe interface {
	Ready()
	NotReady(reason error)
}

// NewPrometheus returns a Prometheus that is not up before Run found it so.
func NewPrometheus(c *promclient.Client, o PrometheusOptions, log *slog.Logger, reg prometheus.Registerer) (*Prometheus, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Prometheus{
		client: c, opts: o, log: log, metrics: newPrometheusMetrics(reg),
		up: make(chan struct{}), err: fmt.Errorf("wait for Prometheus at %s: not asked yet", c.URL()),
	}, nil
}

// State returns what is known, or why Prometheus cannot be asked; that error
// carries storeapi.ErrUnavailable.
func (p *Prometheus) State() (State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return State{}, fmt.Errorf("%w: %w", storeapi.ErrUnavailable, p.err)
	}
	return p.state, nil
}

// Await waits until Prometheus was up for the first time, and returns State.
func (p *Prometheus) Await(ctx context.Context) (State, error) {
	select {
	case <-p.up:
		return p.State()
	case <-ctx.Done():
		return State{}, fmt.Errorf("wait for Prometheus: %w", ctx.Err())
	}
}

// retryEvery is the time between two looks at a Prometheus that is not up yet.
const retryEvery = time.Second

// Run looks at Prometheus until ctx ends, and tells probe whether it is up. Once,
// before it is up for the first time, check judges its flags. The error is that
// of check, or that Prometheus did not come up within the ready timeout.
func (p *Prometheus) Run(ctx context.Context, probe Probe, check func(promclient.Flags) error) error {
	if err := p.start(ctx, probe, check); err != nil || ctx.Err() != nil {
		return err
	}
	timer := time.NewTimer(p.opts.Interval)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(p.look(ctx, probe))
		case <-ctx.Done():
			return nil
		}
	}
}

// start waits for Prometheus to be up and its flags to be right. It returns nil
// when ctx ends.
func (p *Prometheus) start(ctx context.Context, probe Probe, check func(promclient.Flags) error) error {
	deadline := time.NewTimer(p.opts.ReadyTimeout)
	defer deadline.Stop()
	ticker := time.NewTicker(min(retryEvery, p.opts.Interval))
	defer ticker.Stop()
	said := ""
	for {
		state, err := p.ask(ctx)
		if err == nil {
			if err := p.checkFlags(ctx, check); err != nil {
				return err
			}
			p.log.Info("Prometheus is up", "url", p.client.URL(), "version", state.Version, "external_labels", state.External.String())
			p.set(state, nil, probe)
			close(p.up)
			return nil
		}
		if ctx.Err() != nil {
			return nil
		}
		p.set(State{}, err, probe)
		if text := err.Error(); text != said { // once, not every second
			said = text
			p.log.Warn("waiting for Prometheus", "err", err, "for", p.opts.ReadyTimeout)
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return fmt.Errorf("wait for Prometheus (--prometheus.ready_timeout=%s): %w", p.opts.ReadyTimeout, err)
		case <-ctx.Done():
			return nil
		}
	}
}

func (p *Prometheus) checkFlags(ctx context.Context, check func(promclient.Flags) error) error {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	flags, err := p.client.Flags(ctx)
	if err != nil {
		return fmt.Errorf("ask Prometheus for its flags: %w", err)
	}
	return check(flags)
}

// look asks once, tells probe, and says after what time to look again.
func (p *Prometheus) look(ctx context.Context, probe Probe) time.Duration {
	state, err := p.ask(ctx)
	if ctx.Err() != nil {
		return p.opts.Interval // we are stopping, which says nothing about Prometheus
	}
	p.set(state, err, probe)
	if err != nil {
		return min(retryEvery, p.opts.Interval) // one lost answer is not half a minute of silence
	}
	return p.opts.Interval
}

func (p *Prometheus) ask(ctx context.Context) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	if err := p.client.Ready(ctx); err != nil {
		return State{}, fmt.Errorf("Prometheus is not ready: %w", err)
	}
	external, err := p.client.ExternalLabels(ctx)
	if err != nil {
		return State{}, fmt.Errorf("ask Prometheus for its external labels: %w", err)
	}
	if external.IsEmpty() {
		return State{}, errNoLabels
	}
	s := State{External: external, MinTime: math.MinInt64}
	if s.Version, err = p.client.Version(ctx); err != nil {
		return State{}, fmt.Errorf("ask Prometheus for its version: %w", err)
	}
	lowest, ok, err := p.client.LowestTime(ctx)
	if err != nil {
		return State{}, fmt.Errorf("ask Prometheus for its oldest sample: %w", err)
	}
	if ok {
		s.MinTime = lowest
	}
	return s, nil
}

// set takes over what a look found.
func (p *Prometheus) set(s State, err error, probe Probe) {
	p.mu.Lock()
	if err == nil && p.err == nil && !labels.Equal(s.External, p.state.External) {
		p.log.Warn("external labels changed; what is shipped from now on carries the new ones", "from", p.state.External.String(), "to", s.External.String())
	}
	p.state, p.err = s, err
	p.mu.Unlock()

	if err != nil {
		p.metrics.up.Set(0)
		probe.NotReady(err)
		return
	}
	p.metrics.up.Set(1)
	p.metrics.heartbeat.SetToCurrentTime()
	probe.Ready()
}

// mark gives an error of Prometheus the mark by which callers know what it
// means for them.
func mark(doing string, err error) error {
	var answered *promclient.StatusError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answered) && (answered.Status == 400 || answered.Status == 422):
		return fmt.Errorf("%s: %w: %w", doing, storeapi.ErrBadRequest, err)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: %w", doing, err)
	case errors.Is(err, promclient.ErrUnreachable), errors.As(err, &answered):
		return fmt.Errorf("%s: %w: %w", doing, storeapi.ErrUnavailable, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

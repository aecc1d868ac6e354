package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/varve-io/varve/e2e/harness"
)

// bench is one run over one dataset.
type bench struct {
	data *dataset
	// cluster runs the gateways and keeps their data.
	cluster *harness.Cluster
	report  *report
	logf    func(format string, args ...any)
	load    load
}

// session is one life of one gateway.
type session struct {
	*bench
	*gateway
	subject subject
	proxy   *proxy
	group   string
	bucket  string
	asked   []asked
}

// asked is a question whose answer is still to be compared with the truth.
type asked struct {
	question question
	row      *row
}

// sessionOptions say what a session begins with.
type sessionOptions struct {
	// group names the session in the report, start its first phase.
	group, start string
	bucket       string
	// dir is the gateway's data directory; a session with the directory of an earlier one is a restart.
	dir      string
	distance distance
	// direct leaves the proxy out, so that nothing but the gateway and the server uses the machine.
	direct bool
	faults faults
	env    []string
	cage   *cage
}

// session starts a gateway behind a proxy, measures that, and runs a script
// against it. Then the answers to all questions of the script are compared with the truth.
func (b *bench) session(ctx context.Context, subj subject, o sessionOptions, script func(*session) error) (err error) {
	p, err := newProxy(b.data.s3.Endpoint, o.distance)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	p.breakReads(o.faults)
	s := &session{bench: b, subject: subj, proxy: p, group: o.group, bucket: o.bucket}
	row := b.report.add(o.group, o.start, subj.name)
	before, err := s.spent()
	if err != nil {
		return err
	}
	began := time.Now()
	until := b.data.end()
	if o.bucket == bucketDays {
		until = b.data.compactedEnd()
	}
	endpoint := p.Endpoint
	if o.direct {
		endpoint = b.data.s3.Endpoint
	}
	s.gateway, err = subj.open(ctx, b.cluster, gatewayOptions{bucket: o.bucket, endpoint: endpoint, dir: o.dir, env: o.env, cage: o.cage, until: until})
	if err != nil {
		row.err = err
		return fmt.Errorf("%s, %s: %w", subj.name, o.group, err)
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	row.wall = time.Since(began)
	if err := s.finish(row, before); err != nil {
		return err
	}
	b.logf("%s: %s: %s: %s", subj.name, o.group, o.start, row.wall.Round(time.Millisecond))
	if err := script(s); err != nil {
		return fmt.Errorf("%s, %s: %w", subj.name, o.group, err)
	}
	return s.compare(ctx)
}

// spending is the CPU time that everybody has used so far: the gateway, the rig, which is
// this program with its proxy, and the S3 server.
type spending struct{ subject, rig, server time.Duration }

func (s *session) spent() (now spending, err error) {
	if s.gateway != nil {
		if now.subject, err = s.cpu(); err != nil {
			return now, err
		}
	}
	if now.rig, err = (meter{pid: os.Getpid()}).cpu(); err != nil {
		return now, err
	}
	now.server, err = meter{pid: s.data.s3.PID()}.cpu()
	return now, err
}

// finish fills in what was used since then.
func (s *session) finish(r *row, before spending) error {
	now, err := s.spent()
	if err != nil {
		return err
	}
	r.cpu, r.rig, r.server = now.subject-before.subject, now.rig-before.rig, now.server-before.server
	r.traffic = s.proxy.take()
	r.rss, r.peak, err = s.memory()
	return err
}

// measure measures one phase.
func (s *session) measure(phase string, do func() (size, error)) (*row, error) {
	r := s.report.add(s.group, phase, s.subject.name)
	before, err := s.spent()
	if err != nil {
		return nil, err
	}
	if err := s.resetPeak(); err != nil {
		return nil, err
	}
	s.proxy.take()
	began := time.Now()
	r.size, err = do()
	r.wall = time.Since(began)
	s.logf("%s: %s: %s: %s", s.subject.name, s.group, phase, r.wall.Round(time.Millisecond))
	if err != nil {
		r.err = err
		err = fmt.Errorf("%s: %w", phase, err)
	}
	return r, errors.Join(err, s.finish(r, before))
}

// discard measures a question whose answer is thrown away as it comes.
func (s *session) discard(ctx context.Context, phase string, q question) error {
	r, err := s.measure(phase, func() (size, error) { return s.client.discard(ctx, q) })
	if err != nil {
		return err
	}
	s.asked = append(s.asked, asked{q, r})
	return nil
}

// compare asks every question once more, now reading the answers.
func (s *session) compare(ctx context.Context) error {
	var wrong []error
	for _, a := range s.asked {
		got, err := s.ask(ctx, a.question)
		if err != nil {
			return fmt.Errorf("%s, %s, %s, asked again: %w", s.subject.name, s.group, a.row.phase, err)
		}
		a.row.answer = got
		if err := got.same(s.data.truth(s.bucket, a.question)); err != nil {
			a.row.err = err
			wrong = append(wrong, fmt.Errorf("%s, %s, %s: %w", s.subject.name, s.group, a.row.phase, err))
		}
	}
	return errors.Join(wrong...)
}

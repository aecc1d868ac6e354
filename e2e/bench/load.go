package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/status"
)

// load is how much is asked where it is not about speed.
type load struct {
	// hostile requests in all, so many at once, each given up after a while as by a person who waits no longer.
	hostile, hostileAtOnce int
	patience               time.Duration
	// questions to a broken server, how many bytes on disk go wrong before each, and how long it may take.
	questions, flips int
	deadline         time.Duration
	arrivals         int // pairs of blocks that a compactor gets one after the other
}

// hostileMemory is how much a gateway under attack may take.
const hostileMemory = 512 << 20

// hostile lets a gateway with little memory meet requests that nobody should make.
// Normal ones in between must be answered, and right.
func (b *bench) hostile(ctx context.Context, subj subject) (err error) {
	if subj.binary != "" {
		return nil // a peer without a budget would take the machine down
	}
	cage, err := newCage(hostileMemory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cage.Close()) }()
	o := sessionOptions{
		group: "hostile", start: "start", bucket: bucketRaw, dir: "hostile", distance: s3Distance(), cage: cage,
		env: []string{fmt.Sprint("GOMEMLIMIT=", hostileMemory/10*9)}, // as the gateway sets it in a container
	}
	return b.session(ctx, subj, o, func(s *session) error {
		_, err := s.measure("hostile among normal", func() (size, error) { return size{}, s.attack(ctx) })
		s.report.note("hostile: %s", cage)
		return err
	})
}

// attack makes all hostile requests while normal ones go on.
func (s *session) attack(ctx context.Context) error {
	bombs := []question{
		s.data.over(s.data.hours, everything),
		s.data.over(s.data.hours, `{pod=~"(.*[0-9a-f]){12}.*"}`),
		s.data.over(s.data.hours, `{__name__=~".*",pod!~"x(a|b|c|d)*y.*",instance=~".*(1|2|3|4|5).*(6|7|8|9|0).*"}`),
		s.data.over(s.data.hours, `{__name__!="",namespace=~"(team-.)+.*"}`),
	}
	var outcomes counter
	attackers, actx := errgroup.WithContext(ctx)
	attackers.SetLimit(s.load.hostileAtOnce)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for i := range s.load.hostile {
			attackers.Go(func() error {
				qctx, cancel := context.WithTimeout(actx, s.load.patience)
				defer cancel()
				_, err := s.client.discard(qctx, bombs[i%len(bombs)])
				outcomes.add(err)
				return nil
			})
		}
		_ = attackers.Wait() // the attackers' errors are counted
	}()

	modest := s.data.over(min(6, s.data.hours), metricNarrow+narrowOnly)
	want := s.data.truth(s.bucket, modest)
	var normal counter
	var slowest time.Duration
	for running := true; running && ctx.Err() == nil; {
		select {
		case <-over:
			running = false
		case <-s.Done():
			running = false
		default:
			began := time.Now()
			qctx, cancel := context.WithTimeout(ctx, s.load.deadline)
			got, err := s.ask(qctx, modest)
			cancel()
			if err == nil {
				err = got.same(want)
			}
			normal.add(err)
			slowest = max(slowest, time.Since(began))
			_ = wait(ctx, 100*time.Millisecond) // a person's panel, not another attack
		}
	}
	<-over
	s.report.note("hostile: %d requests: %s; normal ones among them: %s, slowest %.1f s; process: %s", s.load.hostile, &outcomes, &normal, slowest.Seconds(), s.State())
	if s.State() != "running" {
		return fmt.Errorf("the gateway ended: %s", s.State())
	}
	return normal.first
}

// faulty asks a gateway whose server and whose disk are broken: an answer is
// right, or it is an error.
func (b *bench) faulty(ctx context.Context, subj subject) error {
	o := sessionOptions{
		group: "faults", start: "start", bucket: bucketRaw, dir: "faults", distance: s3Distance(),
		faults: faults{refused: 0.05, hung: 0.01, truncated: 0.01},
	}
	return b.session(ctx, subj, o, func(s *session) error {
		_, err := s.measure("questions", func() (size, error) { return size{}, s.doubt(ctx, o.dir) })
		return err
	})
}

// doubt asks many different questions, four at a time, and compares every answer.
func (s *session) doubt(ctx context.Context, dir string) error {
	dir, err := s.cluster.Dir(s.subject.name, dir)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(3, 4))
	var outcomes counter
	flipped := 0
	var g errgroup.Group
	g.SetLimit(4)
	for range s.load.questions {
		q := s.data.randomQuestion(random)
		n, err := flipBytes(dir, random, s.load.flips)
		if err != nil {
			return errors.Join(err, g.Wait())
		}
		flipped += n
		g.Go(func() error {
			qctx, cancel := context.WithTimeout(ctx, s.load.deadline)
			defer cancel()
			got, err := s.ask(qctx, q)
			if err == nil {
				err = got.same(s.data.truth(s.bucket, q))
			}
			outcomes.add(err)
			if errors.Is(err, errWrong) {
				return fmt.Errorf("%s: %w", q, err)
			}
			return nil
		})
	}
	err = g.Wait()
	s.report.note("faults: %s: %d questions, %d bytes flipped on disk: %s", s.subject.name, s.load.questions, flipped, &outcomes)
	return err
}

// randomQuestion selects some series of some hours.
func (d *dataset) randomQuestion(random *rand.Rand) question {
	selectors := []string{
		metricNarrow + narrowOnly, metricOther + narrowOnly, metricWide + `{code="404"}`, metricWider + `{le="0.01"}`,
		fmt.Sprintf("process_metric_%d_total", random.IntN(40)),
		fmt.Sprintf(`{namespace="team-%d",handler=~"/api/v1/h1.*"}`, random.IntN(12)),
	}
	q := d.over(1+random.IntN(d.hours), selectors[random.IntN(len(selectors))])
	back := (random.Int64N(int64(d.hours)) * time.Hour.Milliseconds()) / 2
	q.mint, q.maxt = max(q.mint-back, start().UnixMilli()), q.maxt-back
	if q.maxt < q.mint {
		q.mint, q.maxt = q.maxt, q.mint
	}
	return q
}

// flipBytes changes one byte in each of some files below a directory.
func flipBytes(dir string, random *rand.Rand, files int) (int, error) {
	var paths []string
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			paths = append(paths, path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil || len(paths) == 0 {
		return 0, err
	}
	flipped := 0
	for range files {
		done, err := flipByte(paths[random.IntN(len(paths))], random)
		if err != nil {
			return flipped, err
		}
		flipped += done
	}
	return flipped, nil
}

func flipByte(path string, random *rand.Rand) (n int, err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil // removed meanwhile
	}
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	at, b := random.Int64N(info.Size()), make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		return 0, err
	}
	b[0] ^= 1 << random.IntN(8)
	_, err = f.WriteAt(b, at)
	return 1, err
}

// counter counts outcomes. It is safe for concurrent use.
type counter struct {
	mu     sync.Mutex
	right  int
	errors map[string]int
	first  error
}

func (c *counter) add(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err == nil {
		c.right++
		return
	}
	if c.first == nil {
		c.first = err
	}
	if c.errors == nil {
		c.errors = map[string]int{}
	}
	c.errors[reason(err)]++
}

// String is "17 answered, 3 resource exhausted".
func (c *counter) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	parts := []string{fmt.Sprintf("%d answered", c.right)}
	for _, r := range slices.Sorted(maps.Keys(c.errors)) {
		parts = append(parts, fmt.Sprintf("%d %s", c.errors[r], r))
	}
	return strings.Join(parts, ", ")
}

// reason is an error as few words.
func reason(err error) string {
	if errors.Is(err, errWrong) {
		return "WRONG"
	}
	return status.Code(err).String()
}

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/varve-io/varve/e2e/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are the flags.
type options struct {
	cache  string
	groups []group
	runs   int
	scale  scale
	load   load
}

func parse(args []string, usage io.Writer) (*options, error) {
	o := &options{}
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(usage)
	var names, help []string
	for _, g := range groups() {
		names, help = append(names, g.name), append(help, g.name+" ("+g.help+")")
	}
	only := fs.String("only", strings.Join(names, ","), "what to measure: "+strings.Join(help, ", "))
	fs.StringVar(&o.cache, "cache", filepath.Join(os.TempDir(), "varve-bench"), "directory that keeps the generated data for the next run; 5 GiB at full scale")
	fs.IntVar(&o.runs, "runs", 1, "how often all of it is measured, the subjects in turns; the table has the medians of the times, and the highest peaks")
	fs.IntVar(&o.scale.series, "series", fullSeries, "series of each replica")
	fs.IntVar(&o.scale.hours, "hours", 54, "hours of data, an even number")
	fs.IntVar(&o.scale.blocks, "blocks", 10_000, "blocks of the group small")
	fs.IntVar(&o.load.arrivals, "arrivals", 28, "pairs of blocks that arrive in the group steady")
	fs.IntVar(&o.load.hostile, "hostile", 200, "hostile requests")
	fs.IntVar(&o.load.hostileAtOnce, "hostile-at-once", 32, "hostile requests at once")
	fs.DurationVar(&o.load.patience, "patience", 20*time.Second, "time after which a hostile request is given up")
	fs.IntVar(&o.load.questions, "questions", 100, "questions to a broken server")
	fs.IntVar(&o.load.flips, "flips", 3, "bytes of the gateway's local files that go wrong before each of these questions")
	fs.DurationVar(&o.load.deadline, "deadline", 2*time.Minute, "time that a question may take under load or with faults")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	for _, g := range groups() {
		if slices.Contains(strings.Split(*only, ","), g.name) {
			o.groups = append(o.groups, g)
		}
	}
	switch {
	case len(o.groups) == 0:
		return nil, fmt.Errorf("-only=%s names none of %s", *only, strings.Join(names, ", "))
	case o.runs < 1:
		return nil, fmt.Errorf("-runs=%d measures nothing; give at least 1", o.runs)
	case o.scale.series < 100 || o.scale.hours < 2 || o.scale.hours%2 != 0 || o.scale.blocks < 2 || o.load.arrivals < 1:
		return nil, errors.New("give at least 100 -series, an even number of -hours 2 -blocks and one of -arrivals")
	}
	cache, err := filepath.Abs(o.cache)
	o.cache = cache
	return o, err
}

func run(ctx context.Context, args []string, out, log io.Writer) (err error) {
	o, err := parse(args, log)
	if err != nil {
		return err
	}
	began := time.Now()
	logf := func(format string, args ...any) {
		fmt.Fprintf(log, "%6.1f s  %s\n", time.Since(began).Seconds(), fmt.Sprintf(format, args...))
	}
	var buckets []string
	for _, g := range o.groups {
		buckets = append(buckets, g.buckets...)
	}
	slices.Sort(buckets)
	data, err := openData(ctx, o.cache, o.scale, slices.Compact(buckets), logf)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()

	var reports []*report
	var errs []error
	for len(reports) < o.runs && (len(reports) == 0 || ctx.Err() == nil) {
		b := &bench{data: data, report: &report{}, logf: logf, load: o.load}
		errs = append(errs, b.measureAll(ctx, o.groups))
		reports = append(reports, b.report)
	}
	return errors.Join(append(errs, medians(reports).write(out, subjects()))...)
}

// measureAll measures all subjects once, group by group, in directories of their own.
func (b *bench) measureAll(ctx context.Context, groups []group) (err error) {
	dir, err := os.MkdirTemp("", "varve-bench-run-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if b.cluster, err = harness.New(harness.FromEnv(dir, func(string, ...any) {})); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.cluster.Close()) }()
	var errs []error
	for _, g := range groups {
		for _, s := range subjects() {
			if err := g.run(b, ctx, s); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", g.name, err))
				b.logf("%s: %s: %v", s.name, g.name, err)
			}
		}
	}
	return errors.Join(errs...)
}

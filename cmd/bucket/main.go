// Command bucket is an operator's hand tool: it looks at the blocks of a bucket
// and checks, repairs, marks, moves and rewrites them.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	if err != nil && !errors.Is(err, daemon.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bucket:", err)
		os.Exit(1)
	}
}

// execute runs the command that args name. Its result goes to stdout, all else to
// stderr. The result is written also beside an error: it says what was done.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	a, err := parse(args, stderr)
	if err != nil {
		return err
	}
	log, err := a.daemon.Logger(stderr)
	if err != nil {
		return err
	}
	reg := prometheus.NewRegistry() // nobody asks this process for metrics
	bkt, err := bucket.Open(ctx, a.bucket, log, reg)
	if err != nil {
		return fmt.Errorf("open bucket: %w", err)
	}
	defer func() { err = errors.Join(err, bkt.Close()) }()
	if err := bucket.Check(ctx, bkt); err != nil {
		return fmt.Errorf("check bucket: %w", err)
	}
	bar := newBar(stderr)
	result, err := a.run(ctx, env{
		op:  bucketops.New(bkt, a.options, log, bar.show),
		log: log,
	})
	bar.clear()
	return errors.Join(err, a.output.write(stdout, result))
}

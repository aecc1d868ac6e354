// Package daemon runs one component as a process: flags, logger, metrics
// registry, readiness probe, HTTP and gRPC servers, periodic work and an orderly
// stop. It stands beside the tower: imported by cmd only, importing nothing of
// ours but panics, knowing nothing of the domain, and capped at 800 lines of code.
//
// A main reads parse, plumbing, build, actors, run:
//
//	o := options{daemon: daemon.Defaults()}
//	f := daemon.NewFlags("store", "Answer for the blocks of one bucket.", usage)
//	o.daemon.Bind(f)
//	o.daemon.GRPC.Bind(f)
//	if err := f.Parse(args); err != nil { … } // ErrHelp: asked for and printed, exit code 0
//
//	d, err := daemon.New("store", o.daemon, stderr)
//	defer func() { err = errors.Join(err, d.Close()) }()
//	…
//	return d.Run(ctx, func(g *run.Group) { // interrupted in this order
//		g.Add(d.GRPC(codec, register))
//		g.Add(d.Every("sync", interval, sync))
//		g.Add(d.HTTP(nil))
//	})
//
// Flags carry Thanos' names; docs/design/0008-flag-policy.md has the rules.
package daemon

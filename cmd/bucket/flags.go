package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/prometheus/model/labels"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucketops"
	"github.com/varve-io/varve/pkg/daemon"
)

// app is the command line and, after parsing, what it said.
type app struct {
	flags   *daemon.Flags
	daemon  daemon.Options
	bucket  bucket.Options
	options bucketops.Options
	output  format
	// run is the command that was chosen.
	run func(ctx context.Context, e env) (table, error)
}

// env is what a command works with.
type env struct {
	op  *bucketops.Operator
	log *slog.Logger
}

func parse(args []string, usage io.Writer) (*app, error) {
	a := &app{daemon: daemon.Defaults(), bucket: bucket.Defaults(), options: bucketops.Defaults()}
	a.flags = daemon.NewFlags("bucket", "Look at the blocks of a bucket; check, repair, mark, move and rewrite them.", usage)
	f := a.flags
	a.daemon.BindLog(f)
	f.Flag("objstore.config", "Object storage that holds the blocks, as objstore's YAML.").PlaceHolder("<content>").StringVar(&a.bucket.Config)
	f.Flag("objstore.config-file", "Path of a file with that YAML.").PlaceHolder("<path>").StringVar(&a.bucket.ConfigFile)
	f.Flag("data-dir", "Directory that blocks are brought to and written in; empty for one of the system's. It needs room for one block and what is made of it.").
		StringVar(&a.options.Dir)
	f.Flag("block-meta-fetch-concurrency", "Small objects read at a time when the bucket is looked at.").
		Default(strconv.Itoa(a.options.Fetcher.Concurrency)).IntVar(&a.options.Fetcher.Concurrency)
	f.Ignore(ignored()...)
	for _, bind := range a.commands() {
		bind()
	}
	// Thanos has these commands under `thanos tools bucket`.
	if len(args) > 0 && args[0] == "tools" {
		args = args[1:]
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if !a.bucket.Configured() {
		return nil, errors.New("no object storage; give --objstore.config or --objstore.config-file")
	}
	return a, errors.Join(a.bucket.Validate(), a.options.Fetcher.Validate())
}

// commands are all there are, in the order of the help.
func (a *app) commands() []func() {
	return []func(){
		a.ls, a.inspect, a.verify, a.mark, a.unmark,
		a.repair, a.rewrite, a.cleanup, a.retention, a.replicate, a.uploadBlocks, a.downsample,
	}
}

// command declares a command that is run after parsing.
func (a *app) command(name, help string, run func(ctx context.Context, e env) (table, error)) *daemon.Command {
	return a.flags.Command(name, help, func() { a.run = run })
}

// bindOutput declares the form of a command's result. The first is the default.
func (a *app) bindOutput(c *daemon.Command, formats ...string) {
	c.Flag("output", "Form of the result: "+strings.Join(formats, ", ")+".").Short('o').Default(formats[0]).EnumVar((*string)(&a.output), formats...)
}

// formatOrTemplate is a flag for one of some formats, or a Go template.
type formatOrTemplate struct {
	to    *format
	names []string
}

func (v formatOrTemplate) String() string { return string(*v.to) }

// Set takes the flag's text.
func (v formatOrTemplate) Set(text string) error {
	*v.to = format(text)
	if v.to.isTemplate() {
		_, err := v.to.template()
		return err
	}
	if !slices.Contains(v.names, text) {
		return fmt.Errorf("%q is none of %s, nor a template such as {{.ULID}}", text, strings.Join(v.names, ", "))
	}
	return nil
}

func (a *app) bindDryRun(c *daemon.Command) {
	c.Flag("dry-run", "Show what would be done, and do nothing.").BoolVar(&a.options.DryRun)
}

// selection are the flags that choose blocks.
type selection struct {
	ids              []string
	matchers         []string
	rules            *daemon.Content
	minTime, maxTime daemon.TimeOrDuration
	chosen           bucketops.Selection
}

func (s *selection) bindIDs(c *daemon.Command) *kingpin.FlagClause {
	c.List("id", "ULID of a block that is meant; may be repeated.", &s.ids)
	return c.GetFlag("id")
}

func (s *selection) bindLabels(c *daemon.Command) {
	c.Flag("selector", `External label that a block must have, as key="value"; may be repeated, all must match.`).Short('l').StringsVar(&s.matchers)
	s.rules = c.Content("selector.relabel-config", "Relabel rules over external labels and __block_id that choose the blocks.")
}

func (s *selection) bindTimes(c *daemon.Command) {
	c.Time("min-time", "Leave out blocks that end before this time: RFC3339, or a duration relative to now such as -6w.", "0000-01-01T00:00:00Z", &s.minTime)
	c.Time("max-time", "Leave out blocks that begin after this time.", "9999-12-31T23:59:59Z", &s.maxTime)
}

// read gives the selection that the flags say.
func (s *selection) read() (bucketops.Selection, error) {
	out := s.chosen
	var err error
	if out.IDs, err = bucketops.ParseIDs(s.ids); err != nil {
		return out, err
	}
	for _, text := range s.matchers {
		name, value, err := parseLabel(text)
		if err != nil {
			return out, fmt.Errorf("--selector=%s: %w", text, err)
		}
		out.Matchers = append(out.Matchers, labels.MustNewMatcher(labels.MatchEqual, name, value))
	}
	if s.rules != nil {
		content, err := s.rules.Read()
		if err != nil {
			return out, err
		}
		if out.Rules, err = bucketops.ParseRules(content); err != nil {
			return out, fmt.Errorf("--selector.relabel-config: %w", err)
		}
	}
	now := now()
	out.MinTime, out.MaxTime = s.minTime.At(now), s.maxTime.At(now)
	return out, nil
}

// ignored lists Thanos' flags for which there is nothing to set here.
func ignored() []daemon.Ignored {
	const serves = "this program serves nothing"
	return []daemon.Ignored{
		{Name: "http-address", Reason: serves},
		{Name: "http-grace-period", Reason: serves},
		{Name: "http.config", Reason: serves},
		{Name: "timeout", Reason: "a slow bucket is waited for; interrupt the program to end it"},
		{Name: "hash-func", Values: []string{"", "SHA256"}},
		{Name: "block-files-concurrency"},
		{Name: "block-sync-concurrency", Reason: "see --block-meta-fetch-concurrency"},
		{Name: "enable-auto-gomemlimit", Switch: true, Reason: "blocks are read as mapped files; GOMEMLIMIT is obeyed where it is set"},
		{Name: "auto-gomemlimit.ratio", Reason: "see --enable-auto-gomemlimit"},
		{Name: "tracing.config", Reason: "tracing is not built yet"},
		{Name: "tracing.config-file", Reason: "tracing is not built yet"},
	}
}

package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kingpin/v2"
	"github.com/prometheus/common/model"
	"github.com/prometheus/common/version"
)

// ErrHelp says that help or the version was asked for and has been written: the
// process ends with exit code 0.
var ErrHelp = errors.New("help requested")

// Flags are the command line of one component: a kingpin application that
// returns its errors, never exits, and accepts the component's own name as first
// argument, because operators start images that way (`sidecar --tsdb.path=…`).
type Flags struct {
	*kingpin.Application
	declarations
	helped int // how often help or the version was written
	given  given
}

// Command is one of the commands of a component that has several, with flags of its own.
type Command struct {
	*kingpin.CmdClause
	declarations
}

// declarations declares flags in the forms that the house has, of a component
// or of one of its commands.
type declarations struct {
	flag  func(name, help string) *kingpin.FlagClause
	given *given
}

// given are the flags, of all commands, to be looked at after parsing.
type given struct {
	ignored  []*ignoredValue
	contents []*Content
}

// NewFlags returns a command line without flags but --help and --version, which
// write to usage.
func NewFlags(component, help string, usage io.Writer) *Flags {
	f := &Flags{Application: kingpin.New(component, help)}
	f.declarations = declarations{f.Flag, &f.given}
	f.UsageWriter(usage).ErrorWriter(usage).Terminate(func(int) {
		f.helped++
		f.UsageWriter(io.Discard) // kingpin goes on to miss a command, and to say how one is given
	})
	f.Version(version.Print("varve " + component))
	f.HelpFlag.Short('h')
	return f
}

// Command declares a command. Its name follows that of the component in the
// arguments, and run is called by Parse when it was chosen.
func (f *Flags) Command(name, help string, run func()) *Command {
	c := f.Application.Command(name, help)
	c.Action(func(*kingpin.ParseContext) error {
		run()
		return nil
	})
	return &Command{c, declarations{c.Flag, &f.given}}
}

// Parse reads args, without the program's name, into the bound variables. It
// returns ErrHelp if --help or --version was given; any other error names the
// flag that is to be changed.
func (f *Flags) Parse(args []string) error {
	if len(args) > 0 && args[0] == f.Name {
		args = args[1:]
	}
	_, err := f.Application.Parse(args)
	if errors.Is(err, kingpin.ErrCommandNotSpecified) {
		f.helped-- // nobody asked for the help that this has written
		err = errors.New("no command given")
	}
	switch {
	case f.helped > 0:
		return ErrHelp
	case err != nil:
		return fmt.Errorf("parse flags: %w; try --help", f.blame(args, err))
	}
	for _, c := range f.given.contents {
		if c.text != "" && c.path != "" {
			return fmt.Errorf("parse flags: --%s and --%s-file are both given; keep one", c.name, c.name)
		}
	}
	return nil
}

// blame names the flag whose value a parser refused: kingpin passes the parser's
// error on as it is.
func (f *Flags) blame(args []string, err error) error {
	parsed, syntax := f.ParseContext(args)
	if syntax != nil {
		return err
	}
	for _, e := range parsed.Elements {
		if flag, ok := e.Clause.(*kingpin.FlagClause); ok && e.Value != nil {
			if m := flag.Model(); m.Value.Set(*e.Value) != nil {
				return fmt.Errorf("--%s: %w", m.Name, err)
			}
		}
	}
	return err
}

// Duration declares a flag in Prometheus' syntax (5m, 1h30m, 2w). The value of
// dst is the default.
func (d declarations) Duration(name, help string, dst *time.Duration) {
	d.flag(name, help).Default(model.Duration(*dst).String()).SetValue((*model.Duration)(dst))
}

// List declares a flag that may be repeated and whose values are split at
// commas. What dst holds is the default.
func (d declarations) List(name, help string, dst *[]string) {
	d.flag(name, help).Default(*dst...).SetValue((*listValue)(dst))
	*dst = nil // Parse sets what is given, or the default
}

// Content is a setting given as text (--x) or as the path of a file (--x-file).
type Content struct{ name, text, path string }

// Content declares the flags name and name-file. Parse refuses both at once.
func (d declarations) Content(name, help string) *Content {
	c := &Content{name: name}
	d.flag(name, help+" Text; see also --"+name+"-file.").PlaceHolder("<content>").StringVar(&c.text)
	d.flag(name+"-file", help+" Path of a file.").PlaceHolder("<path>").StringVar(&c.path)
	d.given.contents = append(d.given.contents, c)
	return c
}

// Name is that of the flag that takes the text.
func (c *Content) Name() string { return c.name }

// Read returns the setting's bytes with $(NAME) replaced by the environment
// variable NAME, empty if neither flag was given. A variable that is not set is
// an error.
func (c *Content) Read() ([]byte, error) {
	flag, text := c.name, []byte(c.text)
	if c.path != "" {
		content, err := os.ReadFile(c.path)
		if err != nil {
			return nil, fmt.Errorf("read --%s-file: %w", c.name, err)
		}
		flag, text = c.name+"-file", content
	}
	var unset []string
	expanded := regexp.MustCompile(`\$\([a-zA-Z0-9_]+\)`).ReplaceAllFunc(text, func(ref []byte) []byte {
		name := string(ref[2 : len(ref)-1])
		value, ok := os.LookupEnv(name)
		if !ok {
			unset = append(unset, name)
		}
		return []byte(value)
	})
	if len(unset) > 0 {
		return nil, fmt.Errorf("expand --%s: environment variables not set: %s", flag, strings.Join(unset, ", "))
	}
	return expanded, nil
}

// Ignored is a flag of Thanos that we do not need. It is accepted, hidden from
// the help, and logged as having no effect when given.
type Ignored struct {
	Name   string
	Switch bool     // --x and --no-x; otherwise the flag takes a value
	Values []string // the values it may have; nil means any
	Reason string   // said in the log line, for the operator; may be empty
	// Refused makes the flag an error when it is given: ignoring it would lead to wrong results.
	Refused bool
}

// Ignore declares flags without effect. New, or Logger, logs those that were
// given, through the Options bound to the component's flags.
func (d declarations) Ignore(list ...Ignored) {
	for _, i := range list {
		v := &ignoredValue{Ignored: i}
		d.given.ignored = append(d.given.ignored, v)
		d.flag(i.Name, "Has no effect; accepted for compatibility.").Hidden().SetValue(v)
	}
}

// logIgnored says which flags without effect were on the command line.
func (f *Flags) logIgnored(log *slog.Logger) {
	for _, v := range f.given.ignored {
		if v.given {
			log.Warn("flag has no effect", "flag", "--"+v.Name, "reason", cmp.Or(v.Reason, "not needed here"))
		}
	}
}

// ignoredValue is a kingpin.Value that remembers being set and nothing else: a
// value may be a secret.
type ignoredValue struct {
	Ignored
	given bool
}

func (v *ignoredValue) Set(s string) error {
	if v.Values != nil && !slices.Contains(v.Values, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(v.Values, ", "))
	}
	if v.Refused && s != "" && s != "false" {
		return errors.New("not built yet: " + v.Reason)
	}
	v.given = !v.Refused
	return nil
}

func (v *ignoredValue) String() string     { return "" }
func (v *ignoredValue) IsBoolFlag() bool   { return v.Switch }
func (v *ignoredValue) IsCumulative() bool { return true }

type listValue []string

func (l *listValue) Set(s string) error {
	for v := range strings.SplitSeq(s, ",") {
		if v = strings.TrimSpace(v); v != "" {
			*l = append(*l, v)
		}
	}
	return nil
}

func (l *listValue) String() string     { return strings.Join(*l, ",") }
func (l *listValue) IsCumulative() bool { return true }

// TimeOrDuration is a point in time, or a distance from now that moves with it.
// The zero value is the zero time. It is a kingpin.Value.
type TimeOrDuration struct {
	at       time.Time
	distance model.Duration // from now, instead of at, if relative
	relative bool
}

// Time declares a flag that takes an RFC3339 time or a duration relative to now
// (-2w), as text does, its default.
func (d declarations) Time(name, help, text string, dst *TimeOrDuration) {
	d.flag(name, help).Default(text).SetValue(dst)
}

// At returns the point in time, seen from now.
func (t TimeOrDuration) At(now time.Time) time.Time {
	if t.relative {
		return now.Add(time.Duration(t.distance))
	}
	return t.at
}

// Set parses s.
func (t *TimeOrDuration) Set(s string) error {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		*t = TimeOrDuration{at: at}
		return nil
	}
	distance, err := model.ParseDurationAllowNegative(strings.TrimPrefix(s, "+"))
	if err != nil {
		return fmt.Errorf("%q is neither a time such as 2006-01-02T15:04:05Z nor a duration such as -2w", s)
	}
	*t = TimeOrDuration{distance: distance, relative: true}
	return nil
}

// String returns what Set accepts.
func (t *TimeOrDuration) String() string {
	if t.relative {
		return t.distance.String()
	}
	return t.at.Format(time.RFC3339)
}

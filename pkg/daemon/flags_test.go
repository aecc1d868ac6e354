package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// settings are one of each kind of flag.
type settings struct {
	level    string
	wait     bool
	every    time.Duration
	replicas []string
	from     TimeOrDuration
	bucket   *Content
	flags    *Flags
}

func parseSettings(args ...string) (*settings, string, error) {
	var usage bytes.Buffer
	s := &settings{every: 3 * time.Minute, replicas: []string{"replica"}}
	f := NewFlags("compact", "Merge blocks.", &usage)
	s.flags = f
	f.Flag("log.level", "Level.").Default("info").EnumVar(&s.level, "info", "debug")
	f.Flag("wait", "Go on for ever.").BoolVar(&s.wait)
	f.Duration("every", "Interval.", &s.every)
	f.List("replica-label", "Replica labels.", &s.replicas)
	f.Time("min-time", "Oldest.", "0000-01-01T00:00:00Z", &s.from)
	s.bucket = f.Content("objstore.config", "Bucket.")
	f.Ignore(
		Ignored{Name: "web.disable-cors", Switch: true},
		Ignored{Name: "index-cache.config", Reason: "the page cache needs no setting"},
		Ignored{Name: "query.promql-engine", Values: []string{"prometheus", "thanos"}},
	)
	return s, usage.String(), f.Parse(args)
}

func TestFlagsAreParsed(t *testing.T) {
	for name, tc := range map[string]struct {
		args  []string
		check func(*settings) bool
	}{
		"the component's name may come first": {
			[]string{"compact", "--wait"}, func(s *settings) bool { return s.wait },
		},
		"nothing at all gives the defaults": {
			nil, func(s *settings) bool {
				return s.level == "info" && !s.wait && s.every == 3*time.Minute && slices.Equal(s.replicas, []string{"replica"})
			},
		},
		"a switch is turned off by no-": {
			[]string{"--no-wait"}, func(s *settings) bool { return !s.wait },
		},
		"durations know weeks": {
			[]string{"--every=2w"}, func(s *settings) bool { return s.every == 14*24*time.Hour },
		},
		"durations may be compound": {
			[]string{"--every=1h30m"}, func(s *settings) bool { return s.every == 90*time.Minute },
		},
		"a list is split at commas and goes on in the next flag": {
			[]string{"--replica-label=a, b", "--replica-label", "c"},
			func(s *settings) bool { return slices.Equal(s.replicas, []string{"a", "b", "c"}) },
		},
		"a time may be absolute": {
			[]string{"--min-time=2026-01-02T03:04:05Z"},
			func(s *settings) bool {
				return s.from.At(time.Now()).Equal(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			},
		},
		"a time may be relative and moves with now": {
			[]string{"--min-time=-6w"},
			func(s *settings) bool {
				a, b := time.Unix(1e9, 0), time.Unix(2e9, 0)
				return s.from.At(a).Equal(a.Add(-42*24*time.Hour)) && s.from.At(b).Equal(b.Add(-42*24*time.Hour))
			},
		},
		"a time of the year zero is earlier than all data": {
			nil, func(s *settings) bool { return s.from.At(time.Now()).Year() == 0 },
		},
		"flags without effect are accepted, repeated too": {
			[]string{"--no-web.disable-cors", "--index-cache.config=type: IN-MEMORY", "--index-cache.config=", "--query.promql-engine=thanos"},
			func(*settings) bool { return true },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := parseSettings(tc.args...)
			if err != nil {
				t.Fatalf("parse %q: %v", tc.args, err)
			}
			if !tc.check(s) {
				t.Errorf("parse %q: got %+v", tc.args, *s)
			}
		})
	}
}

func TestFlagErrorsNameTheFlag(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"a duration without unit":          {[]string{"--every=15"}, `--every: not a valid duration string: "15"`},
		"a value outside the choices":      {[]string{"--log.level=loud"}, "--log.level: enum value must be one of info,debug, got 'loud'"},
		"a time that is none":              {[]string{"--min-time=yesterday"}, `--min-time: "yesterday" is neither a time`},
		"an unknown flag":                  {[]string{"--colour=red"}, "unknown long flag '--colour'"},
		"another component's name":         {[]string{"sidecar"}, "unexpected sidecar"},
		"a content twice":                  {[]string{"--objstore.config=a", "--objstore.config-file=b"}, "--objstore.config and --objstore.config-file are both given"},
		"an ignored choice that is absurd": {[]string{"--query.promql-engine=mysql"}, `--query.promql-engine: "mysql" is none of prometheus, thanos`},
		"a flag twice":                     {[]string{"--every=1m", "--every=2m"}, "flag 'every' cannot be repeated"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parseSettings(tc.args...)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("parse %q:\n got %v\nwant %s", tc.args, err, tc.want)
			}
		})
	}
}

func TestHelpAndVersionAreWrittenAndEnd(t *testing.T) {
	for name, tc := range map[string]struct{ arg, want string }{
		"help":    {"--help", "--every=3m"},
		"short":   {"-h", "--every=3m"},
		"version": {"--version", "varve compact, version"},
	} {
		t.Run(name, func(t *testing.T) {
			var usage bytes.Buffer
			every := 3 * time.Minute
			f := NewFlags("compact", "Merge blocks.", &usage)
			f.Duration("every", "Interval.", &every)
			f.Flag("must", "Required.").Required().String()
			f.Ignore(Ignored{Name: "hidden-one"})
			if err := f.Parse([]string{tc.arg}); !errors.Is(err, ErrHelp) {
				t.Errorf("parse %s: got %v, want ErrHelp", tc.arg, err)
			}
			if got := usage.String(); !strings.Contains(got, tc.want) || strings.Contains(got, "hidden-one") {
				t.Errorf("usage lacks %q or shows hidden flags:\n%s", tc.want, got)
			}
		})
	}
}

func TestContent(t *testing.T) {
	t.Setenv("VARVE_KEY", "secret")
	file := filepath.Join(t.TempDir(), "bucket.yaml")
	if err := os.WriteFile(file, []byte("from file: $(VARVE_KEY)"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args      []string
		want, err string
	}{
		"absent":                   {nil, "", ""},
		"text":                     {[]string{"--objstore.config=type: S3\n"}, "type: S3\n", ""},
		"text with a variable":     {[]string{"--objstore.config=key: $(VARVE_KEY) $1"}, "key: secret $1", ""},
		"a file with a variable":   {[]string{"--objstore.config-file=" + file}, "from file: secret", ""},
		"a variable that is unset": {[]string{"--objstore.config=$(VARVE_UNSET)"}, "", "expand --objstore.config: environment variables not set: VARVE_UNSET"},
		"a file that is not there": {[]string{"--objstore.config-file=/nowhere"}, "", "read --objstore.config-file: open /nowhere"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, err := parseSettings(tc.args...)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.bucket.Read()
			if string(got) != tc.want || (err == nil) != (tc.err == "") || (err != nil && !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("content of %q:\n got %q, %v\nwant %q, %s", tc.args, got, err, tc.want, tc.err)
			}
		})
	}
}

func TestFlagsWithoutEffectAreLoggedOnce(t *testing.T) {
	o := parsed(t, "--tracing.config=password: secret", "--tracing.config=again", "--request.logging-config-file=x")
	_, log := newDaemon(t, o)
	lines := log.lines("flag has no effect")
	if len(lines) != 2 || !strings.Contains(lines[0], "flag=--tracing.config ") || !strings.Contains(lines[1], "flag=--request.logging-config-file ") {
		t.Errorf("got lines %q, want one for each of the two flags", lines)
	}
	if strings.Contains(log.String(), "secret") {
		t.Errorf("the log tells the value of an ignored flag:\n%s", log)
	}
}

func TestACommandIsChosenByItsName(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // the command that ran and its delay, or a part of the error
	}{
		"a command":                {[]string{"ls"}, "ls 5m0s"},
		"a flag of the command":    {[]string{"ls", "--delay=1h"}, "ls 1h0m0s"},
		"the component's name":     {[]string{"tool", "ls"}, "ls 5m0s"},
		"a flag of another":        {[]string{"rm", "--delay=1h"}, "unknown long flag '--delay'"},
		"no command":               {nil, "no command given"},
		"an unknown command":       {[]string{"mv"}, "mv"},
		"help":                     {[]string{"--help"}, ErrHelp.Error()},
		"help of a command":        {[]string{"ls", "--help"}, ErrHelp.Error()},
		"a refused flag":           {[]string{"rm", "--force"}, "--force: not built yet: no"},
		"a setting given twice":    {[]string{"rm", "--rules=a", "--rules-file=b"}, "both given"},
		"that of another is fresh": {[]string{"rm", "--rules=a"}, "rm 5m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			f := NewFlags("tool", "A tool.", &out)
			delay, ran := 5*time.Minute, ""
			f.Command("ls", "List.", func() { ran = "ls" }).Duration("delay", "Delay.", &delay)
			rm := f.Command("rm", "Remove.", func() { ran = "rm" })
			rm.Ignore(Ignored{Name: "force", Switch: true, Refused: true, Reason: "no"})
			rm.Content("rules", "Rules.")
			err := f.Parse(tc.args)
			got := fmt.Sprintf("%s %s", ran, delay)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, tc.want) {
				t.Errorf("got %s, want %s", got, tc.want)
			}
			if n := strings.Count(out.String(), "usage: "); n > 1 {
				t.Errorf("the usage is written %d times", n)
			}
		})
	}
}

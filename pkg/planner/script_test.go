package planner

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/block"
)

// TestScripts runs testdata/*.txt. Lines are commands; what plan, run and set
// answer stands below a line of dashes, up to the next empty line. All times are
// durations since the Unix epoch.
//
//	policy replicas=r levels=2h,8h raw=30d 5m=60d 1h=0s delete-delay=0s max-index=4GiB max-block=9GiB …
//	now 10h
//	block A 0h-2h {c=eu,r=a} [res=5m] [level=2] [sources=A,B] [uploaded=3h] [marked=4h] [index=0.5GiB] [chunks=3GiB] [nocompact=reason] [nodownsample=reason]
//	partial P modified=5h [marked=4h]
//	plan     the jobs of one plan
//	held     the blocks that no job has although something is to become of them, and why
//	run      plan and do, until the plan is empty
//	set      what is there now
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, file, runScript(t, string(text)))
		})
	}
}

// runScript gives the script with the answers that it gets now.
func runScript(t *testing.T, text string) string {
	t.Helper()
	var out strings.Builder
	w := newWorld()
	answering := false
	for n, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if line == "" {
			answering = false
		}
		if answering {
			continue
		}
		out.WriteString(line + "\n")
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		answer, err := w.command(words)
		if err != nil {
			t.Fatalf("line %d: %s: %v", n+1, line, err)
		}
		if answer != nil {
			answering = true
			out.WriteString("----\n" + strings.Join(append(answer, ""), "\n"))
		}
	}
	return out.String()
}

// command executes one line; the answer is nil if it has none.
func (w *world) command(words []string) (answer []string, err error) {
	switch words[0] {
	case "policy":
		return nil, w.setPolicy(words[1:])
	case "now":
		d, err := model.ParseDuration(words[1])
		w.now = time.Unix(0, 0).Add(time.Duration(d))
		return nil, err
	case "block":
		return nil, w.addBlock(words[1:])
	case "partial":
		return nil, w.addPartial(words[1:])
	case "plan":
		answer = []string{}
		for _, j := range Plan(w.set(), w.policy, w.now) {
			answer = append(answer, w.describe(j))
		}
		return answer, nil
	case "held":
		answer = []string{}
		_, held := Explain(w.set(), w.policy, w.now)
		for _, h := range held {
			answer = append(answer, w.heldText(h))
		}
		return answer, nil
	case "run":
		return w.exhaust()
	case "set":
		return w.show(), nil
	}
	return nil, fmt.Errorf("unknown command")
}

// heldText is "A range until 10h: its range of …".
func (w *world) heldText(h Held) string {
	text := fmt.Sprintf("%s %s", w.names[h.Block.ULID], h.Why)
	if !h.Until.IsZero() {
		text += " until " + duration(time.Duration(h.Until.UnixMilli())*time.Millisecond)
	}
	return text + ": " + h.Detail
}

// options gives the words of the form key=value; a bare key has an empty value.
func options(words []string) map[string]string {
	o := map[string]string{}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		o[key] = value
	}
	return o
}

func parseDuration(text string) (time.Duration, error) {
	d, err := model.ParseDuration(text)
	return time.Duration(d), err
}

func (w *world) setPolicy(words []string) error {
	p := Defaults()
	for key, value := range options(words) {
		var err error
		switch key {
		case "replicas":
			p.ReplicaLabels = strings.Split(value, ",")
		case "levels":
			p.Levels = nil
			for l := range strings.SplitSeq(value, ",") {
				d, e := parseDuration(l)
				p.Levels, err = append(p.Levels, d), e
			}
		case "raw":
			p.Retention[block.Raw], err = parseDuration(value)
		case "5m":
			p.Retention[block.FiveMin], err = parseDuration(value)
		case "1h":
			p.Retention[block.OneHour], err = parseDuration(value)
		case "delete-delay":
			p.DeleteDelay, err = parseDuration(value)
		case "consistency-delay":
			p.ConsistencyDelay, err = parseDuration(value)
		case "max-index":
			_, err = fmt.Sscanf(value, "%dGiB", &p.MaxIndexBytes)
			p.MaxIndexBytes <<= 30
		case "max-block":
			_, err = fmt.Sscanf(value, "%dGiB", &p.MaxBlockBytes)
			p.MaxBlockBytes <<= 30
		case "no-downsampling":
			p.NoDownsampling = true
		default:
			err = fmt.Errorf("unknown setting %s", key)
		}
		if err != nil {
			return err
		}
	}
	w.policy = p
	return p.Validate()
}

func (w *world) addBlock(words []string) error {
	from, to, _ := strings.Cut(words[1], "-")
	mint, err := parseDuration(from)
	if err != nil {
		return err
	}
	maxt, err := parseDuration(to)
	if err != nil {
		return err
	}
	m := &block.Meta{ULID: w.id(words[0]), MinTime: mint.Milliseconds(), MaxTime: maxt.Milliseconds(), Version: 1}
	m.Compaction.Level = 1
	m.Thanos.Source = block.SourceSidecar
	m.Thanos.UploadTime = time.UnixMilli(m.MaxTime)
	m.Thanos.Labels = map[string]string{}
	for l := range strings.SplitSeq(strings.Trim(words[2], "{}"), ",") {
		name, value, _ := strings.Cut(l, "=")
		m.Thanos.Labels[name] = value
	}
	e := &block.Entry{Meta: m}
	for key, value := range options(words[3:]) {
		if err := w.blockOption(e, key, value); err != nil {
			return err
		}
	}
	if len(m.Compaction.Sources) == 0 {
		m.Compaction.Sources = []ulid.ULID{m.ULID}
	}
	w.blocks[m.ULID] = e
	return nil
}

func (w *world) blockOption(e *block.Entry, key, value string) error {
	m := e.Meta
	switch key {
	case "res":
		m.Thanos.Downsample.Resolution = map[string]block.Resolution{"raw": block.Raw, "5m": block.FiveMin, "1h": block.OneHour}[value]
		m.Thanos.Source = block.SourceCompactor
	case "level":
		_, err := fmt.Sscan(value, &m.Compaction.Level)
		return err
	case "sources":
		for name := range strings.SplitSeq(value, ",") {
			m.Compaction.Sources = append(m.Compaction.Sources, w.id(name))
		}
		m.Compaction.Sources = block.SortedIDs(m.Compaction.Sources)
	case "uploaded", "marked":
		d, err := parseDuration(value)
		if err != nil {
			return err
		}
		at := time.Unix(0, 0).Add(d)
		if key == "uploaded" {
			m.Thanos.UploadTime = at
		} else {
			e.Deletion = &block.Mark{Kind: block.DeletionMark, ID: m.ULID, Time: at.Unix()}
		}
	case "index":
		gib, err := strconv.ParseFloat(strings.TrimSuffix(value, "GiB"), 64)
		if err != nil {
			return err
		}
		e.Objects = map[string]int64{block.IndexFile: int64(gib * (1 << 30))}
	case "chunks":
		gib, err := strconv.ParseInt(strings.TrimSuffix(value, "GiB"), 10, 64)
		if err != nil {
			return err
		}
		e.Objects = map[string]int64{block.IndexFile: 1 << 20, block.SegmentFile(1): gib << 30}
	case "nocompact":
		e.NoCompact = &block.Mark{Kind: block.NoCompactMark, ID: m.ULID, Reason: value}
	case "nodownsample":
		e.NoDownsample = &block.Mark{Kind: block.NoDownsampleMark, ID: m.ULID, Reason: value}
	default:
		return fmt.Errorf("unknown option %s", key)
	}
	return nil
}

func (w *world) addPartial(words []string) error {
	p := block.Partial{ID: w.id(words[0])}
	for key, value := range options(words[1:]) {
		d, err := parseDuration(value)
		if err != nil {
			return err
		}
		at := time.Unix(0, 0).Add(d)
		switch key {
		case "modified":
			p.LastModified = at
		case "marked":
			p.Deletion = &block.Mark{Kind: block.DeletionMark, ID: p.ID, Time: at.Unix()}
		}
	}
	w.partial = append(w.partial, p)
	return nil
}

var ulidText = regexp.MustCompile(`[0-9A-Z]{26}`)

// describe writes a job with the names of the script.
func (w *world) describe(j Job) string {
	return ulidText.ReplaceAllStringFunc(j.String(), func(text string) string {
		if id, err := ulid.ParseStrict(text); err == nil && w.names[id] != "" {
			return w.names[id]
		}
		return text
	})
}

// show writes the blocks by time and resolution; their ULIDs change with the writer's version.
func (w *world) show() []string {
	lines := []string{}
	blocks := w.set().Blocks
	slices.SortFunc(blocks, func(a, b *block.Entry) int {
		return cmp.Or(
			cmp.Compare(a.Meta.MinTime, b.Meta.MinTime),
			cmp.Compare(a.Meta.MaxTime, b.Meta.MaxTime),
			cmp.Compare(a.Meta.Resolution(), b.Meta.Resolution()),
			strings.Compare(w.names[a.Meta.ULID], w.names[b.Meta.ULID]))
	})
	for _, e := range blocks {
		m := e.Meta
		var sources []string
		for _, id := range m.Compaction.Sources {
			sources = append(sources, w.names[id])
		}
		slices.Sort(sources)
		line := fmt.Sprintf("%s %s-%s %s@%s level %d of %s", w.names[m.ULID], hours(m.MinTime), hours(m.MaxTime), m.Labels(), m.Resolution(),
			m.Compaction.Level, strings.Join(sources, " "))
		if e.Deletion != nil {
			line += ", marked for deletion"
		}
		lines = append(lines, line)
	}
	return lines
}

func hours(ms int64) string { return model.Duration(time.Duration(ms) * time.Millisecond).String() }

package main

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/internal/golden"
	"github.com/varve-io/varve/pkg/block"
	"github.com/varve-io/varve/pkg/block/blocktest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/daemon"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bucketDir makes a bucket in a directory: a pair of raw blocks, one of which is
// marked, and one of 5m.
func bucketDir(t *testing.T) (config string, ids []ulid.ULID) {
	t.Helper()
	dir := t.TempDir()
	config = "{type: FILESYSTEM, config: {directory: " + dir + "}}"
	bkt, err := bucket.Open(t.Context(), bucket.Options{Config: config}, slog.New(slog.NewTextHandler(t.Output(), nil)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer bkt.Close()
	for i, replica := range []string{"a", "b"} {
		m := blocktest.InBucket(t, bkt, blocktest.Spec{
			Load:   "load 15s\n  up{job=\"x\"} 1x20\n  requests_total{job=\"x\"} 1+1x20",
			Offset: time.Duration(i) * 2 * time.Hour, Level: i + 1,
			Labels: map[string]string{"cluster": "eu", "replica": replica},
		})
		ids = append(ids, m.ULID)
	}
	return config, ids
}

// run runs the tool on a bucket and returns what it writes to stdout.
func run(t *testing.T, config string, args ...string) (string, error) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	err := execute(t.Context(), append(args, "--objstore.config="+config, "--data-dir="+t.TempDir()), &stdout, &stderr)
	t.Log(stderr.String())
	return stdout.String(), err
}

func TestBlocksAreListedInEveryForm(t *testing.T) {
	config, ids := bucketDir(t)
	if _, err := run(t, config, "mark", "--id="+ids[0].String(), "--marker=no-compact-mark.json", "--details=kept for the audit"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct{ name, args string }{
		{"ls.txt", "ls"},
		{"ls-table.txt", "ls -o table"},
		{"ls.json", "ls -o json"},
		{"ls.tsv", "ls -o tsv"},
		{"ls-template.txt", "ls -o {{.ULID}},{{.Compaction.Level}},{{.Thanos.Labels.replica}}"},
		{"inspect.txt", "inspect"},
		{"inspect.json", "inspect -o json"},
		{"inspect.tsv", "inspect -o tsv"},
		{"inspect.csv", "inspect -o csv"},
		{"inspect-sorted.txt", "tools bucket inspect --sort-by=COMP-LEVEL --sort-by=ULID -l cluster=\"eu\" -l replica=\"b\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := run(t, config, strings.Fields(tc.args)...)
			if err != nil {
				t.Fatal(err)
			}
			golden.Check(t, filepath.Join("testdata", tc.name), got)
		})
	}
}

func TestBlocksAreSelected(t *testing.T) {
	config, ids := bucketDir(t)
	a, b := ids[0].String()+"\n", ids[1].String()+"\n"
	if _, err := run(t, config, "mark", "--id="+ids[0].String(), "--marker=deletion-mark.json", "--details=old"); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ args, want string }{
		"all":              {"ls", a + b},
		"by label":         {`ls --selector=replica="a"`, a},
		"by two labels":    {`ls -l replica="a" -l cluster="us"`, ""},
		"by rules":         {"ls --selector.relabel-config=[{action:\u00a0drop,source_labels:\u00a0[__block_id],regex:\u00a0" + ids[0].String() + "}]", b},
		"not marked":       {"ls --exclude-delete", b},
		"from a time on":   {"ls --min-time=1970-01-01T01:00:00Z", b},
		"until a time":     {"ls --max-time=1970-01-01T01:00:00Z", a},
		"of the last hour": {"ls --min-time=-1h", ""},
	} {
		t.Run(name, func(t *testing.T) {
			args := strings.Fields(tc.args)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "\u00a0", " ")
			}
			if name == "by rules" {
				args = []string{"ls", strings.ReplaceAll(strings.TrimPrefix(tc.args, "ls "), "\u00a0", " ")}
			}
			if got, err := run(t, config, args...); err != nil || got != tc.want {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

func TestMarksComeAndGo(t *testing.T) {
	config, ids := bucketDir(t)
	id := ids[0].String()
	for _, step := range []struct{ args, want string }{
		{"mark --id=" + id + " --marker=deletion-mark.json --details=old --dry-run -o tsv", "planned"},
		{"mark --id=" + id + " --marker=deletion-mark.json --details=old -o tsv", "done"},
		{"mark --id=" + id + " --marker=deletion-mark.json --details=older -o tsv", "unchanged"},
		{"unmark --id=" + id + " --marker=deletion-mark.json -o tsv", "done"},
		{"mark --remove --id=" + id + " --marker=deletion-mark.json -o tsv", "unchanged"},
	} {
		got, err := run(t, config, strings.Fields(step.args)...)
		if err != nil {
			t.Fatal(err)
		}
		row := strings.Split(strings.Split(got, "\n")[1], "\t")
		if row[3] != step.want {
			t.Errorf("%s: got %s, want %s", step.args, row[3], step.want)
		}
	}
	absent := ulid.MustNew(1, strings.NewReader("0123456789")).String()
	got, err := run(t, config, "mark", "--id="+absent, "--id="+id, "--marker=no-compact-mark.json", "--details=x")
	if err == nil || !strings.Contains(err.Error(), absent) {
		t.Errorf("error is %v, want one that names %s", err, absent)
	}
	if !strings.Contains(got, "done") {
		t.Errorf("the other block is not marked:\n%s", got)
	}
}

func TestVerifyNamesFileAndOffset(t *testing.T) {
	config, ids := bucketDir(t)
	if got, err := run(t, config, "verify"); err != nil || strings.Count(got, "\n") != 1 {
		t.Errorf("sound blocks: got %q, %v", got, err)
	}
	dir := strings.TrimSuffix(config[strings.Index(config, "directory: ")+len("directory: "):], "}}")
	blocktest.Flip(t, filepath.Join(dir, block.SegmentName(ids[1], 1)), 20)
	got, err := run(t, config, "verify", "-o", "tsv")
	if err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("error is %v, want one with 1 of 2", err)
	}
	if want := ids[1].String() + "\tchunks/000001\t8\tchecksum\t"; !strings.Contains(got, want) {
		t.Errorf("got\n%s\nwant a row %q", got, want)
	}
}

func TestBlocksAreCopiedUploadedAndRemoved(t *testing.T) {
	config, ids := bucketDir(t)
	target := "{type: FILESYSTEM, config: {directory: " + t.TempDir() + "}}"
	id := ids[0].String()
	data := t.TempDir()
	_, local := blocktest.DirIn(t, data, blocktest.Spec{Load: "load 15s\n  up 1x20"})
	for _, step := range []struct {
		args []string
		want string // of the rows: action, block, status
	}{
		{[]string{"replicate", "--objstore-to.config=" + target, "--dry-run"}, "copy " + ids[0].String() + " planned\ncopy " + ids[1].String() + " planned\n"},
		{[]string{"replicate", "--objstore-to.config=" + target, "--compaction-max=1", "--single-run"}, "copy " + id + " done\n"},
		{[]string{"replicate", "--objstore-to.config=" + target, `--matcher={replica=~"a|b"}`}, "copy " + id + " unchanged\ncopy " + ids[1].String() + " done\n"},
		{[]string{"replicate", "--objstore-to.config=" + target, "--resolution=1h"}, ""},
		{[]string{"replicate", "--objstore-to.config=" + target, "--compaction=7"}, ""},
		{[]string{"replicate", "--objstore-to.config=" + target, "--compaction=7", "--id=" + id}, "copy " + id + " unchanged\n"},
		{[]string{"upload-blocks", "--path=" + data, `--label=cluster="us"`}, "upload " + local.ULID.String() + " done\n"},
		{[]string{"retention", "--retention.resolution-raw=1w", "--downsampling.disable", "-l", `cluster="us"`}, "mark " + local.ULID.String() + " done\n"},
		{[]string{"cleanup"}, ""},
		{[]string{"cleanup", "--delete-delay=0s", "--dry-run"}, "delete " + local.ULID.String() + " planned\n"},
		{[]string{"cleanup", "--delete-delay=0s"}, "delete " + local.ULID.String() + " done\n"},
		{[]string{"downsample", "-l", `replica="a"`, "--dry-run"}, "write " + id + " planned\n"},
	} {
		out, err := run(t, config, append(step.args, "-o", "tsv")...)
		if err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		var rows strings.Builder
		for row := range strings.Lines(out) {
			if cells := strings.Split(row, "\t"); cells[0] != "ACTION" {
				rows.WriteString(cells[0] + " " + cells[1] + " " + cells[3] + "\n")
			}
		}
		if got := rows.String(); got != step.want {
			t.Errorf("%v: got\n%swant\n%s", step.args, got, step.want)
		}
	}
}

func TestBrokenBlocksAreRepairedAndOthersRewritten(t *testing.T) {
	config, ids := bucketDir(t)
	dir := strings.TrimSuffix(config[strings.Index(config, "directory: ")+len("directory: "):], "}}")
	blocktest.Flip(t, filepath.Join(dir, block.SegmentName(ids[1], 1)), 20)
	for _, step := range []struct {
		args []string
		want string // the first two cells that are not ULIDs, of each row
	}{
		{[]string{"repair", "--id=" + ids[1].String(), "--dry-run"}, "write planned, lost lost, mark planned"},
		{[]string{"repair", "--id=" + ids[1].String(), "--deduplication.replica-label=replica", "--delete-source"}, "write done, lost lost, mark done, mark done"},
		{[]string{"verify", "--id=" + ids[0].String()}, ""},
		{[]string{"rewrite", "--id=" + ids[0].String(), `--rewrite.to-delete-config=[{matchers: up}]`}, "write planned, mark planned"},
		{[]string{"rewrite", "--id=" + ids[0].String(), `--rewrite.to-relabel-config=[{target_label: job, replacement: z}]`, "--no-dry-run", "--delete-blocks", "--tmp.dir=" + t.TempDir()}, "write done, mark done, mark done"},
	} {
		out, err := run(t, config, append(step.args, "-o", "tsv")...)
		if err != nil {
			t.Fatalf("%v: %v", step.args, err)
		}
		var rows []string
		for row := range strings.Lines(out) {
			if cells := strings.Split(row, "\t"); cells[0] != "ACTION" && cells[0] != "BLOCK" {
				rows = append(rows, cells[0]+" "+cells[3])
			}
		}
		if got := strings.Join(rows, ", "); got != step.want {
			t.Errorf("%v: got %s, want %s", step.args, got, step.want)
		}
	}
	left, err := run(t, config, "ls", "--exclude-delete")
	if err != nil || strings.Count(left, "\n") != 2 || strings.Contains(left, ids[0].String()) || strings.Contains(left, ids[1].String()) {
		t.Errorf("left are %s%v, want the two new blocks", left, err)
	}
}

func TestHelp(t *testing.T) {
	for _, command := range []string{"", "ls", "inspect", "verify", "mark", "unmark", "repair", "rewrite", "cleanup", "retention", "replicate", "upload-blocks", "downsample"} {
		var out bytes.Buffer
		args := []string{"bucket", command, "--help"}
		if command == "" {
			args = []string{"bucket", "--help"}
		}
		if err := execute(t.Context(), args, os.Stdout, &out); !errors.Is(err, daemon.ErrHelp) {
			t.Errorf("error is %v, want %v", err, daemon.ErrHelp)
		}
		golden.Check(t, filepath.Join("testdata", strings.TrimSuffix("help-"+command, "-")+".txt"), out.String())
	}
}

func TestMistakesAreNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"no object storage":     {[]string{"ls"}, "--objstore.config"},
		"no command":            {nil, "no command given"},
		"an unknown command":    {[]string{"wipe"}, "wipe"},
		"an unknown form":       {[]string{"ls", "-o", "yaml"}, "--output"},
		"a template of none":    {[]string{"ls", "-o", "{{.ULID"}, "--output: parse template"},
		"a form of another":     {[]string{"inspect", "-o", "{{.ULID}}"}, "--output"},
		"a mark of no kind":     {[]string{"mark", "--id=x", "--marker=gone"}, "--marker"},
		"verify that repairs":   {[]string{"verify", "--repair"}, "use the command repair"},
		"a column that is none": {[]string{"inspect", "--sort-by=COLOUR"}, "COLOUR"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := parse(tc.args, t.Output()); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %s", err, tc.want)
			}
		})
	}
	config, _ := bucketDir(t)
	for name, tc := range map[string]struct{ args, want string }{
		"an ID that is none":     {"verify --id=x", "--id=x"},
		"a field that is none":   {"ls -o {{.Colour}}", "Colour"},
		"a block that is absent": {"inspect --id=01ARZ3NDEKTSV4RRFFQ69G5FAV", "no complete block 01ARZ3NDEKTSV4RRFFQ69G5FAV"},
		"a label unquoted":       {"ls -l cluster=eu", `key="value"`},
		"a mark without reason":  {"mark --id=01ARZ3NDEKTSV4RRFFQ69G5FAV --marker=deletion-mark.json", "--details"},
		"deletions of none":      {"rewrite --id=01ARZ3NDEKTSV4RRFFQ69G5FAV --rewrite.to-delete-config={", "--rewrite.to-delete-config"},
		"rewriting nothing":      {"rewrite --id=01ARZ3NDEKTSV4RRFFQ69G5FAV", "nothing is to be rewritten"},
		"nowhere to copy to":     {"replicate", "--objstore-to.config"},
		"a resolution of none":   {"replicate --objstore-to.config=x --resolution=7m", "--resolution=7m"},
		"a matcher of none":      {"replicate --objstore-to.config=x --matcher={", "--matcher"},
		"an upload unlabelled":   {"upload-blocks --path=/", "--label"},
		"retention too short":    {"retention --retention.resolution-raw=1h", "--retention.resolution-raw"},
		"rules that are none":    {"ls --selector.relabel-config={", "--selector.relabel-config"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := run(t, config, strings.Fields(tc.args)...); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want an error with %s", err, tc.want)
			}
		})
	}
}

func TestThanosArgumentsAreAccepted(t *testing.T) {
	const id = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
	for _, line := range []string{
		"tools bucket ls --objstore.config-file=f -o json --exclude-delete --timeout=5m",
		"tools bucket verify --objstore.config-file=f --objstore-backup.config-file=g -i index_known_issues --id=" + id,
		"tools bucket inspect --objstore.config-file=f --output=csv --sort-by=FROM --timeout=5m",
		"tools bucket replicate --objstore.config-file=f --objstore-to.config-file=g --compaction-min=1 --compaction-max=4 --resolution=5m --single-run --http-address=0.0.0.0:1",
		"tools bucket downsample --objstore.config-file=f --data-dir=d --downsample.concurrency=2 --wait-interval=5m --block-files-concurrency=2 --hash-func=SHA256",
		"tools bucket cleanup --objstore.config-file=f --delete-delay=48h --consistency-delay=30m --block-sync-concurrency=20",
		"tools bucket mark --objstore.config-file=f --id=" + id + " --marker=deletion-mark.json --details=x",
		"tools bucket mark --objstore.config-file=f --id=" + id + " --marker=no-compact-mark.json --remove",
		"tools bucket rewrite --objstore.config-file=f --id=" + id + " --tmp.dir=d --no-dry-run --delete-blocks --rewrite.to-delete-config-file=d --no-rewrite.add-change-log",
		"tools bucket retention --objstore.config-file=f --retention.resolution-raw=30d --retention.resolution-5m=0d --delete-delay=48h --consistency-delay=30m",
		"tools bucket upload-blocks --objstore.config-file=f --path=d --label=a=\"b\" --shipper.upload-compacted --shipper.upload-concurrency=5",
	} {
		if _, err := parse(strings.Fields(line), t.Output()); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// thanosFlags are the flags of Thanos v0.42.4 by command, but for those of the log; every command has those of "".
var thanosFlags = map[string]string{
	"":              "tracing.config tracing.config-file enable-auto-gomemlimit auto-gomemlimit.ratio objstore.config objstore.config-file",
	"verify":        "repair delete-delay id issues objstore-backup.config objstore-backup.config-file",
	"ls":            "exclude-delete max-time min-time output selector.relabel-config selector.relabel-config-file timeout",
	"inspect":       "output selector sort-by timeout",
	"replicate":     "ignore-marked-for-deletion single-run compaction compaction-max compaction-min http-address http-grace-period http.config id matcher max-time min-time objstore-to.config objstore-to.config-file resolution",
	"downsample":    "block-files-concurrency data-dir downsample.concurrency hash-func http-address http-grace-period http.config wait-interval",
	"cleanup":       "block-sync-concurrency consistency-delay delete-delay selector.relabel-config selector.relabel-config-file",
	"mark":          "remove details id marker",
	"rewrite":       "delete-blocks dry-run no-dry-run prom-blocks rewrite.add-change-log hash-func id rewrite.to-delete-config rewrite.to-delete-config-file rewrite.to-relabel-config rewrite.to-relabel-config-file tmp.dir",
	"retention":     "block-sync-concurrency consistency-delay delete-delay retention.resolution-1h retention.resolution-5m retention.resolution-raw selector.relabel-config selector.relabel-config-file",
	"upload-blocks": "shipper.upload-compacted label path shipper.upload-concurrency",
}

func TestEveryFlagOfThanosIsKnown(t *testing.T) {
	for command, flags := range thanosFlags {
		if command == "" {
			continue
		}
		for flag := range strings.FieldsSeq(flags + " " + thanosFlags[""]) {
			// A value is missing here, or something else that is required; whether the flag is known is said first.
			if _, err := parse([]string{command, "--" + flag}, t.Output()); err != nil && strings.Contains(err.Error(), "unknown") {
				t.Errorf("%s: %v", command, err)
			}
		}
	}
	if _, err := parse([]string{"ls", "--no-such-flag"}, t.Output()); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("an unknown flag: got %v", err)
	}
}

func TestABarIsALine(t *testing.T) {
	if got, want := line("download x", 5, 10), "\r[===============               ]  50% download x\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := line("nothing", 0, 0), "\r[==============================] 100% nothing\x1b[K"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	var out bytes.Buffer
	b := newBar(&out)
	b.show("download", 1, 2)
	b.clear()
	if out.Len() > 0 {
		t.Errorf("drawn on what is no terminal: %q", out.String())
	}
}

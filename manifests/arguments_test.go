package manifests_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// unbindable is an address that no process can listen on. The binaries read and
// validate their flags, then bind: whoever complains of this address has taken
// all others.
const (
	unbindable = "127.0.0.1:99999"
	complaint  = "change --http-address"
)

func TestEveryArgumentIsOneThatTheBinaryTakes(t *testing.T) {
	binaries := binaries(t)
	for _, dir := range rendered() {
		all := objects(t, dir)
		started := map[string]bool{}
		for _, o := range all {
			for name, args := range commands(t, all, o) {
				t.Run(dir+"/"+name, func(t *testing.T) {
					if out := start(t, binaries, args); !strings.Contains(out, complaint) {
						t.Errorf("%q ended with %q", args, out)
					}
				})
				started[args[0]] = true
			}
		}
		want := map[string]bool{"store": true, "query": true, "compact": true}
		if dir != "base" { // has no Prometheus
			want["sidecar"] = true
		}
		if !maps.Equal(started, want) {
			t.Errorf("%s starts %v, want %v", dir, started, want)
		}
	}
}

// A start that always ended at its address would prove nothing.
func TestAnArgumentThatTheBinaryDoesNotTakeIsSeen(t *testing.T) {
	binaries := binaries(t)
	for name, args := range map[string][]string{
		"an unknown flag":   {"compact", "--objstore.config=type: S3", "--retention.resolution-rau=1d"},
		"an absurd value":   {"compact", "--objstore.config=type: S3", "--retention.resolution-raw=soon"},
		"a stray argument":  {"query", "stray"},
		"another component": {"store", "query"},
	} {
		t.Run(name, func(t *testing.T) {
			if out := start(t, binaries, args); strings.Contains(out, complaint) || out == "" {
				t.Errorf("%q ended with %q, want a complaint about the arguments", args, out)
			}
		})
	}
}

// The bucket of an overlay's Secret is one that the binaries understand: they get
// as far as asking it.
func TestBucketsOfTheOverlaysAreUnderstood(t *testing.T) {
	binaries := binaries(t)
	for _, dir := range rendered() {
		if dir == "base" { // has no Secret
			continue
		}
		t.Run(dir, func(t *testing.T) {
			config := string(find(t, objects(t, dir), "Secret", "varve-objstore").Data["objstore.yml"])
			for _, endpoint := range []string{"varve-s3.monitoring.svc:7070", "s3.eu-central-1.amazonaws.com"} {
				config = strings.ReplaceAll(config, endpoint, "127.0.0.1:1\n  max_retries: 1")
			}
			if !strings.Contains(config, "127.0.0.1:1") {
				t.Fatalf("the bucket is somewhere else:\n%s", config)
			}
			out := run(t, binaries["store"], []string{
				"--objstore.config=" + config, "--data-dir=" + t.TempDir(),
				"--http-address=127.0.0.1:0", "--grpc-address=127.0.0.1:0",
			})
			if !strings.Contains(out, "connection refused") {
				t.Errorf("store ended with %q, want the refusal of an address where no bucket is", out)
			}
		})
	}
}

// commands returns the argument lists that start our binaries for an object: its
// containers', and those that the operator composes for a Prometheus.
func commands(t *testing.T, all []object, o object) map[string][]string {
	t.Helper()
	lists := map[string][]string{}
	if o.Spec.Template != nil {
		for _, c := range o.Spec.Template.Spec.Containers {
			if strings.Contains(c.Image, "varve-io/") || strings.Contains(c.Image, "/varve/") {
				lists[o.Metadata.Name] = c.Args
			}
		}
	}
	if o.Spec.Thanos != nil {
		ref := o.Spec.Thanos.ObjectStorageConfig
		config := find(t, all, "Secret", ref.Name).Data[ref.Key]
		for release, args := range operator(t, string(config)) {
			lists["sidecar of "+release] = args
		}
	}
	return lists
}

// operator returns what prometheus-operator passes to the sidecar for a
// spec.thanos with object storage, by release, after the kubelet has put in the
// value of $(OBJSTORE_CONFIG).
func operator(t *testing.T, objstore string) map[string][]string {
	t.Helper()
	client := filepath.Join(t.TempDir(), "prometheus.http-client-file.yaml") // a Secret of the operator's
	if err := os.WriteFile(client, []byte("tls_config:\n  insecure_skip_verify: true\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	always := []string{
		"sidecar",
		"--prometheus.url=http://localhost:9090/",
		"--prometheus.http-client-file=" + client,
		"--grpc-address=:10901",
		"--http-address=:10902",
		"--objstore.config=" + objstore,
		"--tsdb.path=/prometheus",
	}
	return map[string][]string{
		"operator 0.85": slices.Clone(always),
		// For Thanos from 0.41 on beside Prometheus from 3.9 on.
		"a newer operator": append(slices.Clone(always), "--shipper.meta-file-name=thanos.shipper.json", "--shipper.ignore-unequal-block-size"),
	}
}

// start runs the image that the first argument names, with all arguments but for
// the addresses, and returns what it writes.
func start(t *testing.T, binaries map[string]string, args []string) string {
	t.Helper()
	if len(args) == 0 || binaries[args[0]] == "" {
		t.Fatalf("%q do not begin with the name of a component", args)
	}
	if i := slices.IndexFunc(args, func(a string) bool { return strings.Contains(a, "$(") }); i >= 0 {
		t.Fatalf("nothing sets the variable in %q", args[i])
	}
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "--http-address=") })
	return run(t, binaries[args[0]], append(args, "--http-address="+unbindable))
}

// run runs a binary that is expected to end by itself with an error.
func run(t *testing.T, binary string, args []string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = t.TempDir()
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err == nil || ctx.Err() != nil {
		t.Fatalf("%s %q ended with %v, want an error of its own; it wrote %q", filepath.Base(binary), args, err, out.String())
	}
	return out.String()
}

// binaries returns the paths of the binaries: those in VARVE_BIN, or new ones.
func binaries(t *testing.T) map[string]string {
	t.Helper()
	dir := os.Getenv("VARVE_BIN")
	names := []string{"sidecar", "store", "query", "compact", "bucket"}
	if dir == "" {
		dir = t.TempDir()
		cmd := exec.Command("go", "build", "-o", dir+string(filepath.Separator))
		for _, name := range names {
			cmd.Args = append(cmd.Args, "./cmd/"+name)
		}
		cmd.Dir = ".."
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build the binaries: %v\n%s", err, out)
		}
	}
	paths := map[string]string{}
	for _, name := range names {
		paths[name] = filepath.Join(dir, name)
	}
	for path := range maps.Values(paths) {
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%v; run make build, or unset VARVE_BIN", err)
		}
	}
	return paths
}

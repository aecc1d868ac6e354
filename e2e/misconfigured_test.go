package e2e

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/varve-io/varve/e2e/harness"
)

// TestMistakesAreSaidInOneLine is scenario h: whatever is configured wrongly,
// the process ends, or stays unready, with a line that says what to change.
func TestMistakesAreSaidInOneLine(t *testing.T) {
	t.Parallel()
	ctx := testContext(t)
	c := harness.ForTest(t)
	s3 := startS3(ctx, t, c)
	bare := must(c.Prometheus(ctx, harness.PrometheusOptions{Name: "prometheus-bare"}))(t)
	taken := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	t.Cleanup(func() { taken.Close() })

	config := s3.ObjstoreConfig(bucketName)
	wrongKey := strings.Replace(config, harness.SecretKey, "not-the-secret", 1)
	wrongBucket := s3.ObjstoreConfig("no-such-bucket")
	unknownKey := strings.Replace(config, "insecure:", "insecureness:", 1)
	closed := must(harness.FreeAddress())(t)
	noServer := (&harness.S3{Endpoint: closed}).ObjstoreConfig(bucketName)
	dataDir := "--data-dir=" + t.TempDir()
	tsdb := "--tsdb.path=" + bare.Dir

	for name, tc := range map[string]struct {
		binary string
		args   []string
		// words must stand in one line of the log.
		words []string
	}{
		"store with wrong credentials":   {"store", []string{"--objstore.config=" + wrongKey, dataDir}, []string{"key"}},
		"compact with wrong credentials": {"compact", []string{"--objstore.config=" + wrongKey, dataDir}, []string{"key"}},
		"store on a wrong bucket":        {"store", []string{"--objstore.config=" + wrongBucket, dataDir}, []string{"no-such-bucket"}},
		"compact on a wrong bucket":      {"compact", []string{"--objstore.config=" + wrongBucket, dataDir}, []string{"no-such-bucket"}},
		"store without a server":         {"store", []string{"--objstore.config=" + noServer, dataDir}, []string{closed}},
		"an unknown key":                 {"store", []string{"--objstore.config=" + unknownKey, dataDir}, []string{"insecureness"}},
		"no YAML at all":                 {"compact", []string{"--objstore.config={", dataDir}, []string{"object storage configuration"}},
		"no object storage":              {"store", []string{dataDir}, []string{"--objstore.config"}},
		"an unknown flag value":          {"query", []string{"--log.level=loud"}, []string{"--log.level", "loud"}},
		"an unknown flag":                {"query", []string{"--no-such-flag"}, []string{"--no-such-flag"}},
		"a taken HTTP port":              {"query", []string{"--http-address=" + taken.Addr().String()}, []string{"--http-address", "in use"}},
		"a taken gRPC port":              {"store", []string{"--objstore.config=" + config, dataDir, "--grpc-address=" + taken.Addr().String()}, []string{"--grpc-address", "in use"}},
		"contradictory retention":        {"compact", []string{"--objstore.config=" + config, dataDir, "--retention.resolution-raw=1h"}, []string{"--retention.resolution-raw"}},
		"no external labels":             {"sidecar", []string{"--prometheus.url=" + bare.URL, tsdb, "--objstore.config=" + config}, []string{"external_labels"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := harness.ComponentOptions{Binary: tc.binary, Name: strings.ReplaceAll(name, " ", "-"), Args: tc.args}
			p := must(c.Launch(o))(t)
			err := harness.WaitFor(ctx, "a line with "+strings.Join(tc.words, " and "), func(context.Context) error {
				return saysInOneLine(p, tc.words)
			})
			if err != nil {
				t.Fatal(err)
			}
			select {
			case <-p.Done():
				if p.ExitCode() == 0 {
					t.Error("it ended with exit code 0")
				}
			default:
				if err := harness.HTTPReady("http://" + p.HTTP + "/-/ready")(ctx); err == nil {
					t.Error("it says that it is ready")
				}
			}
		})
	}
}

// saysInOneLine looks for a line of the log with all words.
func saysInOneLine(p *harness.Component, words []string) error {
	log, err := p.Output()
	if err != nil {
		return err
	}
	for line := range strings.Lines(log) {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(line, w) }) {
			return nil
		}
	}
	return fmt.Errorf("%s (%s) says:\n%s", p.Name, p.State(), log)
}

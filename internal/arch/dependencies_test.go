package arch

import (
	"strings"
	"testing"
)

// dependencies lists the modules that the product may import, each with what
// we would have to write without it. What only tests import is not here.
func dependencies() map[string]string {
	return map[string]string{
		"github.com/prometheus/prometheus":             "labels, chunks, index, storage, PromQL: the ground everyone stands on",
		"github.com/prometheus/client_golang":          "metrics",
		"github.com/prometheus/common":                 "label names, durations, client configuration, version stamp",
		"github.com/prometheus/exporter-toolkit":       "TLS and basic auth from --http.config",
		"github.com/thanos-io/objstore":                "the bucket contract, its YAML, FILESYSTEM, GCS and AZURE",
		"github.com/aws/aws-sdk-go-v2":                 "S3 and the whole credential chain",
		"github.com/aws/smithy-go":                     "error codes of the AWS SDK",
		"google.golang.org/grpc":                       "the Store API's transport",
		"google.golang.org/protobuf":                   "its messages",
		"github.com/planetscale/vtprotobuf":            "marshalling of those messages without reflection",
		"github.com/alecthomas/kingpin":                "flags as Prometheus' family has them: --no-x, hidden compatibility flags",
		"github.com/alecthomas/units":                  "sizes such as 1MiB in YAML, as Thanos reads them",
		"github.com/bradfitz/gomemcache":               "memcached",
		"github.com/redis/go-redis":                    "Redis, its clusters and sentinels",
		"github.com/oklog/run":                         "actors that stop in order",
		"github.com/oklog/ulid":                        "block names",
		"github.com/cespare/xxhash":                    "the hash that shards series, as Thanos computes it",
		"github.com/golang/snappy":                     "remote read's frames and the Store API's compression",
		"github.com/klauspost/compress":                "gzip of HTTP answers",
		"github.com/json-iterator/go":                  "streamed JSON answers, through Prometheus' own encoders",
		"github.com/grpc-ecosystem/go-grpc-middleware": "gRPC metrics under their common names; a panic ends one request, not the process",
		"github.com/Azure/azure-sdk-for-go/sdk/azcore": "error codes of AZURE",
		"google.golang.org/api":                        "error codes of GCS",
		"go.yaml.in/yaml":                              "configuration files",
		"golang.org/x/sync":                            "bounded groups of goroutines, semaphores",
		"github.com/go-kit/log":                        "objstore's logger, behind the adapter in pkg/bucket",
	}
}

func TestDependenciesAreChosen(t *testing.T) {
	chosen := dependencies()
	used := map[string]bool{}
	for _, p := range packages(t) {
		if servesTests(p.key()) {
			continue
		}
		for _, i := range p.Imports {
			domain, _, _ := strings.Cut(i, "/")
			if !strings.Contains(domain, ".") || strings.HasPrefix(i, module+"/") {
				continue // the standard library, or ours
			}
			m, ok := covering(i, chosen)
			used[m] = true
			if !ok {
				t.Errorf("%s imports %s, whose module is not in dependencies() (dependencies_test.go): what would we write otherwise?", p.key(), i)
			}
		}
	}
	for m := range chosen {
		if !used[m] {
			t.Errorf("dependencies() names %s, which the product does not import: strike it", m)
		}
	}
}

// covering returns the chosen module that holds the package.
func covering(importPath string, modules map[string]string) (module string, ok bool) {
	for m := range modules {
		if importPath == m || strings.HasPrefix(importPath, m+"/") {
			return m, true
		}
	}
	return "", false
}

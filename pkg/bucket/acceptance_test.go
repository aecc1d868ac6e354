package bucket_test

import (
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/thanos-io/objstore"
	"go.uber.org/goleak"

	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryKeepsTheContract(t *testing.T) {
	buckettest.Run(t, func(*testing.T) objstore.Bucket { return bucket.NewMemory() })
}

func TestPrefixKeepsTheContract(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) objstore.Bucket {
		t.Helper()
		m := bucket.NewMemory()
		for _, name := range []string{"a", "pre", "prefix", "prefix/b", "prefix/deepest/c", "z"} { // the neighbours must not be seen
			if _, err := m.PutIfAbsent(t.Context(), name, nothing{}); err != nil {
				t.Fatal(err)
			}
		}
		return bucket.WithPrefix(m, "/prefix/deep/")
	})
}

func TestFilesystemKeepsTheContract(t *testing.T) {
	buckettest.Run(t, func(t *testing.T) objstore.Bucket {
		t.Helper()
		return open(t, fmt.Sprintf("type: filesystem\nconfig:\n  directory: %s\n", t.TempDir()))
	})
}

func TestS3KeepsTheContract(t *testing.T) {
	endpoint, _, _ := buckettest.StartS3(t)
	var n atomic.Int32
	for name, more := range map[string]string{
		"as it is":          "",
		"without multipart": "  disable_multipart: true\n",
		"below a prefix, with listings of version 1 and small parts without digests": "  list_objects_version: v1\n" +
			"  part_size: 5242880\n  send_content_md5: false\n  region: us-east-1\nprefix: some/where\n",
	} {
		t.Run(name, func(t *testing.T) {
			buckettest.Run(t, func(t *testing.T) objstore.Bucket {
				t.Helper()
				return open(t, buckettest.CreateBucket(t, endpoint, fmt.Sprintf("acceptance-%d", n.Add(1)))+more)
			})
		})
	}
}

func open(t *testing.T, yaml string) objstore.Bucket {
	t.Helper()
	o := bucket.Options{Config: yaml}
	b, err := bucket.Open(t.Context(), o, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	if err := bucket.Check(t.Context(), b); err != nil {
		t.Fatalf("check: %v", err)
	}
	return b
}

// nothing is an empty reader.
type nothing struct{}

func (nothing) Read([]byte) (int, error) { return 0, io.EOF }

package pagecache

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/varve-io/varve/internal/cputest"
	"github.com/varve-io/varve/pkg/bucket"
	"github.com/varve-io/varve/pkg/bucket/buckettest"
)

// listed reads the version of objects that the bucket lists, as the store gateway does.
type listed struct{ bkt bucket.Reader }

func (l listed) GetRange(ctx context.Context, o Object, off, length int64) (io.ReadCloser, error) {
	return bucket.GetRangeIfMatch(ctx, l.bkt, bucket.Object{Name: o.Name, ETag: o.Version}, off, length)
}

// BenchmarkFetch makes a request of a real S3 server for each read. The server is another
// process: CPU time and allocations are this end's alone.
func BenchmarkFetch(b *testing.B) {
	endpoint, _, _ := buckettest.StartS3(b)
	yaml := buckettest.CreateBucket(b, endpoint, "bkt")
	bkt, err := bucket.Open(b.Context(), bucket.Options{Config: yaml}, slog.New(slog.DiscardHandler), prometheus.NewRegistry())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = bkt.Close() })
	object := Object{Name: strings.Repeat("0", 26) + "/chunks/000001", Size: 16 << 20}
	if err := bkt.Upload(b.Context(), object.Name, bytes.NewReader(make([]byte, object.Size))); err != nil {
		b.Fatal(err)
	}
	if err := bucket.List(b.Context(), bkt, "", "", func(o bucket.Object) error {
		object.Version = o.ETag
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int64{8 << 10, 256 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			o := testOptions(0)
			o.Concurrency = Defaults().Concurrency
			c := newCache(b, listed{bkt}, o)
			c.buffers.spoil = nil
			c.fetcher.pace.credit = -1e9 // no hedges: one request for each read
			var reads atomic.Int64
			b.ReportAllocs()
			b.SetParallelism(8)
			before := cputest.Used(b)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					off := reads.Add(1) * size % object.Size
					lease, err := c.ReadRanges(b.Context(), []Range{{Object: object, Off: off, Len: size}})
					if err != nil {
						b.Error(err)
						return
					}
					lease.Release()
				}
			})
			b.ReportMetric(float64(cputest.Used(b)-before)/float64(b.N), "cpu-ns/op")
		})
	}
}

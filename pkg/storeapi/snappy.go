package storeapi

import (
	"fmt"
	"io"
	"sync"

	"github.com/golang/snappy"
	"google.golang.org/grpc/encoding"
)

// Compression is how requests and answers travel.
type Compression string

// The compressions that a peer of the family understands.
const (
	NoCompression     Compression = "none"
	SnappyCompression Compression = "snappy"
)

// compressorsOnce guards gRPC's own table, of which a process has but one.
//
//nolint:gochecknoglobals // the table it guards is gRPC's global
var compressorsOnce sync.Once

// RegisterCompressors makes "snappy" (the framed format) known to gRPC. Its table
// of compressors belongs to the whole process and must not change once calls
// are made, so a main may call this first; Register and Dial do it as well, once.
func RegisterCompressors() {
	compressorsOnce.Do(func() { encoding.RegisterCompressor(&snappyCompressor{}) })
}

// snappyCompressor keeps idle readers and writers: each holds 64 KiB and more.
type snappyCompressor struct {
	writers, readers sync.Pool
}

func (*snappyCompressor) Name() string { return string(SnappyCompression) }

func (c *snappyCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	sw, ok := c.writers.Get().(*snappy.Writer)
	if !ok {
		sw = snappy.NewBufferedWriter(w)
	} else {
		sw.Reset(w)
	}
	return &pooledWriter{w: sw, pool: &c.writers}, nil
}

func (c *snappyCompressor) Decompress(r io.Reader) (io.Reader, error) {
	sr, ok := c.readers.Get().(*snappy.Reader)
	if !ok {
		sr = snappy.NewReader(r)
	} else {
		sr.Reset(r)
	}
	return &pooledReader{r: sr, pool: &c.readers}, nil
}

type pooledWriter struct {
	w    *snappy.Writer
	pool *sync.Pool
}

func (p *pooledWriter) Write(b []byte) (int, error) { return p.w.Write(b) } //nolint:wrapcheck // gRPC says what it compressed

// Close flushes; the writer goes back for the next message.
func (p *pooledWriter) Close() error {
	err := p.w.Close()
	p.w.Reset(nil)
	p.pool.Put(p.w)
	if err != nil {
		return fmt.Errorf("flush snappy stream: %w", err)
	}
	return nil
}

// pooledReader gives its reader back at the first error, which io.EOF is; gRPC
// always reads to the end.
type pooledReader struct {
	r    *snappy.Reader
	pool *sync.Pool
	err  error
}

func (p *pooledReader) Read(b []byte) (int, error) {
	if p.err != nil {
		return 0, p.err
	}
	n, err := p.r.Read(b)
	if err != nil {
		p.err = err
		p.r.Reset(nil)
		p.pool.Put(p.r)
		p.r = nil
	}
	return n, err //nolint:wrapcheck // gRPC compares with io.EOF
}

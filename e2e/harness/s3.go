package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// The keys of every S3 server started here.
const (
	AccessKey = "varve-access"
	SecretKey = "varve-secret-key"
)

// S3 is a running S3 server, versitygw over a directory.
type S3 struct {
	*Process
	// Endpoint is host:port; the server speaks plain HTTP.
	Endpoint string
	// Root is the directory whose entries are the buckets, so that a test can
	// look at objects as files. It must not write there: versitygw keeps
	// attributes of its own beside each object.
	Root string
}

// S3 starts an S3 server with the named empty buckets and waits until it is
// ready. Data left in the cluster's directory by an earlier one are kept.
func (c *Cluster) S3(ctx context.Context, buckets ...string) (*S3, error) {
	root, err := c.Dir("s3", "data")
	if err != nil {
		return nil, err
	}
	iam, err := c.Dir("s3", "iam")
	if err != nil {
		return nil, err
	}
	for _, b := range buckets {
		if err := os.MkdirAll(filepath.Join(root, b), 0o755); err != nil {
			return nil, err
		}
	}
	binary, err := c.Tool("versitygw")
	if err != nil {
		return nil, err
	}
	endpoint, err := FreeAddress()
	if err != nil {
		return nil, err
	}
	p, err := c.Start(Command{
		Name: "s3",
		Path: binary,
		Args: slices.Concat([]string{"--port", endpoint, "--iam-dir", iam, "--health", "/healthz", "--quiet"}, c.opts.S3Args, []string{"posix", root}),
		Env:  []string{"ROOT_ACCESS_KEY=" + AccessKey, "ROOT_SECRET_KEY=" + SecretKey},
	})
	if err != nil {
		return nil, err
	}
	s := &S3{Process: p, Endpoint: endpoint, Root: root}
	return s, p.WaitReady(ctx, HTTPReady("http://"+endpoint+"/healthz"))
}

// ObjstoreConfig returns the value of --objstore.config for one bucket.
func (s *S3) ObjstoreConfig(bucket string) string {
	return fmt.Sprintf("type: S3\nconfig:\n  bucket: %s\n  endpoint: %s\n  region: us-east-1\n  insecure: true\n  access_key: %s\n  secret_key: %s\n",
		strconv.Quote(bucket), strconv.Quote(s.Endpoint), strconv.Quote(AccessKey), strconv.Quote(SecretKey))
}

package buckettest

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/varve-io/varve/internal/cmdtest"
	"github.com/varve-io/varve/internal/logtest"
)

const (
	s3AccessKey = "varve-test"
	s3SecretKey = "varve-test-secret"
	// s3StartTime is what the server may take to answer, on a busy machine.
	s3StartTime = 30 * time.Second
)

// StartS3 starts a real S3 server on a free loopback port, with no buckets, and
// ends it with the test. The endpoint is host:port, without TLS. The directory that
// VARVE_TOOLS names must hold the binary versitygw; make test sees to it, and
// without the variable the test is skipped.
func StartS3(t testing.TB) (endpoint, accessKey, secretKey string) {
	t.Helper()
	program := cmdtest.Tool(t, "versitygw")
	dir := t.TempDir()
	for attempt := 1; ; attempt++ {
		endpoint, err := startS3(t, program, filepath.Join(dir, strconv.Itoa(attempt)))
		if err == nil {
			return endpoint, s3AccessKey, s3SecretKey
		}
		if attempt == 3 { // another process may take the port between our look and the server's
			t.Fatalf("start the S3 server: %v", err)
		}
	}
}

// CreateBucket creates a bucket on a server that StartS3 started and returns the
// YAML that opens it.
func CreateBucket(t testing.TB, endpoint, name string) (yaml string) {
	t.Helper()
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s3AccessKey, s3SecretKey, ""),
	})
	if _, err := client.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: &name}); err != nil {
		t.Fatalf("create bucket %s: %v", name, err)
	}
	return fmt.Sprintf("type: S3\nconfig:\n  bucket: %s\n  endpoint: %s\n  access_key: %s\n  secret_key: %s\n  insecure: true\n",
		name, endpoint, s3AccessKey, s3SecretKey)
}

func startS3(t testing.TB, binary, dir string) (endpoint string, err error) {
	data, iam := filepath.Join(dir, "data"), filepath.Join(dir, "iam")
	for _, d := range []string{data, iam} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			return "", err
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	endpoint = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", err
	}
	var output logtest.Buffer
	// Attributes are in the file system's own: its --sidecar files tear versions apart.
	cmd := exec.Command(binary, "--port", endpoint, "--iam-dir", iam, "--health", "/healthz", "--keep-alive", "--quiet", "posix", data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY="+s3AccessKey, "ROOT_SECRET_KEY="+s3SecretKey)
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		return "", err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		<-ended
	})
	if err := awaitHealth(t.Context(), "http://"+endpoint+"/healthz", ended); err != nil {
		stop()
		return "", fmt.Errorf("%w; it said: %s", err, output.String())
	}
	t.Cleanup(stop)
	return endpoint, nil
}

// awaitHealth waits until the server answers.
func awaitHealth(ctx context.Context, url string, ended chan error) error {
	ctx, cancel := context.WithTimeout(ctx, s3StartTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			ended <- err // stop takes it
			return fmt.Errorf("the server ended by itself: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("the server does not answer on %s: %w", url, ctx.Err())
		case <-tick.C:
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if answer, err := client.Do(req); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
	}
}

// LeaveUpload begins an upload in parts on a server that StartS3 started, and
// leaves it, as a process does that dies.
func LeaveUpload(t testing.TB, endpoint, bucket, name string) {
	t.Helper()
	client := s3.New(s3.Options{
		Region: "us-east-1", BaseEndpoint: aws.String("http://" + endpoint), UsePathStyle: true,
		Credentials: credentials.NewStaticCredentialsProvider(s3AccessKey, s3SecretKey, ""),
	})
	out, err := client.CreateMultipartUpload(t.Context(), &s3.CreateMultipartUploadInput{Bucket: &bucket, Key: &name})
	if err != nil {
		t.Fatalf("begin the upload of %s: %v", name, err)
	}
	if _, err := client.UploadPart(t.Context(), &s3.UploadPartInput{
		Bucket: &bucket, Key: &name, UploadId: out.UploadId, PartNumber: aws.Int32(1), Body: bytes.NewReader([]byte("a part")),
	}); err != nil {
		t.Fatalf("upload a part of %s: %v", name, err)
	}
}

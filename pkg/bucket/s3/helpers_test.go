package s3_test

import (
	"net/http"
	"os"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"

	"github.com/varve-io/varve/pkg/bucket/s3"
)

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// zeros reads without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// uploadsIn lists the multipart uploads that are under way in a bucket.
func uploadsIn(t *testing.T, c s3.Config) []types.MultipartUpload {
	t.Helper()
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	endpoint := "http://" + c.Endpoint
	out, err := sdk.New(sdk.Options{
		BaseEndpoint: &endpoint, UsePathStyle: true, Region: "us-east-1",
		Credentials: credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, ""),
		HTTPClient:  &http.Client{Transport: transport},
	}).ListMultipartUploads(t.Context(), &sdk.ListMultipartUploadsInput{Bucket: &c.Bucket})
	if err != nil {
		t.Fatalf("list the multipart uploads of %s: %v", c.Bucket, err)
	}
	return out.Uploads
}

package s3_test

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/varve-io/varve/pkg/bucket/s3"
)

// TestRequestsGoWhereTheSDKSendsThem compares with a client that nobody told where the
// bucket is: the same URLs, signed for the same scope.
func TestRequestsGoWhereTheSDKSendsThem(t *testing.T) {
	for name, tc := range map[string]struct {
		bucket, endpoint, region, lookup string
		plain, single                    bool   // plain HTTP, and no dual stack
		want                             string // the URL of an object up to its name; empty where the SDK is asked each time
	}{
		"a store of one's own":            {bucket: "bkt", endpoint: "store:9000", region: "us-east-1", plain: true, want: "http://store:9000/bkt/"},
		"a store with TLS":                {bucket: "bkt", endpoint: "store.example", region: "here", want: "https://store.example/bkt/"},
		"a store with a host for each":    {bucket: "bkt", endpoint: "store.example", region: "here", lookup: "virtual-hosted", want: "https://bkt.store.example/"},
		"AWS":                             {bucket: "bkt", region: "eu-west-1", want: "https://bkt.s3.dualstack.eu-west-1.amazonaws.com/"},
		"AWS without dual stack":          {bucket: "bkt", region: "us-east-1", single: true, want: "https://bkt.s3.us-east-1.amazonaws.com/"},
		"AWS over plain HTTP":             {bucket: "bkt", region: "us-east-1", plain: true, want: "http://bkt.s3.dualstack.us-east-1.amazonaws.com/"},
		"AWS with paths":                  {bucket: "bkt", region: "us-east-1", lookup: "path", want: "https://s3.dualstack.us-east-1.amazonaws.com/bkt/"},
		"AWS in China":                    {bucket: "bkt", region: "cn-north-1", want: "https://bkt.s3.dualstack.cn-north-1.amazonaws.com.cn/"},
		"a name with dots":                {bucket: "b.k.t", region: "us-east-1", want: "https://s3.dualstack.us-east-1.amazonaws.com/b.k.t/"},
		"a directory bucket of AWS":       {bucket: "bkt--usw2-az1--x-s3", region: "us-west-2", single: true},
		"an access point of many regions": {bucket: "arn:aws:s3::123456789012:accesspoint:bkt.mrap", region: "us-west-2", single: true},
		"a name that is none":             {bucket: "arn:aws:s3:x", region: "us-west-2"},
	} {
		t.Run(name, func(t *testing.T) {
			c := s3.Defaults()
			c.Bucket, c.Endpoint, c.Region, c.BucketLookupType, c.Insecure, c.DisableDualstack = tc.bucket, tc.endpoint, tc.region, tc.lookup, tc.plain, tc.single
			c.AccessKey, c.SecretKey = "k", "s"
			asking, knowing, err := s3.Settled(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if knows := knowing.EndpointResolverV2 != nil; knows != (tc.want != "") {
				t.Errorf("knows the place: got %v, want %v", knows, !knows)
			}
			got, want := requests(t, tc.bucket, knowing), requests(t, tc.bucket, asking)
			if got != want {
				t.Errorf("got\n%s\nwant, as the SDK has it,\n%s", got, want)
			}
			if tc.want != "" && !strings.HasPrefix(got, "GET "+tc.want) {
				t.Errorf("got\n%s\nwant an object at %s", got, tc.want)
			}
		})
	}
}

// requests tells what a client asks for, and how that is signed.
func requests(t *testing.T, bucket string, o sdk.Options) string {
	t.Helper()
	var said strings.Builder
	changing := regexp.MustCompile(`/20\d{6}|, Signature.*`) // the date, and what depends on the time
	o.HTTPClient = &http.Client{Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
		fmt.Fprintln(&said, r.Method, r.URL, changing.ReplaceAllString(r.Header.Get("Authorization"), ""))
		return nil, errors.New("asked")
	})}
	o.Retryer = aws.NopRetryer{}
	client, key := sdk.New(o), "a/b c+ü/d"
	_, err1 := client.GetObject(t.Context(), &sdk.GetObjectInput{Bucket: &bucket, Key: &key, Range: aws.String("bytes=1-2")})
	_, err2 := client.PutObject(t.Context(), &sdk.PutObjectInput{Bucket: &bucket, Key: &key, Body: strings.NewReader("x")})
	_, err3 := client.ListObjectsV2(t.Context(), &sdk.ListObjectsV2Input{Bucket: &bucket, Prefix: &key})
	_, err4 := client.HeadBucket(t.Context(), &sdk.HeadBucketInput{Bucket: &bucket})
	_, err5 := client.CreateMultipartUpload(t.Context(), &sdk.CreateMultipartUploadInput{Bucket: &bucket, Key: &key})
	for _, err := range []error{err1, err2, err3, err4, err5} {
		if err != nil && !strings.HasSuffix(err.Error(), "asked") {
			fmt.Fprintln(&said, err)
		}
	}
	return said.String()
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

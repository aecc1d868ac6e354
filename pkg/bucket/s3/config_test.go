package s3

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestConfigsThatCannotBeUsedAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string // part of the error; empty if there is none
	}{
		"the least that is needed":         {func(*Config) {}, ""},
		"all defaults spelt out":           {func(c *Config) { c.BucketLookupType, c.ListObjectsVersion, c.PartSize = "auto", "v2", 64<<20 }, ""},
		"no bucket":                        {func(c *Config) { c.Bucket = "" }, "bucket is missing"},
		"an endpoint with a scheme":        {func(c *Config) { c.Endpoint = "https://s3.example.com" }, "host:port alone"},
		"an endpoint with a path":          {func(c *Config) { c.Endpoint = "s3.example.com/bucket" }, "host:port alone"},
		"an endpoint with a port":          {func(c *Config) { c.Endpoint = "s3.example.com:9000" }, ""},
		"an access key alone":              {func(c *Config) { c.SecretKey = "" }, "come together"},
		"a session token alone":            {func(c *Config) { c.AccessKey, c.SecretKey, c.SessionToken = "", "", "t" }, "session_token"},
		"keys and the SDK's chain":         {func(c *Config) { c.AWSSDKAuth = true }, "exclude each other"},
		"no keys":                          {func(c *Config) { c.AccessKey, c.SecretKey = "", "" }, ""},
		"signatures of version 2":          {func(c *Config) { c.SignatureV2 = true }, "signature_version2"},
		"an unknown lookup":                {func(c *Config) { c.BucketLookupType = "dns" }, "bucket_lookup_type"},
		"an unknown version of listings":   {func(c *Config) { c.ListObjectsVersion = "v3" }, "list_objects_version"},
		"parts that are too small":         {func(c *Config) { c.PartSize = 1 << 20 }, "part_size"},
		"negative retries":                 {func(c *Config) { c.MaxRetries = -1 }, "max_retries"},
		"an unknown encryption":            {func(c *Config) { c.SSE.Type = "AES" }, "sse_config.type"},
		"SSE-KMS without a key":            {func(c *Config) { c.SSE.Type = "SSE-KMS" }, "kms_key_id"},
		"SSE-C without a key":              {func(c *Config) { c.SSE.Type = "SSE-C" }, "encryption_key"},
		"an STS endpoint without a scheme": {func(c *Config) { c.STSEndpoint = "sts.example.com" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := Defaults()
			c.Bucket, c.AccessKey, c.SecretKey = "b", "k", "s"
			tc.change(&c)
			err := c.Validate()
			if (err == nil) != (tc.want == "") || (err != nil && !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("validate: got %v, want an error with %q", err, tc.want)
			}
		})
	}
}

func TestEndpointsDecideHowABucketIsAddressed(t *testing.T) {
	for name, tc := range map[string]struct {
		endpoint, lookup string
		wantAWS, path    bool
		region           string
	}{
		"no endpoint is AWS":                       {"", "", true, false, ""},
		"AWS' global name says no region":          {"s3.amazonaws.com", "auto", true, false, ""},
		"AWS' regional name says the region":       {"s3.eu-west-1.amazonaws.com", "auto", true, false, "eu-west-1"},
		"so does the old form":                     {"s3-us-west-2.amazonaws.com", "auto", true, false, "us-west-2"},
		"and dual stack":                           {"s3.dualstack.us-gov-west-1.amazonaws.com", "", true, false, "us-gov-west-1"},
		"and China":                                {"s3.cn-north-1.amazonaws.com.cn", "", true, false, "cn-north-1"},
		"an interface endpoint keeps its name":     {"bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com", "", false, false, ""},
		"another store has the bucket in the path": {"minio.example.com:9000", "auto", false, true, ""},
		"unless told otherwise":                    {"ceph.example.com", "virtual-hosted", false, false, ""},
		"Alibaba takes host names alone":           {"oss-cn-beijing.aliyuncs.com", "auto", false, false, ""},
		"AWS can be told to have it in the path":   {"s3.amazonaws.com", "path", true, true, ""},
		"a lookalike is another store":             {"s3.amazonaws.com.example.org", "auto", false, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := Config{Endpoint: tc.endpoint, BucketLookupType: tc.lookup}
			region, isAWS := c.isAWS()
			if isAWS != tc.wantAWS || region != tc.region {
				t.Errorf("AWS: got %v in %q, want %v in %q", isAWS, region, tc.wantAWS, tc.region)
			}
			if got := c.pathStyle(); got != tc.path {
				t.Errorf("bucket in the path: got %v, want %v", got, tc.path)
			}
		})
	}
}

func TestPartsAreManyEnoughAndNotTooMany(t *testing.T) {
	const largest = 5 << 40 // an object of S3
	for name, tc := range map[string]struct {
		configured, hint, length int64
		firstPart                int64
	}{
		"unknown length":                       {0, -1, largest, streamPart},
		"known length of a small object":       {0, 100, 100, defaultPart},
		"known length of a large object":       {0, 200 << 30, 200 << 30, (200<<30 + maxParts - 1) / maxParts},
		"the largest object":                   {0, largest, largest, (largest + maxParts - 1) / maxParts},
		"a length that is longer than it said": {0, 1 << 20, 100 << 30, defaultPart},
		"a configured size":                    {64 << 20, -1, 64 << 20 * maxParts, 64 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			b := &Bucket{conf: Config{PartSize: tc.configured}}
			var sent int64
			parts := 0
			for ; sent < tc.length; parts++ {
				sent += b.partSize(tc.hint, parts)
			}
			if first := b.partSize(tc.hint, 0); first != tc.firstPart || parts > maxParts {
				t.Errorf("got %d parts, the first of %d bytes, want at most %d, the first of %d", parts, first, maxParts, tc.firstPart)
			}
		})
	}
}

func TestACustomerKeyHas32Bytes(t *testing.T) {
	for _, length := range []int{0, 31, 32, 33} {
		file := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(file, make([]byte, length), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := newEncryption(SSE{Type: "SSE-C", EncryptionKey: file})
		if (err == nil) != (length == 32) {
			t.Errorf("a key of %d bytes: got %v", length, err)
		}
	}
}

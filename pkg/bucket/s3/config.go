package s3

import (
	"crypto/md5" //nolint:gosec // the protocol's own digest
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"

	"github.com/thanos-io/objstore/exthttp"
)

// Config is the config section of type S3. Keys, meanings and defaults are
// objstore's; docs/objstore.md describes each.
type Config struct {
	Bucket             string             `yaml:"bucket"`
	Endpoint           string             `yaml:"endpoint"`
	Region             string             `yaml:"region"`
	DisableDualstack   bool               `yaml:"disable_dualstack"`
	AWSSDKAuth         bool               `yaml:"aws_sdk_auth"`
	AccessKey          string             `yaml:"access_key"`
	SecretKey          string             `yaml:"secret_key"`
	SessionToken       string             `yaml:"session_token"`
	Insecure           bool               `yaml:"insecure"`
	SignatureV2        bool               `yaml:"signature_version2"`
	PutUserMetadata    map[string]string  `yaml:"put_user_metadata"`
	HTTP               exthttp.HTTPConfig `yaml:"http_config"`
	Trace              Trace              `yaml:"trace"`
	ListObjectsVersion string             `yaml:"list_objects_version"`
	BucketLookupType   string             `yaml:"bucket_lookup_type"`
	// SendContentMD5 is nil where the way to the store and the store decide.
	SendContentMD5   *bool `yaml:"send_content_md5"`
	DisableMultipart bool  `yaml:"disable_multipart"`
	// PartSize is in bytes; 0 lets the length of the upload decide.
	PartSize    int64  `yaml:"part_size"`
	SSE         SSE    `yaml:"sse_config"`
	STSEndpoint string `yaml:"sts_endpoint"`
	// MaxRetries is how often a request is tried; 0 means defaultAttempts.
	MaxRetries int `yaml:"max_retries"`
}

// Trace says whether every request is logged, at level debug.
type Trace struct {
	Enable bool `yaml:"enable"`
}

// SSE is encryption at the server.
type SSE struct {
	// Type is SSE-S3, SSE-KMS, SSE-C or empty.
	Type                 string            `yaml:"type"`
	KMSKeyID             string            `yaml:"kms_key_id"`
	KMSEncryptionContext map[string]string `yaml:"kms_encryption_context"`
	// EncryptionKey is the path of a file with the 32 bytes of an SSE-C key.
	EncryptionKey string `yaml:"encryption_key"`
}

const (
	sseS3  = "SSE-S3"
	sseKMS = "SSE-KMS"
	sseC   = "SSE-C"
)

// minPart is the smallest part that S3 takes, but for the last of an object.
const minPart = 5 << 20

// Defaults returns the settings of an empty config section.
func Defaults() Config {
	return Config{HTTP: exthttp.DefaultHTTPConfig, BucketLookupType: "auto"}
}

// Validate names every setting that cannot be used, in one line.
func (c Config) Validate() error {
	err := errors.Join(c.validatePlace(), c.validateKeys(), c.validateTransfer(), c.SSE.validate())
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}

func (c Config) validatePlace() error {
	var errs []error
	if c.Bucket == "" {
		errs = append(errs, errors.New("bucket is missing: name the bucket"))
	}
	if u, err := url.Parse("//" + c.Endpoint); err != nil || u.Host != c.Endpoint || strings.Contains(c.Endpoint, "://") {
		errs = append(errs, fmt.Errorf("endpoint %q: write host or host:port alone, and insecure: true for plain HTTP", c.Endpoint))
	}
	switch c.BucketLookupType {
	case "", "auto", "virtual-hosted", "path":
	default:
		errs = append(errs, fmt.Errorf("bucket_lookup_type %q: use auto, virtual-hosted or path", c.BucketLookupType))
	}
	return errors.Join(errs...)
}

func (c Config) validateKeys() error {
	var errs []error
	if c.AWSSDKAuth && c.AccessKey != "" {
		errs = append(errs, errors.New("aws_sdk_auth and access_key exclude each other: remove one of them"))
	}
	if (c.AccessKey == "") != (c.SecretKey == "") {
		errs = append(errs, errors.New("access_key and secret_key come together: set both, or none to use the credentials of the environment"))
	}
	if c.SessionToken != "" && c.AccessKey == "" {
		errs = append(errs, errors.New("session_token belongs to an access_key and a secret_key: set them too"))
	}
	if c.SignatureV2 {
		errs = append(errs, errors.New("signature_version2: true is not supported: requests are signed with version 4, remove the key"))
	}
	if c.STSEndpoint != "" {
		if _, err := stsURL(c.STSEndpoint); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateTransfer() error {
	var errs []error
	switch c.ListObjectsVersion {
	case "", "v1", "v2":
	default:
		errs = append(errs, fmt.Errorf("list_objects_version %q: use v1 or v2", c.ListObjectsVersion))
	}
	if c.PartSize != 0 && c.PartSize < minPart {
		errs = append(errs, fmt.Errorf("part_size %d: S3 takes no parts below %d bytes", c.PartSize, minPart))
	}
	if c.MaxRetries < 0 {
		errs = append(errs, fmt.Errorf("max_retries %d: must not be negative", c.MaxRetries))
	}
	return errors.Join(errs...)
}

func (s SSE) validate() error {
	switch s.Type {
	case "", sseS3:
		return nil
	case sseKMS:
		if s.KMSKeyID == "" {
			return errors.New("sse_config.kms_key_id is missing: SSE-KMS needs it")
		}
		return nil
	case sseC:
		if s.EncryptionKey == "" {
			return errors.New("sse_config.encryption_key is missing: SSE-C needs a file with a key of 32 bytes")
		}
		return nil
	}
	return fmt.Errorf("sse_config.type %q: use %s, %s or %s", s.Type, sseS3, sseKMS, sseC)
}

// customerKey returns the header values of an SSE-C key.
func (s SSE) customerKey() (key, digest string, err error) {
	b, err := os.ReadFile(s.EncryptionKey)
	if err != nil {
		return "", "", fmt.Errorf("sse_config.encryption_key: %w", err)
	}
	if len(b) != 32 {
		return "", "", fmt.Errorf("sse_config.encryption_key: %s holds %d bytes: a key has exactly 32", s.EncryptionKey, len(b))
	}
	sum := md5.Sum(b) //nolint:gosec // the protocol's own digest
	return base64.StdEncoding.EncodeToString(b), base64.StdEncoding.EncodeToString(sum[:]), nil
}

// kmsContext returns the header value of the KMS encryption context.
func (s SSE) kmsContext() (string, error) {
	b, err := json.Marshal(s.KMSEncryptionContext)
	if err != nil {
		return "", fmt.Errorf("sse_config.kms_encryption_context: %w", err)
	}
	return base64.StdEncoding.EncodeToString(b), nil
}

// stsURL completes an endpoint of the token service with its scheme.
func stsURL(endpoint string) (string, error) {
	if !strings.Contains(endpoint, "://") {
		endpoint = "https://" + endpoint
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" {
		return "", fmt.Errorf("sts_endpoint %q: write a URL such as https://sts.example.com", endpoint)
	}
	return endpoint, nil
}

// isAWS reports whether the endpoint is left to the SDK, and the region its name
// says, if any.
func (c Config) isAWS() (region string, ok bool) {
	if c.Endpoint == "" {
		return "", true
	}
	// AWS' own names of the service, which the SDK makes itself, with or without dual stack.
	m := regexp.MustCompile(`^s3(?:[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d))?\.amazonaws\.com(?:\.cn)?(?::443)?$`).FindStringSubmatch(c.Endpoint)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// pathStyle reports whether the bucket stands in the path of the URL, not in the
// host name: what every store but the big clouds understands without DNS entries.
func (c Config) pathStyle() bool {
	switch c.BucketLookupType {
	case "path":
		return true
	case "virtual-hosted":
		return false
	}
	if _, aws := c.isAWS(); aws {
		return false
	}
	host, _, _ := strings.Cut(c.Endpoint, ":")
	return !strings.HasSuffix(host, ".amazonaws.com") && !strings.HasSuffix(host, ".amazonaws.com.cn") &&
		!strings.HasSuffix(host, ".aliyuncs.com")
}

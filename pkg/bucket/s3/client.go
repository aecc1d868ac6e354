package s3

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
	"github.com/thanos-io/objstore/exthttp"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

const (
	// defaultAttempts is how often a request is tried when max_retries is 0.
	defaultAttempts = 10
	// firstBackoff and maxBackoff bound the pause before another attempt; it doubles,
	// and half of it is random.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
)

// newOptions returns all that a client needs but its region, and a function that
// closes idle connections. wait is how long an answer may stall.
func newOptions(ctx context.Context, c Config, wait time.Duration, log *slog.Logger) (s3.Options, func(), error) {
	keys, err := newCredentials(ctx, c)
	if err != nil {
		return s3.Options{}, nil, err
	}
	transport, err := newTransport(c.HTTP)
	if err != nil {
		return s3.Options{}, nil, fmt.Errorf("http_config: %w", err)
	}
	o := s3.Options{
		AppID:                      "varve",
		Credentials:                keys,
		HTTPClient:                 &http.Client{Transport: patience{trace(c.Trace, transport, log), wait}, CheckRedirect: onlyTemporary},
		Retryer:                    newRetryer(c.MaxRetries),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenRequired,
		ResponseChecksumValidation: aws.ResponseChecksumValidationWhenRequired,
		UsePathStyle:               c.pathStyle(),
		APIOptions:                 []func(*middleware.Stack) error{withoutInvocationID},

		DisableLogOutputChecksumValidationSkipped: true,
	}
	o.EndpointOptions.DisableHTTPS = c.Insecure
	if _, aws := c.isAWS(); !aws {
		o.BaseEndpoint = c.url()
	} else if !c.DisableDualstack {
		o.EndpointOptions.UseDualStackEndpoint = dualStack
	}
	return o, transport.CloseIdleConnections, nil
}

const dualStack = aws.DualStackEndpointStateEnabled

func (c Config) url() *string {
	if c.Insecure {
		return aws.String("http://" + c.Endpoint)
	}
	return aws.String("https://" + c.Endpoint)
}

// newCredentials returns the static keys, or else the SDK's whole chain:
// environment, web identity, shared files, pod identity and ECS, instance role.
// A chain that finds nothing is an error at first use, never an anonymous request.
func newCredentials(ctx context.Context, c Config) (aws.CredentialsProvider, error) {
	if c.AccessKey != "" {
		return credentials.NewStaticCredentialsProvider(c.AccessKey, c.SecretKey, c.SessionToken), nil
	}
	load := []func(*config.LoadOptions) error{config.WithDefaultRegion("us-east-1")}
	if c.Region != "" {
		load = append(load, config.WithRegion(c.Region))
	}
	if c.STSEndpoint != "" {
		endpoint, err := stsURL(c.STSEndpoint)
		if err != nil {
			return nil, err
		}
		// The call is unsigned: the web identity token is the credential.
		region := c.Region
		if region == "" {
			region = "us-east-1"
		}
		load = append(load, config.WithWebIdentityRoleCredentialOptions(func(o *stscreds.WebIdentityRoleOptions) {
			o.Client = sts.New(sts.Options{BaseEndpoint: &endpoint, Region: region, Credentials: aws.AnonymousCredentials{}})
		}))
	}
	loaded, err := config.LoadDefaultConfig(ctx, load...)
	if err != nil {
		return nil, fmt.Errorf("load the AWS configuration of the environment: %w", err)
	}
	return loaded.Credentials, nil
}

func newTransport(c exthttp.HTTPConfig) (*http.Transport, error) {
	// objstore's transport reads only the outer of the two keys of that name.
	c.InsecureSkipVerify = c.InsecureSkipVerify || c.TLSConfig.InsecureSkipVerify
	transport, err := exthttp.DefaultTransport(c)
	if err != nil {
		return nil, err
	}
	transport.DisableCompression = c.DisableCompression
	transport.ForceAttemptHTTP2 = false // many connections are faster than one
	return transport, nil
}

// onlyTemporary follows the redirects that repeat the request as it is; the others
// are answers.
func onlyTemporary(r *http.Request, _ []*http.Request) error {
	switch r.Response.StatusCode {
	case http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return nil
	}
	return http.ErrUseLastResponse
}

// newRetryer has each request of the client wait and repeat itself, without a quota: who asks
// for a block wants it, late rather than never. Requests do not wait for each other, as they
// do in the SDK's adaptive mode: there a few answers 503 among many good ones stop all. How
// many there are at a time is for who makes them to adapt.
func newRetryer(attempts int) aws.Retryer {
	if attempts == 0 {
		attempts = defaultAttempts
	}
	busy := map[int]struct{}{http.StatusTooManyRequests: {}, http.StatusServiceUnavailable: {}}
	return telling{retry.NewStandard(func(s *retry.StandardOptions) {
		s.MaxAttempts = attempts
		s.RateLimiter = ratelimit.None
		s.Backoff = retry.BackoffDelayerFunc(backoff)
		s.Retryables = append(s.Retryables, retry.RetryableHTTPStatusCode{Codes: busy},
			retry.RetryableErrorCode{Codes: map[string]struct{}{codeConflict: {}}})
	})}
}

// telling tells who called of requests that were refused because of their rate.
type telling struct{ aws.RetryerV2 }

// GetRetryToken is asked for before a request is made again.
func (t telling) GetRetryToken(ctx context.Context, err error) (release func(error) error, _ error) {
	if r := responseOf(err); r != nil && throttles(r.StatusCode) {
		contract.Throttled(ctx)
	}
	return t.RetryerV2.GetRetryToken(ctx, err) //nolint:wrapcheck // it is the SDK that asks
}

func backoff(attempt int, _ error) (time.Duration, error) {
	d := min(maxBackoff, firstBackoff<<min(attempt, 16))
	return d/2 + rand.N(d/2), nil
}

// withoutInvocationID leaves out a header that no store needs: it is the ninth of a read,
// and a map of more than eight costs more each time the SDK copies it.
func withoutInvocationID(s *middleware.Stack) error {
	_, err := s.Build.Remove((&awsmiddleware.ClientRequestID{}).ID())
	return err //nolint:wrapcheck // it is the SDK that asks
}

// grow makes the stack of a goroutine at once what a request of the SDK needs, which is more
// than 16 KiB. Else it is doubled again and again where calls are fifty deep, and moving all
// of them each time was a quarter of what the request cost. Room in the frame is enough; used
// zero times, it is not even cleared.
//
//go:noinline
func grow(times int) {
	for range times {
		var room [16 << 10]byte
		runtime.KeepAlive(&room)
	}
}

// fewAttempts is for requests whose quick answer is worth more than their success.
func fewAttempts(o *s3.Options) { o.RetryMaxAttempts = 2 }

// trace returns a transport that logs every request, if that is wanted: what was
// asked and answered, never a header, because headers carry keys and signatures.
func trace(t Trace, next http.RoundTripper, log *slog.Logger) http.RoundTripper {
	if !t.Enable {
		return next
	}
	return tracer{next, log}
}

type tracer struct {
	next http.RoundTripper
	log  *slog.Logger
}

func (t tracer) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	answer, err := t.next.RoundTrip(r)
	attrs := []any{"method", r.Method, "url", r.URL.String(), "range", r.Header.Get("Range"), "sent", r.ContentLength, "took", time.Since(start)}
	if err != nil {
		t.log.Debug("s3 request", append(attrs, "err", err)...)
		return nil, err
	}
	t.log.Debug("s3 request", append(attrs, "status", answer.StatusCode, "received", answer.ContentLength, "request_id", answer.Header.Get("X-Amz-Request-Id"))...)
	return answer, nil
}

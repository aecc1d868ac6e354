package s3

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/varve-io/varve/pkg/bucket/internal/contract"
)

// codeConflict says that two conditional writes of one name met.
const codeConflict = "ConditionalRequestConflict"

// apiCode returns the code and the message of an answer that is an error.
func apiCode(err error) (code, message string) {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode(), api.ErrorMessage()
	}
	return "", ""
}

// responseOf returns the answer behind an error, or nil if there was none.
func responseOf(err error) *http.Response {
	var r *smithyhttp.ResponseError
	if !errors.As(err, &r) || r.Response == nil || r.Response.Response == nil || r.Response.StatusCode == 0 {
		return nil // the SDK also wraps what never was answered
	}
	return r.Response.Response
}

// explain says in one line what was attempted, what came of it and what the
// operator can change, and marks the error. It is called once per error.
func (b *Bucket) explain(verb, name string, err error) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf("%s %s in bucket %s", verb, name, b.conf.Bucket)
	if name == "" {
		where = fmt.Sprintf("%s bucket %s", verb, b.conf.Bucket)
	}
	if b.conf.Endpoint != "" {
		where += " at " + b.conf.Endpoint
	}
	v := b.judge(err)
	said := &explained{text: where + ": " + v.text, err: err}
	if v.advice != "" {
		said.text += ": " + v.advice
	}
	if v.mark == nil || errors.Is(err, contract.ErrExists) || errors.Is(err, contract.ErrChanged) {
		return said
	}
	return contract.Mark(said, v.mark)
}

// explained keeps the SDK's error and says it in fewer words.
type explained struct {
	text string
	err  error
}

func (e *explained) Error() string { return e.text }
func (e *explained) Unwrap() error { return e.err }

// verdict is what an error means.
type verdict struct {
	text, advice string
	mark         error
}

func (b *Bucket) judge(err error) verdict {
	if code, message := apiCode(err); code != "" {
		v := b.judgeCode(code, responseOf(err))
		v.text = code
		if message != "" && message != code {
			v.text += ": " + strings.TrimSuffix(message, ".")
		}
		return v
	}
	v := b.judgeNetwork(err)
	v.text = innermost(err)
	return v
}

func (b *Bucket) judgeCode(code string, response *http.Response) verdict {
	switch code {
	case "NoSuchKey", "NotFound":
		return verdict{mark: contract.ErrNotFound}
	case "NoSuchBucket":
		return verdict{advice: "create the bucket, or correct bucket, endpoint and region in the object storage configuration"}
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return verdict{mark: contract.ErrAccessDenied, advice: "correct access_key and secret_key, or the credentials of the environment"}
	case "ExpiredToken", "InvalidToken", "TokenRefreshRequired", "ExpiredTokenException":
		return verdict{mark: contract.ErrAccessDenied, advice: "renew the session token, or use credentials that renew themselves"}
	case "AccessDenied", "Forbidden", "AllAccessDisabled", "AccountProblem", "UnauthorizedAccess", "Unauthorized":
		return verdict{mark: contract.ErrAccessDenied, advice: "grant these credentials s3:ListBucket on the bucket and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects"}
	case "AuthorizationHeaderMalformed", "PermanentRedirect", "Redirect", "TemporaryRedirect", "IllegalLocationConstraintException", "MovedPermanently":
		advice := "set region, or leave it out to have it found"
		if response != nil && response.Header.Get("X-Amz-Bucket-Region") != "" {
			advice = "set region to " + response.Header.Get("X-Amz-Bucket-Region")
		}
		return verdict{advice: advice}
	case "RequestTimeTooSkewed":
		return verdict{advice: "set the clock of this machine"}
	case "PreconditionFailed", codeConflict:
		return verdict{} // the put that made the condition knows which mark
	}
	if response == nil {
		return verdict{}
	}
	switch status := response.StatusCode; {
	case status == http.StatusNotFound && response.Request != nil && response.Request.Method == http.MethodHead:
		return verdict{mark: contract.ErrNotFound}
	case status == http.StatusForbidden, status == http.StatusUnauthorized:
		return verdict{mark: contract.ErrAccessDenied, advice: "check the credentials and what they are granted"}
	case throttles(status):
		return verdict{mark: contract.ErrThrottled}
	case status >= http.StatusInternalServerError, status == http.StatusRequestTimeout:
		return verdict{mark: contract.ErrTransient}
	}
	return verdict{}
}

// throttles reports whether a store asks for fewer requests by that status.
func throttles(status int) bool {
	return status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable
}

// judgeNetwork judges an error that is no answer of the store.
func (b *Bucket) judgeNetwork(err error) verdict {
	var (
		operation  *net.OpError
		name       *net.DNSError
		timeout    net.Error
		authority  x509.UnknownAuthorityError
		host       x509.HostnameError
		invalid    x509.CertificateInvalidError
		verify     *tls.CertificateVerificationError
		noTLS      tls.RecordHeaderError
		cancelling *aws.RequestCanceledError
		stall      *stallError
	)
	switch {
	case errors.As(err, &stall):
		return verdict{mark: contract.ErrTransient, advice: "check the store and the way to it"}
	case errors.As(err, &noTLS), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return verdict{advice: "the endpoint speaks plain HTTP, set insecure: true or correct it"}
	case errors.As(err, &authority), errors.As(err, &host), errors.As(err, &invalid), errors.As(err, &verify):
		return verdict{advice: "set http_config.tls_config.ca_file to the authority of the endpoint, and endpoint to the name in its certificate"}
	case errors.Is(err, context.Canceled):
		return verdict{}
	case strings.Contains(err.Error(), credentialsError):
		return verdict{
			mark:   contract.ErrAccessDenied,
			advice: "set access_key and secret_key, or give the process AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity, a pod identity or an instance role",
		}
	case errors.As(err, &name):
		return verdict{mark: contract.ErrTransient, advice: "the name cannot be resolved, check endpoint and bucket_lookup_type"}
	case errors.As(err, &operation) && operation.Op == "dial":
		return verdict{mark: contract.ErrTransient, advice: "nothing answers there, check endpoint and the way to it"}
	case errors.As(err, &operation), errors.As(err, &timeout), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF), errors.As(err, &cancelling):
		return verdict{mark: contract.ErrTransient}
	}
	return verdict{}
}

// innermost returns the text of the error below the layers of SDK and HTTP client.
func innermost(err error) string {
	if stall, ok := errors.AsType[*stallError](err); ok {
		return stall.Error()
	}
	if operation, ok := errors.AsType[*net.OpError](err); ok {
		return operation.Error()
	}
	if request, ok := errors.AsType[*url.Error](err); ok {
		return request.Err.Error()
	}
	if sdk, ok := errors.AsType[*smithy.OperationError](err); ok {
		err = sdk.Err
	}
	// The SDK has no type for what it says of credentials.
	_, reason, _ := strings.Cut(err.Error(), credentialsError)
	if reason != "" {
		return "no credentials: " + strings.TrimLeft(reason, ", ")
	}
	return err.Error()
}

// credentialsError stands in every error of the SDK's chain of credentials.
const credentialsError = "failed to refresh cached credentials"

// marked gives a lost condition the mark of the put that made it.
func marked(err, mark error) error {
	if mark == nil {
		return err
	}
	switch code, _ := apiCode(err); {
	case code == codeConflict, unmet(err):
		return contract.Mark(err, mark)
	case code == "NoSuchKey": // there is no version left to match
		return contract.Mark(err, contract.ErrChanged)
	}
	return err
}

// unmet reports whether the condition of a request did not hold.
func unmet(err error) bool {
	code, _ := apiCode(err)
	r := responseOf(err)
	return code == "PreconditionFailed" || r != nil && r.StatusCode == http.StatusPreconditionFailed
}

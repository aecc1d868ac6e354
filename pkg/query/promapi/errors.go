package promapi

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/prometheus/prometheus/promql"

	"github.com/varve-io/varve/pkg/query"
)

// kind is Prometheus' errorType.
type kind string

const (
	badRequest  kind = "bad_data"
	execution   kind = "execution"
	timeout     kind = "timeout"
	canceled    kind = "canceled"
	unavailable kind = "unavailable"
	notFound    kind = "not_found"
	internal    kind = "internal"
)

func (k kind) status() int {
	switch k {
	case badRequest:
		return http.StatusBadRequest
	case execution:
		return http.StatusUnprocessableEntity
	case timeout, canceled, unavailable:
		return http.StatusServiceUnavailable
	case notFound:
		return http.StatusNotFound
	case internal:
	}
	return http.StatusInternalServerError
}

type apiError struct {
	kind kind
	err  error
}

func (e *apiError) Error() string { return e.err.Error() }
func (e *apiError) Unwrap() error { return e.err }

func badData(format string, args ...any) *apiError {
	return &apiError{kind: badRequest, err: fmt.Errorf(format, args...)}
}

func errNoSuchPath(path string) error { return fmt.Errorf("there is no %s with this method", path) }

var errDefaultStep = errors.New("--query.default-step is below one second")

// asAPIError finds the kind of an error. asked is the context of the client.
func asAPIError(asked context.Context, err error) *apiError {
	var (
		known    *apiError
		gaveUp   promql.ErrQueryCanceled
		tooLong  promql.ErrQueryTimeout
		breakage promql.ErrStorage
	)
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, query.ErrBadQuery):
		return badData("invalid parameter %q: %w", "query", err)
	case errors.As(err, &tooLong):
		return &apiError{timeout, err}
	case errors.Is(err, context.DeadlineExceeded) && asked.Err() == nil:
		return &apiError{timeout, err}
	case errors.As(err, &gaveUp), errors.Is(err, context.Canceled):
		return &apiError{canceled, err}
	case query.IsUnavailable(err):
		return &apiError{unavailable, err}
	case errors.As(err, &breakage), errors.Is(err, query.ErrInternal):
		return &apiError{internal, err}
	}
	return &apiError{execution, err}
}

package storeapi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errNoLabel = fmt.Errorf("%w: no label name given", ErrBadRequest)

// toStatus gives an error the code by which the other side knows it.
func toStatus(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrBadRequest):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrLimit):
		return status.Error(codes.ResourceExhausted, err.Error())
	case errors.Is(err, ErrUnavailable):
		return status.Error(codes.Unavailable, err.Error())
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, err.Error())
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, err.Error())
	}
	if s, ok := status.FromError(err); ok && s.Code() != codes.Unknown {
		return status.Error(s.Code(), err.Error())
	}
	return status.Error(codes.Internal, err.Error())
}

// peerError is what a peer, or the way to it, answered.
type peerError struct {
	doing, peer, message string
	cause                error
}

func (e *peerError) Error() string {
	return fmt.Sprintf("%s %s: %s", e.doing, e.peer, e.message)
}

// Unwrap is the sentinel that the code stands for, else the gRPC status.
func (e *peerError) Unwrap() error { return e.cause }

// fromStatus is the reverse of toStatus; it names the peer.
func fromStatus(doing, peer string, err error) error {
	if err == nil {
		return nil
	}
	e := &peerError{doing: doing, peer: peer, message: err.Error(), cause: err}
	s, ok := status.FromError(err)
	if !ok {
		return e
	}
	e.message = s.Message()
	switch s.Code() {
	case codes.InvalidArgument:
		e.cause = ErrBadRequest
	case codes.ResourceExhausted:
		e.cause = ErrLimit
	case codes.Unavailable:
		e.cause = ErrUnavailable
	case codes.Canceled:
		e.cause = context.Canceled
	case codes.DeadlineExceeded:
		e.cause = context.DeadlineExceeded
	case codes.Unimplemented:
		e.message += "; is this an endpoint of the Store API?"
	}
	return e
}

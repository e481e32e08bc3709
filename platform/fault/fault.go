// Package fault holds the errors of Skein: one table of kinds, each with its gRPC code and the errno a guest sees. Make
// one with Kind.New, ask with errors.Is(err, fault.NotFound); the kind survives the wire, so the question may be asked
// two processes away.
package fault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
)

// Kind is a class of errors. Kinds are compared by identity.
type Kind struct {
	Text  string
	Code  codes.Code
	Errno int32 // of WASI preview 1
	// HTTP is the status over REST.
	HTTP int
}

func (k *Kind) Error() string { return k.Text }

// The kinds. docs/errors.md is written from this table.
var (
	Invalid      = &Kind{"invalid argument", codes.InvalidArgument, 28 /* EINVAL */, http.StatusBadRequest}
	TooLarge     = &Kind{"too large", codes.OutOfRange, 22 /* EFBIG */, http.StatusRequestEntityTooLarge}
	NotFound     = &Kind{"not found", codes.NotFound, 44 /* ENOENT */, http.StatusNotFound}
	Exists       = &Kind{"already exists", codes.AlreadyExists, 20 /* EEXIST */, http.StatusConflict}
	Conflict     = &Kind{"conflict", codes.Aborted, 6 /* EAGAIN */, http.StatusConflict}
	Precondition = &Kind{"failed precondition", codes.FailedPrecondition, 63 /* EPERM */, http.StatusBadRequest}
	Denied       = &Kind{"permission denied", codes.PermissionDenied, 2 /* EACCES */, http.StatusForbidden}
	Exhausted    = &Kind{"resource exhausted", codes.ResourceExhausted, 6 /* EAGAIN */, http.StatusTooManyRequests}
	Cancelled    = &Kind{"cancelled", codes.Canceled, 11 /* ECANCELED */, 499}
	Timeout      = &Kind{"deadline exceeded", codes.DeadlineExceeded, 73 /* ETIMEDOUT */, http.StatusGatewayTimeout}
	Unavailable  = &Kind{"unavailable", codes.Unavailable, 29 /* EIO */, http.StatusServiceUnavailable}
	DataLoss     = &Kind{"data loss", codes.DataLoss, 29 /* EIO */, http.StatusInternalServerError}
	Unsupported  = &Kind{"not supported", codes.Unimplemented, 52 /* ENOSYS */, http.StatusNotImplemented}
	Internal     = &Kind{"internal error", codes.Internal, 29 /* EIO */, http.StatusInternalServerError}
)

// Kinds lists the table in its order.
func Kinds() []*Kind {
	return []*Kind{
		Invalid, TooLarge, NotFound, Exists, Conflict, Precondition, Denied, Exhausted, Cancelled, Timeout, Unavailable,
		DataLoss, Unsupported, Internal,
	}
}

// Domain is the domain of every ErrorInfo that Skein sends.
const Domain = "skein.dev"

// Error is an error of a kind, with what a person and a program need to act on it.
type Error struct {
	Kind       *Kind
	Reason     string // UPPER_SNAKE, stable: programs switch on it
	Message    string // what is wrong, for a person
	Hint       string // what to change; may be empty
	RetryAfter time.Duration
}

// New makes an error of the kind.
func (k *Kind) New(reason, format string, args ...any) *Error {
	return &Error{Kind: k, Reason: reason, Message: fmt.Sprintf(format, args...)}
}

// WithHint says what to change.
func (e *Error) WithHint(format string, args ...any) *Error {
	e.Hint = fmt.Sprintf(format, args...)
	return e
}

// WithRetry says when it may work.
func (e *Error) WithRetry(after time.Duration) *Error {
	e.RetryAfter = after
	return e
}

func (e *Error) Error() string { return e.Message }

// Unwrap gives the kind, for errors.Is.
func (e *Error) Unwrap() error { return e.Kind }

// GRPCStatus is the error on the wire: code, message, ErrorInfo with reason and hint, RetryInfo.
func (e *Error) GRPCStatus() *status.Status {
	info := &errdetails.ErrorInfo{Reason: e.Reason, Domain: Domain}
	if e.Hint != "" {
		info.Metadata = map[string]string{"hint": e.Hint}
	}
	details := []protoadapt.MessageV1{info}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st := status.New(e.Kind.Code, e.Message)
	if with, err := st.WithDetails(details...); err == nil {
		return with
	}
	return st
}

// From gives err as an *Error. An error without a kind becomes Internal and its text stays home: the caller logs it.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*Error](err); ok {
		if err.Error() == e.Message {
			return e
		}
		wrapped := *e // keep what the wrapping added
		wrapped.Message = err.Error()
		return &wrapped
	}
	if k, ok := errors.AsType[*Kind](err); ok {
		return &Error{Kind: k, Reason: reasonOf(k.Code), Message: err.Error()}
	}
	switch {
	case errors.Is(err, skein.ErrInvalid):
		return Invalid.New("BAD_NAME", "%s", err)
	case errors.Is(err, context.Canceled):
		return Cancelled.New("CANCELLED", "the caller went away")
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout.New("DEADLINE", "the deadline passed")
	}
	if st, ok := status.FromError(err); ok {
		return fromStatus(st)
	}
	return Internal.New("INTERNAL", "internal error")
}

func fromStatus(st *status.Status) *Error {
	e := &Error{Kind: kindOf(st.Code()), Reason: reasonOf(st.Code()), Message: st.Message()}
	for _, d := range st.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			e.Reason, e.Hint = d.GetReason(), d.GetMetadata()["hint"]
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

func kindOf(c codes.Code) *Kind {
	for _, k := range Kinds() {
		if k.Code == c {
			return k
		}
	}
	return Internal
}

// reasonOf is the reason of an error that was given none: the code's name in capitals.
func reasonOf(c codes.Code) string {
	var b []byte
	for i, r := range []byte(c.String()) {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b = append(b, '_')
			}
		} else {
			r -= 'a' - 'A'
		}
		b = append(b, r)
	}
	return string(b)
}

package planner

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"time"
	"unicode/utf8"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Request is a call as a caller asks for it.
type Request struct {
	Function  skein.Function
	Input     []byte
	Args      []string
	Timeout   time.Duration // of the call, or of each attempt if it is Async; 0 for the function's
	RequestID string

	Async         bool  // nobody waits for it: it is in the journal, and may be tried again
	MaxAttempts   int32 // 0 for the function's; this and what follows are for Async ones alone
	RetryFailures bool
	MaxAge        time.Duration // from acceptance to the beginning of the last attempt; 0 for DefaultMaxAge
	ResultAge     time.Duration // 0 for the function's
	Webhook       string        // "" for the function's
	RedriveOf     skein.CallID  // the dead letter it was
}

// Target is what a function's name stands for: its current version, and how its calls are treated.
type Target struct {
	Version  skein.Version
	Settings Settings
}

// Settings of a function; what is zero has the default.
type Settings struct {
	Timeout       time.Duration // of a call that asks for none, and the most that one may ask for
	MaxAttempts   int32
	RetryFailures bool
	ResultAge     time.Duration
	Webhook       string
}

// Limits of a request.
const (
	DefaultTimeout     = 60 * time.Second
	MaxTimeout         = skein.MaxTimeout
	DefaultMaxAttempts = 3
	MaxMaxAttempts     = skein.MaxAttempts
	DefaultMaxAge      = 6 * time.Hour
	MaxMaxAge          = 7 * 24 * time.Hour
	MaxResultAge       = skein.MaxResultAge
	maxArgs            = 256
	maxArgBytes        = 64 << 10
	maxRequestID       = 128
)

func (q *Request) check() error {
	size := 0
	for _, a := range q.Args {
		size += len(a)
		if strings.IndexByte(a, 0) >= 0 {
			return fault.Invalid.New("BAD_ARGS", "an argument holds a NUL byte")
		}
		if !utf8.ValidString(a) { // the message to the executor could not be encoded, and its stream would end
			return fault.Invalid.New("BAD_ARGS", "an argument is not UTF-8").WithHint("pass bytes as input")
		}
	}
	switch {
	case len(q.Input) > skein.MaxPayload:
		return inputTooLarge(int64(len(q.Input)))
	case len(q.Args) > maxArgs || size > maxArgBytes:
		return fault.TooLarge.New("TOO_LARGE", "%d arguments of %d bytes in all: at most %d and %d are allowed", len(q.Args), size, maxArgs, maxArgBytes).
			WithHint("pass the data as input")
	case len(q.Input)+size > skein.MaxPayload: // both travel in one message, and an executor's stream ends by one too large
		return fault.TooLarge.New("TOO_LARGE", "the input and the arguments have %d bytes together, at most %d are allowed", len(q.Input)+size, skein.MaxPayload).
			WithHint("put large data into a file or a state value and pass its name")
	case len(q.RequestID) > maxRequestID:
		return fault.Invalid.New("BAD_REQUEST_ID", "the request id has %d bytes, at most %d are allowed", len(q.RequestID), maxRequestID)
	case !utf8.ValidString(q.RequestID): // over REST it can be any bytes, and the journal's message holds text
		return fault.Invalid.New("BAD_REQUEST_ID", "the request id is not UTF-8").WithHint("use letters and digits")
	case q.Timeout < 0 || q.Timeout > MaxTimeout:
		return fault.Invalid.New("BAD_TIMEOUT", "a timeout of %s is not between 0 and %s", q.Timeout, MaxTimeout)
	case q.Async:
		return q.checkAsync()
	}
	return nil
}

func (q *Request) checkAsync() error {
	switch {
	case q.MaxAttempts < 0 || q.MaxAttempts > MaxMaxAttempts:
		return fault.Invalid.New("BAD_MAX_ATTEMPTS", "%d attempts are not between 1 and %d", q.MaxAttempts, MaxMaxAttempts)
	case q.MaxAge < 0 || q.MaxAge > MaxMaxAge:
		return fault.Invalid.New("BAD_MAX_AGE", "a maximal age of %s is not between 0 and %s", q.MaxAge, MaxMaxAge)
	case q.ResultAge < 0 || q.ResultAge > MaxResultAge:
		return fault.Invalid.New("BAD_RESULT_AGE", "a result's age of %s is not between 0 and %s", q.ResultAge, MaxResultAge)
	}
	if err := skein.CheckWebhook(q.Webhook); err != nil {
		return fault.Invalid.New("BAD_WEBHOOK", "%s", err)
	}
	return nil
}

// call makes the call that is asked for, of a target, with how it is kept and tried.
func (q *Request) call(now time.Time, to Target) (skein.Call, Options, error) {
	s := to.Settings
	most := cmp.Or(s.Timeout, MaxTimeout)
	if q.Timeout > most {
		return skein.Call{}, Options{}, fault.Invalid.New("BAD_TIMEOUT", "a timeout of %s is more than the %s that %s is configured for", q.Timeout, most, q.Function).
			WithHint("ask for less, or configure the function")
	}
	timeout := cmp.Or(q.Timeout, s.Timeout, DefaultTimeout)
	call := skein.Call{ID: skein.NewCallID(), Function: q.Function, Version: to.Version, Input: q.Input, Args: q.Args, Trace: map[string]string{}}
	opts := Options{RequestID: q.RequestID, BodyHash: q.bodyHash(), RedriveOf: q.RedriveOf, Durable: q.Async || q.RequestID != "", Sync: !q.Async}
	if !q.Async {
		call.Deadline = now.Add(timeout)
		return call, opts, nil
	}
	opts.Timeout = timeout
	opts.GiveUp = now.Add(cmp.Or(q.MaxAge, DefaultMaxAge))
	call.Deadline = opts.GiveUp // of its waiting; each attempt has its own
	opts.MaxAttempts = cmp.Or(q.MaxAttempts, s.MaxAttempts, DefaultMaxAttempts)
	opts.RetryFailures = q.RetryFailures || s.RetryFailures
	opts.ResultAge = cmp.Or(q.ResultAge, s.ResultAge)
	opts.Webhook = cmp.Or(q.Webhook, s.Webhook)
	return call, opts, nil
}

func inputTooLarge(size int64) error {
	return fault.TooLarge.New("TOO_LARGE", "the input has %d bytes or more, at most %d are allowed", size, skein.MaxPayload).
		WithHint("put large data into a file or a state value and pass its name")
}

// bodyHash tells whether two requests with one id ask for the same.
func (q *Request) bodyHash() (sum [32]byte) {
	if q.RequestID == "" {
		return sum
	}
	h := sha256.New()
	var n [8]byte
	for i := -1; i < len(q.Args); i++ {
		part := q.Input
		if i >= 0 {
			part = []byte(q.Args[i])
		}
		binary.LittleEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write(part)
	}
	return [32]byte(h.Sum(nil))
}

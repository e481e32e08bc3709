// Package state owns the values that calls share: bytes under a user and a key, kept in Redis. Start one with
// Config.Start; Store does the work.
//
// A value is cut into chunks, so that a range costs what the range has, and no command holds Redis up. What changes a
// value is one Lua script: its condition, its effect, its version and the answer to a repeated request are one step
// (scripts.go). A value too large for that is written ahead, out of sight, and one script makes it the value. Readers of
// a large value get all of one version: the one they began with can be read for a minute after it was replaced.
//
// Redis holds all state; the process none. Any number of state services may serve the same Redis.
package state

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"strconv"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/turn"
)

// Limits of this service; those of names and payloads are in package skein.
const (
	// MaxValue is the most that Config.MaxValue may be, in bytes.
	MaxValue = 1 << 30
	// MaxFrame bounds what one step of Read hands out, in bytes.
	MaxFrame       = chunkSize
	maxRequestID   = 128
	maxPage        = 1000
	defaultPage    = 50
	readAttempts   = 5 // of a value that changes while it is read
	spliceAttempts = 4 // at appending much while others append
	maxListRounds  = 8 // so that a listing through many stale entries ends; it may then return a short page
)

// Any and Absent are what a value's version may be required to be, besides a version.
const (
	Any    int64 = -1
	Absent int64 = 0
)

// Info is what is known of a value besides its bytes.
type Info struct {
	Key     skein.StateKey
	Size    int64
	Version int64 // grows with every change, also over a deletion
	Updated time.Time
	Expires time.Time // zero for never
}

func (h head) info(k skein.StateKey) Info {
	return Info{k, h.size, h.version, time.UnixMicro(h.updated).UTC(), expiry(h.ends)}
}

func expiry(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms).UTC()
}

// Fence is a lock that must be held while a change is made; see Store.Fenced.
type Fence struct {
	Key   string // the user is the value's
	Token int64
}

// Store is the values of all users. Its methods may be called concurrently. Keys are valid as skein.NewStateKey has it.
//
// A request id, 1 to 128 bytes, makes a change repeatable: for ten minutes a second change of the same value with the same
// id gets the first one's answer and changes nothing, and one with other content is refused with REQUEST_ID_REUSED. With
// "" a change that ends in fault.Unavailable may or may not have happened.
type Store struct {
	db    *db
	max   int64
	fence Fence
	locks *lines
	quota *quota

	merging *turn.Turns // of each chunk: changes that are read, merged and written would have each other begin again
}

func newStore(db *db, most int64) *Store {
	return &Store{db: db, max: most, locks: &lines{all: map[string]*line{}}, quota: &quota{users: map[skein.User]*counted{}}, merging: &turn.Turns{}}
}

// Fenced gives a Store whose changes are refused with fault.Conflict, reason FENCED, unless the lock is held. The zero Fence asks for none.
func (s *Store) Fenced(f Fence) *Store {
	fenced := *s
	fenced.fence = f
	return &fenced
}

// becomes is the size of a value whose bytes up to stop were written.
func becomes(stop int64) func(int64) int64 {
	return func(old int64) int64 { return max(old, stop) }
}

// span returns how many bytes a range has within a value; length 0 means to the end.
func span(size, offset, length int64) int64 {
	left := max(0, size-offset)
	if length == 0 || length > left {
		return left
	}
	return length
}

var errLost = fault.Timeout.New("UPLOAD_LOST", "the upload took longer than %s, so its first bytes are gone", uploadTTL)

func noValue(k skein.StateKey) error {
	return fault.NotFound.New("NO_VALUE", "there is no value %s", k)
}

func checkRange(offset, length int64) error {
	if offset < 0 || length < 0 {
		return fault.Invalid.New("BAD_RANGE", "offset %d and length %d: neither may be negative", offset, length)
	}
	return nil
}

func (s *Store) checkSize(size int64) error {
	if size < 0 || size > s.max { // < 0 after an overflow
		return fault.TooLarge.New("TOO_LARGE", "the value would have more than the %d bytes that are allowed", s.max).
			WithHint("raise --max-value-size, or split the value")
	}
	return nil
}

func checkPayload(n int64) error {
	if n > skein.MaxPayload {
		return fault.TooLarge.New("TOO_LARGE", "%d bytes are too many for one message, which holds %d", n, skein.MaxPayload).
			WithHint("use ReadValue or WriteValue, or a range")
	}
	return nil
}

func checkRequest(id string) error {
	if len(id) > maxRequestID {
		return fault.Invalid.New("BAD_REQUEST_ID", "a request_id of %d bytes: at most %d are allowed", len(id), maxRequestID)
	}
	return nil
}

// Read hands out a range of a value in steps of at most MaxFrame bytes, all of one version: first calls once with what is
// known of the value before emit is called, maybe never, with bytes it must not keep. A length of 0 asks for all to the
// end; a range past the end has no bytes. If the value changes so that its version can't be read on, Read fails with
// fault.Conflict, reason VALUE_CHANGED.
func (s *Store) Read(ctx context.Context, k skein.StateKey, offset, length int64, first func(Info) error, emit func([]byte) error) (err error) {
	ctx, op := begin(ctx, "get", k)
	defer op.end(&err)
	if err := checkRange(offset, length); err != nil {
		return err
	}
	offset, length = min(offset, MaxValue), min(length, MaxValue) // Lua's numbers are exact there
	h, data, ok, err := s.db.first(ctx, k, offset, length)
	if err != nil {
		return err
	}
	if !ok {
		return noValue(k)
	}
	if err := first(h.info(k)); err != nil {
		return err
	}
	hand := func(_ stretch, b []byte) error {
		op.bytes += int64(len(b))
		return emit(b)
	}
	switch {
	case len(data) > 0:
		return hand(stretch{}, data)
	case data != nil:
		return nil
	}
	_, err = s.walk(h, cut(offset, offset+span(h.size, offset, length)), func(h head, part []stretch, room *buffer) ([][]byte, head, error) {
		pieces, now, err := s.db.chunks(ctx, k, h, part, room)
		if err == nil && (pieces == nil || now.version != h.version) {
			err = changedMeanwhile(k)
		}
		return pieces, now, err
	}, hand)
	return err
}

func changedMeanwhile(k skein.StateKey) error {
	return fault.Conflict.New("VALUE_CHANGED", "the value %s changed while it was read", k).WithHint("read it again")
}

// walk reads stretches of a value, whose head is h, batch by batch, and hands them out: the next is read while one is handed out.
// It gives the head that read told last.
func (s *Store) walk(h head, all []stretch, read func(head, []stretch, *buffer) ([][]byte, head, error), emit func(stretch, []byte) error) (head, error) {
	type fetched struct {
		pieces [][]byte
		now    head
		err    error
		room   *buffer
	}
	next := make(chan fetched, 1)
	fetch := func(h head, part []stretch) {
		room := buffers.Get().(*buffer) //nolint:forcetypeassert // nothing else is in there
		pieces, now, err := read(h, part, room)
		next <- fetched{pieces, now, err, room}
	}
	n := min(1, len(all)) // few at first, so that who waits has something to do
	if n > 0 {
		fetch(h, all[:n])
	}
	for n > 0 {
		got, part := <-next, all[:n]
		if got.err != nil {
			return head{}, got.err
		}
		h, all = got.now, all[n:]
		if n = min(batch, len(all)); n > 0 {
			go fetch(h, all[:n])
		}
		var err error
		for i := 0; i < len(part) && err == nil; i++ {
			err = emit(part[i], got.pieces[i])
		}
		buffers.Put(got.room)
		if err != nil {
			if n > 0 {
				<-next
			}
			return head{}, err
		}
	}
	return h, nil
}

// Get is Read for a range that fits one message.
func (s *Store) Get(ctx context.Context, k skein.StateKey, offset, length int64) (data []byte, info Info, err error) {
	for range readAttempts {
		data = nil
		err = s.Read(ctx, k, offset, length, func(i Info) error {
			info = i
			n := span(i.Size, offset, length)
			data = make([]byte, 0, min(n, skein.MaxPayload))
			return checkPayload(n)
		}, func(b []byte) error {
			data = append(data, b...)
			return nil
		})
		if !errors.Is(err, fault.Conflict) {
			break
		}
	}
	if err != nil {
		return nil, Info{}, err
	}
	return data, info, nil
}

// Stat is Read without the bytes.
func (s *Store) Stat(ctx context.Context, k skein.StateKey) (info Info, err error) {
	ctx, op := begin(ctx, "stat", k)
	defer op.end(&err)
	heads, err := s.db.stat(ctx, []skein.StateKey{k})
	if err != nil {
		return Info{}, err
	}
	if heads[0].version == 0 {
		return Info{}, noValue(k)
	}
	return heads[0].info(k), nil
}

// SetRange overwrites the range at offset. A value grows, with zeros between, if the range lies past its end; an absent
// one is created. data fits one message; without bytes the size stays.
func (s *Store) SetRange(ctx context.Context, k skein.StateKey, offset int64, data []byte, requestID string) (info Info, err error) {
	ctx, op := begin(ctx, "set_range", k)
	defer op.end(&err)
	op.bytes = int64(len(data))
	err = cmp.Or(checkRange(offset, 0), checkPayload(op.bytes), s.checkSize(offset+op.bytes), checkRequest(requestID))
	if err != nil {
		return Info{}, err
	}
	print := printOf(requestID, "range", offset)
	print.write(data)
	answer, err := s.splice(ctx, k, offset, data, 0, requestID, print)
	_, info, err = s.landed(k, answer, err)
	return info, err
}

// Append adds bytes, which fit one message, at the end and returns where they landed. An absent value is created.
func (s *Store) Append(ctx context.Context, k skein.StateKey, data []byte, requestID string) (offset int64, info Info, err error) {
	ctx, op := begin(ctx, "append", k)
	defer op.end(&err)
	op.bytes = int64(len(data))
	if err := cmp.Or(checkPayload(op.bytes), s.checkSize(op.bytes), checkRequest(requestID)); err != nil {
		return 0, Info{}, err
	}
	print := printOf(requestID, "append", 0)
	print.write(data)
	answer, err := s.splice(ctx, k, atEnd, data, 0, requestID, print)
	return s.landed(k, answer, err)
}

const atEnd = -1

// splice overwrites a range, or appends, and gives spliceScript's answer. It does so only if no chunk of the range has changed after since,
// if that is not 0.
func (s *Store) splice(ctx context.Context, k skein.StateKey, at int64, data []byte, since int64, id string, print fingerprint) ([]string, error) {
	offset, version := "", ""
	if at != atEnd {
		offset = strconv.FormatInt(at, 10)
	}
	if since != 0 {
		version = strconv.FormatInt(since, 10)
	}
	size := becomes(at + int64(len(data)))
	if at == atEnd {
		size = func(old int64) int64 { return old + int64(len(data)) }
	}
	for attempt := 0; len(data) > inline && attempt < spliceAttempts; attempt++ {
		cut := at
		if at == atEnd {
			heads, err := s.db.stat(ctx, []skein.StateKey{k})
			if err != nil {
				return nil, err
			}
			cut = heads[0].size
		}
		gen, end := "s"+randomHex(), cut+int64(len(data))
		if err := s.db.stage(ctx, k, gen, cut, data); err != nil {
			s.abandon(ctx, k, gen, cut, end, err)
			return nil, err
		}
		id, sum := repeatable(id, print, gen)
		answer, err := s.mutate(ctx, spliceScript, k, id, sum, size, offset, "", s.max, version, gen, len(data), cut)
		if err != nil || answer[0] == "OK" {
			return answer, err
		}
		s.db.unstage(ctx, k, gen, cut, end)
		if answer[0] != "SHIFTED" { // somebody else appended
			return answer, nil
		}
	}
	return s.mutate(ctx, spliceScript, k, id, print.String(), size, offset, data, s.max, version)
}

// landed reads spliceScript's answer.
func (s *Store) landed(k skein.StateKey, answer []string, err error) (int64, Info, error) {
	if err == nil && answer[0] == "TOOLARGE" {
		err = s.checkSize(s.max + 1)
	}
	if err == nil && answer[0] == "LOST" {
		err = errLost
	}
	if err != nil {
		return 0, Info{}, err
	}
	info, err := parseInfo(k, answer)
	if err != nil {
		return 0, Info{}, err
	}
	offset, err := strconv.ParseInt(answer[7], 10, 64)
	return offset, info, err
}

// Delete fails with fault.NotFound if there is no value.
func (s *Store) Delete(ctx context.Context, k skein.StateKey, requestID string) (err error) {
	ctx, op := begin(ctx, "delete", k)
	defer op.end(&err)
	if err := checkRequest(requestID); err != nil {
		return err
	}
	answer, err := s.mutate(ctx, deleteScript, k, requestID, printOf(requestID, "delete", 0).String(), nil)
	if err != nil {
		return err
	}
	switch {
	case answer[0] == "NOVALUE":
		return noValue(k)
	case answer[0] != "OK" || len(answer) != 5:
		return badAnswer(answer)
	}
	// The value is gone whether or not this works: listing passes an entry without a value over.
	_ = s.db.index(ctx, k, "", answer[4])
	return s.drop(ctx, k, answer[2:])
}

// parseInfo reads "OK version size µs expiry oldsize generation …".
func parseInfo(k skein.StateKey, answer []string) (Info, error) {
	if answer[0] != "OK" || len(answer) < 8 {
		return Info{}, badAnswer(answer)
	}
	var n [5]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(answer[1+i], 10, 64); err != nil {
			return Info{}, badAnswer(answer)
		}
	}
	return Info{k, n[1], n[0], time.UnixMicro(n[2]).UTC(), expiry(n[3])}, nil
}

func badAnswer(answer []string) error { return fmt.Errorf("redis: a script answered %q", answer) }

// fingerprint tells two requests with the same id apart. Without an id it costs nothing. It finds mistakes, nobody gains from
// deceiving it: so of many bytes their CRC counts, which takes a tenth of the time.
type fingerprint struct{ sum hash.Hash }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func printOf(id, op string, number int64) fingerprint {
	if id == "" {
		return fingerprint{}
	}
	f := fingerprint{sha256.New()}
	fmt.Fprintf(f.sum, "%s %d\n", op, number)
	return f
}

func (f fingerprint) write(b []byte) {
	switch {
	case f.sum == nil:
	case len(b) > inline:
		fmt.Fprintf(f.sum, "%d %08x\n", len(b), crc32.Checksum(b, castagnoli))
	default:
		f.sum.Write(b)
	}
}

func (f fingerprint) String() string {
	if f.sum == nil {
		return ""
	}
	return hex.EncodeToString(f.sum.Sum(nil))
}

// operation is the span of one.
type operation struct {
	span  trace.Span
	bytes int64
}

// begin opens a span. It tells which value by a digest: keys are users' data.
func begin(ctx context.Context, name string, k skein.StateKey) (context.Context, *operation) {
	ctx, span := otel.Tracer("skein.dev/services/state").Start(ctx, "state "+name)
	if span.IsRecording() {
		d := skein.DigestOf([]byte(k.Key))
		span.SetAttributes(attribute.String("skein.user", string(k.User)), attribute.String("skein.state.key_digest", hex.EncodeToString(d[:8])))
	}
	return ctx, &operation{span: span}
}

func (o *operation) end(err *error) {
	if o.span.IsRecording() {
		o.span.SetAttributes(attribute.Int64("skein.state.bytes", o.bytes))
		if *err != nil {
			o.span.SetStatus(codes.Error, fault.From(*err).Reason)
		}
	}
	o.span.End()
}

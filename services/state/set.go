package state

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"sync"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Set replaces the value by data, which fits one message, if its version is the expected one: Any, Absent or a version.
// Else it fails with fault.Conflict, reason CAS_MISMATCH.
func (s *Store) Set(ctx context.Context, k skein.StateKey, data []byte, expected int64, requestID string) (info Info, err error) {
	ctx, op := begin(ctx, "set", k)
	defer op.end(&err)
	op.bytes = int64(len(data))
	if err := cmp.Or(checkPayload(op.bytes), s.checkSize(op.bytes), checkRequest(requestID)); err != nil {
		return Info{}, err
	}
	if len(data) > inline {
		return s.upload(ctx, k, bytes.NewReader(data), expected, requestID, op)
	}
	print := printOf(requestID, "set", expected)
	print.write(data)
	return s.flip(ctx, k, expected, requestID, print.String(), data)
}

// Write is Set for a value of any size, read from r to its end. The value changes at the end, all at once; if r fails, it
// doesn't.
func (s *Store) Write(ctx context.Context, k skein.StateKey, r io.Reader, expected int64, requestID string) (info Info, err error) {
	ctx, op := begin(ctx, "write", k)
	defer op.end(&err)
	if err := checkRequest(requestID); err != nil {
		return Info{}, err
	}
	return s.upload(ctx, k, r, expected, requestID, op)
}

// buffer is for a batch of chunks on their way to Redis, or from there.
type buffer [batch * (chunkSize + lineEnd)]byte

// line is the room for n bytes of a chunk and what Redis ends them with.
func (b *buffer) line(i int, n int64) []byte { return b[i*(chunkSize+lineEnd):][:n+lineEnd] }

var buffers = sync.Pool{New: func() any { return new(buffer) }}

func (s *Store) upload(ctx context.Context, k skein.StateKey, r io.Reader, expected int64, requestID string, op *operation) (Info, error) {
	print := printOf(requestID, "set", expected)
	gen, size := "s"+randomHex(), int64(0)
	for p, err := range pieces(r) {
		n := int64(len(p.data))
		if err == nil {
			err = s.checkSize(size + n)
		}
		if err == nil {
			print.write(p.data)
			if size == 0 && p.last && n <= inline {
				op.bytes = n
				return s.flip(ctx, k, expected, requestID, print.String(), p.data)
			}
			err = s.db.stage(ctx, k, gen, size, p.data)
		}
		size += n
		if err != nil {
			s.abandon(ctx, k, gen, 0, size, err)
			return Info{}, err
		}
	}
	op.bytes = size
	id, sum := repeatable(requestID, print, gen)
	info, err := s.flip(ctx, k, expected, id, sum, "", gen, size)
	if errors.Is(err, fault.Conflict) { // after other errors the script may have run: only time may remove the chunks
		s.db.unstage(ctx, k, gen, 0, size)
	}
	return info, err
}

// piece is a batch of bytes that come.
type piece struct {
	data []byte
	last bool
}

// pieces reads r to its end, in batches. The next comes in while one is used, and r is not read any more once the loop is over.
func pieces(r io.Reader) iter.Seq2[piece, error] {
	type got struct {
		piece
		err  error
		room *buffer
	}
	read := func() got {
		room := buffers.Get().(*buffer) //nolint:forcetypeassert // nothing else is in there
		n, more, err := readFull(r, room[:batch*chunkSize])
		return got{piece{room[:n], !more}, err, room}
	}
	return func(yield func(piece, error) bool) {
		next := make(chan got, 1)
		for g := read(); ; g = <-next {
			over := g.last || g.err != nil
			if !over {
				go func() { next <- read() }()
			}
			on := yield(g.piece, g.err)
			buffers.Put(g.room)
			if over {
				return
			}
			if !on {
				buffers.Put((<-next).room)
				return
			}
		}
	}
}

// abandon drops what was staged before an error, unless Redis is away: the caller has waited for it once already.
func (s *Store) abandon(ctx context.Context, k skein.StateKey, gen string, from, to int64, err error) {
	if !errors.Is(err, fault.Unavailable) {
		s.db.unstage(ctx, k, gen, from, to)
	}
}

// repeatable gives a change of a staged generation an id if it has none: such changes are few, so each can afford one.
func repeatable(id string, print fingerprint, gen string) (string, string) {
	if id == "" {
		return gen, strings.Repeat("0", 2*sha256.Size)
	}
	return id, print.String()
}

// flip runs putScript with the bytes, or with generation and size of what was staged.
func (s *Store) flip(ctx context.Context, k skein.StateKey, expected int64, id, print string, value ...any) (Info, error) {
	condition := ""
	if expected != Any {
		condition = strconv.FormatInt(expected, 10)
	}
	size, ok := value[len(value)-1].(int64)
	if !ok {
		size = int64(len(value[0].([]byte))) //nolint:forcetypeassert // see above
	}
	answer, err := s.mutate(ctx, putScript, k, id, print, func(int64) int64 { return size }, append([]any{condition}, value...)...)
	if err != nil {
		return Info{}, err
	}
	switch answer[0] {
	case "MISMATCH":
		return Info{}, fault.Conflict.New("CAS_MISMATCH", "%s has version %s, not the expected %d (0: no value)", k, answer[1], expected).
			WithHint("read the value again and decide anew")
	case "LOST":
		return Info{}, errLost
	}
	info, err := parseInfo(k, answer)
	if err == nil {
		err = s.drop(ctx, k, answer[7:])
	}
	if len(value) > 1 && err == nil && answer[6] != value[1] { // a repetition: the value is what was staged the first time
		s.db.unstage(ctx, k, value[1].(string), 0, info.Size) //nolint:forcetypeassert // see upload
	}
	return info, err
}

// drop removes the chunks of a generation that can't be read any more, by what retire in prelude said of it.
func (s *Store) drop(ctx context.Context, k skein.StateKey, words []string) error {
	if len(words) < 2 {
		return badAnswer(words)
	}
	size, err := strconv.ParseInt(words[1], 10, 64)
	if err != nil {
		return badAnswer(words)
	}
	s.db.unstage(ctx, k, words[0], 0, size)
	return nil
}

// readFull fills buf unless r ends; more is false at the end. Unlike io.ReadFull it tells an end from a cut.
func readFull(r io.Reader, buf []byte) (n int, more bool, err error) {
	for n < len(buf) {
		k, err := r.Read(buf[n:])
		n += k
		if err == io.EOF { //nolint:errorlint // an end is exactly this; what wraps it is a cut
			return n, false, nil
		}
		if err != nil {
			return n, false, err
		}
	}
	return n, true, nil
}

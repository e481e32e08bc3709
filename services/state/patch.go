package state

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// Limits of one Patch call.
const (
	maxPatchBytes = 256 << 10
	maxPatches    = 4096 // so that Redis is not held up for more than a few ms
	maxExpiry     = 100 * 365 * 24 * time.Hour
)

// Patch is bytes that overwrite what is at an offset.
type Patch struct {
	Offset int64
	Data   []byte
}

// Patch overwrites ranges of a value in their order, all in one step. It may take 4,096 ranges and 256 KiB. The value grows as with
// SetRange; an absent one is created.
func (s *Store) Patch(ctx context.Context, k skein.StateKey, patches []Patch, requestID string) (info Info, err error) {
	ctx, op := begin(ctx, "patch", k)
	defer op.end(&err)
	err = checkRequest(requestID)
	print := printOf(requestID, "patch", int64(len(patches)))
	args, stop := []any{s.max}, int64(0)
	for _, p := range patches {
		op.bytes += int64(len(p.Data))
		err = cmp.Or(err, checkRange(p.Offset, 0), s.checkSize(p.Offset+int64(len(p.Data))))
		print.write(strconv.AppendInt(nil, p.Offset, 10))
		print.write([]byte("+" + strconv.Itoa(len(p.Data)) + "\n"))
		print.write(p.Data)
		args, stop = append(args, p.Offset, p.Data), max(stop, p.Offset+int64(len(p.Data)))
	}
	if err := cmp.Or(err, checkPatches(len(patches), op.bytes)); err != nil {
		return Info{}, err
	}
	if len(patches) == 1 {
		_, info, err = s.splice(ctx, k, patches[0].Offset, patches[0].Data, requestID, print)
		return info, err
	}
	answer, err := s.merged(ctx, k, patches, requestID, print.String(), stop)
	if answer == nil && err == nil {
		answer, err = s.mutate(ctx, patchScript, k, requestID, print.String(), becomes(stop), args...)
	}
	_, info, err = s.landed(k, answer, err)
	return info, err
}

func checkPatches(n int, bytes int64) error {
	if n > maxPatches || bytes > maxPatchBytes {
		return fault.TooLarge.New("TOO_LARGE", "%d bytes in %d ranges are too many for one message, which holds %d in %d", bytes, n, maxPatchBytes, maxPatches)
	}
	return nil
}

// partOf is the request id of the nth part of a request: one that no request has by accident.
func partOf(id string, n int) string {
	sum := sha256.Sum256([]byte(id + "\x00" + strconv.Itoa(n)))
	return hex.EncodeToString(sum[:])
}

// Resize gives a value a size: it is cut, or grows by zeros. An absent one is created.
func (s *Store) Resize(ctx context.Context, k skein.StateKey, size int64, requestID string) (info Info, err error) {
	ctx, op := begin(ctx, "resize", k)
	defer op.end(&err)
	if err := cmp.Or(checkRange(size, 0), s.checkSize(size), checkRequest(requestID)); err != nil {
		return Info{}, err
	}
	answer, err := s.mutate(ctx, resizeScript, k, requestID, printOf(requestID, "resize", size).String(), func(int64) int64 { return size }, size)
	if err != nil {
		return Info{}, err
	}
	if info, err = parseInfo(k, answer); err != nil {
		return Info{}, err
	}
	if len(answer) != 11 {
		return Info{}, badAnswer(answer)
	}
	from, err1 := strconv.ParseInt(answer[8], 10, 64)
	to, err2 := strconv.ParseInt(answer[9], 10, 64)
	if err1 != nil || err2 != nil {
		return Info{}, badAnswer(answer)
	}
	if from < to {
		s.db.unstage(ctx, k, answer[7], from, to)
	}
	return info, nil
}

// Add adds to the 8 bytes at an offset, taken as a little-endian signed integer, modulo 2^64, and returns the sum. What the
// value does not have yet is zero; an absent one is created.
func (s *Store) Add(ctx context.Context, k skein.StateKey, offset, delta int64, requestID string) (sum int64, info Info, err error) {
	ctx, op := begin(ctx, "add", k)
	defer op.end(&err)
	if offset > math.MaxInt64-8 {
		offset = math.MaxInt64 - 8
	}
	if err := cmp.Or(checkRange(offset, 0), s.checkSize(offset+8), checkRequest(requestID)); err != nil {
		return 0, Info{}, err
	}
	op.bytes = 8
	print := printOf(requestID, "add", offset)
	print.write(strconv.AppendInt(nil, delta, 10))
	bits := uint64(delta) //nolint:gosec // its two halves
	answer, err := s.mutate(ctx, addScript, k, requestID, print.String(), becomes(offset+8), offset, bits&math.MaxUint32, bits>>32, s.max)
	if err != nil {
		return 0, Info{}, err
	}
	low, info, err := s.landed(k, answer, nil)
	if err != nil {
		return 0, Info{}, err
	}
	high, err := strconv.ParseInt(answer[8], 10, 64)
	return high<<32 | low, info, err
}

// Expire says when a value ends, from now; 0 for never. Replacing the value does not change that, deleting it does.
func (s *Store) Expire(ctx context.Context, k skein.StateKey, after time.Duration, requestID string) (info Info, err error) {
	ctx, op := begin(ctx, "expire", k)
	defer op.end(&err)
	if after < 0 || after > maxExpiry || after > 0 && after < time.Millisecond {
		return Info{}, fault.Invalid.New("BAD_EXPIRY", "a time to live of %s: want 1 ms to %s, or none", after, maxExpiry)
	}
	if err := checkRequest(requestID); err != nil {
		return Info{}, err
	}
	ms := ""
	if after > 0 {
		ms = strconv.FormatInt(after.Milliseconds(), 10)
	}
	answer, err := s.mutate(ctx, expiryScript, k, requestID, printOf(requestID, "expire", int64(after)).String(), nil, ms)
	if err != nil {
		return Info{}, err
	}
	if answer[0] == "NOVALUE" {
		return Info{}, noValue(k)
	}
	return parseInfo(k, answer)
}

// Changes hands out the chunks of a range that changed since a version, 0 for all, each of one moment: first calls once with what
// is known of the value, before emit is called, maybe never, with bytes it must not keep. The last step tells what is known then:
// only if the version is the first one, all bytes are of that version. A length of 0 asks for all to the end.
func (s *Store) Changes(ctx context.Context, k skein.StateKey, since, offset, length int64, first func(Info) error, emit func(int64, []byte) error) (last Info, err error) {
	ctx, op := begin(ctx, "changes", k)
	defer op.end(&err)
	if since < 0 {
		return Info{}, fault.Invalid.New("BAD_VERSION", "since_version %d is negative", since)
	}
	if err := checkRange(offset, length); err != nil {
		return Info{}, err
	}
	offset = min(offset, MaxValue)
	end := int64(MaxValue)
	if length > 0 {
		end = min(end, offset+min(length, MaxValue))
	}
	h, all, pieces, err := s.db.changes(ctx, k, since, offset, end)
	if err != nil {
		return Info{}, err
	}
	if h.version == 0 {
		return Info{}, noValue(k)
	}
	if err := first(h.info(k)); err != nil {
		return Info{}, err
	}
	hand := func(at stretch, b []byte) error {
		op.bytes += int64(len(b))
		return emit(at.from, b)
	}
	now := h
	if len(pieces) > 0 { // all that there are
		for i := 0; i < len(pieces) && err == nil; i++ {
			err = hand(all[i], pieces[i])
		}
	} else {
		now, err = s.walk(h, all, func(h head, part []stretch, room *buffer) ([][]byte, head, error) {
			return s.chunks(ctx, k, h, part, room)
		}, hand)
	}
	if err != nil {
		return Info{}, err
	}
	if now.version == h.version {
		return h.info(k), nil
	}
	return s.Stat(ctx, k)
}

// chunks reads chunks of a value that may change meanwhile.
func (s *Store) chunks(ctx context.Context, k skein.StateKey, h head, all []stretch, room *buffer) (pieces [][]byte, now head, err error) {
	for range readAttempts {
		if pieces, now, err = s.db.chunks(ctx, k, h, all, room); err != nil || pieces != nil {
			return pieces, now, err
		}
		heads, err := s.db.stat(ctx, []skein.StateKey{k})
		if err != nil {
			return nil, head{}, err
		}
		if heads[0].version == 0 || heads[0].gen != h.gen {
			break // replaced: those chunks are of another value
		}
		h = heads[0]
	}
	return nil, head{}, changedMeanwhile(k)
}

// changes tells which bytes from..to changed since a version, cut at the chunks, and, if they are few, their content. Without a
// value the head has version 0.
func (d *db) changes(ctx context.Context, k skein.StateKey, since, from, to int64) (h head, all []stretch, pieces [][]byte, err error) {
	raw, err := d.run(ctx, changesScript, true, []string{metaKey(k)}, since, from, to)
	if err != nil {
		return head{}, nil, nil, err
	}
	parts, _ := raw.([]any)
	if len(parts) == 2 {
		return head{}, nil, nil, corrupt(k, parts[1])
	}
	if len(parts) < 3 {
		return head{}, nil, nil, nil
	}
	fields, _ := parts[0].([]any)
	h, _ = parseHead(fields)
	changed, _ := parts[1].([]any)
	short, _ := parts[2].([]any)
	for i, c := range changed {
		at, _ := c.(int64)
		s := stretch{max(from, at*chunkSize), min(to, h.size, (at+1)*chunkSize)}
		all = append(all, s)
		if i < len(short) {
			piece := make([]byte, s.to-s.from) // zeros where the chunk is short
			text, _ := short[i].(string)
			copy(piece, text)
			pieces = append(pieces, piece)
		}
	}
	return h, all, pieces, nil
}

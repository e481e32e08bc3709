package state

import (
	"cmp"
	"context"
	"math"
	"slices"
	"strconv"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/proto/runs"
)

// Limits of one Patch call. What bounds them is how long Redis is held up, a few ms: ranges that lie close are written together
// (merge.go), and others are a command each.
const (
	maxPatchBytes = 1 << 20
	maxPatches    = 4096
	maxNear       = 16 << 10 // if they are all within nearSpan
	nearSpan      = 1 << 20
	maxExpiry     = 100 * 365 * 24 * time.Hour
)

// Patch is ranges of a value, packed as package runs has it, and the bytes that are to be there, joined.
type Patch struct {
	Runs, Data []byte
	// Since is a version, or 0 for any: with a single range, nothing is written if one of its chunks has changed after it.
	Since int64
}

// Patch overwrites ranges of a value, all in one step: at most 1 MiB in 4,096 ranges, or in 16,384 within 1 MiB. The value grows as with
// SetRange; an absent one is created. fault.Conflict, reason CHUNK_CHANGED, if p.Since forbids it. previous is the newest version before
// this one that changed any of the chunks that were written, or 0 if there was no value and its versions are forgotten.
func (s *Store) Patch(ctx context.Context, k skein.StateKey, p Patch, requestID string) (info Info, previous int64, err error) {
	ctx, op := begin(ctx, "patch", k)
	defer op.end(&err)
	op.bytes = int64(len(p.Data))
	sum, err := checkPatch(p)
	if err := cmp.Or(err, s.checkSize(sum.End), checkRequest(requestID)); err != nil {
		return Info{}, 0, err
	}
	print := printOf(requestID, "patch", int64(len(p.Runs)))
	print.write(p.Runs)
	print.write(p.Data)
	var answer []string
	if p.Since != 0 {
		print.write(strconv.AppendInt(nil, p.Since, 10))
		leave, err := s.chunkTurn(ctx, k, sum.Start/chunkSize)
		if err != nil {
			return Info{}, 0, err
		}
		defer leave()
	}
	if sum.Count == 1 {
		answer, err = s.splice(ctx, k, sum.Start, p.Data, p.Since, requestID, print)
	} else if answer, err = s.merged(ctx, k, p, sum, requestID, print.String()); answer == nil && err == nil {
		args := []any{s.max}
		data := p.Data
		for at, n := range runs.All(p.Runs) {
			args, data = append(args, at, data[:n]), data[n:]
		}
		answer, err = s.mutate(ctx, patchScript, k, requestID, print.String(), becomes(sum.End), args...)
	}
	if err == nil && answer[0] == "UNLIKE" {
		err = fault.Conflict.New("CHUNK_CHANGED", "others have changed %s there after version %d: nothing was written", k, p.Since).
			WithHint("pull it, or send the changed bytes alone")
	}
	if _, info, err = s.landed(k, answer, err); err != nil {
		return Info{}, 0, err
	}
	if previous, err = strconv.ParseInt(answer[8], 10, 64); err != nil {
		return info, info.Version, nil // a repetition of what an older service wrote: nobody knew it as of that
	}
	return info, previous, nil
}

func checkPatch(p Patch) (runs.Summary, error) {
	sum, err := runs.Check(p.Runs)
	switch bytes := int64(len(p.Data)); {
	case err != nil:
		return sum, fault.Invalid.New("BAD_RUNS", "the ranges can't be read: %s", err)
	case sum.Count == 0:
		return sum, fault.Invalid.New("BAD_RUNS", "there are no ranges")
	case bytes > maxPatchBytes || sum.Count > maxNear || sum.Count > maxPatches && sum.End-sum.Start > nearSpan:
		return sum, fault.TooLarge.New("TOO_LARGE", "%d bytes in %d ranges are too many for one message, which holds %d in %d, or in %d within %d bytes",
			bytes, sum.Count, maxPatchBytes, maxPatches, maxNear, nearSpan)
	case p.Since < 0 || p.Since > 0 && sum.Count > 1:
		return sum, fault.Invalid.New("BAD_VERSION", "if_unchanged_since is for a single range, and a version")
	case sum.Bytes != bytes:
		return sum, fault.Invalid.New("BAD_RUNS", "the ranges have %d bytes, and there are %d", sum.Bytes, bytes)
	}
	return sum, nil
}

// Resize gives a value a size: it is cut, or grows by zeros. An absent one is created, which created tells.
func (s *Store) Resize(ctx context.Context, k skein.StateKey, size int64, requestID string) (info Info, created bool, err error) {
	ctx, op := begin(ctx, "resize", k)
	defer op.end(&err)
	if err := cmp.Or(checkRange(size, 0), s.checkSize(size), checkRequest(requestID)); err != nil {
		return Info{}, false, err
	}
	answer, err := s.mutate(ctx, resizeScript, k, requestID, printOf(requestID, "resize", size).String(), func(int64) int64 { return size }, size)
	if err != nil {
		return Info{}, false, err
	}
	if info, err = parseInfo(k, answer); err != nil {
		return Info{}, false, err
	}
	if len(answer) != 11 {
		return Info{}, false, badAnswer(answer)
	}
	from, err1 := strconv.ParseInt(answer[8], 10, 64)
	to, err2 := strconv.ParseInt(answer[9], 10, 64)
	if err1 != nil || err2 != nil {
		return Info{}, false, badAnswer(answer)
	}
	if from < to {
		s.db.unstage(ctx, k, answer[7], from, to)
	}
	return info, answer[5] == "-1", nil
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
//
// known has versions that the range's first chunks are compared with instead of since.
func (s *Store) Changes(ctx context.Context, k skein.StateKey, since int64, known []int64, offset, length int64, first func(Info) error,
	emit func(int64, []byte) error,
) (last Info, err error) {
	ctx, op := begin(ctx, "changes", k)
	defer op.end(&err)
	if since < 0 || slices.ContainsFunc(known, func(v int64) bool { return v < 0 }) {
		return Info{}, fault.Invalid.New("BAD_VERSION", "a version that is negative")
	}
	if len(known) > MaxValue/chunkSize {
		return Info{}, fault.TooLarge.New("TOO_LARGE", "versions of %d chunks: no value has so many", len(known))
	}
	if err := checkRange(offset, length); err != nil {
		return Info{}, err
	}
	offset = min(offset, MaxValue)
	end := int64(MaxValue)
	if length > 0 {
		end = min(end, offset+min(length, MaxValue))
	}
	h, all, pieces, err := s.db.changes(ctx, k, since, known, offset, end)
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
func (d *db) changes(ctx context.Context, k skein.StateKey, since int64, known []int64, from, to int64) (h head, all []stretch, pieces [][]byte, err error) {
	args := []any{since, from, to}
	for _, v := range known {
		args = append(args, v)
	}
	raw, err := d.run(ctx, changesScript, true, []string{metaKey(k)}, args...)
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

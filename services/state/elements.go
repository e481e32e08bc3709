package state

import (
	"cmp"
	"context"
	"strconv"

	"skein.dev"
	"skein.dev/platform/fault"
)

// maxElement is the most bytes of an element: it passes through Lua.
const maxElement = 1 << 20

// AppendElement adds an element to the list beside a value and returns its place, from 0. All elements of a value may have as many
// bytes as it may, and each counts 16 more. A value that is absent is created, empty; one that is there keeps its version.
func (s *Store) AppendElement(ctx context.Context, k skein.StateKey, data []byte, requestID string) (index int64, err error) {
	ctx, op := begin(ctx, "append_element", k)
	defer op.end(&err)
	op.bytes = int64(len(data))
	if op.bytes > maxElement {
		return 0, fault.TooLarge.New("TOO_LARGE", "an element of %d bytes: at most %d are allowed", op.bytes, maxElement)
	}
	if err := cmp.Or(s.checkSize(op.bytes), checkRequest(requestID)); err != nil {
		return 0, err
	}
	print := printOf(requestID, "element", 0)
	print.write(data)
	answer, err := s.mutate(ctx, elementScript, k, requestID, print.String(), func(old int64) int64 { return old + op.bytes + elementCost }, data, s.max)
	switch {
	case err != nil:
		return 0, err
	case answer[0] == "TOOLARGE":
		return 0, fault.TooLarge.New("TOO_LARGE", "the elements of %s would have more than the %d bytes that are allowed", k, s.max).
			WithHint("clear them, or raise --max-value-size")
	case answer[0] != "OK" || len(answer) != 4:
		return 0, badAnswer(answer)
	}
	return strconv.ParseInt(answer[1], 10, 64)
}

// Elements hands out elements from a place on, count of them or, for 0, all, some at a time. Where there is no value there are none.
// If they are cleared meanwhile it fails with fault.Conflict, reason VALUE_CHANGED.
func (s *Store) Elements(ctx context.Context, k skein.StateKey, index, count int64, emit func([][]byte) error) (err error) {
	ctx, op := begin(ctx, "elements", k)
	defer op.end(&err)
	if err := checkRange(index, count); err != nil {
		return err
	}
	const end = 1 << 40 // more than there can be
	index, count = min(index, end), min(count, end)
	life := ""
	for {
		raw, err := s.db.run(ctx, elementsScript, true, []string{metaKey(k)}, index, count)
		if err != nil {
			return err
		}
		parts, _ := raw.([]any)
		if len(parts) < 2 {
			parts = []any{"", nil}
		}
		now, _ := parts[0].(string)
		if life != "" && now != life {
			return fault.Conflict.New("VALUE_CHANGED", "the elements of %s were cleared while they were read", k).WithHint("read them again")
		}
		words, _ := parts[1].([]any)
		if life = now; len(words) == 0 {
			return nil
		}
		page := make([][]byte, len(words))
		for i, w := range words {
			text, _ := w.(string)
			page[i] = []byte(text)
			op.bytes += int64(len(text))
		}
		if err := emit(page); err != nil {
			return err
		}
		index += int64(len(page))
		if count > 0 {
			if count -= int64(len(page)); count == 0 {
				return nil
			}
		}
	}
}

// ClearElements removes all elements; there may be none.
func (s *Store) ClearElements(ctx context.Context, k skein.StateKey, requestID string) (err error) {
	ctx, op := begin(ctx, "clear_elements", k)
	defer op.end(&err)
	if err := checkRequest(requestID); err != nil {
		return err
	}
	_, err = s.mutate(ctx, clearScript, k, requestID, printOf(requestID, "clear", 0).String(), nil)
	return err
}

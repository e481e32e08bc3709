package main

import (
	"google.golang.org/protobuf/proto"

	"skein.dev/platform/fault"
)

// maxPage is the largest page that the services give.
const maxPage = 1000

// mostHeld bounds a list that is held as a whole, in bytes of messages, and mostEmpty how often nothing may come of one: a server
// could go on for ever.
const (
	mostHeld  = 256 << 20
	mostEmpty = 1000
)

// notHeld is the limit of pages for all of a list that may be of any length.
const notHeld = -1

type page interface {
	proto.Message
	GetNextPageToken() string
}

// pages asks for page after page until there are limit items (0: all, as they are held by the caller) or no more. fetch returns
// how many came.
func pages(limit int, fetch func(size int32, token string) (n int, p page, err error)) error {
	mark, count, empty, held := "", 0, 0, 0
	for got, token := 0, ""; ; {
		ask := maxPage
		if limit > 0 {
			ask = min(ask, limit-got)
		}
		n, p, err := fetch(int32(ask), token) //nolint:gosec // at most maxPage
		if err != nil {
			return err
		}
		got += n
		if token = p.GetNextPageToken(); token == "" || limit > 0 && got >= limit {
			return nil
		}
		if empty++; n > 0 {
			empty = 0
		}
		if token == mark || empty > mostEmpty {
			return badAnswer("gives the same page of a list again, or empty ones without end")
		}
		if count++; count&(count-1) == 0 { // a mark that is moved ever more rarely is met again in a circle of any length
			mark = token
		}
		if held += proto.Size(p); limit != notHeld && held > mostHeld {
			return fault.TooLarge.New("LIST_SIZE", "the list is longer than %s, and goes on", size(mostHeld)).
				WithHint("ask for a part of it: name a directory, a prefix or a limit")
		}
	}
}

const reasonBadAnswer = "BAD_ANSWER"

// badAnswer is the error of an answer that no service of ours gives.
func badAnswer(format string, args ...any) error {
	return fault.Internal.New(reasonBadAnswer, "the server "+format, args...).
		WithHint("what answers there is no Skein, or does not work: name another with --server")
}

package service

import (
	"errors"
	"io"
)

// frameSize is what goes into one message of a stream, in bytes.
const frameSize = 256 << 10

// Frames gives body to send in pieces, at least one: the first message names where they go. When send says EOF the
// server has ended the stream, and its answer says why.
func Frames(body io.Reader, send func(data []byte) error) error {
	for first := true; ; first = false {
		data := make([]byte, frameSize) // gRPC may still hold the one before
		n, err := Fill(body, data)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return err
		}
		if n > 0 || first {
			if err := send(data[:n]); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// Fill is io.ReadFull, but keeps the end of r, io.EOF, apart from an r that says io.ErrUnexpectedEOF itself, as the body of an
// interrupted request and a file of an archive that is cut off do.
func Fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

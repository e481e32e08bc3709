// Package archive is the form in which a user's values leave and come back: a tar with a file for each value, named by its key,
// percent-encoded, and one more for its elements, if it has some. The state service and the command line both write and read it.
package archive

import (
	"archive/tar"
	"encoding/binary"
	"errors"
	"io"
	"net/url"
	"strconv"
	"strings"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// PAX records of the files.
const (
	paxVersion = "SKEIN.version"
	paxExpires = "SKEIN.expires"
	// paxElements says how many elements of the value before it a file has. Before each are the 4 bytes of its length, little-endian.
	paxElements = "SKEIN.elements"
)

const (
	suffix      = "?elements" // after the key: no key is encoded so
	prefix      = 4
	mostElement = 1 << 20 // as the state service takes them
)

// Value is the header of a value's file. name is its key, percent-encoded; a zero expires is never.
func Value(name string, size, version int64, updated, expires time.Time) *tar.Header {
	pax := map[string]string{paxVersion: strconv.FormatInt(version, 10)}
	if !expires.IsZero() {
		pax[paxExpires] = expires.Format(time.RFC3339Nano)
	}
	return &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, ModTime: updated, Format: tar.FormatPAX, PAXRecords: pax,
	}
}

// mostElements bounds the elements of a value in bytes, with a length before each: several times what the state service takes.
const mostElements = 4 << 30

// WriteElements adds the file of a value's elements, if it has some. each calls f with the first n, or all for 0. It reads them
// twice, for their size comes first: those that were there the first time. Conflict VALUE_CHANGED if they are others by then.
func WriteElements(out *tar.Writer, name string, each func(n int64, f func([]byte) error) error) error {
	n, size := int64(0), int64(0)
	err := each(0, func(e []byte) error {
		if n, size = n+1, size+prefix+int64(len(e)); len(e) > mostElement || size > mostElements {
			return fault.TooLarge.New("TOO_LARGE", "an element of %d bytes, %d of all: no value has those", len(e), size)
		}
		return nil
	})
	if n == 0 || err != nil {
		return err
	}
	err = out.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name + suffix, Size: size, Mode: 0o644, Format: tar.FormatPAX,
		PAXRecords: map[string]string{paxElements: strconv.FormatInt(n, 10)},
	})
	if err != nil {
		return err
	}
	changed := fault.Conflict.New("VALUE_CHANGED", "the elements changed while they were written").WithHint("try again")
	err = each(n, func(e []byte) error {
		if size -= prefix + int64(len(e)); size < 0 {
			return changed
		}
		_, err := out.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(e))), e...))
		return err
	})
	if err == nil && size > 0 {
		return changed
	}
	return err
}

// Reader is a tar.Reader that tells an archive that is cut off between two files from one that ends there.
type Reader struct {
	*tar.Reader
	in *ending
}

// NewReader reads an archive from in.
func NewReader(in io.Reader) *Reader {
	e := &ending{in: in}
	return &Reader{tar.NewReader(e), e}
}

// Next is tar.Reader's. Invalid BAD_ARCHIVE if the archive has no end.
func (r *Reader) Next() (*tar.Header, error) {
	f, err := r.Reader.Next()
	if errors.Is(err, io.EOF) && r.in.ended {
		return nil, fault.Invalid.New("BAD_ARCHIVE", "the archive is cut off, or is none: it has no end").WithHint("export it again")
	}
	return f, err
}

// ending knows whether more was wanted of in than there is. Who reads an archive's end, two empty blocks, wants no more.
type ending struct {
	in    io.Reader
	ended bool
}

func (e *ending) Read(b []byte) (int, error) {
	n, err := e.in.Read(b)
	e.ended = e.ended || n == 0 && errors.Is(err, io.EOF)
	return n, err
}

// HasElements reports whether a file is of the elements of the value before it.
func HasElements(f *tar.Header) bool {
	_, elements := f.PAXRecords[paxElements]
	return elements
}

// Key is whose value a file has. Invalid BAD_NAME if it is named by no key.
func Key(user string, f *tar.Header) (skein.StateKey, error) {
	name := f.Name
	if HasElements(f) {
		name = strings.TrimSuffix(name, suffix)
	}
	name, err := url.PathUnescape(name)
	if err != nil {
		return skein.StateKey{}, fault.Invalid.New("BAD_NAME", "the key %.80q is not percent-encoded: %s", f.Name, err)
	}
	return skein.NewStateKey(user, name)
}

// Left is for how long from now a value of the file lives, at least 1 ms; 0 is for ever. Invalid BAD_EXPIRY.
func Left(k skein.StateKey, f *tar.Header) (time.Duration, error) {
	text := f.PAXRecords[paxExpires]
	if text == "" {
		return 0, nil
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return 0, fault.Invalid.New("BAD_EXPIRY", "the expiry %.40q of %s is no time", text, k)
	}
	return max(time.Millisecond, time.Until(at).Truncate(time.Millisecond)), nil
}

// ReadElements calls f with each element of a file. Invalid BAD_ARCHIVE if they are cut off, or are none.
func ReadElements(k skein.StateKey, in io.Reader, f func([]byte) error) error {
	bad := fault.Invalid.New("BAD_ARCHIVE", "the elements of %s are cut off, or are none", k)
	var head [prefix]byte
	for {
		if _, err := io.ReadFull(in, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return bad
		}
		size := binary.LittleEndian.Uint32(head[:])
		if size > mostElement {
			return bad
		}
		element := make([]byte, size)
		if _, err := io.ReadFull(in, element); err != nil {
			return bad
		}
		if err := f(element); err != nil {
			return err
		}
	}
}

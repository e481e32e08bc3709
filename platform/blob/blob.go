// Package blob keeps objects: bytes under a key, in any S3 (minio.go) or in a plain directory (dir.go). Enter by Open;
// blobtest.Run is what every implementation must pass.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"skein.dev/platform/fault"
)

const (
	// MaxKey bounds a key in bytes, as S3 does.
	MaxKey = 1024
	// MaxConditional bounds an object that is put on a condition. A larger one would be sent in parts, and S3 servers (and
	// minio-go) forget the condition when the parts are put together: publish large content under a key made of its
	// digest, then a small pointer to it on a condition.
	MaxConditional = 4 << 20
	// MaxPage bounds a page of a listing, as S3 does.
	MaxPage = 1000
)

// Bucket is a flat space of objects. Its methods may be called at the same time; each object changes atomically: a reader
// sees one content from its beginning to its end.
//
// A key is what CheckKey accepts: UTF-8 without control characters, 1 to MaxKey bytes, and no segment of it is empty, "."
// or "..". To be storable everywhere, keep segments below 256 bytes and let no key be a directory of another ("a" and
// "a/b"): some S3 servers keep objects as files.
//
// Errors are faults: NotFound NO_OBJECT, Conflict OBJECT_CHANGED (a condition did not hold), Invalid BAD_KEY and
// BAD_SIZE, Exhausted STORE_FULL, DataLoss STORE_CORRUPT, and Unavailable STORE_DOWN or STORE_DENIED, which come within
// seconds. An error of a caller's context or reader comes back as it is.
type Bucket interface {
	// Get reads length bytes from off, or to the end if length is negative. Past the end there is nothing, which is no
	// error. Info is of the whole object. The caller closes the reader.
	Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, Info, error)
	// Put creates or replaces an object with the next size bytes of r, all at once, or with all of r if size is negative.
	// BAD_SIZE if r ends before. After STORE_DOWN the object may be the old one or the new one.
	Put(ctx context.Context, key string, r io.Reader, size int64, opts PutOptions) (Info, error)
	// Stat is Get without the bytes.
	Stat(ctx context.Context, key string) (Info, error)
	// Delete removes an object; that there is none is no error.
	Delete(ctx context.Context, key string) error
	// List gives the next objects in the byte order of their keys: those that begin with prefix and come after the key or
	// prefix after. With delimiter, it stops at the next '/' behind prefix: what lies deeper is given once, in prefixes,
	// as a prefix that ends in '/'. At most limit items and prefixes are given together (MaxPage if limit is not
	// between 1 and MaxPage); fewer don't mean the end, only more does. The next page begins after Page.Last.
	List(ctx context.Context, prefix, after string, limit int, delimiter bool) (Page, error)
	// Ping asks whether the store can be used.
	Ping(ctx context.Context) error
}

// Info describes an object.
type Info struct {
	Key      string
	Size     int64
	ETag     string // changes with every replacement; only good for comparing
	Modified time.Time
}

// PutOptions are the conditions of a Put; at most one of them, and only on objects up to MaxConditional of known size.
type PutOptions struct {
	IfAbsent bool   // only if there is no such object
	IfMatch  string // only if the object there has this ETag
}

func (o PutOptions) conditional() bool { return o.IfAbsent || o.IfMatch != "" }

// Page is a part of a listing.
type Page struct {
	Items    []Info
	Prefixes []string
	More     bool
}

// Last is the greatest key or prefix of the page: where the next one begins.
func (p Page) Last() string {
	last := ""
	if n := len(p.Items); n > 0 {
		last = p.Items[n-1].Key
	}
	if n := len(p.Prefixes); n > 0 {
		last = max(last, p.Prefixes[n-1])
	}
	return last
}

// Open finds the bucket that a URL names: s3://BUCKET?endpoint=http://HOST:PORT&region=REGION, or file:///DIR, or
// file:DIR relative to the working directory. Credentials of S3 are AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. The store
// need not be up: a bucket that is missing is made when it is first used.
func Open(_ context.Context, rawURL string) (Bucket, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, badURL(rawURL, "it is no URL")
	}
	switch u.Scheme {
	case "file":
		dir := u.Path
		if u.Opaque != "" {
			if dir, err = url.PathUnescape(u.Opaque); err != nil {
				return nil, badURL(rawURL, "its path is not percent-encoded")
			}
		}
		if u.Host != "" || dir == "" {
			return nil, badURL(rawURL, "it names no directory; an absolute one takes three slashes")
		}
		return openDir(dir)
	case "s3":
		return openMinio(u)
	}
	return nil, badURL(rawURL, "its scheme is neither s3 nor file")
}

func badURL(rawURL, why string) error {
	return fault.Invalid.New("BAD_BUCKET", "bucket %q: %s", rawURL, why).
		WithHint("use s3://BUCKET?endpoint=http://HOST:PORT or file:DIR")
}

// Read gives a whole object of at most most bytes; TooLarge OBJECT_TOO_LARGE if it is larger.
func Read(ctx context.Context, b Bucket, key string, most int64) ([]byte, Info, error) {
	r, info, err := b.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, info, err
	}
	defer func() { _ = r.Close() }()
	if info.Size > most {
		return nil, info, fault.TooLarge.New("OBJECT_TOO_LARGE", "object %q has %d bytes, at most %d are read", key, info.Size, most)
	}
	data := make([]byte, info.Size)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, info, err
	}
	return data, info, nil
}

// All walks every object whose key begins with prefix. It ends after an error.
func All(ctx context.Context, b Bucket, prefix string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		after := ""
		for {
			page, err := b.List(ctx, prefix, after, MaxPage, false)
			if err != nil {
				yield(Info{}, err)
				return
			}
			for _, info := range page.Items {
				if !yield(info, nil) {
					return
				}
			}
			if !page.More {
				return
			}
			after = page.Last()
		}
	}
}

// CheckKey gives Invalid BAD_KEY if some store does not take the key. Two rules are MinIO's: a segment that is "." or ".." only
// once it is trimmed of white space, or that ends at a backslash, counts as such, and so does "[minio_cache:", which it
// would read as a mark of its own in a listing.
func CheckKey(key string) error {
	why := ""
	switch {
	case key == "":
		why = "it is empty"
	case len(key) > MaxKey:
		why = fmt.Sprintf("it has %d bytes, at most %d are allowed", len(key), MaxKey)
	case !utf8.ValidString(key):
		why = "it is not UTF-8"
	case strings.Contains(key, "[minio_cache:"):
		why = "it holds [minio_cache:"
	case strings.ContainsFunc(key, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		why = "it holds a control character"
	default:
		for seg := range strings.SplitSeq(key, "/") {
			if seg == "" {
				why = "a segment of it is empty"
			}
			for part := range strings.SplitSeq(seg, `\`) {
				if part = strings.TrimSpace(part); part == "." || part == ".." {
					why = `a segment of it is "." or ".."`
				}
			}
		}
	}
	if why != "" {
		return fault.Invalid.New("BAD_KEY", "object key %.80q: %s", key, why)
	}
	return nil
}

func checkRange(off int64) error {
	if off < 0 {
		return fault.Invalid.New("BAD_RANGE", "offset %d is negative", off)
	}
	return nil
}

func checkPut(key string, size int64, opts PutOptions) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	if opts.IfAbsent && opts.IfMatch != "" {
		return fault.Invalid.New("BAD_CONDITION", "an object can't be absent and match an ETag")
	}
	if opts.conditional() && (size < 0 || size > MaxConditional) {
		return fault.Invalid.New("BAD_CONDITION", "an object of %d bytes can't be put on a condition: at most %d bytes, and a known size", size, MaxConditional)
	}
	return nil
}

func noObject(key string) error { return fault.NotFound.New("NO_OBJECT", "there is no object %q", key) }

func changed(key string, opts PutOptions) error {
	if opts.IfAbsent {
		return fault.Conflict.New("OBJECT_CHANGED", "object %q exists already", key)
	}
	return fault.Conflict.New("OBJECT_CHANGED", "object %q is not the one that was expected", key)
}

// body gives exactly the bytes that a Put asked for, and remembers whose fault it was that it could not.
type body struct {
	r    io.Reader
	left int64 // still to come; negative: unknown
	err  error // of r
}

func (b *body) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.left > 0 && int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.r.Read(p)
	if b.left > 0 {
		b.left -= int64(n)
		if errors.Is(err, io.EOF) && b.left > 0 {
			err = fault.Invalid.New("BAD_SIZE", "the content ends %d bytes before its announced size", b.left)
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

package blob

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	"golang.org/x/sync/singleflight"

	"skein.dev/platform/fault"
)

const (
	// attempts and stall keep a call on a dead store to seconds: a refused connection ends it within one, a store that
	// accepts and says nothing within attempts times stall.
	attempts = 2
	stall    = 5 * time.Second
	// partSize is what an upload of unknown size holds in memory.
	partSize = 8 << 20
)

// s3 is a Bucket in any S3. minio-go's own reader is not used: it starts a goroutine per object and asks for it twice.
type s3 struct {
	core     *minio.Core
	bucket   string
	endpoint string
	region   string

	found   atomic.Bool // the bucket exists
	finding singleflight.Group
}

func openMinio(u *url.URL) (Bucket, error) {
	q := u.Query()
	for name := range q {
		if name != "endpoint" && name != "region" {
			return nil, badURL(u.String(), "unknown parameter "+name)
		}
	}
	if u.Host == "" || strings.Trim(u.Path, "/") != "" {
		return nil, badURL(u.String(), "a bucket's name, and no path, comes after s3://")
	}
	endpoint := cmp.Or(q.Get("endpoint"), os.Getenv("AWS_ENDPOINT_URL_S3"), "https://s3.amazonaws.com")
	e, err := url.Parse(endpoint)
	if err != nil || e.Host == "" || e.Scheme != "http" && e.Scheme != "https" {
		return nil, badURL(u.String(), "its endpoint is not http://HOST:PORT or https://HOST")
	}
	region := cmp.Or(q.Get("region"), os.Getenv("AWS_REGION"), "us-east-1")
	core, err := minio.NewCore(e.Host, &minio.Options{
		Creds:      credentials.NewEnvAWS(),
		Secure:     e.Scheme == "https",
		Region:     region,
		Transport:  transport(),
		MaxRetries: attempts,
		// TrailingHeaders stays off: versitygw refuses them over plain HTTP.
	})
	if err != nil {
		return nil, badURL(u.String(), err.Error())
	}
	return &s3{core: core, bucket: u.Host, endpoint: endpoint, region: region}, nil
}

// transport gives up on a server that is not there or makes no progress; its connections may be many, as blocks are
// fetched side by side.
func transport() *http.Transport {
	dialer := &net.Dialer{Timeout: 3 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dialer.DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return progressing{c}, nil
		},
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       stall / 2, // below stall, which ends an idle connection as well
		TLSHandshakeTimeout:   3 * time.Second,
		ResponseHeaderTimeout: stall,
		DisableCompression:    true, // bytes come as they were put
	}
}

// progressing is a connection on which every read and write must do something within stall. A body may take as long as
// it likes, as long as it moves.
type progressing struct{ net.Conn }

func (c progressing) Read(p []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(stall))
	return c.Conn.Read(p)
}

func (c progressing) Write(p []byte) (int, error) {
	_ = c.SetDeadline(time.Now().Add(stall)) // the reader waits for the answer to this
	return c.Conn.Write(p)
}

// ensure makes the bucket when it is first needed, so that a service can start before its store. Those who come meanwhile
// wait for one attempt together.
func (b *s3) ensure(ctx context.Context) error {
	if b.found.Load() {
		return nil
	}
	done := b.finding.DoChan("", func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attempts*stall) // not only its first caller's
		defer cancel()
		return nil, b.find(ctx)
	})
	select {
	case r := <-done:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *s3) find(ctx context.Context) error {
	found, err := b.core.BucketExists(ctx, b.bucket)
	if err == nil && !found {
		err = b.core.MakeBucket(ctx, b.bucket, minio.MakeBucketOptions{Region: b.region})
		switch minio.ToErrorResponse(err).Code {
		case minio.BucketAlreadyOwnedByYou, "BucketAlreadyExists": // another process was faster
			err = nil
		}
	}
	if err != nil {
		return b.fault(ctx, "", PutOptions{}, err)
	}
	b.found.Store(true)
	return nil
}

// begin is the start of every method.
func (b *s3) begin(ctx context.Context, invalid error) error {
	if err := cmp.Or(ctx.Err(), invalid); err != nil {
		return err
	}
	return b.ensure(ctx)
}

func (b *s3) Ping(ctx context.Context) error {
	if err := b.begin(ctx, nil); err != nil {
		return err
	}
	found, err := b.core.BucketExists(ctx, b.bucket)
	if err == nil && !found {
		err = minio.ErrorResponse{Code: minio.NoSuchBucket}
	}
	return b.fault(ctx, "", PutOptions{}, err)
}

func infoOfS3(o minio.ObjectInfo) Info {
	return Info{o.Key, o.Size, strings.Trim(o.ETag, `"`), o.LastModified}
}

func (b *s3) Stat(ctx context.Context, key string) (Info, error) {
	if err := b.begin(ctx, CheckKey(key)); err != nil {
		return Info{}, err
	}
	o, err := b.core.StatObject(ctx, b.bucket, key, minio.StatObjectOptions{})
	if err != nil {
		return Info{}, b.fault(ctx, key, PutOptions{}, err)
	}
	o.Key = key
	return infoOfS3(o), nil
}

func (b *s3) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, Info, error) {
	if err := b.begin(ctx, cmp.Or(CheckKey(key), checkRange(off))); err != nil {
		return nil, Info{}, err
	}
	if length == 0 { // no Range header can say that
		info, err := b.Stat(ctx, key)
		return http.NoBody, info, err
	}
	var opts minio.GetObjectOptions
	switch {
	case length > 0:
		opts.Set("Range", "bytes="+strconv.FormatInt(off, 10)+"-"+strconv.FormatInt(max(off+length-1, off), 10))
	case off > 0:
		opts.Set("Range", "bytes="+strconv.FormatInt(off, 10)+"-")
	}
	r, o, header, err := b.core.GetObject(ctx, b.bucket, key, opts)
	if err != nil {
		if minio.ToErrorResponse(err).Code == minio.InvalidRange { // nothing is there
			info, err := b.Stat(ctx, key)
			return http.NoBody, info, err
		}
		return nil, Info{}, b.fault(ctx, key, PutOptions{}, err)
	}
	o.Key = key
	if _, total, ok := strings.Cut(header.Get("Content-Range"), "/"); ok { // o.Size is that of the range
		if n, err := strconv.ParseInt(total, 10, 64); err == nil {
			o.Size = n
		}
	}
	return &s3reader{b, ctx, key, r}, infoOfS3(o), nil
}

// s3reader gives the errors of a body their kind.
type s3reader struct {
	b   *s3
	ctx context.Context //nolint:containedctx // of the Get that this is the result of
	key string
	io.ReadCloser
}

func (r *s3reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = r.b.fault(r.ctx, r.key, PutOptions{}, err)
	}
	return n, err
}

func (b *s3) Put(ctx context.Context, key string, r io.Reader, size int64, opts PutOptions) (Info, error) {
	if err := b.begin(ctx, checkPut(key, size, opts)); err != nil {
		return Info{}, err
	}
	src := &body{r: r, left: size}
	first, err := begin(src, size)
	if err != nil {
		return Info{}, err
	}
	var up minio.UploadInfo
	send := minio.PutObjectOptions{PartSize: partSize, ContentType: "application/octet-stream"}
	if len(first) <= MaxConditional {
		up, err = b.putSmall(ctx, key, first, opts, send)
	} else {
		up, err = b.core.Client.PutObject(ctx, b.bucket, key, io.MultiReader(bytes.NewReader(first), src), size, send)
	}
	if err != nil {
		if src.err != nil {
			return Info{}, src.err
		}
		return Info{}, b.fault(ctx, key, opts, err)
	}
	return Info{key, up.Size, strings.Trim(up.ETag, `"`), cmp.Or(up.LastModified, time.Now())}, nil
}

// begin reads what may be sent in one request, and a byte more if there is more.
func begin(r io.Reader, size int64) ([]byte, error) {
	if size < 0 {
		return io.ReadAll(io.LimitReader(r, MaxConditional+1))
	}
	data := make([]byte, min(size, MaxConditional+1))
	_, err := io.ReadFull(r, data)
	return data, err
}

// putSmall sends an object in one request that is signed with its digest, so the store checks what it receives. (Signing
// chunk by chunk, minio-go's way, also trips versitygw over an empty object.)
func (b *s3) putSmall(ctx context.Context, key string, data []byte, opts PutOptions, send minio.PutObjectOptions) (minio.UploadInfo, error) {
	var content io.Reader = bytes.NewReader(data)
	switch {
	case opts.IfAbsent:
		send.SetMatchETagExcept("*")
	case opts.IfMatch != "":
		send.SetMatchETag(opts.IfMatch)
	}
	if opts.conditional() {
		// What can't be rewound is not sent again. A second try would meet the first one's success and take it for
		// somebody else's.
		content = struct{ io.Reader }{content}
	}
	sum := sha256.Sum256(data)
	send.DisableContentSha256 = true // as chunks
	return b.core.PutObject(ctx, b.bucket, key, content, int64(len(data)), "", hex.EncodeToString(sum[:]), send)
}

func (b *s3) Delete(ctx context.Context, key string) error {
	if err := b.begin(ctx, CheckKey(key)); err != nil {
		return err
	}
	err := b.core.RemoveObject(ctx, b.bucket, key, minio.RemoveObjectOptions{})
	if minio.ToErrorResponse(err).Code == minio.NoSuchKey {
		return nil
	}
	return b.fault(ctx, key, PutOptions{}, err)
}

// List never combines a flat listing with start-after: MinIO then counts keys from before it against the page ("a-b/c" and
// "a!" come before "a/d", but it skips by segments, and "a" comes before both) and ends the listing early, without a sign. A
// flat listing from its beginning and one of a single level are sound, so a later page is put together from those.
func (b *s3) List(ctx context.Context, prefix, after string, limit int, delimiter bool) (Page, error) {
	if err := b.begin(ctx, nil); err != nil {
		return Page{}, err
	}
	if limit < 1 || limit > MaxPage {
		limit = MaxPage
	}
	switch {
	case delimiter:
		return b.level(ctx, prefix, after, limit)
	case after < prefix:
		return b.page(ctx, prefix, "", "", limit)
	case !strings.HasPrefix(after, prefix):
		return Page{}, nil
	}
	return b.flat(ctx, prefix, after, limit)
}

// flat is a flat listing from the middle: the rest of after's directory, then that of the directory above, up to prefix.
func (b *s3) flat(ctx context.Context, prefix, after string, limit int) (Page, error) {
	var page Page
	full := func(items []Info, more bool) bool {
		page.Items = append(page.Items, items...)
		page.More = more || len(page.Items) > limit
		page.Items = page.Items[:min(limit, len(page.Items))]
		return page.More
	}
	for {
		dir := after[:strings.LastIndexByte(strings.TrimSuffix(after, "/"), '/')+1]
		if len(dir) < len(prefix) {
			dir = prefix
		}
		for more := true; more; {
			level, err := b.level(ctx, dir, after, MaxPage)
			if err != nil {
				return Page{}, err
			}
			items := level.Items
			for _, sub := range level.Prefixes {
				n, _ := slices.BinarySearchFunc(items, sub, func(i Info, sub string) int { return strings.Compare(i.Key, sub) })
				if full(items[:n], false) {
					return page, nil
				}
				items = items[n:]
				below, err := b.page(ctx, sub, "", "", min(limit-len(page.Items)+1, MaxPage))
				if err != nil {
					return Page{}, err
				}
				if full(below.Items, below.More) {
					return page, nil
				}
			}
			if full(items, false) {
				return page, nil
			}
			if more = level.More; more {
				after = level.Last()
			}
		}
		if dir == prefix {
			return page, nil
		}
		after = dir
	}
}

// level lists one directory from after on.
func (b *s3) level(ctx context.Context, prefix, after string, limit int) (Page, error) {
	start, keys := "", limit
	if after >= prefix {
		start = after
	}
	if dir, ok := strings.CutSuffix(start, "/"); ok {
		// After all of a directory. The greatest key before it will do, and has no slash that MinIO would stumble over;
		// the directory itself comes again and is dropped.
		start, keys = dir+"."+string(utf8.MaxRune), limit+1
	}
	page, err := b.page(ctx, prefix, start, "/", keys)
	page.Items = slices.DeleteFunc(page.Items, func(i Info) bool { return i.Key <= after })
	page.Prefixes = slices.DeleteFunc(page.Prefixes, func(p string) bool { return p <= after })
	page.cut(limit)
	return page, err
}

// cut drops what is last until limit is kept.
func (p *Page) cut(limit int) {
	for len(p.Items)+len(p.Prefixes) > limit {
		if n, m := len(p.Items), len(p.Prefixes); m == 0 || n > 0 && p.Items[n-1].Key > p.Prefixes[m-1] {
			p.Items = p.Items[:n-1]
		} else {
			p.Prefixes = p.Prefixes[:m-1]
		}
		p.More = true
	}
}

// page is the first page that is not empty.
func (b *s3) page(ctx context.Context, prefix, after, delim string, limit int) (Page, error) {
	token := ""
	for range 100 {
		// Asked for a single key that begins with what is a key itself, MinIO gives that and no more.
		got, err := b.list(ctx, prefix, after, token, delim, max(limit, 2))
		if err != nil {
			return Page{}, b.fault(ctx, "", PutOptions{}, err)
		}
		page := Page{More: got.IsTruncated}
		for _, o := range got.Contents {
			page.Items = append(page.Items, infoOfS3(o))
		}
		for _, p := range got.CommonPrefixes {
			page.Prefixes = append(page.Prefixes, p.Prefix)
		}
		slices.SortFunc(page.Items, func(a, b Info) int { return strings.Compare(a.Key, b.Key) })
		slices.Sort(page.Prefixes)
		page.cut(limit)
		if !page.More || len(page.Items)+len(page.Prefixes) > 0 {
			return page, nil
		}
		token = got.NextContinuationToken
	}
	return Page{}, fault.Unavailable.New("STORE_DOWN", "the object store lists nothing and says that there is more").
		WithHint("look at the log of %s", b.endpoint)
}

// list is one request, which minio-go can't cancel; the transport ends it soon.
func (b *s3) list(ctx context.Context, prefix, after, token, delim string, limit int) (minio.ListBucketV2Result, error) {
	type answer struct {
		got minio.ListBucketV2Result
		err error
	}
	ch := make(chan answer, 1)
	go func() {
		got, err := b.core.ListObjectsV2(b.bucket, prefix, after, token, delim, limit)
		ch <- answer{got, err}
	}()
	select {
	case a := <-ch:
		return a.got, a.err
	case <-ctx.Done():
		return minio.ListBucketV2Result{}, ctx.Err()
	}
}

// fault turns an error of minio-go into one of Bucket's.
func (b *s3) fault(ctx context.Context, key string, opts PutOptions, err error) error {
	if err == nil {
		return nil
	}
	if e := ctx.Err(); e != nil {
		return e
	}
	r, answered := errors.AsType[minio.ErrorResponse](err)
	if !answered {
		return fault.Unavailable.New("STORE_DOWN", "the object store does not answer: %s", err).
			WithHint("check that %s can be reached", b.endpoint).WithRetry(time.Second)
	}
	switch r.Code {
	case minio.NoSuchKey, "NoSuchVersion":
		if opts.conditional() {
			return changed(key, opts)
		}
		return noObject(key)
	case minio.PreconditionFailed, "ConditionalRequestConflict", "OperationAborted":
		return changed(key, opts)
	case minio.NoSuchBucket:
		b.found.Store(false)
		return fault.Unavailable.New("STORE_DOWN", "bucket %q is gone; the next request makes it again", b.bucket)
	case "AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "AllAccessDisabled":
		return fault.Unavailable.New("STORE_DENIED", "the object store refuses us: %s", r.Code).
			WithHint("check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the clock, and what they may do in bucket %q", b.bucket)
	case "QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return fault.Exhausted.New("STORE_FULL", "the object store is full")
	case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch":
		return fault.DataLoss.New("STORE_CORRUPT", "the object store received other bytes than were sent: %s", r.Code)
	case "KeyTooLongError", "XMinioInvalidObjectName", "XMinioInvalidResourceName", "InvalidObjectName", "XMinioParentIsObject", "ObjectParentIsFile":
		return fault.Invalid.New("BAD_KEY", "the object store refuses key %.80q: %s", key, r.Code)
	}
	return fault.Unavailable.New("STORE_DOWN", "the object store answered %s (%d)", cmp.Or(r.Code, "nothing"), r.StatusCode).
		WithHint("look at the log of %s", b.endpoint).WithRetry(time.Second)
}

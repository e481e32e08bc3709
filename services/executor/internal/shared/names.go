package shared

import (
	"context"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"strings"
	"sync"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
	"skein.dev/services/executor/internal/vfs"
)

// record is one content of a file. It never changes.
type record struct {
	path      skein.FilePath
	size      int64
	digest    string
	blockSize int64
	blocks    []skein.Digest
	modified  time.Time
	id        uint64
}

// answer is what is at a path: a file, a directory, or nothing.
type answer struct {
	file *record
	dir  bool
}

// freshness is when something was asked, and in which session of the watch, if one stood.
type freshness struct {
	asked   time.Time
	session uint64
}

const (
	// patience bounds one question to the fs service.
	patience = 5 * time.Second
	// probePause is between two questions that see whether a service that did not answer is back.
	probePause = time.Second
	// maxNames bounds, in bytes, what is kept of names, and again of listings.
	maxNames = 64 << 20
	// inline is the size up to which content comes along with its name.
	inline = 64 << 10
)

// names knows what paths stand for. An answer is good for the lease after it was asked for; and if the fs service says that
// it alone changes files, for as long as the watch stands and beats come back. When the service does not answer, what was
// known goes on being good for stale.
type names struct {
	client       fsv1.FsServiceClient
	lease, stale time.Duration
	keep         func(blockKey, []byte) // content that came along

	mu       sync.Mutex
	answers  memo[*answer]
	listings memo[[]vfs.LowerEntry] // of directories, in the order of their names' bytes; the root's path is empty
	watch    session
	sessions uint64    // that there have been
	last     session   // that stood before
	floor    time.Time // what was asked before is not fresh: a change may have been missed
	failing  bool      // the service, or its store, did not answer when it was asked last
	probed   time.Time // when that was, or when it was tried again
}

// session is a stream of changes that stands. What is known in it is fresh until then.
type session struct {
	id    uint64 // 0: none
	sole  bool
	until time.Time
}

func (n *names) fresh(f freshness, now time.Time) bool {
	return !f.asked.Before(n.floor) && (now.Sub(f.asked) < n.lease || n.lasts(f) && now.Before(n.watch.until))
}

// lasts reports whether beats alone keep an answer fresh.
func (n *names) lasts(f freshness) bool {
	return f.session != 0 && f.session == n.watch.id && n.watch.sole
}

// useful reports whether f may stand for an answer that can't be had.
func (n *names) useful(f freshness, now time.Time) bool {
	sure := f.asked
	for _, s := range []session{n.watch, n.last} {
		if s.id != 0 && s.id == f.session && s.sole && s.until.After(sure) {
			sure = s.until
		}
	}
	return now.Sub(sure) < n.stale
}

// look finds out what is at a path. data asks for a small file's content to come along. NotFound NO_FILE if nothing is
// there; Unavailable or Timeout if nobody knows.
func (n *names) look(ctx context.Context, p skein.FilePath, data bool) (*answer, error) {
	now := time.Now()
	n.mu.Lock()
	k, ok := n.answers.known.get(p)
	var have *record
	if ok {
		have = k.is.file
	}
	get := func(data bool) func(context.Context) (*answer, int64, error) {
		return func(ctx context.Context) (*answer, int64, error) { return n.lookUp(ctx, p, have, data) }
	}
	switch {
	case ok && n.fresh(k.freshness, now):
		if !n.lasts(k.freshness) && now.Sub(k.asked) > n.lease/2 { // renewed behind the caller's back: a file in use never waits
			ask(ctx, n, &n.answers, p, get(false))
		}
		n.mu.Unlock()
		return k.is.found(p)
	case !ok && n.absent(p, now):
		n.mu.Unlock()
		return nil, noFile(p)
	}
	a, err := obtain(ctx, n, &n.answers, p, get(data))
	if err != nil {
		return nil, err
	}
	return a.found(p)
}

func (a *answer) found(p skein.FilePath) (*answer, error) {
	if a.file == nil && !a.dir {
		return nil, noFile(p)
	}
	return a, nil
}

func noFile(p skein.FilePath) error { return fault.NotFound.New("NO_FILE", "there is no file %s", p) }

// away reports whether the fs service or its store could not be asked.
func away(err error) bool { return errors.Is(err, fault.Unavailable) || errors.Is(err, fault.Timeout) }

// learn notes whether the service answers; probe whether it is time to try it again. The caller holds the lock.
func (n *names) learn(err error) {
	if n.failing = away(err); n.failing {
		n.probed = time.Now()
	}
}

func (n *names) probe(now time.Time) bool {
	if now.Sub(n.probed) < probePause {
		return false
	}
	n.probed = now
	return true
}

func (a *answer) cost(p skein.FilePath) int64 {
	c := int64(512 + len(p.Path))
	if a.file != nil {
		c += int64(len(a.file.blocks)) * int64(len(skein.Digest{}))
	}
	return c
}

// lookUp asks the fs service, and tells what the answer costs to keep. What it says is not there is an answer too.
func (n *names) lookUp(ctx context.Context, p skein.FilePath, have *record, data bool) (*answer, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	a, err := n.askService(ctx, p, have, data)
	if err != nil {
		return nil, 0, err
	}
	return a, a.cost(p), nil
}

func (n *names) askService(ctx context.Context, p skein.FilePath, have *record, data bool) (*answer, error) {
	req := &fsv1.LookUpFileRequest{User: string(p.User), Path: p.Path}
	if data {
		req.InlineSize = inline
	}
	if have != nil {
		req.KnownDigest = have.digest
	}
	resp, err := n.client.LookUpFile(ctx, req)
	switch {
	case errors.Is(err, fault.NotFound):
		return &answer{}, nil
	case err != nil:
		return nil, err
	case resp.GetFile() == nil:
		return &answer{dir: true}, nil
	}
	if req.GetKnownDigest() != "" && resp.GetFile().GetDigest() == req.GetKnownDigest() && resp.GetFile().GetUpdateTime().AsTime().Equal(have.modified) {
		return &answer{file: have}, nil
	}
	file, err := parse(p, resp, have)
	if err != nil {
		return nil, err
	}
	if len(resp.GetData()) > 0 && len(file.blocks) == 1 && int64(len(resp.GetData())) == file.size {
		n.keep(blockKey{p.User, file.blocks[0]}, resp.GetData())
	}
	return &answer{file: file}, nil
}

// maxBlock bounds what a record may make us fetch at a time.
const maxBlock = 16 << 20

func parse(p skein.FilePath, resp *fsv1.LookUpFileResponse, have *record) (*record, error) {
	meta := resp.GetFile()
	r := &record{
		path: p, size: meta.GetSize(), digest: meta.GetDigest(), blockSize: resp.GetBlockSize(), modified: meta.GetUpdateTime().AsTime(),
	}
	if have != nil && have.digest == r.digest { // only its time has changed
		r.blocks = have.blocks
	}
	var err error
	for _, b := range resp.GetBlocks() {
		var d skein.Digest
		if d, err = skein.ParseDigest(b); err != nil {
			break
		}
		r.blocks = append(r.blocks, d)
	}
	if err != nil || r.size < 0 || r.blockSize <= 0 || r.blockSize > maxBlock || int64(len(r.blocks)) != (r.size+r.blockSize-1)/r.blockSize {
		return nil, fault.Internal.New("BAD_ANSWER", "the fs service's record of %s makes no sense", p)
	}
	h := fnv.New64a()
	_, _ = h.Write([]byte(p.String() + "\x00" + r.digest))
	var at [8]byte
	binary.LittleEndian.PutUint64(at[:], uint64(r.modified.UnixNano()))
	_, _ = h.Write(at[:])
	r.id = max(h.Sum64(), 1)
	return r, nil
}

// forget drops what a change of p makes doubtful: p, what was known of the directories above it, and their listings.
func (n *names) forget(p skein.FilePath) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		n.answers.forget(p)
		i := strings.LastIndexByte(p.Path, '/')
		p.Path = p.Path[:max(i, 0)]
		n.listings.forget(p)
		if p.Path == "" {
			return
		}
	}
}

// begin notes that a session of the watch stands; end that it does not, so that what was known is doubtful.
func (n *names) begin() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sessions++
	n.watch = session{id: n.sessions}
}

func (n *names) end() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.watch.id != 0 && n.watch.sole {
		n.last = n.watch
	}
	n.watch, n.floor = session{}, time.Now()
}

// beat notes that the service has answered what was sent then: no change until then has been missed.
func (n *names) beat(sent time.Time, sole bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.watch.sole, n.watch.until = sole, sent.Add(n.lease)
}

// Package shared is an executor's copy of users' files from the fs service, for all calls of the executor.
//
// Content lies in blocks named by their SHA-256 (blocks.go), in memory up to a budget and behind it on disk (disk.go), where it
// survives a restart. Each is fetched once, however many wait, over plain HTTP, and hashed before a byte of it is used. Blocks
// are fetched whole, 1 MiB, also for a guest that reads 4 KiB of one: only the whole can be checked, and the next read there
// is free.
//
// What names stand for (names.go), that nothing is there, and what directories hold (list.go) is kept for a lease and
// dropped when the fs service tells of a change (watch.go), so a cached file costs no network and no reader is older
// than the lease. While the service or its store can't be asked, what was known stands in for the answer, for a while.
//
// A View is what a call sees of one user: a vfs.Lower. An open file (file.go) is one content, whatever becomes of its name.
package shared

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"skein.dev"
	"skein.dev/abi"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
	"skein.dev/services/executor/internal/vfs"
)

// Config is the settings of a Cache.
type Config struct {
	Memory int64         // bytes of content kept in memory
	Dir    string        // for content on disk; empty: none
	Disk   int64         // bytes kept there
	Lease  time.Duration // for how long a name's answer is good; more than 0, and at most 10 s
	Stale  time.Duration // for how long it goes on being good when nobody can be asked
}

// Cache is the files of all users, as far as they are here. It is safe for concurrent use.
type Cache struct {
	names  names
	blocks blocks
	seals  seals
	ahead  chan struct{} // one for each block that is read ahead
}

// maxAhead bounds the blocks of all files that are read ahead at a time.
const maxAhead = 32

// New makes a cache of what client has. get gives the raw body of a path of the service's REST interface, of at most most
// bytes. Precondition CACHE_IN_USE if another executor has the directory.
func New(client fsv1.FsServiceClient, get func(ctx context.Context, path string, most int64) ([]byte, error), cfg Config, log *slog.Logger) (*Cache, error) {
	c := &Cache{ahead: make(chan struct{}, maxAhead)}
	c.blocks = blocks{memory: newLRU[blockKey, *block](cfg.Memory), flights: map[blockKey]*flight{}}
	c.blocks.fetch = func(ctx context.Context, k blockKey) ([]byte, error) {
		return get(ctx, "/v1/blocks/"+string(k.user)+"/"+k.digest.String(), maxBlock)
	}
	c.seals = seals{blocks: &c.blocks, most: cfg.Memory / 2, all: map[sealKey]*seal{}}
	c.names = names{
		client: client, lease: cfg.Lease, stale: cfg.Stale, keep: c.blocks.keep,
		answers: newMemo[*answer](), listings: newMemo[[]vfs.LowerEntry](),
	}
	if cfg.Dir != "" {
		var err error
		if c.blocks.disk, err = openDisk(cfg.Dir, cfg.Disk, log); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Close gives the directory free.
func (c *Cache) Close() error {
	c.seals.close()
	if c.blocks.disk == nil {
		return nil
	}
	return c.blocks.disk.close()
}

// Counts is where blocks came from since the start, and the bytes that were fetched.
type Counts struct{ Memory, Disk, Fetched, Bytes int64 }

// Counts counts.
func (c *Cache) Counts() Counts {
	b := &c.blocks
	return Counts{b.fromMemory.Load(), b.fromDisk.Load(), b.fromNet.Load(), b.netBytes.Load()}
}

// View is the files of a user below a prefix, as one call sees them: a vfs.Lower.
type View struct {
	cache *Cache
	user  skein.User
}

// View shows a user's files.
func (c *Cache) View(user skein.User) *View { return &View{c, user} }

// at is a path of the view, the root's being empty. ENOENT if none like it can be stored.
func (v *View) at(path string) (p skein.FilePath, root bool, err error) {
	if path == "." {
		return skein.FilePath{User: v.user}, true, nil
	}
	if clean, err := skein.CleanPath(path); err != nil || clean != path {
		return p, false, abi.ENOENT
	}
	return skein.FilePath{User: v.user, Path: path}, false, nil
}

// Stat is vfs.Lower's.
func (v *View) Stat(ctx context.Context, path string) (vfs.LowerInfo, error) {
	p, root, err := v.at(path)
	if err != nil || root {
		return vfs.LowerInfo{Dir: true}, err
	}
	a, err := v.cache.names.look(ctx, p, false)
	if err != nil {
		return vfs.LowerInfo{}, guestError(err)
	}
	if a.file == nil {
		return vfs.LowerInfo{Dir: true}, nil
	}
	return a.file.info(), nil
}

// Open is vfs.Lower's.
func (v *View) Open(ctx context.Context, path string) (vfs.LowerFile, error) {
	p, root, err := v.at(path)
	if err != nil {
		return nil, err
	}
	if root {
		return nil, abi.EISDIR
	}
	a, err := v.cache.names.look(ctx, p, true)
	if err != nil {
		return nil, guestError(err)
	}
	if a.file == nil {
		return nil, abi.EISDIR
	}
	return &file{view: v, record: a.file, last: -1}, nil
}

// List is vfs.Lower's.
func (v *View) List(ctx context.Context, dir, name string, n int) ([]vfs.LowerEntry, error) {
	p, root, err := v.at(dir)
	if err != nil {
		return nil, err
	}
	entries, err := v.cache.names.list(ctx, p, name != "")
	if err != nil {
		return nil, guestError(err)
	}
	if len(entries) == 0 && !root {
		return nil, abi.ENOENT
	}
	return after(entries, name, n), nil
}

// guestError gives an error the number that a guest sees where its kind's is not that.
func guestError(err error) error {
	switch {
	case errors.Is(err, fault.NotFound), errors.Is(err, fault.Invalid): // a name that can't be stored is not there
		return abi.ENOENT
	case errors.Is(err, fault.Timeout): // not the call's: that ends it
		return fault.Unavailable.New("FS_DOWN", "the fs service does not answer")
	}
	return err
}

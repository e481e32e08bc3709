package shared

import (
	"cmp"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"skein.dev"
	"skein.dev/platform/fault"
)

// disk keeps blocks over restarts: DIR/USER/DIGEST, each written beside its name first. Nothing there is believed: a
// block is hashed whenever it is read. A disk that is full or broken costs fetches and nothing else.
type disk struct {
	dir  string
	log  *slog.Logger
	lock *os.File // so that no other executor counts the same bytes

	mu      sync.Mutex
	kept    *lru[blockKey, struct{}]
	writing chan struct{} // one for each write under way
	writers sync.WaitGroup
	warned  bool
}

// maxWrites bounds the blocks that wait to be written: what comes faster than the disk takes it is not kept there.
const maxWrites = 8

const tempMark = ".part"

// openDisk finds what an earlier process left, the oldest going first if that is more than the budget in bytes.
func openDisk(dir string, budget int64, log *slog.Logger) (*disk, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := lockFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, fault.Precondition.New("CACHE_IN_USE", "the cache of files in %s can't be had: %s", dir, err).
			WithHint("give each executor a --file-cache of its own")
	}
	d := &disk{dir: dir, log: log, lock: lock, kept: newLRU[blockKey, struct{}](budget), writing: make(chan struct{}, maxWrites)}
	d.kept.dropped = func(k blockKey, _ struct{}) { _ = os.Remove(d.path(k)) }
	if err := d.scan(); err != nil {
		_ = lock.Close()
		return nil, err
	}
	return d, nil
}

func (d *disk) path(k blockKey) string {
	return filepath.Join(d.dir, string(k.user), k.digest.String())
}

func (d *disk) scan() error {
	type found struct {
		key  blockKey
		size int64
		used time.Time
	}
	var all []found
	err := filepath.WalkDir(d.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Dir(path) == d.dir {
			return err
		}
		user, err1 := skein.ParseUser(filepath.Base(filepath.Dir(path)))
		digest, err2 := skein.ParseDigest(e.Name())
		info, err3 := e.Info()
		if errors.Join(err1, err2, err3) == nil && info.Mode().IsRegular() {
			all = append(all, found{blockKey{user, digest}, info.Size(), info.ModTime()})
		} else if strings.HasSuffix(e.Name(), tempMark) {
			_ = os.Remove(path)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b found) int { return cmp.Compare(a.used.UnixNano(), b.used.UnixNano()) })
	for _, f := range all {
		d.kept.put(f.key, struct{}{}, f.size)
	}
	return nil
}

// read gives a block that is here and as it should be, or nil.
func (d *disk) read(k blockKey, size int64) []byte {
	d.mu.Lock()
	_, ok := d.kept.get(k)
	d.mu.Unlock()
	if !ok {
		return nil
	}
	data := make([]byte, size)
	f, err := os.Open(d.path(k))
	if err == nil {
		var n int
		if n, err = f.ReadAt(data, 0); err == nil && (int64(n) != size || skein.DigestOf(data) != k.digest) {
			err = errors.New("it is not what its name says")
		}
		_ = f.Close()
	}
	if err == nil {
		_ = os.Chtimes(d.path(k), time.Time{}, time.Now()) // the order in which blocks go, over a restart
		return data
	}
	d.log.Warn("a cached block is damaged and will be fetched again", "path", d.path(k), "error", err)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.kept.drop(k)
	_ = os.Remove(d.path(k))
	return nil
}

// write keeps a block, behind the caller's back.
func (d *disk) write(k blockKey, data []byte) {
	select {
	case d.writing <- struct{}{}:
	default:
		return
	}
	d.writers.Go(func() {
		defer func() { <-d.writing }()
		d.mu.Lock()
		_, have := d.kept.get(k)
		d.mu.Unlock()
		if have {
			return
		}
		if err := d.store(k, data); err != nil {
			d.warn(err)
			return
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		d.kept.put(k, struct{}{}, int64(len(data)))
	})
}

func (d *disk) store(k blockKey, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(d.path(k)), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(d.path(k)), "*"+tempMark)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), d.path(k))
	}
	if err != nil {
		_ = os.Remove(f.Name())
	}
	return err
}

// warn says once that the disk is of no use: each block would say the same.
func (d *disk) warn(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.warned {
		d.log.Warn("blocks of files can't be kept on disk", "dir", d.dir, "error", err)
	}
	d.warned = true
}

// close waits for what is being written and gives the directory free.
func (d *disk) close() error {
	d.writers.Wait()
	return d.lock.Close()
}

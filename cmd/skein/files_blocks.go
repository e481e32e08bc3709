package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sync/errgroup"

	"skein.dev"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

const (
	// fileBlock is what the fs service keeps a file in pieces of.
	fileBlock = 1 << 20
	// inBlocks is the size from which a file is sent by blocks: only those that the service lacks.
	inBlocks = 8 << 20
	// atOnce is how many requests of one transfer are under way.
	atOnce = 4
)

// putBlocks sends what the service lacks of a local file, and puts it together there. So a put that broke goes on where it
// was when it is repeated, and one of a file that changed a little sends little.
func putBlocks(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, f *os.File, total int64, cond condition, bar *progress) (*fsv1.File, error) {
	blocks, whole, err := fileDigests(ctx, f, total)
	if err != nil {
		return nil, err
	}
	resp, err := fs.FindMissingBlocks(ctx, &fsv1.FindMissingBlocksRequest{User: string(p.User), Blocks: blocks})
	if err != nil {
		return nil, err
	}
	missing := map[string]bool{}
	for _, d := range resp.GetBlocks() {
		missing[d] = true
	}
	for again := false; ; again = true {
		if err := sendBlocks(ctx, fs, p, f, total, blocks, missing, bar); err != nil {
			return nil, err
		}
		made, err := fs.ComposeFile(ctx, &fsv1.ComposeFileRequest{
			User: string(p.User), Path: p.Path, Blocks: blocks, Digest: whole, IfAbsent: cond.absent, IfDigest: cond.digest,
		})
		if e := fault.From(err); e == nil || e.Reason != "BLOCK_MISSING" || again {
			return made.GetFile(), err
		}
		for _, d := range blocks { // one that was there is damaged, or was deleted since
			missing[d] = true
		}
	}
}

// fileDigests reads a file for the SHA-256 of its blocks and of all of it.
func fileDigests(ctx context.Context, f *os.File, total int64) (blocks []string, whole string, err error) {
	all, buf := sha256.New(), make([]byte, fileBlock)
	for off := int64(0); off < total; off += fileBlock {
		if err := ctx.Err(); err != nil {
			return nil, "", err
		}
		data := buf[:min(fileBlock, total-off)]
		if _, err := f.ReadAt(data, off); err != nil {
			return nil, "", changedFile(f, err)
		}
		all.Write(data)
		blocks = append(blocks, skein.DigestOf(data).String())
	}
	return blocks, hex.EncodeToString(all.Sum(nil)), nil
}

func changedFile(f *os.File, err error) error {
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return fault.Conflict.New("FILE_CHANGED", "%s changed while it was read", f.Name()).WithHint("try again when nobody writes to it")
}

func sendBlocks(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, f *os.File, total int64, blocks []string, missing map[string]bool, bar *progress) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, d := range blocks {
		off := int64(i) * fileBlock
		n := min(fileBlock, total-off)
		if !missing[d] {
			bar.add(int(n))
			continue
		}
		delete(missing, d)
		group.Go(func() error {
			data := make([]byte, n)
			if _, err := f.ReadAt(data, off); err != nil {
				return changedFile(f, err)
			}
			if skein.DigestOf(data).String() != d {
				return changedFile(f, nil)
			}
			_, err := fs.PutBlock(ctx, &fsv1.PutBlockRequest{User: string(p.User), Digest: d, Data: data})
			bar.add(len(data))
			return err
		})
	}
	return group.Wait()
}

// errReplaced says that a file is another than the one whose beginning is here.
var errReplaced = errors.New("the file was replaced meanwhile")

// getWhole makes a local file what a shared one is. What came before a failure stays beside it, as ".NAME.DIGEST.part", and
// the next get goes on there.
func getWhole(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, to place, bar *progress) error {
	for try := 1; ; try++ {
		stat, err := fs.StatFile(ctx, &fsv1.StatFileRequest{User: string(p.User), Path: p.Path})
		if err != nil {
			return err
		}
		meta := stat.GetFile()
		if _, err := skein.ParseDigest(meta.GetDigest()); err != nil || meta.GetSize() < 0 {
			return badAnswer("says that %s has %d bytes and the digest %.80q: no file has those", p, meta.GetSize(), meta.GetDigest())
		}
		bar.expect(meta.GetSize())
		err = getContent(ctx, fs, p, meta, to, bar)
		if !errors.Is(err, errReplaced) {
			return err
		}
		if try == 5 {
			return fault.Conflict.New("FILE_CHANGED", "%s was replaced each time while it was read", p)
		}
	}
}

func getContent(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, meta *fsv1.File, to place, bar *progress) (err error) {
	mode := os.FileMode(0o644)
	if info, err := to.stat(); err == nil {
		mode = info.Mode().Perm()
	}
	part := partFile(to.path, meta.GetDigest())
	f, err := to.in.OpenFile(part, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	keep := false
	defer func() {
		_ = f.Close()
		if err != nil && !keep {
			_ = to.in.Remove(part)
		}
	}()
	whole := sha256.New()
	have, err := io.Copy(whole, f)
	if err != nil {
		return err
	}
	bar.add(int(have))
	if have < meta.GetSize() {
		n, err := receiveFrom(ctx, fs, p, meta, have, io.MultiWriter(f, whole, counted{bar}))
		if err != nil {
			keep = have+n > 0 && canGoOn(err)
			return err
		}
	}
	if hex.EncodeToString(whole.Sum(nil)) != meta.GetDigest() {
		return notContent(p)
	}
	if err := errors.Join(f.Chmod(mode), f.Close()); err != nil {
		return err
	}
	return to.in.Rename(part, to.path)
}

// receiveFrom writes a file from off on, if it is still the one that meta is of.
func receiveFrom(ctx context.Context, fs fsv1.FsServiceClient, p skein.FilePath, meta *fsv1.File, off int64, w io.Writer) (n int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := fs.GetFile(ctx, &fsv1.GetFileRequest{User: string(p.User), Path: p.Path, Offset: off})
	if err != nil {
		return 0, err
	}
	most := meta.GetSize() - off
	for first := true; ; first = false {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) && n == most {
			return n, nil
		} else if errors.Is(err, io.EOF) {
			return n, cutOff(p, off+n, meta.GetSize())
		} else if errors.Is(err, fault.Conflict) {
			return n, errReplaced
		} else if err != nil {
			return n, err
		}
		if now := m.GetFile(); now != nil && now.GetDigest() != meta.GetDigest() {
			return n, errReplaced
		}
		if got := int64(len(m.GetData())); got > most-n || got == 0 && !first {
			return n, notSaid(p, meta.GetSize(), got)
		}
		wrote, err := w.Write(m.GetData())
		if n += int64(wrote); err != nil {
			return n, err
		}
	}
}

func notContent(what fmt.Stringer) error {
	return fault.DataLoss.New("DIGEST_MISMATCH", "what was got of %s is not its content", what).WithHint("get it again: it begins anew")
}

// cutOff is the error of a stream that ended in good order too early.
func cutOff(what fmt.Stringer, got, size int64) error {
	return fault.DataLoss.New("CUT_OFF", "%s ended after %d of %d bytes", what, got, size).WithHint("try again")
}

// notSaid is the error of a stream that goes on when all has come, or sends messages with nothing in them: it need not have an end.
func notSaid(what fmt.Stringer, size, got int64) error {
	if got == 0 {
		return badAnswer("sends no bytes where some of %s were due", what)
	}
	return badAnswer("sends more of %s than the %d bytes it was said to have", what, size)
}

// canGoOn tells whether what came before err is of use to the next try. A server that refuses the range or gives another would do
// so again.
func canGoOn(err error) bool {
	refused := errors.Is(err, fault.Invalid) || errors.Is(err, fault.TooLarge)
	return !refused && !errors.Is(err, errReplaced) && fault.From(err).Reason != reasonBadAnswer
}

// counted moves a bar by what is written to it.
type counted struct{ bar *progress }

func (c counted) Write(b []byte) (int, error) {
	c.bar.add(len(b))
	return len(b), nil
}

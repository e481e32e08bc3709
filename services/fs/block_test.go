package fs_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
	"skein.dev/services/fs"
)

// cut is data's blocks.
func cut(data []byte) (blocks [][]byte, digests []string) {
	for len(data) > 0 {
		n := min(len(data), block)
		blocks, data = append(blocks, data[:n]), data[n:]
		digests = append(digests, skein.DigestOf(blocks[len(blocks)-1]).String())
	}
	return blocks, digests
}

// A put that broke goes on where it was: only what the store lacks is sent, and what it has is looked at.
func TestCompose(t *testing.T) {
	each(t, func(t *testing.T, bucket string) {
		s := start(t, bucket)
		s.ready(t, 200)
		data := random(rand.New(rand.NewPCG(1, 2)), 3*block+100)
		for i := range 4 {
			data[i*block]++ // so that no two blocks are alike
			data[i*block+1] = byte(i)
		}
		blocks, digests := cut(data)
		missing := func() []string {
			resp, err := s.rpc.FindMissingBlocks(t.Context(), &fsv1.FindMissingBlocksRequest{User: "ann", Blocks: append(digests, digests[0])})
			if err != nil {
				t.Fatal(err)
			}
			return resp.GetBlocks()
		}
		compose := func(req *fsv1.ComposeFileRequest) error {
			req.User, req.Path = "ann", "x"
			_, err := s.rpc.ComposeFile(t.Context(), req)
			return err
		}
		if m := missing(); len(m) != 4 {
			t.Fatal(m)
		}
		want(t, compose(&fsv1.ComposeFileRequest{Blocks: digests}), fault.Precondition, "BLOCK_MISSING")
		if _, err := s.rpc.PutBlock(t.Context(), &fsv1.PutBlockRequest{User: "ann", Digest: digests[1], Data: blocks[1]}); err != nil {
			t.Fatal(err)
		}
		for _, i := range []int{0, 2} {
			if resp := s.do(t, "PUT", "/v1/blocks/ann/"+digests[i], bytes.NewReader(blocks[i])); resp.StatusCode != 204 {
				t.Fatal(resp.text)
			}
		}
		if m := missing(); len(m) != 1 || m[0] != digests[3] {
			t.Fatal(m)
		}
		if resp := s.do(t, "PUT", "/v1/blocks/ann/"+digests[3], bytes.NewReader(blocks[3])); resp.StatusCode != 204 {
			t.Fatal(resp.text)
		}
		whole := skein.DigestOf(data).String()
		want(t, compose(&fsv1.ComposeFileRequest{Blocks: digests, Digest: digests[0]}), fault.Invalid, "BAD_DIGEST")
		want(t, compose(&fsv1.ComposeFileRequest{Blocks: []string{digests[3], digests[0]}}), fault.Invalid, "BAD_BLOCK")
		want(t, compose(&fsv1.ComposeFileRequest{Blocks: append(digests[:3:3], digests[:3]...)}), fault.TooLarge, "TOO_LARGE")
		if err := compose(&fsv1.ComposeFileRequest{Blocks: digests, Digest: whole, IfAbsent: true}); err != nil {
			t.Fatal(err)
		}
		want(t, compose(&fsv1.ComposeFileRequest{Blocks: digests, IfAbsent: true}), fault.Conflict, "FILE_CHANGED")
		got, file, err := s.rpcGet(t.Context(), "ann", "x", 0, 0)
		if err != nil || !bytes.Equal(got, data) || file.GetDigest() != whole {
			t.Fatalf("%d bytes of %v, %v", len(got), file, err)
		}
		if resp := s.do(t, "POST", "/v1/files/ann:compose", strings.NewReader(`{"path": "empty"}`)); resp.StatusCode != 200 || !strings.Contains(resp.text, skein.DigestOf(nil).String()) {
			t.Error(resp.text)
		}
		if resp := s.do(t, "GET", "/v1/blocks/ann/"+digests[3], nil); resp.StatusCode != 200 || resp.text != string(blocks[3]) || resp.ContentLength != 100 {
			t.Errorf("%d, %d bytes", resp.StatusCode, len(resp.text))
		}
		for target, status := range map[string]int{
			"ann/" + whole: 404, "bob/" + digests[0]: 404, "ann/xyz": 400, "An/" + digests[0]: 400,
		} {
			if resp := s.do(t, "GET", "/v1/blocks/"+target, nil); resp.StatusCode != status {
				t.Errorf("%s: %d", target, resp.StatusCode)
			}
		}
		for body, status := range map[string]int{"": 400, "other": 400, strings.Repeat("x", block+1): 413} {
			if resp := s.do(t, "PUT", "/v1/blocks/ann/"+digests[0], strings.NewReader(body)); resp.StatusCode != status {
				t.Errorf("%d bytes: %d %s", len(body), resp.StatusCode, resp.text)
			}
		}
	})
}

// Composing of blocks that nothing has, while all that is older than nothing is swept, never leaves a file without them.
func TestComposeWhileSwept(t *testing.T) {
	bucket := openBucket(t, "file://"+t.TempDir())
	files := fs.New(bucket, 64<<20, 200*time.Millisecond)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		other := fs.New(bucket, 64<<20, 200*time.Millisecond) // as in another process: it sees no pins
		for ctx.Err() == nil {
			if _, err := other.Sweep(t.Context(), 200*time.Millisecond); err != nil {
				t.Error(err)
				return
			}
		}
	})
	done := 0
	for i := 0; ctx.Err() == nil; i++ {
		data := []byte{byte(i)}
		d := skein.DigestOf(data)
		if err := files.PutBlock(t.Context(), "ann", d, data); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(i%5) * 60 * time.Millisecond)
		_, err := files.Compose(t.Context(), path(t, "x"), []skein.Digest{d}, nil, fs.Condition{})
		if errors.Is(err, fault.Precondition) || errors.Is(err, fault.Timeout) { // swept before, or a slow machine
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if got, _, err := get(t.Context(), files, path(t, "x"), 0, -1); err != nil || !bytes.Equal(got, data) {
			t.Fatal(got, err)
		}
		done++
	}
	if wg.Wait(); done == 0 {
		t.Error("nothing was composed")
	}
}

func TestLookUp(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	if _, err := s.rpcPut(t.Context(), "ann", "dir/small", []byte("small")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.rpcPut(t.Context(), "ann", "large", make([]byte, block+1)); err != nil {
		t.Fatal(err)
	}
	lookUp := func(path, known string) (*fsv1.LookUpFileResponse, error) {
		return s.rpc.LookUpFile(t.Context(), &fsv1.LookUpFileRequest{User: "ann", Path: path, KnownDigest: known, InlineSize: 1 << 40})
	}
	small, err := lookUp("dir/small", "")
	if err != nil || string(small.GetData()) != "small" || len(small.GetBlocks()) != 1 || small.GetBlockSize() != block {
		t.Error(small, err)
	}
	if again, err := lookUp("dir/small", small.GetFile().GetDigest()); err != nil || len(again.GetBlocks()) != 0 || again.GetFile().GetSize() != 5 {
		t.Error(again, err)
	}
	if large, err := lookUp("large", ""); err != nil || len(large.GetBlocks()) != 2 || large.GetData() != nil {
		t.Error(large, err)
	}
	if dir, err := lookUp("dir", ""); err != nil || dir.GetFile() != nil {
		t.Error(dir, err)
	}
	for _, p := range []string{"di", "dir/small/x", "none"} {
		_, err := lookUp(p, "")
		want(t, err, fault.NotFound, "NO_FILE")
	}
	list, err := s.rpc.ListFiles(t.Context(), &fsv1.ListFilesRequest{User: "ann", Shallow: true, NamesOnly: true})
	if err != nil || len(list.GetFiles()) != 1 || list.GetFiles()[0].GetPath() != "large" || len(list.GetDirectories()) != 1 {
		t.Error(list, err)
	}
}

// The answer to a change comes after every watcher has said that it saw it, or after its lease; a beat comes behind what
// happened before it.
func TestWatchFiles(t *testing.T) {
	s := start(t, "file://"+t.TempDir())
	watch, err := s.rpc.WatchFiles(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	say := func(m *fsv1.WatchFilesRequest) {
		t.Helper()
		if err := watch.Send(m); err != nil {
			t.Fatal(err)
		}
	}
	say(&fsv1.WatchFilesRequest{Lease: durationpb.New(2 * time.Second)})
	if _, err := watch.Header(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := s.rpcPut(t.Context(), "ann", "x", []byte("1"))
		answered <- err
	}()
	c, err := watch.Recv()
	if err != nil || c.GetUser() != "ann" || c.GetPath() != "x" || c.GetSequence() != 1 {
		t.Fatal(c, err)
	}
	say(&fsv1.WatchFilesRequest{Beat: 7})
	if b, err := watch.Recv(); err != nil || b.GetBeat() != 7 || b.GetSole() {
		t.Fatal(b, err)
	}
	select {
	case <-answered:
		t.Fatal("answered before the watcher had seen it")
	default:
	}
	say(&fsv1.WatchFilesRequest{SeenSequence: 1})
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	// What the watcher never says that it saw waits for its lease.
	if resp := s.do(t, "DELETE", "/v1/files/ann/x", nil, "If-Match", `"`+skein.DigestOf([]byte("2")).String()+`"`); resp.StatusCode != 412 {
		t.Error(resp.text)
	}
	if resp := s.do(t, "DELETE", "/v1/files/ann/x", nil, "If-Match", `"`+skein.DigestOf([]byte("1")).String()+`"`); resp.StatusCode != 204 {
		t.Error(resp.text)
	}
	if c, err := watch.Recv(); err != nil || c.GetSequence() != 2 {
		t.Fatal(c, err)
	}
	say(&fsv1.WatchFilesRequest{SeenSequence: 1000})
	_, err = watch.Recv()
	want(t, err, fault.Invalid, "BAD_SEQUENCE")
	broken, err := s.rpc.WatchFiles(t.Context())
	if err == nil {
		err = broken.Send(&fsv1.WatchFilesRequest{Lease: durationpb.New(time.Hour)})
	}
	if err == nil {
		_, err = broken.Recv()
	}
	want(t, err, fault.Invalid, "BAD_LEASE")
}

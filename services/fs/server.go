package fs

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	"skein.dev/platform/watch"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// maxFrame bounds the data of one message of GetFile.
const maxFrame = 256 << 10

const defaultPage = 50

// server is Files over gRPC.
type server struct {
	fsv1.UnimplementedFsServiceServer
	files *Files
	sole  bool
	stop  <-chan struct{} // closed when the process drains
}

func fileProto(f File) *fsv1.File {
	return &fsv1.File{
		User: string(f.Path.User), Path: f.Path.Path, Size: f.Size, Digest: f.Digest.String(), UpdateTime: timestamppb.New(f.Modified),
	}
}

// fileJSON is what the gateway would make of a file.
func fileJSON(f File) ([]byte, error) {
	return protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(fileProto(f))
}

func (s *server) PutFile(stream grpc.ClientStreamingServer[fsv1.PutFileRequest, fsv1.PutFileResponse]) error {
	first, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return fault.Invalid.New("EMPTY_STREAM", "the first message, with user and path, is missing")
	} else if err != nil {
		return err
	}
	path, err := skein.NewFilePath(first.GetUser(), first.GetPath())
	if err != nil {
		return err
	}
	cond, err := conditionOf(first)
	if err != nil {
		return err
	}
	file, err := s.files.Put(stream.Context(), path, &putReader{stream: stream, data: first.GetData()}, cond)
	if err != nil {
		return err
	}
	return stream.SendAndClose(&fsv1.PutFileResponse{File: fileProto(file)})
}

// putReader is the data of a PutFile stream.
type putReader struct {
	stream grpc.ClientStreamingServer[fsv1.PutFileRequest, fsv1.PutFileResponse]
	data   []byte
}

func (r *putReader) Read(p []byte) (int, error) {
	for len(r.data) == 0 {
		msg, err := r.stream.Recv()
		if err != nil {
			return 0, err
		}
		r.data = msg.GetData()
	}
	n := copy(p, r.data)
	r.data = r.data[n:]
	return n, nil
}

func (s *server) GetFile(req *fsv1.GetFileRequest, stream grpc.ServerStreamingServer[fsv1.GetFileResponse]) error {
	ctx := stream.Context()
	path, err := skein.NewFilePath(req.GetUser(), req.GetPath())
	if err != nil {
		return err
	}
	length := req.GetLength()
	if req.GetOffset() < 0 || length < 0 {
		return fault.Invalid.New("BAD_RANGE", "offset %d, length %d: neither may be negative", req.GetOffset(), length)
	}
	if length == 0 {
		length = -1
	}
	file, err := s.files.Stat(ctx, path)
	if err != nil {
		return err
	}
	head := fileProto(file)
	err = s.files.Read(ctx, file, req.GetOffset(), length, func(data []byte) error {
		for len(data) > 0 {
			n := min(len(data), maxFrame)
			if err := stream.Send(&fsv1.GetFileResponse{File: head, Data: data[:n]}); err != nil {
				return err
			}
			head, data = nil, data[n:]
		}
		return nil
	})
	if err == nil && head != nil { // there was no data to go with it
		err = stream.Send(&fsv1.GetFileResponse{File: head})
	}
	return err
}

func (s *server) StatFile(ctx context.Context, req *fsv1.StatFileRequest) (*fsv1.StatFileResponse, error) {
	path, err := skein.NewFilePath(req.GetUser(), req.GetPath())
	if err != nil {
		return nil, err
	}
	file, err := s.files.Stat(ctx, path)
	if err != nil {
		return nil, err
	}
	return &fsv1.StatFileResponse{File: fileProto(file)}, nil
}

func (s *server) DeleteFile(ctx context.Context, req *fsv1.DeleteFileRequest) (*fsv1.DeleteFileResponse, error) {
	path, err := skein.NewFilePath(req.GetUser(), req.GetPath())
	if err != nil {
		return nil, err
	}
	match, err := optional(req.GetIfDigest())
	if err != nil {
		return nil, err
	}
	return &fsv1.DeleteFileResponse{}, s.files.Delete(ctx, path, match)
}

func (s *server) ListFiles(ctx context.Context, req *fsv1.ListFilesRequest) (*fsv1.ListFilesResponse, error) {
	user, err := skein.ParseUser(req.GetUser())
	if err != nil {
		return nil, err
	}
	limit := int(req.GetPageSize())
	switch {
	case limit < 0:
		return nil, fault.Invalid.New("BAD_PAGE_SIZE", "page_size %d is negative", limit)
	case limit == 0:
		limit = defaultPage
	}
	l, err := s.files.List(ctx, user, req.GetPrefix(), req.GetPageToken(), min(limit, blob.MaxPage), req.GetShallow(), req.GetNamesOnly())
	if err != nil {
		return nil, err
	}
	resp := &fsv1.ListFilesResponse{Directories: l.Dirs, NextPageToken: l.Next}
	for _, f := range l.Files {
		if req.GetNamesOnly() {
			resp.Files = append(resp.Files, &fsv1.File{User: string(user), Path: f.Path.Path})
			continue
		}
		resp.Files = append(resp.Files, fileProto(f))
	}
	return resp, nil
}

// maxInline bounds what comes along with a look-up.
const maxInline = 64 << 10

func (s *server) LookUpFile(ctx context.Context, req *fsv1.LookUpFileRequest) (*fsv1.LookUpFileResponse, error) {
	path, err := skein.NewFilePath(req.GetUser(), req.GetPath())
	if err != nil {
		return nil, err
	}
	file, dir, err := s.files.LookUp(ctx, path)
	if err != nil || dir {
		return &fsv1.LookUpFileResponse{}, err
	}
	resp := &fsv1.LookUpFileResponse{File: fileProto(file), BlockSize: file.blockSize}
	if req.GetKnownDigest() == resp.GetFile().GetDigest() {
		return resp, nil
	}
	resp.Blocks = hexadecimal(file.blocks)
	if file.Size > 0 && file.Size <= min(req.GetInlineSize(), maxInline) {
		// It is an extra: who can't have it so asks for the block, and hears why.
		_ = s.files.Read(ctx, file, 0, -1, func(data []byte) error {
			resp.Data = append(resp.Data, data...)
			return nil
		})
		if int64(len(resp.GetData())) != file.Size {
			resp.Data = nil
		}
	}
	return resp, nil
}

// maxLease bounds how long a change may wait for a watcher.
const maxLease = 10 * time.Second

func (s *server) WatchFiles(in grpc.BidiStreamingServer[fsv1.WatchFilesRequest, fsv1.WatchFilesResponse]) error {
	first, err := in.Recv()
	if err != nil {
		return err
	}
	lease := first.GetLease().AsDuration()
	if lease <= 0 || lease > maxLease {
		return fault.Invalid.New("BAD_LEASE", "a lease of %s: want more than 0 and at most %s", lease, maxLease)
	}
	w := s.files.watchers.Enter(lease)
	defer w.Leave()
	if err := in.SendHeader(nil); err != nil { // from here on nothing is missed: the watcher waits for it
		return err
	}
	err = w.Serve(s.stop, func() (int64, int64, error) {
		m, err := in.Recv()
		return m.GetSeenSequence(), m.GetBeat(), err
	}, func(changes []watch.Change[skein.FilePath], beat int64) error {
		for _, c := range changes {
			if err := in.Send(&fsv1.WatchFilesResponse{User: string(c.Of.User), Path: c.Of.Path, Sequence: c.Seq}); err != nil {
				return err
			}
		}
		if beat == 0 {
			return nil
		}
		return in.Send(&fsv1.WatchFilesResponse{Beat: beat, Sole: s.sole})
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (s *server) FindMissingBlocks(ctx context.Context, req *fsv1.FindMissingBlocksRequest) (*fsv1.FindMissingBlocksResponse, error) {
	user, err := skein.ParseUser(req.GetUser())
	if err != nil {
		return nil, err
	}
	blocks, err := digests(req.GetBlocks())
	if err != nil {
		return nil, err
	}
	missing, err := s.files.Missing(ctx, user, blocks)
	return &fsv1.FindMissingBlocksResponse{Blocks: hexadecimal(missing)}, err
}

func (s *server) PutBlock(ctx context.Context, req *fsv1.PutBlockRequest) (*fsv1.PutBlockResponse, error) {
	user, err := skein.ParseUser(req.GetUser())
	if err != nil {
		return nil, err
	}
	d, err := skein.ParseDigest(req.GetDigest())
	if err != nil {
		return nil, err
	}
	return &fsv1.PutBlockResponse{}, s.files.PutBlock(ctx, user, d, req.GetData())
}

func (s *server) ComposeFile(ctx context.Context, req *fsv1.ComposeFileRequest) (*fsv1.ComposeFileResponse, error) {
	path, err := skein.NewFilePath(req.GetUser(), req.GetPath())
	if err != nil {
		return nil, err
	}
	blocks, err := digests(req.GetBlocks())
	if err != nil {
		return nil, err
	}
	whole, err := optional(req.GetDigest())
	if err != nil {
		return nil, err
	}
	cond, err := conditionOf(req)
	if err != nil {
		return nil, err
	}
	file, err := s.files.Compose(ctx, path, blocks, whole, cond)
	if err != nil {
		return nil, err
	}
	return &fsv1.ComposeFileResponse{File: fileProto(file)}, nil
}

// conditionOf reads what must hold for a file to be replaced.
func conditionOf(req interface {
	GetIfAbsent() bool
	GetIfDigest() string
},
) (Condition, error) {
	match, err := optional(req.GetIfDigest())
	if err == nil && match != nil && req.GetIfAbsent() {
		err = fault.Invalid.New("BAD_CONDITION", "a file can't be absent and have a digest")
	}
	return Condition{Absent: req.GetIfAbsent(), Match: match}, err
}

// optional reads a digest that may be left out.
func optional(s string) (*skein.Digest, error) {
	if s == "" {
		return nil, nil //nolint:nilnil // there is none
	}
	d, err := skein.ParseDigest(s)
	return &d, err
}

// digests reads as many as a file may have.
func digests(list []string) (out []skein.Digest, err error) {
	if len(list) > MaxFile/blockSize {
		return nil, fault.TooLarge.New("TOO_LARGE", "%d blocks: no file has more than %d", len(list), MaxFile/blockSize)
	}
	out = make([]skein.Digest, len(list))
	for i, s := range list {
		if out[i], err = skein.ParseDigest(s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func hexadecimal(list []skein.Digest) []string {
	out := make([]string, len(list))
	for i, d := range list {
		out[i] = d.String()
	}
	return out
}

package fs

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/fault"
	fsv1 "skein.dev/proto/skein/fs/v1"
)

// maxFrame bounds the data of one message of GetFile.
const maxFrame = 256 << 10

const defaultPage = 50

// server is Files over gRPC.
type server struct {
	fsv1.UnimplementedFsServiceServer
	files *Files
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
	file, err := s.files.Put(stream.Context(), path, &putReader{stream: stream, data: first.GetData()}, Condition{})
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
	return &fsv1.DeleteFileResponse{}, s.files.Delete(ctx, path)
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
	l, err := s.files.List(ctx, user, req.GetPrefix(), req.GetPageToken(), min(limit, blob.MaxPage), req.GetShallow())
	if err != nil {
		return nil, err
	}
	resp := &fsv1.ListFilesResponse{Directories: l.Dirs, NextPageToken: l.Next}
	for _, f := range l.Files {
		resp.Files = append(resp.Files, fileProto(f))
	}
	return resp, nil
}

package upload

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/prepare"
	"skein.dev/platform/runconfig"
	"skein.dev/platform/watch"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// maxFrame bounds the bytes of a module in one message.
const maxFrame = 1 << 20

// server is Registry in terms of the contract.
type server struct {
	uploadv1.UnimplementedUploadServiceServer
	registry *Registry
	gate     *intake
	stop     <-chan struct{} // closed when the process drains
}

func (s *server) Upload(in grpc.ClientStreamingServer[uploadv1.UploadRequest, uploadv1.UploadResponse]) error {
	first, err := in.Recv()
	if errors.Is(err, io.EOF) {
		return fault.Invalid.New("BAD_FRAME", "the stream has no message").WithHint("send user, function and the module's first bytes")
	}
	if err != nil {
		return err
	}
	f, err := skein.NewFunction(first.GetUser(), first.GetFunction())
	if err != nil {
		return err
	}
	if err := checkRequestID(first.GetRequestId()); err != nil {
		return err
	}
	frames := &frames{stream: in, gate: s.gate, next: make(chan frame)}
	if err := frames.take(first, true); err != nil {
		return err
	}
	go frames.receive() // ends with the stream, at the latest when this function returns
	wasm, release, err := s.gate.read(frames, -1)
	if err != nil {
		return err
	}
	defer release()
	fn, created, err := s.registry.Upload(in.Context(), f, wasm, first.GetRequestId())
	if err != nil {
		return err
	}
	return in.SendAndClose(&uploadv1.UploadResponse{Function: functionProto(fn), Created: created})
}

// frames is the module in a stream. A stream can't be given a deadline for its next message, so another goroutine waits
// for that.
type frames struct {
	stream grpc.ClientStreamingServer[uploadv1.UploadRequest, uploadv1.UploadResponse]
	gate   *intake
	next   chan frame
	rest   []byte // of the last message
}

type frame struct {
	msg *uploadv1.UploadRequest
	err error
}

func (f *frames) receive() {
	for {
		msg, err := f.stream.Recv()
		select {
		case f.next <- frame{msg, err}:
		case <-f.stream.Context().Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (f *frames) take(msg *uploadv1.UploadRequest, first bool) error {
	if n := len(msg.GetData()); n > maxFrame {
		return fault.TooLarge.New("FRAME_TOO_LARGE", "a message has %d bytes of the module, at most %d are allowed", n, maxFrame)
	}
	if !first && (msg.GetUser() != "" || msg.GetFunction() != "" || msg.GetRequestId() != "") {
		return fault.Invalid.New("BAD_FRAME", "user, function and request_id belong to the first message only")
	}
	f.rest = msg.GetData()
	return nil
}

func (f *frames) Read(p []byte) (int, error) {
	slow := time.NewTimer(f.gate.idle)
	defer slow.Stop()
	for len(f.rest) == 0 {
		select {
		case <-slow.C:
			return 0, f.gate.tooSlow()
		case <-f.stream.Context().Done():
			return 0, f.stream.Context().Err()
		case next := <-f.next:
			if next.err != nil {
				return 0, next.err
			}
			if err := f.take(next.msg, false); err != nil {
				return 0, err
			}
		}
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (s *server) GetFunction(ctx context.Context, r *uploadv1.GetFunctionRequest) (*uploadv1.GetFunctionResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	fn, err := s.registry.Get(ctx, f)
	if err != nil {
		return nil, err
	}
	return &uploadv1.GetFunctionResponse{Function: functionProto(fn)}, nil
}

func (s *server) ListFunctions(ctx context.Context, r *uploadv1.ListFunctionsRequest) (*uploadv1.ListFunctionsResponse, error) {
	var user skein.User
	if r.GetUser() != "" {
		u, err := skein.ParseUser(r.GetUser())
		if err != nil {
			return nil, err
		}
		user = u
	}
	list, next, err := s.registry.List(ctx, user, int(r.GetPageSize()), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &uploadv1.ListFunctionsResponse{NextPageToken: next}
	for _, fn := range list {
		fn.Settings.Run = runconfig.Config{} // a page of them must fit into a message
		answer.Functions = append(answer.Functions, functionProto(fn))
	}
	return answer, nil
}

func (s *server) ListVersions(ctx context.Context, r *uploadv1.ListVersionsRequest) (*uploadv1.ListVersionsResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	list, next, err := s.registry.Versions(ctx, f, int(r.GetPageSize()), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	answer := &uploadv1.ListVersionsResponse{NextPageToken: next}
	for _, v := range list {
		answer.Versions = append(answer.Versions, versionProto(v))
	}
	return answer, nil
}

func (s *server) RollBack(ctx context.Context, r *uploadv1.RollBackRequest) (*uploadv1.RollBackResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	fn, err := s.registry.RollBack(ctx, f, r.GetVersion(), r.GetRequestId())
	if err != nil {
		return nil, err
	}
	return &uploadv1.RollBackResponse{Function: functionProto(fn)}, nil
}

func (s *server) DeleteFunction(ctx context.Context, r *uploadv1.DeleteFunctionRequest) (*uploadv1.DeleteFunctionResponse, error) {
	f, err := skein.NewFunction(r.GetUser(), r.GetFunction())
	if err != nil {
		return nil, err
	}
	if err := s.registry.Delete(ctx, f, r.GetRequestId()); err != nil {
		return nil, err
	}
	return &uploadv1.DeleteFunctionResponse{}, nil
}

func (s *server) WatchFunctions(in grpc.BidiStreamingServer[uploadv1.WatchFunctionsRequest, uploadv1.WatchFunctionsResponse]) error {
	w := s.registry.watchers.Enter(patience)
	defer w.Leave()
	if err := in.SendHeader(nil); err != nil { // from here on nothing is missed: the watcher waits for it
		return err
	}
	err := w.Serve(s.stop, func() (int64, int64, error) {
		m, err := in.Recv()
		return m.GetSeenSequence(), 0, err
	}, func(changes []watch.Change[skein.Function], _ int64) error {
		for _, c := range changes {
			err := in.Send(&uploadv1.WatchFunctionsResponse{User: string(c.Of.User), Function: c.Of.Name, Sequence: c.Seq})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func functionProto(fn Function) *uploadv1.Function {
	return &uploadv1.Function{
		User: string(fn.Name.User), Name: fn.Name.Name, Current: versionProto(fn.Current), UpdateTime: timestamppb.New(fn.Updated),
		Config: configProto(fn.Settings, fn.Revision), ConfigDigest: digestText(fn.Current.Config),
	}
}

var kinds = map[prepare.Kind]uploadv1.ModuleKind{
	prepare.Command: uploadv1.ModuleKind_MODULE_KIND_COMMAND,
	prepare.Reactor: uploadv1.ModuleKind_MODULE_KIND_REACTOR,
}

func versionProto(v Version) *uploadv1.Version {
	return &uploadv1.Version{
		Number: v.Number, Digest: v.Digest.String(), Size: v.Size, CreateTime: timestamppb.New(v.Created),
		Kind: kinds[v.Kind], Imports: v.Imports,
	}
}

// functionJSON is a function as the gateway writes one.
func functionJSON(fn Function) ([]byte, error) {
	return protojson.MarshalOptions{EmitUnpopulated: true}.Marshal(functionProto(fn))
}

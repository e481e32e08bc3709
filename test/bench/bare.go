package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// roleArg makes this program one of its own children.
const roleArg = "role"

// play is what a child does until it is killed.
func play(role string, args []string) error {
	switch {
	case role == "grpc-echo":
		return serve(func(lis net.Listener) error {
			s := grpc.NewServer()
			s.RegisterService(&echoService, nil)
			return s.Serve(lis)
		})
	case role == "grpc-sleep" && len(args) == 1:
		return serveSleep(args[0])
	case role == "http-echo":
		return serve(func(lis net.Listener) error {
			return (&http.Server{Handler: http.HandlerFunc(echoHTTP), ReadHeaderTimeout: 10 * time.Second}).Serve(lis)
		})
	case role == "idle-executors" && len(args) == 3:
		return idleExecutors(args[0], args[1], args[2])
	}
	return fmt.Errorf("no role %s %q", role, args)
}

func serve(on func(net.Listener) error) error {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	listening(lis.Addr().String())
	return on(lis)
}

// listening says it as platform/service does.
func listening(addr string) {
	slog.New(slog.NewJSONHandler(os.Stderr, nil)).Info("listening", "address", addr)
}

// echoService is the least that a gRPC service can be: grpc-go without options and a handler that does nothing.
var echoService = echoAfter(func() {})

// echoAfter does something first.
func echoAfter(work func()) grpc.ServiceDesc {
	return grpc.ServiceDesc{
		ServiceName: "bench.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{
			MethodName: "Echo",
			Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
				in := new(wrapperspb.BytesValue)
				if err := dec(in); err != nil {
					return nil, err
				}
				work()
				return in, nil
			},
		}},
	}
}

// echoHTTP is the same for net/http, as one would write it.
func echoHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body)
}

package bulk

import (
	"context"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/stats"

	"skein.dev/platform/fault"
)

// follow has a call seen by what sees gRPC's own: the same spans and metrics come of it.
func follow(ctx context.Context, by stats.Handler, method string, client bool) (context.Context, func(error)) {
	ctx = by.TagRPC(ctx, &stats.RPCTagInfo{FullMethodName: method})
	began := time.Now()
	by.HandleRPC(ctx, &stats.Begin{Client: client, BeginTime: began})
	return ctx, func(err error) {
		if err != nil {
			err = fault.From(err).GRPCStatus().Err()
		}
		by.HandleRPC(ctx, &stats.End{Client: client, BeginTime: began, EndTime: time.Now(), Error: err})
	}
}

func statusOf(err error) *spb.Status {
	if err == nil {
		return &spb.Status{}
	}
	return fault.From(err).GRPCStatus().Proto()
}

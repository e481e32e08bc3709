package replica

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"skein.dev"
	"skein.dev/platform/fault"
)

// begin starts a span of an exchange with the global tier, under a call's, if that has one. It names the key by a digest: keys
// may tell more than who reads traces should know. The function that it gives ends it.
func begin(ctx context.Context, name string, k skein.StateKey) (context.Context, func(bytes int64, err error)) {
	if !trace.SpanFromContext(ctx).IsRecording() {
		return ctx, func(int64, error) {}
	}
	digest := sha256.Sum256([]byte(k.Key))
	ctx, span := otel.Tracer("skein.dev/services/executor").Start(ctx, name, trace.WithAttributes(
		attribute.String("skein.user", string(k.User)), attribute.String("skein.state.key_digest", hex.EncodeToString(digest[:8])),
	))
	return ctx, func(bytes int64, err error) {
		span.SetAttributes(attribute.Int64("skein.state.bytes", bytes))
		if err != nil {
			span.SetStatus(codes.Error, fault.From(err).Reason) // its text may tell the key
		}
		span.End()
	}
}

// span is begin for what a session does in the global tier: it tells what the session moved meanwhile.
func (s *Session) span(ctx *context.Context, name string, k skein.StateKey, err *error) (done func()) {
	before := s.moved
	within, end := begin(*ctx, name, k)
	*ctx = within
	return func() { end(s.moved.Read+s.moved.Written-before.Read-before.Written, *err) }
}

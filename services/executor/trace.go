package executor

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

// Every call that a call makes is a child span of its own, and so is every attempt of a call from outside. A child span looks
// as if its parent had waited for it; where it did not, a link says so. It is on the parent's span and points at the child's,
// or the other way round if the child began after its parent had ended. A child that ran on another executor has none: its
// span is not known here.

// traceOf is the trace context of a call's span, nil if there is none.
func traceOf(ctx context.Context) map[string]string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return nil
	}
	carrier := propagation.MapCarrier{}
	otel.GetTextMapPropagator().Inject(ctx, carrier)
	return carrier
}

var notAwaited = attribute.Bool("skein.awaited", false)

// spanBegins notes the span of a call for its parent's.
func (l *link) spanBegins(r *run, span trace.Span) {
	k := r.as
	if k == nil {
		return
	}
	l.mu.Lock()
	k.span = span.SpanContext()
	alone := k.parent.linked && !k.awaited
	l.mu.Unlock()
	if alone {
		parent := trace.SpanContextFromContext(otel.GetTextMapPropagator().Extract(context.Background(), propagation.MapCarrier(r.call.Trace)))
		span.AddLink(trace.Link{SpanContext: parent, Attributes: []attribute.KeyValue{notAwaited}})
	}
}

// spanEnds links a call's span to those of the children that it never waited for.
func (l *link) spanEnds(r *run, span trace.Span) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.linked = true
	for _, k := range r.children {
		if k.span.IsValid() && !k.awaited {
			span.AddLink(trace.Link{SpanContext: k.span, Attributes: []attribute.KeyValue{notAwaited, attribute.String("faas.invocation_id", k.id.String())}})
		}
	}
}

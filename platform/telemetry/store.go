package telemetry

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/sdk/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"skein.dev/platform/fault"
)

// Store keeps the newest traces of this process in memory and serves them as Jaeger's query API v3 does
// (GET /api/v3/traces/{trace_id}, OTLP JSON), so that one client reads both. It is what `skein dev` has instead of Jaeger.
type Store struct {
	processor trace.SpanProcessor
	mu        sync.Mutex
	spans     map[string][]*tracepb.ResourceSpans // by trace id
	order     []string                            // trace ids, oldest first
	most      int
}

// NewStore keeps at most the given number of traces.
func NewStore(ctx context.Context, traces int) (*Store, error) {
	s := &Store{spans: map[string][]*tracepb.ResourceSpans{}, most: traces}
	exporter, err := otlptrace.New(ctx, (*storeClient)(s))
	if err != nil {
		return nil, err
	}
	s.processor = trace.NewBatchSpanProcessor(exporter, trace.WithBatchTimeout(200*time.Millisecond))
	return s, nil
}

// Processor is what Setup needs to fill the store.
func (s *Store) Processor() trace.SpanProcessor { return s.processor }

// storeClient is the store as the end of the OTLP exporter, which gives us the conversion to OTLP for nothing.
type storeClient Store

func (*storeClient) Start(context.Context) error { return nil }
func (*storeClient) Stop(context.Context) error  { return nil }

func (c *storeClient) UploadTraces(_ context.Context, batch []*tracepb.ResourceSpans) error {
	s := (*Store)(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, rs := range batch {
		for _, ss := range rs.GetScopeSpans() {
			byTrace := map[string][]*tracepb.Span{}
			for _, span := range ss.GetSpans() {
				id := string(span.GetTraceId())
				byTrace[id] = append(byTrace[id], span)
			}
			for id, spans := range byTrace {
				s.add(id, &tracepb.ResourceSpans{
					Resource:   rs.GetResource(),
					SchemaUrl:  rs.GetSchemaUrl(),
					ScopeSpans: []*tracepb.ScopeSpans{{Scope: ss.GetScope(), SchemaUrl: ss.GetSchemaUrl(), Spans: spans}},
				})
			}
		}
	}
	return nil
}

// maxBatches bounds one trace: a guest with a million host calls must not fill the memory.
const maxBatches = 4096

func (s *Store) add(id string, rs *tracepb.ResourceSpans) {
	had, ok := s.spans[id]
	if !ok {
		s.order = append(s.order, id)
	}
	if len(had) < maxBatches {
		s.spans[id] = append(had, rs)
	}
	for len(s.order) > s.most {
		delete(s.spans, s.order[0])
		s.order = s.order[1:]
	}
}

// ServeHTTP answers GET …/{trace_id}.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	id, err := parseTraceID(r.PathValue("trace_id"))
	if err != nil {
		fault.WriteProblem(w, err, "", "")
		return
	}
	_ = s.processor.ForceFlush(r.Context()) // spans that ended a moment ago belong in the answer
	s.mu.Lock()
	spans := slices.Clone(s.spans[id])
	s.mu.Unlock()
	if len(spans) == 0 {
		fault.WriteProblem(w, fault.NotFound.New("NO_TRACE", "no trace %x is kept here", id).
			WithHint("the newest traces are kept, and none survives a restart"), "", "")
		return
	}
	body, err := protojson.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		fault.WriteProblem(w, err, "", "")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write([]byte(`{"result":`))
	_, _ = w.Write(ids.ReplaceAllFunc(body, hexID))
	_, _ = w.Write([]byte(`}`))
}

func parseTraceID(s string) (string, error) {
	var id [16]byte
	if n, err := hex.Decode(id[:], []byte(s)); err != nil || n != len(id) || len(s) != 2*len(id) {
		return "", fault.Invalid.New("BAD_TRACE_ID", "trace id %.40q: want 32 hexadecimal digits", s)
	}
	return string(id[:]), nil
}

// OTLP's JSON writes ids in hexadecimal, where protobuf's own writes all bytes in base64.
var ids = regexp.MustCompile(`"(traceId|spanId|parentSpanId)":\s*"([A-Za-z0-9+/=]*)"`)

func hexID(field []byte) []byte {
	part := ids.FindSubmatch(field)
	raw, err := base64.StdEncoding.DecodeString(string(part[2]))
	if err != nil {
		return field
	}
	return fmt.Appendf(nil, "%q:%q", part[1], hex.EncodeToString(raw))
}

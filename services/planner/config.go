package planner

import (
	"context"
	"flag"
	"fmt"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"skein.dev/platform/service"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	uploadv1 "skein.dev/proto/skein/upload/v1"
)

// Config is the planner's settings.
type Config struct {
	Upload       string
	RedisURL     string
	RedisTimeout time.Duration
	Volatile     bool
	Limits       Limits
	Webhooks     Webhooks
}

// Flags registers the settings.
func (c *Config) Flags(fs *flag.FlagSet) {
	c.Limits = DefaultLimits()
	fs.StringVar(&c.Upload, "upload", "127.0.0.1:8081", "`address` of the upload service")
	fs.StringVar(&c.RedisURL, "redis-url", "redis://127.0.0.1:6379/0", "`URL` of the Redis that keeps the calls: redis[s]://[user:password@]host:port/db; with ?addr=host:port of a cluster, with ?master_name=name of its Sentinels")
	fs.DurationVar(&c.RedisTimeout, "redis-timeout", time.Second, "how long Redis may take to answer before it counts as down")
	fs.BoolVar(&c.Volatile, "volatile-journal", false, "accept a Redis without an append-only file, or one that evicts: it may lose calls that were accepted")
	fs.IntVar(&c.Limits.QueueCalls, "queue", c.Limits.QueueCalls, "how many calls may wait for a slot; one user may hold half")
	fs.Int64Var(&c.Limits.QueueBytes, "queue-bytes", c.Limits.QueueBytes, "how many bytes of input they may hold together")
	fs.IntVar(&c.Limits.TreeCalls, "tree-calls", c.Limits.TreeCalls, "how many calls may descend from one call from outside, itself included")
	fs.Int64Var(&c.Limits.HistoryBytes, "history-bytes", c.Limits.HistoryBytes, "how many bytes of ended calls' records, outputs and logs are kept")
	fs.DurationVar(&c.Limits.HistoryAge, "history", c.Limits.HistoryAge, "how long ended calls are kept at most")
	fs.DurationVar(&c.Limits.Silence, "executor-silence", c.Limits.Silence, "after how long without a word an executor is lost")
	c.Webhooks.Flags(fs)
}

// Start builds the planner on a server.
func (c *Config) Start(_ context.Context, s *service.Server) error {
	if c.Limits.Silence < 100*time.Millisecond { // Tick is not finer
		return fmt.Errorf("--executor-silence %s: want 100ms or more", c.Limits.Silence)
	}
	if c.RedisTimeout <= 0 {
		return fmt.Errorf("--redis-timeout %s: want more than 0", c.RedisTimeout)
	}
	journal, err := openDB(c.RedisURL, c.RedisTimeout)
	if err != nil {
		return fmt.Errorf("--redis-url: %w", err)
	}
	s.Close(journal.close)
	conn, err := s.Dial(c.Upload)
	if err != nil {
		return err
	}
	names := newResolver(uploadv1.NewUploadServiceClient(conn))
	p := New(c.Limits, s.Log(), names.resolve)
	hooks, err := newHooks(p, c.Webhooks)
	if err != nil {
		return err
	}
	p.newCandidate(journal, s.Addr(), c.Volatile)
	srv := &server{p: p, patience: eventTime}
	plannerv1.RegisterPlannerServiceServer(guarded{s, p}, srv)
	plannerv1.RegisterDispatchServiceServer(guarded{s, p}, srv)
	if err := s.Gateway(plannerv1.RegisterPlannerServiceHandler); err != nil {
		return err
	}
	s.Handle("POST /v1/invoke/{user}/{function}", p.leading(p.invokeREST))
	s.Handle("GET /v1/calls/{id}/logs", p.leading(p.logsREST(s.JSON)))
	s.Handle("GET /v1/calls/{id}/events", p.leading(p.eventsREST))
	s.Go(names.watch)
	s.Go(p.Tick)
	s.Go(hooks.run)
	s.Go(p.lead)
	s.Ready(func(context.Context) error { return p.standing() })
	s.Drain(p.Drain)
	stop, err := p.measure()
	if err != nil {
		return err
	}
	s.Close(stop)
	return nil
}

// measure publishes the queue and the slots until stop is called.
func (p *Planner) measure() (stop func() error, err error) {
	meter := otel.Meter("skein.dev/services/planner")
	depth, err := meter.Int64ObservableGauge("faas.queue_depth", metric.WithDescription("Calls that wait for a slot"))
	if err != nil {
		return nil, err
	}
	unsaved, err := meter.Int64ObservableGauge("skein.journal_pending", metric.WithDescription("Changes of calls that the journal does not have yet"))
	if err != nil {
		return nil, err
	}
	slots, err := meter.Int64ObservableGauge("faas.slots", metric.WithDescription("Slots of all executors, by state"))
	if err != nil {
		return nil, err
	}
	used, free := metric.WithAttributes(attribute.String("state", "used")), metric.WithAttributes(attribute.String("state", "free"))
	reg, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(depth, int64(p.QueueLen()))
		if j, err := p.leader(); err == nil && j != nil {
			o.ObserveInt64(unsaved, int64(j.pending()))
		}
		var inUse, all int64
		for _, e := range p.Executors() {
			inUse += int64(e.Used)
			all += int64(e.Slots)
		}
		o.ObserveInt64(slots, inUse, used)
		o.ObserveInt64(slots, max(0, all-inUse), free)
		return nil
	}, depth, unsaved, slots)
	if err != nil {
		return nil, err
	}
	return reg.Unregister, nil
}

package executor

import (
	"context"
	"errors"
	"flag"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"skein.dev"
	"skein.dev/platform/blob"
	"skein.dev/platform/compile"
	"skein.dev/platform/fault"
	"skein.dev/platform/runconfig"
	"skein.dev/platform/service"
	executorv1 "skein.dev/proto/skein/executor/v1"
	fsv1 "skein.dev/proto/skein/fs/v1"
	plannerv1 "skein.dev/proto/skein/planner/v1"
	statev1 "skein.dev/proto/skein/state/v1"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/shared"
	"skein.dev/services/executor/internal/vfs"
)

// Config is the executor's settings.
type Config struct {
	Planner, State, Fs string
	Bucket             string
	Name               string
	Slots              int
	Memory             int64 // MiB a guest may have
	Warm               int64 // MiB
	Code               int64 // MiB
	Key                string
	Replicas           int64  // MiB
	Parked             int64  // MiB
	FileMemory         int64  // MiB of shared files' content
	FileCache          string // a directory
	FileDisk           int64  // MiB there
	FileLease          time.Duration
	FileStale          time.Duration
	LocalDir           string
	LocalMemory        int64 // MiB
	LocalDisk          int64 // MiB
	CallBytes          int64 // MiB of files a call may write
	CallFiles          int64
	OpenFiles          int
	Lease              time.Duration
}

// Flags registers the settings.
func (c *Config) Flags(fs *flag.FlagSet) {
	fs.StringVar(&c.Planner, "planner", "127.0.0.1:8080", "`addresses` of planners, separated by commas: one is attached to, the next if it is away or stands by")
	fs.StringVar(&c.State, "state", "127.0.0.1:8082", "`address` of the state service")
	fs.StringVar(&c.Fs, "fs", "127.0.0.1:8083", "`address` of the fs service")
	fs.StringVar(&c.Bucket, "bucket", "file:.skein/objects", "`URL` of the object store: s3://BUCKET?endpoint=URL or file:DIR")
	fs.StringVar(&c.Name, "name", "", "`name` of this executor; the host's name and a random suffix if empty")
	fs.IntVar(&c.Slots, "slots", 4*runtime.GOMAXPROCS(0), "how many calls run at the same time")
	fs.Int64Var(&c.Memory, "guest-memory", 128, "`MiB` of linear memory a guest may have")
	fs.Int64Var(&c.Warm, "warm-memory", 512, "`MiB` that instances may keep which wait for calls")
	fs.Int64Var(&c.Code, "code-memory", 1024, "`MiB` of native code that are kept")
	fs.Int64Var(&c.Parked, "parked-memory", 2048, "`MiB` that calls may keep which wait for others; beyond it no call here makes another (EAGAIN)")
	fs.StringVar(&c.Key, "artifact-key", "", compile.KeyUsage)
	fs.Int64Var(&c.Replicas, "replicas", 256, "`MiB` of state kept here; what is mapped or not pushed may take as much again, and at least 256, before nothing grows (ENOMEM); one user may take three quarters of all that")
	fs.DurationVar(&c.Lease, "lock-lease", replica.Lease, "how long a state lock of the cluster outlives an executor that does not answer, 1s to 1m")
	c.sharedFlags(fs)
	c.localFlags(fs)
}

// sharedFlags registers what is kept of shared files.
func (c *Config) sharedFlags(fs *flag.FlagSet) {
	fs.Int64Var(&c.FileMemory, "file-memory", 256, "`MiB` of shared files' content kept in memory")
	fs.StringVar(&c.FileCache, "file-cache", "", "`directory`, of this executor alone, where content of shared files is kept over restarts; none if empty")
	fs.Int64Var(&c.FileDisk, "file-disk", 4096, "`MiB` of content kept in --file-cache")
	fs.DurationVar(&c.FileLease, "file-lease", time.Second, "for how long it is good what is known of a shared file's name, up to 10s: a change through another fs service, or while this executor is cut off, is seen then")
	fs.DurationVar(&c.FileStale, "file-stale", 10*time.Minute, "for how long it goes on being good while the fs service or its store doesn't answer; 0 is not at all")
}

// shared makes the cache of shared files.
func (c *Config) shared(s *service.Server) (*shared.Cache, error) {
	if c.FileMemory < 0 || c.FileDisk < 0 || c.FileStale < 0 || c.FileLease < 10*time.Millisecond || c.FileLease > 10*time.Second {
		return nil, fault.Invalid.New("BAD_FILE_CACHE", "--file-memory %d, --file-disk %d, --file-stale %s, --file-lease %s: the lease must be 10ms to 10s, and nothing negative",
			c.FileMemory, c.FileDisk, c.FileStale, c.FileLease)
	}
	conn, err := s.Dial(c.Fs)
	if err != nil {
		return nil, err
	}
	web := service.NewWeb(c.Fs)
	files, err := shared.New(fsv1.NewFsServiceClient(conn), web.Get, shared.Config{
		Memory: c.FileMemory << 20, Dir: c.FileCache, Disk: c.FileDisk << 20, Lease: c.FileLease, Stale: c.FileStale,
	}, s.Log())
	if err != nil {
		return nil, err
	}
	s.Close(func() error {
		web.Close()
		return files.Close()
	})
	s.Go(files.Watch)
	return files, nil
}

// localFlags registers what bounds the files that calls write.
func (c *Config) localFlags(fs *flag.FlagSet) {
	fs.StringVar(&c.LocalDir, "local-dir", "", "`directory` for what calls write to large files, which have no name there; the system's for temporary files if empty")
	fs.Int64Var(&c.LocalMemory, "local-memory", 256, "`MiB` of memory for what calls write to files; what is beyond goes to --local-dir")
	fs.Int64Var(&c.LocalDisk, "local-disk", 4096, "`MiB` of --local-dir that may be used; beyond it writing fails (ENOSPC)")
	fs.Int64Var(&c.CallBytes, "call-file-bytes", 256, "`MiB` that a call's own files may have (EDQUOT)")
	fs.Int64Var(&c.CallFiles, "call-files", vfs.DefaultLimits().Files, "how many files, directories and links a call may have of its own (EDQUOT)")
	fs.IntVar(&c.OpenFiles, "open-files", vfs.DefaultLimits().Open, "how many descriptors a call may have open (EMFILE)")
}

// checkLocal refuses what would leave calls without files.
func (c *Config) checkLocal() error {
	if c.LocalMemory < 1 || c.LocalDisk < 0 || c.CallBytes < 1 || c.CallFiles < 1 || c.OpenFiles <= vfs.Root {
		return fault.Invalid.New("BAD_LIMITS", "--local-memory %d, --local-disk %d, --call-file-bytes %d, --call-files %d, --open-files %d: one is too small",
			c.LocalMemory, c.LocalDisk, c.CallBytes, c.CallFiles, c.OpenFiles)
	}
	return nil
}

// Start builds the executor on a server.
func (c *Config) Start(ctx context.Context, s *service.Server) error {
	if c.Slots < 1 {
		return fault.Invalid.New("BAD_SLOTS", "%d slots: an executor needs at least one", c.Slots)
	}
	if c.Parked < 0 {
		return fault.Invalid.New("BAD_MEMORY", "--parked-memory %d: it can't be negative", c.Parked)
	}
	if err := c.checkLocal(); err != nil {
		return err
	}
	if c.Lease < time.Second || c.Lease > time.Minute {
		return fault.Invalid.New("BAD_LEASE", "--lock-lease %s: want 1s to 1m", c.Lease)
	}
	if err := compile.CheckKey(c.Key); err != nil {
		return err
	}
	secrets, err := runconfig.NewKey(c.Key)
	if err != nil {
		return err
	}
	bucket, err := blob.Open(ctx, c.Bucket)
	if err != nil {
		return err
	}
	planners, errP := c.planners(s)
	state, errS := s.DialBulk(c.State)
	files, errF := c.shared(s)
	if err := errors.Join(errP, errS, errF); err != nil {
		return err
	}
	m, err := machine.Open(ctx, machine.Config{GuestMemory: c.Memory << 20, WarmMemory: c.Warm << 20}, host.Link)
	if err != nil {
		return err
	}
	behind := newBehind()
	s.Close(func() error {
		behind.close()
		return m.Close(context.Background())
	})
	name := c.Name
	if name == "" {
		name = defaultName()
	}
	e := &Executor{
		name: name, log: s.Log(), machine: m, modules: &modules{
			bucket: bucket, key: []byte(c.Key), machine: m, log: s.Log(), behind: behind, budget: c.Code << 20, all: map[skein.Digest]*module{},
		},
		settings: &settings{bucket: bucket, key: secrets, behind: behind, budget: settingsBudget, all: map[settingKey]*setting{}},
		state:    replica.New(statev1.NewStateServiceClient(state), c.Replicas<<20), shared: files,
		local:  vfs.NewStore(c.LocalDir, c.LocalMemory<<20, c.LocalDisk<<20),
		limits: vfs.Limits{Bytes: c.CallBytes << 20, Files: c.CallFiles, Open: c.OpenFiles},
		slots:  newSlots(c.Slots), memory: int64(c.Slots) * (c.Memory << 20), parked: c.Parked << 20,
	}
	e.kept = kept{store: e.local, limits: e.limits, budget: (c.LocalMemory + c.LocalDisk) << 19} // half: calls' own layers need some
	e.state.SetLease(c.Lease)
	if e.meters, err = newMeters(e); err != nil {
		return err
	}
	executorv1.RegisterExecutorServiceServer(s, &server{e: e})
	if err := s.Gateway(executorv1.RegisterExecutorServiceHandler); err != nil {
		return err
	}
	c.stand(s, e, planners)
	return nil
}

// stand keeps the executor attached while the server runs, and lets it leave in good order.
func (c *Config) stand(s *service.Server, e *Executor, planners []planner) {
	drain, attachDone := make(chan struct{}), make(chan struct{})
	s.Go(func(ctx context.Context) error {
		defer close(attachDone)
		return e.attach(ctx, planners, s.Addr(), drain)
	})
	s.Ready(func(context.Context) error {
		if !e.attached.Load() {
			return fault.Unavailable.New("NOT_ATTACHED", "not attached to the planner at %s", c.Planner)
		}
		return nil
	})
	s.Drain(func(ctx context.Context) error {
		e.direct.leaving.Store(true)
		close(drain)
		select {
		case <-attachDone:
			return nil
		case <-ctx.Done():
			return fault.Timeout.New("DRAIN", "%d calls had not ended", e.slots.used())
		}
	})
}

// planners are those that the executor may attach to.
func (c *Config) planners(s *service.Server) (out []planner, err error) {
	for address := range strings.SplitSeq(c.Planner, ",") {
		address = strings.TrimSpace(address)
		if address == "" {
			return nil, fault.Invalid.New("BAD_PLANNER", "--planner %q: an address is empty", c.Planner).WithHint("write host:port,host:port")
		}
		conn, err := s.Dial(address)
		if err != nil {
			return nil, err
		}
		out = append(out, planner{address, plannerv1.NewDispatchServiceClient(conn)})
	}
	return out, nil
}

// meters are the metrics of calls, by OpenTelemetry's names for functions.
type meters struct {
	duration metric.Float64Histogram
	memory   metric.Int64Histogram
	cold     metric.Int64Counter
	errors   metric.Int64Counter
	timeouts metric.Int64Counter
	cpu      metric.Float64Histogram

	names sync.Map // skein.Function → *series: hashing a name costs as much as all else here
	named atomic.Int64
}

// maxNamed bounds the series that functions make; what is called beyond it counts for "other".
const maxNamed = 10_000

// series are the options of what is recorded of a function.
type series struct {
	name   metric.MeasurementOption
	record []metric.RecordOption
}

func seriesOf(name string) *series {
	o := metric.WithAttributeSet(attribute.NewSet(attribute.String("faas.name", name)))
	return &series{name: o, record: []metric.RecordOption{o}}
}

func (m *meters) of(f skein.Function) *series {
	if s, ok := m.names.Load(f); ok {
		return s.(*series)
	}
	if m.named.Add(1) > maxNamed {
		m.named.Add(-1)
		return otherFunctions
	}
	s, had := m.names.LoadOrStore(f, seriesOf(f.String()))
	if had {
		m.named.Add(-1)
	}
	return s.(*series)
}

var otherFunctions = seriesOf("other")

func newMeters(e *Executor) (*meters, error) {
	meter := otel.Meter("skein.dev/services/executor")
	var m meters
	var errs [8]error
	m.duration, errs[0] = meter.Float64Histogram("faas.invoke_duration", metric.WithUnit("s"), metric.WithDescription("Time of a call on its executor"),
		metric.WithExplicitBucketBoundaries(.0001, .0005, .001, .005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10))
	m.memory, errs[1] = meter.Int64Histogram("faas.mem_usage", metric.WithUnit("By"), metric.WithDescription("Peak of a guest's linear memory"),
		metric.WithExplicitBucketBoundaries(1<<16, 1<<20, 4<<20, 16<<20, 64<<20, 256<<20, 1<<30))
	m.cold, errs[2] = meter.Int64Counter("faas.coldstarts", metric.WithDescription("Calls that waited for their module"))
	m.errors, errs[3] = meter.Int64Counter("faas.errors", metric.WithDescription("Calls that failed, by reason"))
	m.timeouts, errs[4] = meter.Int64Counter("faas.timeouts", metric.WithDescription("Calls whose deadline passed"))
	m.cpu, errs[6] = meter.Float64Histogram("faas.cpu_usage", metric.WithUnit("s"), metric.WithDescription("CPU time of a call's guest"),
		metric.WithExplicitBucketBoundaries(.00001, .0001, .001, .01, .1, 1, 10, 100))
	var inUse metric.Int64ObservableGauge
	inUse, errs[5] = meter.Int64ObservableGauge("faas.guest_memory", metric.WithUnit("By"), metric.WithDescription("Linear memory of all guests now"))
	var blocks metric.Int64ObservableCounter
	blocks, errs[7] = meter.Int64ObservableCounter("skein.files.blocks", metric.WithDescription("Blocks of shared files that were read, by where they were: memory, disk or fs"))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	_, err := meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		o.ObserveInt64(inUse, e.machine.MemoryInUse())
		n := e.shared.Counts()
		for where, count := range map[string]int64{"memory": n.Memory, "disk": n.Disk, "fs": n.Fetched} {
			o.ObserveInt64(blocks, count, metric.WithAttributes(attribute.String("skein.source", where)))
		}
		return nil
	}, inUse, blocks)
	return &m, err
}

func (m *meters) ended(ctx context.Context, f skein.Function, r skein.Result) {
	all := m.of(f)
	m.cpu.Record(ctx, r.CPU.Seconds(), all.record...)
	m.duration.Record(ctx, r.Ended.Sub(r.Started).Seconds(), all.record...)
	m.memory.Record(ctx, r.Memory, all.record...)
	if r.Cold {
		m.cold.Add(ctx, 1, all.name)
	}
	switch r.State {
	case skein.Failed:
		m.errors.Add(ctx, 1, all.name, metric.WithAttributes(attribute.String("error.type", r.Reason)))
	case skein.TimedOut:
		m.timeouts.Add(ctx, 1, all.name)
	}
}

package planner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/fault"
	plannerv1 "skein.dev/proto/skein/planner/v1"
)

// The journal's keys share one hash tag, so that in Redis Cluster they are in one slot and a script may change them together:
//
//	skein:{planner}:lease       who leads: EPOCH TOKEN HOST ADDRESS; it expires
//	skein:{planner}:epoch       of the last leader
//	skein:{planner}:policy      how calls are placed
//	skein:{planner}:call:ID     hash m JournalCall, i input, o output, l log, h tries of the webhook; for parts that are large,
//	                            ip, op, lp the epoch of the leader that wrote the part; ve, vs the epoch and number of the last change
//	skein:{planner}:call:ID:i:EPOCH … :o: and :l: a large part
//	skein:{planner}:req:KEY     ID and body hash of the call that has this request id
//	skein:{planner}:live        sorted set of calls that have not ended, by the time of their acceptance in µs
//	skein:{planner}:ended       the newest that have, by the time of their end in ms
//	skein:{planner}:dead        dead letters, by the same
//	skein:{planner}:hooks       calls whose webhooks wait, by when to call them in ms
const keys = "skein:{planner}:"

const (
	// inlinePart is the most of an input, output or log that travels through Lua, where bytes are slow: 1.3 ms per MiB.
	inlinePart = 64 << 10
	// partTTL is how long a large part lives before a script has made it one of its record.
	partTTL = 10 * time.Minute
	// leaseTTL is how long a leader leads without a word.
	leaseTTL = 5 * time.Second
	// deadAge is how long a dead letter is kept.
	deadAge = 14 * 24 * time.Hour
	// hookAge is how long a record is kept at least for its webhook.
	hookAge = 25 * time.Hour
	// recovered is how many ended calls a planner that starts knows of.
	recovered = 1000
)

// db is the journal's Redis: one server, a Sentinel group or a cluster.
type db struct {
	client  redis.UniversalClient
	addr    string        // for messages; without credentials
	timeout time.Duration // of one round trip
}

// silent keeps go-redis from writing to stderr by itself: what goes wrong is in the errors it returns.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// openDB connects when first used. A URL with master_name= names Sentinels, one with addr= the nodes of a cluster.
func openDB(rawURL string, timeout time.Duration) (*db, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a password
		}
		return nil, fmt.Errorf("redis url: %w", err)
	}
	redis.SetLogger(silent{})
	d := &db{addr: u.Host, timeout: timeout}
	const retries = -1 // whoever asks knows whether to ask again
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	switch q := u.Query(); {
	case q.Has("master_name"):
		o, err := redis.ParseFailoverURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url of Sentinels: %w", err)
		}
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = retries, 1, true, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		d.client = redis.NewFailoverClient(o)
	case q.Has("addr"):
		o, err := redis.ParseClusterURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url of a cluster: %w", err)
		}
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = retries, 1, true, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.MaintNotificationsConfig = quiet
		d.client = redis.NewClusterClient(o)
	default:
		o, err := redis.ParseURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url: %w", err)
		}
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled, o.DisableIdentity = retries, 1, true, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.MaintNotificationsConfig = quiet
		d.client, d.addr = redis.NewClient(o), o.Addr
	}
	return d, nil
}

func (d *db) close() error { return d.client.Close() }

// durable refuses a Redis that would lose what it confirmed. Servers that don't say are taken to be well set up.
func (d *db) durable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	info, err := d.client.Info(ctx).Result()
	if err != nil {
		return d.fault(err)
	}
	for line := range strings.Lines(info) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); {
		case name == "aof_enabled" && value == "0":
			return fault.Precondition.New("JOURNAL_VOLATILE", "Redis at %s writes no append-only file: accepted calls would be lost when it ends", d.addr).
				WithHint("set appendonly yes, or start the planner with --volatile-journal if that may be")
		case name == "maxmemory_policy" && value != "noeviction":
			return fault.Precondition.New("JOURNAL_VOLATILE", "Redis at %s may evict accepted calls: its maxmemory-policy is %s", d.addr, value).
				WithHint("set maxmemory-policy noeviction, or start the planner with --volatile-journal if that may be")
		}
	}
	return nil
}

// fault says what a failed command means for the caller.
func (d *db) fault(err error) error {
	text := err.Error()
	if _, ok := errors.AsType[redis.Error](err); ok {
		switch {
		case strings.Contains(text, "OOM command not allowed"):
			return fault.Exhausted.New("JOURNAL_FULL", "Redis at %s has no memory left for calls", d.addr).
				WithHint("raise maxmemory, or let results expire sooner").WithRetry(time.Second)
		case strings.HasPrefix(text, "NOAUTH "), strings.HasPrefix(text, "WRONGPASS "), strings.HasPrefix(text, "NOPERM "):
			return fault.Unavailable.New("JOURNAL_DOWN", "Redis at %s refuses this service", d.addr).WithHint("give user and password in --redis-url")
		}
		return fault.Unavailable.New("JOURNAL_DOWN", "Redis at %s can't keep calls now: %.200s", d.addr, text).
			WithHint("calls without a request_id that are waited for work without it").WithRetry(time.Second)
	}
	if _, isNet := errors.AsType[net.Error](err); isNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, redis.ErrClosed) || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, context.Canceled) || strings.HasPrefix(text, "redis: ") {
		return journalDown("Redis at " + d.addr + " does not answer")
	}
	return fmt.Errorf("redis: %w", err)
}

func journalDown(why string) error {
	return fault.Unavailable.New("JOURNAL_DOWN", "what keeps the calls is away: %s", why).
		WithHint("calls without a request_id that are waited for work without it").WithRetry(time.Second)
}

// pipeline sends commands in one round trip. Their own errors are the caller's to look at.
func (d *db) pipeline(ctx context.Context, f func(redis.Pipeliner)) error {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	_, err := d.client.Pipelined(ctx, func(p redis.Pipeliner) error { f(p); return nil })
	if err != nil && !errors.Is(err, redis.Nil) {
		return d.fault(err)
	}
	return nil
}

// script runs one script, whose answer is text.
func (d *db) script(ctx context.Context, s *redis.Script, names []string, args ...any) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	answer, err := s.Run(ctx, d.client, names, args...).Text()
	if err != nil {
		return "", d.fault(err)
	}
	return answer, nil
}

func newScript(source string) *redis.Script { return redis.NewScript(source) }

// acquire takes the lease if nobody has it, or only the dead, and gives it as it is then.
func (d *db) acquire(ctx context.Context, token, dead string) (lease string, err error) {
	return d.script(ctx, acquireScript, []string{keys + "lease", keys + "epoch"}, token, leaseTTL.Milliseconds(), dead)
}

// renew keeps the lease. It is false if another leads, or has led since.
func (d *db) renew(ctx context.Context, lease string) (bool, error) {
	epoch, _, _ := strings.Cut(lease, " ")
	answer, err := d.script(ctx, renewScript, []string{keys + "lease", keys + "epoch"}, lease, leaseTTL.Milliseconds(), epoch)
	return answer == "OK", err
}

func (d *db) release(ctx context.Context, lease string) error {
	_, err := d.script(ctx, releaseScript, []string{keys + "lease"}, lease)
	return err
}

// answers of the scripts that write.
const (
	written   = "OK"
	leaseLost = "LOST"  // another leads, or Redis forgot that we do
	goneCall  = "GONE"  // the record is not there
	lateWrite = "LATE"  // a later change was made already
	otherCall = "KNOWN" // another call has the request id: its id and body hash follow
)

// writing is what is under way of an op.
type writing struct{ parts []*redis.BoolCmd }

// write carries out ops in one round trip. Each gets its answer or its error.
func (d *db) write(ctx context.Context, lease string, ops []*op) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	cmds := make([]*redis.Cmd, len(ops))
	_, _ = d.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for i, o := range ops {
			cmds[i] = o.add(ctx, p, lease)
		}
		return nil
	})
	for i, o := range ops {
		o.answer, o.err = cmds[i].Text()
		for _, set := range o.parts { // why the script did not find it
			if set.Err() != nil && o.err == nil {
				o.err = set.Err()
			}
		}
		o.parts = nil
		switch {
		case redis.HasErrorPrefix(o.err, "NOSCRIPT"): // nothing ran; EVAL makes Redis remember it
			o.eval = true
		case o.err != nil:
			_, o.refused = errors.AsType[redis.Error](o.err)
			o.err = d.fault(o.err)
		}
	}
}

// add puts the commands of an op into a pipeline.
func (o *op) add(ctx context.Context, p redis.Pipeliner, lease string) *redis.Cmd {
	r := &o.rec
	epoch, _, _ := strings.Cut(lease, " ")
	call, id := callKey(r.ID), r.ID.String()
	part := func(kind string, b []byte) (inline []byte, large bool) {
		if len(b) <= inlinePart {
			return b, false
		}
		// One that is there is the same, and perhaps it must not expire any more.
		o.parts = append(o.parts, p.SetNX(ctx, call+":"+kind+":"+epoch, b, partTTL))
		return nil, true
	}
	switch o.kind {
	case acceptOp:
		input, large := part("i", r.Input)
		return o.run(ctx, p, acceptScript, []string{keys + "lease", call, keys + "live", requestKeyOf(r)},
			lease, epoch, o.number, id, o.meta, input, large, r.Created.UnixMicro(), r.RequestID != "", r.BodyHash[:])
	case updateOp:
		return o.run(ctx, p, updateScript, []string{keys + "lease", call}, lease, epoch, o.number, o.meta)
	}
	all := []string{keys + "lease", call, keys + "live", keys + "ended", keys + "dead", keys + "hooks", requestKeyOf(r)}
	if o.kind == removeOp {
		return o.run(ctx, p, removeScript, all, lease, epoch, o.number, id, partTTL.Milliseconds())
	}
	output, largeOutput := part("o", r.Output)
	log, largeLog := part("l", r.Log)
	ttl, due := r.Expires.Sub(r.Ended), int64(0)
	if r.Dead {
		ttl = max(ttl, deadAge)
	}
	if r.Webhook != "" {
		ttl, due = max(ttl, hookAge), r.Ended.UnixMilli()
	}
	return o.run(ctx, p, finishScript, all, lease, epoch, o.number, id, o.meta, output, largeOutput, log, largeLog,
		max(1, ttl.Milliseconds()), r.Ended.UnixMilli(), r.Dead, due, recovered, deadAge.Milliseconds())
}

func (o *op) run(ctx context.Context, p redis.Pipeliner, s *redis.Script, names []string, args ...any) *redis.Cmd {
	if o.eval {
		return s.Eval(ctx, p, names, args...)
	}
	return s.EvalSha(ctx, p, names, args...)
}

func callKey(id skein.CallID) string { return keys + "call:" + id.String() }

// requestKeyOf names what a request id belongs to. User and function hold no slash and no NUL, so no two share a key. It must
// be in the slot of the others also if there is none.
func requestKeyOf(r *Record) string {
	name := r.Function.String()
	return keys + "req:" + strconv.Itoa(len(name)) + ":" + name + ":" + r.RequestID
}

// part of a record that can be large.
type part struct {
	inline, epoch *redis.StringCmd
	large         *redis.StringCmd
}

// stored is a record that is being read.
type stored struct {
	id    skein.CallID
	meta  *redis.StringCmd
	tries *redis.StringCmd
	parts map[string]*part // by the first letters of input, output and log
}

// found is what the journal has of a call: nothing, if rec and err are nil.
type found struct {
	rec   *Record
	tries int // of its webhook, that failed
	err   error
}

// read reads records with some of their parts.
func (d *db) read(ctx context.Context, ids []skein.CallID, parts ...string) ([]found, error) {
	all := make([]*stored, len(ids))
	err := d.pipeline(ctx, func(p redis.Pipeliner) {
		for i, id := range ids {
			s := &stored{id: id, meta: p.HGet(ctx, callKey(id), "m"), tries: p.HGet(ctx, callKey(id), "h"), parts: map[string]*part{}}
			for _, kind := range parts {
				s.parts[kind] = &part{inline: p.HGet(ctx, callKey(id), kind), epoch: p.HGet(ctx, callKey(id), kind+"p")}
			}
			all[i] = s
		}
	})
	if err != nil {
		return nil, err
	}
	out := make([]found, len(ids))
	for i, s := range all {
		for kind, part := range s.parts { // one by one: they are large
			if epoch := part.epoch.Val(); epoch != "" {
				err := d.pipeline(ctx, func(p redis.Pipeliner) { part.large = p.Get(ctx, callKey(s.id)+":"+kind+":"+epoch) })
				if err != nil {
					return nil, err
				}
			}
		}
		out[i].rec, out[i].err = s.record()
		out[i].tries, _ = strconv.Atoi(s.tries.Val())
	}
	return out, nil
}

func (s *stored) record() (*Record, error) {
	if s.meta.Err() != nil {
		return nil, nil //nolint:nilnil // it is not there
	}
	m := &plannerv1.JournalCall{}
	if err := proto.Unmarshal([]byte(s.meta.Val()), m); err != nil {
		return nil, fault.DataLoss.New("BAD_JOURNAL", "the journal's record of call %s can't be read: %v", s.id, err)
	}
	r, err := fromJournal(m)
	if err != nil {
		return nil, fault.DataLoss.New("BAD_JOURNAL", "the journal's record of call %s can't be read: %v", s.id, err)
	}
	for kind, part := range s.parts {
		b, _ := part.inline.Bytes()
		if part.large != nil {
			if b, err = part.large.Bytes(); err != nil {
				return nil, nil //nolint:nilnil // it expired meanwhile
			}
		}
		switch kind {
		case "i":
			r.Input = b
		case "o":
			r.Output = b
		case "l":
			r.Log = b
		}
	}
	return r, nil
}

// page is a range of a sorted set, from its beginning, or from its end.
func (d *db) page(ctx context.Context, set string, from, n int64, newest bool) ([]skein.CallID, error) {
	var got *redis.StringSliceCmd
	err := d.pipeline(ctx, func(p redis.Pipeliner) {
		if newest {
			got = p.ZRevRange(ctx, keys+set, from, from+n-1)
		} else {
			got = p.ZRange(ctx, keys+set, from, from+n-1)
		}
	})
	if err != nil {
		return nil, err
	}
	return parseIDs(got.Val())
}

// due gives members whose time has come.
func (d *db) due(ctx context.Context, set string, now time.Time, n int) ([]skein.CallID, error) {
	var got *redis.StringSliceCmd
	err := d.pipeline(ctx, func(p redis.Pipeliner) {
		got = p.ZRangeByScore(ctx, keys+set, &redis.ZRangeBy{Min: "-inf", Max: strconv.FormatInt(now.UnixMilli(), 10), Count: int64(n)})
	})
	if err != nil {
		return nil, err
	}
	return parseIDs(got.Val())
}

// score is the place of a dead letter in its list.
type score struct {
	ms int64
	id string
}

// deadAfter gives dead letters, newest first, after one of them, or from the beginning.
func (d *db) deadAfter(ctx context.Context, after score, n int) ([]score, error) {
	most := "+inf"
	if after.id != "" {
		most = strconv.FormatInt(after.ms, 10)
	}
	var out []score
	for from := int64(0); len(out) < n; from += int64(n) {
		var got *redis.ZSliceCmd
		err := d.pipeline(ctx, func(p redis.Pipeliner) {
			got = p.ZRevRangeByScoreWithScores(ctx, keys+"dead", &redis.ZRangeBy{Min: "-inf", Max: most, Offset: from, Count: int64(n)})
		})
		if err != nil {
			return nil, err
		}
		for _, z := range got.Val() {
			id, _ := z.Member.(string)
			s := score{int64(z.Score), id}
			if after.id != "" && s.ms == after.ms && id >= after.id { // those of one millisecond are in the order of their ids
				continue
			}
			if len(out) < n {
				out = append(out, s)
			}
		}
		if len(got.Val()) < n {
			break
		}
	}
	return out, nil
}

func parseIDs(texts []string) ([]skein.CallID, error) {
	ids := make([]skein.CallID, 0, len(texts))
	for _, s := range texts {
		id, err := skein.ParseCallID(s)
		if err != nil {
			return nil, fault.DataLoss.New("BAD_JOURNAL", "the journal names a call %.40q", s)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (d *db) get(ctx context.Context, name string) (string, error) {
	var got *redis.StringCmd
	err := d.pipeline(ctx, func(p redis.Pipeliner) { got = p.Get(ctx, keys+name) })
	return got.Val(), err
}

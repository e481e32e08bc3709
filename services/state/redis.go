package state

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/services/state/internal/feed"
)

const (
	// chunkSize keeps commands short and chunks few: a value of 64 MiB has 256. Pieces of 64 KiB were measured too: as fast
	// both ways, and four times the keys for the script that replaces a large value.
	chunkSize = 256 << 10
	batch     = 4 // chunks that travel in one pipeline
	// inline is the most that travels through Lua, where bytes are slow: 1.3 ms per MiB, in which Redis serves nobody else.
	inline = 64 << 10

	answerTTL    = 10 * time.Minute
	tombstoneTTL = 10 * time.Minute // bounds how far Redis' clock may step back without a version repeating
	uploadTTL    = 10 * time.Minute // of the chunks of a streamed value before it is complete
	readerTTL    = time.Minute      // how long a replaced generation can still be read
	chunkTTL     = readerTTL + 5*time.Second

	lineEnd     = 2  // bytes that Redis ends a string with
	elementCost = 16 // bytes that an element counts beside its own
)

// db is the store's Redis: one server, a Sentinel group or a cluster.
type db struct {
	client  redis.UniversalClient
	cluster bool
	feed    *feed.Feed
	addr    string        // for messages; without credentials
	timeout time.Duration // of one round trip, with its retries

	volatile bool // values may be lost
	checking sync.Mutex
	verdict  atomic.Pointer[verdict]
}

// silent keeps go-redis from writing to stderr by itself: what goes wrong is in the errors it returns.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// open connects when first used. A URL with master_name= names Sentinels, one with addr= the nodes of a cluster.
func open(rawURL string, timeout time.Duration) (*db, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which may hold a password
		}
		return nil, fmt.Errorf("redis url: %w", err)
	}
	redis.SetLogger(silent{})
	d := &db{addr: u.Host, timeout: timeout}
	const retries = 1
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled} // else one more round trip per connection
	switch q := u.Query(); {
	case q.Has("master_name"):
		o, err := redis.ParseFailoverURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url of Sentinels: %w", err)
		}
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = retries, 1, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.DisableIdentity = true
		d.client = redis.NewFailoverClient(o)
	case q.Has("addr"):
		o, err := redis.ParseClusterURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url of a cluster: %w", err)
		}
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = retries, 1, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.MaintNotificationsConfig, o.DisableIdentity = quiet, true
		d.client, d.cluster = redis.NewClusterClient(o), true
	default:
		o, err := redis.ParseURL(rawURL)
		if err != nil {
			return nil, fmt.Errorf("redis url: %w", err)
		}
		o.MaxRetries, o.DialerRetries, o.ContextTimeoutEnabled = retries, 1, true
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout, o.PoolTimeout = timeout, timeout, timeout, timeout
		o.MaintNotificationsConfig, o.DisableIdentity = quiet, true
		d.client, d.addr = redis.NewClient(o), o.Addr
	}
	d.feed = feed.New(d.client)
	return d, nil
}

// script is Lua of ours. It uses only commands that every Redis since 6 and its stand-in miniredis have.
type script struct{ source, hash string }

func newScript(source string) script {
	s := redis.NewScript(source)
	return script{source, s.Hash()}
}

// once is a command that go-redis must not repeat by itself, because it may have run when its connection broke.
type once struct{ *redis.Cmd }

func (once) NoRetry() bool { return true }

// run evaluates a script; its first key decides the slot. Only a repeatable script is tried again after a lost connection.
func (d *db) run(ctx context.Context, s script, repeatable bool, keys []string, args ...any) (any, error) {
	if err := d.safe(ctx); err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	line := make([]any, 0, 3+len(keys)+len(args))
	line = append(line, "evalsha", s.hash, len(keys))
	for _, k := range keys {
		line = append(line, k)
	}
	line = append(line, args...)
	cmd := redis.NewCmd(bounded, line...)
	do := func() error {
		if repeatable {
			return d.client.Process(bounded, cmd)
		}
		return d.client.Process(bounded, once{cmd})
	}
	err := do()
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // nothing ran; EVAL makes Redis remember it
		line[0], line[1] = "eval", s.source
		cmd = redis.NewCmd(bounded, line...)
		err = do()
	}
	if err != nil {
		return nil, d.fault(ctx, err)
	}
	return cmd.Val(), nil
}

// pipeline sends commands in one round trip and fails with the first that failed.
func (d *db) pipeline(ctx context.Context, f func(redis.Pipeliner)) error {
	return d.piped(ctx, false, f)
}

// piped is pipeline. With again it is repeated once if the connection breaks, which go-redis itself does unless a command reads into
// memory of ours.
func (d *db) piped(ctx context.Context, again bool, f func(redis.Pipeliner)) error {
	if err := d.safe(ctx); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	do := func() error {
		_, err := d.client.Pipelined(bounded, func(p redis.Pipeliner) error { f(p); return nil })
		return err
	}
	err := do()
	if _, answered := errors.AsType[redis.Error](err); again && err != nil && !answered && bounded.Err() == nil {
		err = do()
	}
	if err != nil && !errors.Is(err, redis.Nil) { // nil is an absent key, and never an error to us
		return d.fault(ctx, err)
	}
	return nil
}

// fault says what a failed command means for the caller.
func (d *db) fault(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // the caller's own deadline, not ours
	}
	if at, ok := ctx.Deadline(); ok && !time.Now().Before(at) {
		return context.DeadlineExceeded // the connection noticed before the context did
	}
	text := err.Error()
	if _, ok := errors.AsType[redis.Error](err); ok {
		switch {
		case strings.Contains(text, "OOM command not allowed"):
			return fault.Exhausted.New("REDIS_FULL", "Redis at %s has no memory left for values", d.addr).
				WithHint("delete values, or raise maxmemory").WithRetry(time.Second)
		case strings.Contains(text, "READONLY "), strings.Contains(text, "NOREPLICAS "), strings.Contains(text, "MISCONF "):
			return fault.Unavailable.New("REDIS_READONLY", "Redis at %s accepts no writes: %.200s", d.addr, text).
				WithHint("point --redis-url at the primary, or see Redis' log").WithRetry(time.Second)
		case strings.HasPrefix(text, "LOADING "), strings.HasPrefix(text, "MASTERDOWN "), strings.HasPrefix(text, "CLUSTERDOWN "),
			strings.HasPrefix(text, "TRYAGAIN "), strings.HasPrefix(text, "BUSY "), strings.HasPrefix(text, "ERR max number of clients"):
			return fault.Unavailable.New("REDIS_DOWN", "Redis at %s can't answer yet: %.200s", d.addr, text).WithRetry(time.Second)
		case strings.HasPrefix(text, "NOAUTH "), strings.HasPrefix(text, "WRONGPASS "), strings.HasPrefix(text, "NOPERM "):
			return fault.Unavailable.New("REDIS_DENIED", "Redis at %s refuses this service", d.addr).
				WithHint("give user and password in --redis-url")
		}
		return fmt.Errorf("redis: %w", err)
	}
	_, isNet := errors.AsType[net.Error](err)
	if isNet || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, redis.ErrClosed) ||
		errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, context.DeadlineExceeded) || strings.HasPrefix(text, "redis: ") {
		return fault.Unavailable.New("REDIS_DOWN", "Redis at %s does not answer: %.200s", d.addr, text).
			WithHint("start it, or name another with --redis-url; a write without a request_id may have happened").WithRetry(time.Second)
	}
	return fmt.Errorf("redis: %w", err)
}

func (d *db) ping(ctx context.Context) error {
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	if err := d.client.Ping(bounded).Err(); err != nil {
		return d.fault(ctx, err)
	}
	return d.safe(ctx)
}

const checkEach = 10 * time.Second

// safe refuses a Redis that would lose values. It looks again every ten seconds, since set-ups change.
func (d *db) safe(ctx context.Context) error {
	if d.volatile {
		return nil
	}
	v := d.verdict.Load()
	if v != nil {
		if time.Since(v.at) < checkEach || !d.checking.TryLock() { // one looks again; nobody waits for that
			return v.err
		}
		defer d.checking.Unlock()
	}
	check := func(ctx context.Context, client *redis.Client) error { return d.durable(ctx, client) }
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	var err error
	switch client := d.client.(type) {
	case *redis.ClusterClient:
		err = client.ForEachMaster(bounded, check)
	case *redis.Client:
		err = check(bounded, client)
	}
	if e := fault.From(err); err != nil && e.Reason != "REDIS_VOLATILE" {
		return d.fault(ctx, err) // no verdict
	}
	d.verdict.Store(&verdict{time.Now(), err})
	return err
}

type verdict struct {
	at  time.Time
	err error
}

// durable asks one server. Servers that don't say are taken to be well set up.
func (d *db) durable(ctx context.Context, client *redis.Client) error {
	info, err := client.Info(ctx).Result()
	if err != nil {
		return err
	}
	for line := range strings.Lines(info) {
		switch name, value, _ := strings.Cut(strings.TrimSpace(line), ":"); {
		case name == "aof_enabled" && value == "0":
			return fault.Unavailable.New("REDIS_VOLATILE", "Redis at %s writes no append-only file: values since its last snapshot would be lost when it ends", d.addr).
				WithHint("set appendonly yes, or start the state service with --volatile if that may be")
		case name == "maxmemory_policy" && value != "noeviction":
			return fault.Unavailable.New("REDIS_VOLATILE", "Redis at %s may evict values: its maxmemory-policy is %s", d.addr, value).
				WithHint("set maxmemory-policy noeviction, or start the state service with --volatile if that may be")
		}
	}
	return nil
}

// change is what every change has beside its content.
type change struct {
	id, print string // of the request; both or none
	fence     Fence
}

// mutate runs a script that may create the value. Only creation touches the index, and in this order, since it is in
// another slot: add the entry, then commit. The script answers NEW when it would create and was given no incarnation.
// Each creation has an incarnation, a part of its entry, so removing the entry of an old life never hides a new one, and
// listing can tell an entry without a value from one with.
func (d *db) mutate(ctx context.Context, s script, k skein.StateKey, c change, args ...any) ([]string, error) {
	keys, token := []string{metaKey(k)}, ""
	if c.id != "" {
		keys = append(keys, keys[0]+":r:"+c.id)
	}
	if c.fence != (Fence{}) {
		locked := skein.StateKey{User: k.User, Key: c.fence.Key}
		if d.cluster && locked != k {
			return nil, fault.Unsupported.New("FENCE_ELSEWHERE", "in a Redis cluster only the lock of the changed value itself can be its fence")
		}
		keys, token = append(keys, lockKeys(locked)...), strconv.FormatInt(c.fence.Token, 10)
	}
	incarnation := ""
	for {
		raw, err := d.run(ctx, s, c.id != "", keys, append([]any{c.print, incarnation, token}, args...)...)
		if err != nil {
			return nil, err // an entry just added stays: the script may have run. Listing copes.
		}
		text, _ := raw.(string)
		answer := strings.Fields(text)
		if len(answer) == 0 {
			return nil, fmt.Errorf("redis: script answered %v", raw)
		}
		if answer[0] == "REUSED" {
			return nil, fault.Exists.New("REQUEST_ID_REUSED", "the request_id was used for another change of %s", k).
				WithHint("give every change an id of its own")
		}
		if answer[0] == "NEW" && incarnation == "" {
			incarnation = strconv.FormatInt(time.Now().Unix(), 16) + "-" + randomHex()
			if err := d.index(ctx, k, incarnation, ""); err != nil {
				return nil, err
			}
			continue
		}
		if incarnation != "" && answer[len(answer)-1] != incarnation { // refused, or somebody else created it
			_ = d.index(ctx, k, "", incarnation)
		}
		switch answer[0] {
		case "FENCED":
			return nil, fault.Conflict.New("FENCED", "the lock with token %s is not held any more: nothing was changed", token).
				WithHint("take the lock again, read the value again")
		case "CORRUPT":
			return nil, corrupt(k, answer[1])
		}
		return answer, nil
	}
}

// index adds or removes the entry of an incarnation.
func (d *db) index(ctx context.Context, k skein.StateKey, add, remove string) error {
	return d.pipeline(ctx, func(p redis.Pipeliner) {
		if add != "" {
			p.ZAdd(ctx, indexKey(k.User), redis.Z{Member: k.Key + "\x00" + add})
		}
		if remove != "" {
			p.ZRem(ctx, indexKey(k.User), k.Key+"\x00"+remove)
		}
	})
}

// stage writes bytes of a generation that is not visible yet, cut at the chunks they would touch at offset. They vanish by
// themselves if it never becomes visible.
func (d *db) stage(ctx context.Context, k skein.StateKey, gen string, offset int64, data []byte) error {
	return d.pipeline(ctx, func(p redis.Pipeliner) {
		for len(data) > 0 {
			n := min(int64(len(data)), chunkSize-offset%chunkSize)
			p.Set(ctx, chunkKey(k, gen, offset/chunkSize), data[:n], uploadTTL)
			data, offset = data[n:], offset+n
		}
	})
}

// unstage drops the bytes from..to of a generation that is not visible, as far as that is possible: they would vanish anyway.
func (d *db) unstage(ctx context.Context, k skein.StateKey, gen string, from, to int64) {
	if from == to {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.timeout)
	defer cancel()
	const most = 256 * chunkSize
	for ; from < to; from += most {
		err := d.pipeline(ctx, func(p redis.Pipeliner) {
			for i := from / chunkSize; i*chunkSize < min(from+most, to); i++ {
				p.Unlink(ctx, chunkKey(k, gen, i))
			}
		})
		if err != nil {
			return
		}
	}
}

// head is what a read needs to know of a value, and the version all its bytes must have.
type head struct {
	version, size, updated int64
	gen, incarnation       string
	based, ends, elements  int64
}

var headFields = []string{"v", "n", "t", "g", "x", "bn", "e", "lb"}

func parseHead(fields []any) (h head, ok bool) {
	text := func(i int) string { s, _ := fields[i].(string); return s }
	number := func(i int) int64 { n, _ := strconv.ParseInt(text(i), 10, 64); return n }
	if len(fields) < len(headFields) || text(1) == "" {
		return head{}, false
	}
	return head{number(0), number(1), number(2), text(3), text(4), number(5), number(6), number(7)}, true
}

// first reads the head of a value and, if it has no more than inline bytes, a range of it; else data is nil. ok is false if
// there is no value. A length of 0 asks for all to the end.
func (d *db) first(ctx context.Context, k skein.StateKey, offset, length int64) (h head, data []byte, ok bool, err error) {
	raw, err := d.run(ctx, readScript, true, []string{metaKey(k)}, offset, length)
	if err != nil {
		return head{}, nil, false, err
	}
	fields, _ := raw.([]any)
	if len(fields) == 2 {
		return head{}, nil, false, corrupt(k, fields[1])
	}
	if h, ok = parseHead(fields); !ok {
		return head{}, nil, false, nil
	}
	n := span(h.size, offset, length)
	if n > inline {
		return h, nil, true, nil
	}
	data = make([]byte, n) // zeros where a chunk is short
	at := int64(0)
	for _, piece := range fields[len(headFields):] {
		s, _ := piece.(string)
		copy(data[at:], s)
		at += chunkSize - (offset+at)%chunkSize
	}
	return h, data, true, nil
}

// chunks reads bytes of the generation that h tells of into room, each chunk as it was at some time from when h was read on, until
// when what is returned was. pieces is nil if that was too late: h must be read again.
func (d *db) chunks(ctx context.Context, k skein.StateKey, h head, all []stretch, room *buffer) (pieces [][]byte, now head, err error) {
	got := make([]*redis.ZeroCopyStringCmd, len(all))
	var told *told
	err = d.piped(ctx, true, func(p redis.Pipeliner) {
		for i, s := range all {
			first := s.from % chunkSize
			got[i] = redis.NewZeroCopyStringCmd(ctx, room.line(i, s.to-s.from), "getrange", chunkKey(k, h.gen, s.from/chunkSize), first, first+s.to-s.from-1)
			_ = p.Process(ctx, got[i])
		}
		if !d.cluster { // where a redirection could bring it before the bytes
			told = d.ask(ctx, p, k, h)
		}
	})
	if err != nil {
		return nil, head{}, err
	}
	var short []int
	for i, c := range got {
		pieces = append(pieces, c.Bytes())
		if int64(c.Val()) < all[i].to-all[i].from {
			short = append(short, i)
		}
	}
	var marks *redis.SliceCmd
	if len(short) > 0 || d.cluster {
		if len(short) > 0 {
			err = d.pipeline(ctx, func(p redis.Pipeliner) {
				fields := make([]string, len(short))
				for i, at := range short {
					fields[i] = strconv.FormatInt(all[at].from/chunkSize, 10)
				}
				marks = p.HMGet(ctx, metaKey(k)+":w:"+h.gen, fields...)
			})
		}
		if err == nil {
			err = d.pipeline(ctx, func(p redis.Pipeliner) { told = d.ask(ctx, p, k, h) })
		}
		if err != nil {
			return nil, head{}, err
		}
	}
	now = told.head(h)
	if now.version == 0 || len(short) > 0 && now.version != h.version {
		return nil, now, nil
	}
	for i, at := range short { // the version is the same, so bytes and marks are of one moment
		s, mark := all[at], marks.Val()[i]
		length := min(max(now.based-s.from/chunkSize*chunkSize, 0), chunkSize)
		if text, ok := mark.(string); ok {
			_, text, _ = strings.Cut(text, " ")
			length, _ = strconv.ParseInt(text, 10, 64)
		}
		have := int64(len(pieces[at]))
		if s.from%chunkSize+have < min(length, s.from%chunkSize+s.to-s.from) {
			return nil, head{}, corrupt(k, s.from/chunkSize)
		}
		pieces[at] = pieces[at][:s.to-s.from]
		clear(pieces[at][have:])
	}
	return pieces, now, nil
}

// told is what is known of a generation, once the pipeline that asks is through.
type told struct {
	now   *redis.SliceCmd
	final *redis.StringCmd
}

// ask asks what is known of h's generation. If the version is still h's, then it was all the time since h was read. A transaction
// would prove the same, but a Redis that is full refuses to queue commands.
func (d *db) ask(ctx context.Context, p redis.Pipeliner, k skein.StateKey, h head) *told {
	return &told{p.HMGet(ctx, metaKey(k), headFields...), p.Get(ctx, metaKey(k)+":o:"+h.gen)}
}

// head is the value's if it still has h's generation, or else what that had as its last version; version 0 if it is gone.
func (t *told) head(h head) head {
	if current, exists := parseHead(t.now.Val()); exists && current.gen == h.gen {
		return current
	}
	version, based, _ := strings.Cut(t.final.Val(), " ")
	h.version, _ = strconv.ParseInt(version, 10, 64)
	h.based, _ = strconv.ParseInt(based, 10, 64)
	return h
}

// stat reads heads of many values; an absent one has version 0.
func (d *db) stat(ctx context.Context, keys []skein.StateKey) ([]head, error) {
	cmds := make([]*redis.SliceCmd, len(keys))
	err := d.pipeline(ctx, func(p redis.Pipeliner) {
		for i, k := range keys {
			cmds[i] = p.HMGet(ctx, metaKey(k), headFields...)
		}
	})
	if err != nil {
		return nil, err
	}
	heads := make([]head, len(keys))
	for i, c := range cmds {
		heads[i], _ = parseHead(c.Val())
	}
	return heads, nil
}

// entries lists at most n index entries with keys that begin with prefix and follow the entry after, in byte order. A key
// can be there twice, with different incarnations. Since no key holds a NUL, entries are in the order of their keys.
func (d *db) entries(ctx context.Context, u skein.User, prefix, after string, n int) ([]entry, error) {
	from, to := "["+prefix, "+"
	for i := len(prefix) - 1; i >= 0; i-- { // the least string above all that begin with prefix
		if prefix[i] < 0xff {
			to = "(" + prefix[:i] + string([]byte{prefix[i] + 1})
			break
		}
	}
	if after >= prefix && after != "" {
		from = "(" + after
	}
	bounded, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	members, err := d.client.ZRangeByLex(bounded, indexKey(u), &redis.ZRangeBy{Min: from, Max: to, Count: int64(n)}).Result()
	if err != nil {
		return nil, d.fault(ctx, err)
	}
	all := make([]entry, 0, len(members))
	for _, m := range members {
		key, incarnation, _ := strings.Cut(m, "\x00")
		all = append(all, entry{skein.StateKey{User: u, Key: key}, incarnation})
	}
	return all, nil
}

func (d *db) close() error { return errors.Join(d.feed.Close(), d.client.Close()) }

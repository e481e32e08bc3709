package planner

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"google.golang.org/protobuf/proto"

	"skein.dev"
	"skein.dev/platform/fault"
	"skein.dev/platform/redistest"
)

// seat is a planner with a journal and without a network. Functions of user "none" do not exist.
type seat struct {
	*Planner
	t     testing.TB
	db    *db
	stop  context.CancelFunc
	ended sync.WaitGroup
}

func sit(t testing.TB, url string, change ...func(*Limits)) *seat {
	t.Helper()
	return sitAt(t, "127.0.0.1:1", url, change...)
}

func sitAt(t testing.TB, listen, url string, change ...func(*Limits)) *seat {
	t.Helper()
	limits := DefaultLimits()
	limits.Grace = 100 * time.Millisecond
	for _, c := range change {
		c(&limits)
	}
	d, err := openDB(url, 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	s := &seat{t: t, db: d, stop: stop, Planner: New(limits, slog.New(slog.DiscardHandler), func(_ context.Context, f skein.Function) (Target, error) {
		return Target{Version: skein.Version{Function: f, Number: 1}}, nil
	})}
	s.newCandidate(d, listen, false)
	s.ended.Go(func() { _ = s.lead(ctx) })
	s.ended.Go(func() { _ = s.Tick(ctx) })
	t.Cleanup(s.crash)
	return s
}

// crash ends the planner as kill -9 would, as far as Redis can see.
func (s *seat) crash() {
	_ = s.db.close()
	s.stop()
	s.ended.Wait()
}

func (s *seat) eventually(what string, ok func() bool) {
	s.t.Helper()
	for until := time.Now().Add(patience); !ok(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(until) {
			s.t.Fatalf("not in %s: %s", patience, what)
		}
	}
}

func (s *seat) leads() *seat {
	s.t.Helper()
	s.eventually("it leads", func() bool { return s.standing() == nil })
	return s
}

func (s *seat) submit(q Request) *Record {
	s.t.Helper()
	if q.Function.Name == "" {
		q.Function = skein.Function{User: "ann", Name: "f"}
	}
	q.Async = true
	r, err := s.Submit(s.t.Context(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// attach gives the stream of an executor.
func (s *seat) attach(name string, slots int, kept ...Kept) *stream {
	s.t.Helper()
	st := newStream()
	if err := s.enter(st, Executor{ID: name, Slots: slots}, kept); err != nil {
		s.t.Fatal(err)
	}
	return st
}

// answer ends all that was assigned to an executor, as much as there is; outputs are the inputs.
func (s *seat) answer(name string, st *stream) (n int) {
	st.mu.Lock()
	calls := st.calls
	st.calls = nil
	st.mu.Unlock()
	for _, a := range calls {
		s.apply(func(now time.Time) []Command {
			return s.core.Outcome(now, name, skein.CallID(a.GetCallId()), a.GetAttempt(), skein.Result{State: skein.Succeeded, Output: a.GetInput(), Log: []byte("log")})
		})
	}
	return len(calls)
}

func (s *seat) find(id skein.CallID) *Record {
	s.t.Helper()
	r, err := s.Find(s.t.Context(), id)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// keysBut gives the keys in Redis without those that are always there.
func keysBut(t *testing.T, d *db, but ...string) (left []string) {
	t.Helper()
	all, err := d.client.Keys(t.Context(), "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range all {
		if d.client.Exists(t.Context(), k).Val() == 1 && d.client.HLen(t.Context(), k).Val() == 2 && d.client.PTTL(t.Context(), k).Val() > 0 {
			continue // what keeps a late command from bringing a call back
		}
		if !slices.Contains(append(but, "lease", "epoch"), k[len(keys):]) {
			left = append(left, k)
		}
	}
	return left
}

// Nothing that was acknowledged is lost by kill -9 of the planner and of Redis, and what ended stays as it was.
func TestJournalSurvives(t *testing.T) {
	r := redistest.Start(t)
	s := sit(t, r.URL()).leads()
	large := bytes.Repeat([]byte("0123456789"), 300_000)
	var ids []skein.CallID
	for i := range 200 {
		q := Request{Input: fmt.Append(nil, "input ", i), Args: []string{"a", "ü"}, MaxAttempts: 5, Webhook: "https://example.org/x"}
		if i%50 == 3 {
			q.Input = large
		}
		ids = append(ids, s.submit(q).ID)
	}
	x := s.attach("x", 4)
	s.eventually("some have ended", func() bool { s.answer("x", x); return s.find(ids[9]).State == skein.Succeeded })
	var running []Kept
	x.mu.Lock()
	for _, a := range x.calls {
		running = append(running, Kept{skein.CallID(a.GetCallId()), a.GetAttempt()})
	}
	x.mu.Unlock()
	before := s.find(ids[3])
	s.crash()
	r.Kill()
	r.Start(t)

	s = sit(t, r.URL()).leads()
	if got := s.find(ids[3]); got.State != skein.Succeeded || !bytes.Equal(got.Output, large) || string(got.Log) != "log" || got.Attempt != 1 ||
		!got.Ended.Equal(before.Ended) || got.Executor != "x" || got.InputSize != int64(len(large)) || got.Webhook != before.Webhook {
		t.Errorf("%.300v", got)
	}
	x = s.attach("x", 4, running...) // it went on with them
	for _, k := range running {
		if got := s.find(k.ID); got.State != skein.Running || got.Executor != "x" {
			t.Errorf("it was not adopted: %v %s", got.State, got.Executor)
		}
		s.apply(func(now time.Time) []Command {
			return s.core.Outcome(now, "x", k.ID, k.Attempt, skein.Result{State: skein.Succeeded, Output: []byte("kept")})
		})
	}
	for i, id := range ids {
		s.eventually("call "+fmt.Sprint(i)+" ends", func() bool { s.answer("x", x); return s.find(id).State.Terminal() })
		got := s.find(id)
		want := fmt.Sprint("input ", i)
		if i%50 == 3 {
			want = string(large)
		}
		if slices.ContainsFunc(running, func(k Kept) bool { return k.ID == id }) {
			want = "kept"
		}
		if got.State != skein.Succeeded || string(got.Output) != want {
			t.Errorf("call %d: %v %.50q", i, got.State, got.Output)
		}
	}
	s.crash()
	s = sit(t, r.URL()).leads()
	for i, id := range ids {
		if got := s.find(id); got.State != skein.Succeeded || len(got.Output) == 0 || len(got.Args) != 2 {
			t.Errorf("call %d after another restart: %v", i, got.State)
		}
	}
	if calls, _ := s.List("", 0, 1000); len(calls) != len(ids) {
		t.Errorf("%d calls are listed", len(calls))
	}
}

func TestRequestIDs(t *testing.T) {
	url := redistest.Start(t).URL()
	s := sit(t, url, func(l *Limits) { l.HistoryCalls = 0 }).leads()
	q := Request{Function: skein.Function{User: "ann", Name: "f"}, Input: []byte("in"), RequestID: "r:1", Async: true}
	hundred := func(sync100 bool) skein.CallID {
		t.Helper()
		var wg sync.WaitGroup
		ids := make([]skein.CallID, 100)
		for i := range ids {
			wg.Go(func() {
				q := q
				var r *Record
				var err error
				if sync100 {
					q.Async = false
					r, err = s.Invoke(t.Context(), q)
					if err == nil && string(r.Output) != "in" {
						t.Errorf("output %q", r.Output)
					}
				} else {
					r, err = s.Submit(t.Context(), q)
				}
				if err != nil {
					t.Error(err)
					return
				}
				ids[i] = r.ID
			})
		}
		wg.Wait()
		for _, id := range ids {
			if id != ids[0] {
				t.Fatalf("several calls: %v", ids)
			}
		}
		return ids[0]
	}
	id := hundred(false)
	x := s.attach("x", 100)
	s.eventually("it ends", func() bool { s.answer("x", x); return s.find(id).State == skein.Succeeded })
	for range 3 { // it is forgotten in memory; then after restarts
		if again := hundred(true); again != id {
			t.Errorf("executed again as %s", again)
		}
		other := q
		other.Input = []byte("other")
		_, err := s.Submit(t.Context(), other)
		wantFault(t, err, fault.Exists, "REQUEST_ID_REUSED")
		s.crash()
		s = sit(t, url).leads()
	}
	// A key can't be made to look like another's.
	q.Function.Name, q.RequestID = "f:r", "1"
	if r := s.submit(q); r.ID == id {
		t.Error("two functions share a request id")
	}
}

// A call of the journal keeps the version and the configuration that it was accepted with.
func TestJournalVersion(t *testing.T) {
	f := skein.Function{User: "ann", Name: "f"}
	for _, config := range []skein.Digest{{}, skein.DigestOf([]byte("config"))} {
		want := skein.Version{Function: f, Number: 7, Digest: skein.DigestOf(nil), Config: config}
		r, err := fromJournal(toJournal(&Record{Call: skein.Call{ID: skein.NewCallID(), Function: f, Version: want}, State: skein.Queued}))
		if err != nil || r.Version != want {
			t.Errorf("%+v, %v", r, err)
		}
		if got := len(toAssignment(r).GetConfigDigest()); got != 0 && config.IsZero() || got != len(config) && !config.IsZero() {
			t.Errorf("an assignment has %d bytes for %s", got, config)
		}
	}
}

// A command that was given up lies in a connection still, and may be carried out after those that followed.
func TestLateCommands(t *testing.T) {
	s := sit(t, redistest.Start(t).URL()).leads()
	j, _ := s.leader()
	large := make([]byte, 100<<10)
	write := func(kind opKind, number int64, r *Record) string {
		t.Helper()
		meta, err := proto.Marshal(toJournal(r))
		if err != nil {
			t.Fatal(err)
		}
		o := &op{kind: kind, rec: *r, meta: meta, number: number, eval: true}
		j.db.write(t.Context(), j.lease, []*op{o})
		if o.err != nil {
			t.Fatal(o.err)
		}
		return o.answer
	}
	now := time.Now()
	call := skein.Call{ID: skein.NewCallID(), Function: skein.Function{User: "ann", Name: "f"}, Input: large, Attempt: 1}
	live := &Record{Call: call, State: skein.Queued, Created: now, Options: Options{RequestID: "r"}}
	over := &Record{Call: call, State: skein.Failed, Ended: now, Expires: now.Add(time.Hour), Dead: true, Result: skein.Result{Output: large}}
	var got []string
	for i, o := range []struct {
		kind   opKind
		number int64
		r      *Record
	}{
		{acceptOp, 1, live},
		{acceptOp, 1, live},
		{finishOp, 3, over},
		{updateOp, 2, live},
		{acceptOp, 1, live},
		{finishOp, 3, over},
		{removeOp, 4, live},
		{finishOp, 3, over},
		{acceptOp, 1, live},
	} {
		got = append(got, write(o.kind, o.number, o.r))
		if i == 0 {
			if ttl := s.db.client.PTTL(t.Context(), callKey(call.ID)+":i:1").Val(); ttl > 0 {
				t.Errorf("the input expires in %s", ttl)
			}
		}
		if i == 5 {
			if letter, err := s.deadLetter(t.Context(), call.ID); err != nil || len(letter.Input) != len(large) {
				t.Errorf("%v", err)
			}
		}
	}
	if want := []string{"OK", "OK", "OK", "LATE", "LATE", "OK", "OK", "LATE", "LATE"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if n := s.db.client.ZCard(t.Context(), keys+"live").Val() + s.db.client.ZCard(t.Context(), keys+"dead").Val(); n != 0 {
		t.Errorf("%d are back", n)
	}
}

// A leader whose Redis is away refuses what it can't keep soon, does the rest, and goes on when Redis is back.
func TestRedisAway(t *testing.T) {
	r := redistest.Start(t)
	s := sit(t, r.URL()).leads()
	x := s.attach("x", 100)
	f := skein.Function{User: "ann", Name: "f"}
	sync := func() {
		t.Helper()
		done := make(chan error, 1)
		go func() { _, err := s.Invoke(t.Context(), Request{Function: f}); done <- err }()
		s.eventually("a call ends", func() bool { s.answer("x", x); return len(done) == 1 })
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	runs := s.submit(Request{Input: []byte("runs")}).ID
	for name, away := range map[string]struct{ down, up func() }{
		"killed":  {r.Kill, func() { r.Start(t) }},
		"hanging": {func() { r.Pause(t) }, func() { r.Resume(t) }},
	} {
		t.Run(name, func(t *testing.T) {
			away.down()
			for i := range 4 {
				began := time.Now()
				_, err := s.Submit(t.Context(), Request{Function: f, Async: true, RequestID: fmt.Sprint(name, i)})
				wantFault(t, err, fault.Unavailable, "JOURNAL_DOWN")
				if took := time.Since(began); took > s.patience()+10*time.Second {
					t.Errorf("it took %s", took)
				}
			}
			sync()
			if got := s.find(runs); got.State.Terminal() {
				t.Error("an end is told that is not in the journal")
			}
			away.up()
			s.eventually("calls are accepted again", func() bool {
				_, err := s.Submit(t.Context(), Request{Function: f, Async: true, RequestID: name + "again", Timeout: time.Hour})
				return err == nil
			})
			s.eventually("what ended meanwhile is told", func() bool { s.answer("x", x); return s.find(runs).State == skein.Succeeded })
			s.eventually("nothing else lives", func() bool {
				n, err := s.db.client.ZCard(t.Context(), keys+"live").Result()
				s.answer("x", x)
				return err == nil && n == 0
			})
			runs = s.submit(Request{Input: []byte("runs")}).ID
		})
	}
	if err := s.standing(); err != nil {
		t.Error(err)
	}
	for i := range 4 { // what was refused was not accepted
		for _, name := range []string{"killed", "hanging"} {
			if n := s.db.client.Exists(t.Context(), keys+"req:5:ann/f:"+fmt.Sprint(name, i)).Val(); n != 0 {
				t.Errorf("%s %d is there", name, i)
			}
		}
	}
}

// While ends do not get into the journal they fill the memory, so no more of its calls begin, and the rest goes on.
func TestUnsavedEndsAreBounded(t *testing.T) {
	r := redistest.Start(t)
	s := sit(t, r.URL()).leads()
	ids := make([]skein.CallID, 60)
	for i := range ids {
		ids[i] = s.submit(Request{}).ID
	}
	x := s.attach("x", 1)
	r.Kill()
	output := make([]byte, 4<<20-64<<10)
	end := func(id []byte, attempt int32) {
		s.apply(func(now time.Time) []Command {
			return s.core.Outcome(now, "x", skein.CallID(id), attempt, skein.Result{State: skein.Succeeded, Output: output})
		})
	}
	ended := 0
	for {
		x.mu.Lock()
		calls := x.calls
		x.calls = nil
		x.mu.Unlock()
		if len(calls) == 0 {
			break
		}
		for _, a := range calls {
			ended++
			end(a.GetCallId(), a.GetAttempt())
		}
	}
	if most := int(DefaultLimits().HistoryBytes)/len(output) + 2; ended < 10 || ended > most {
		t.Errorf("%d calls ended, at most %d should begin", ended, most)
	}
	done := make(chan error, 1)
	go func() {
		_, err := s.Invoke(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}})
		done <- err
	}()
	s.eventually("another call ends", func() bool { s.answer("x", x); return len(done) == 1 })
	r.Start(t)
	for _, id := range ids {
		s.eventually("all end", func() bool { s.answer("x", x); return s.find(id).State == skein.Succeeded })
	}
}

func BenchmarkAccept(b *testing.B) {
	r := redistest.Start(b, "--appendfsync", "everysec")
	s := sit(b, r.URL(), func(l *Limits) { l.QueueCalls = 1 << 30 }).leads()
	q := Request{Function: skein.Function{User: "ann", Name: "f"}, Input: make([]byte, 100), Async: true}
	b.SetParallelism(100)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Submit(b.Context(), q); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func TestResultsExpire(t *testing.T) {
	url := redistest.Start(t).URL()
	s := sit(t, url).leads()
	x := s.attach("x", 100)
	large := make([]byte, 100<<10)
	id := s.submit(Request{Input: large, ResultAge: 200 * time.Millisecond, RequestID: "r"}).ID
	s.eventually("it has ended and is gone", func() bool {
		s.answer("x", x)
		_, err := s.Find(t.Context(), id)
		return errors.Is(err, fault.NotFound)
	})
	s.eventually("nothing is left", func() bool { return len(keysBut(t, s.db, "ended")) == 0 })
	if again := s.submit(Request{Input: large, RequestID: "r"}); again.ID == id {
		t.Error("its request id is known")
	}
}

func TestDeadLettersAndHooks(t *testing.T) {
	url := redistest.Start(t).URL()
	s := sit(t, url).leads()
	x := s.attach("x", 100)
	var ids []skein.CallID
	large := bytes.Repeat([]byte("x"), 100<<10)
	for i := range 7 {
		user := skein.User([]string{"ann", "bob"}[i%2])
		ids = append(ids, s.submit(Request{Function: skein.Function{User: user, Name: "f"}, Input: large, Args: []string{"a"}, MaxAttempts: 1, Webhook: "http://h/", RequestID: "r"[:i%2]}).ID)
		s.eventually("it is dead", func() bool {
			x.mu.Lock()
			calls := x.calls
			x.calls = nil
			x.mu.Unlock()
			for _, a := range calls {
				s.apply(func(now time.Time) []Command {
					return s.core.Outcome(now, "x", skein.CallID(a.GetCallId()), a.GetAttempt(), skein.Result{State: skein.Failed, Reason: "STORE_DOWN", Output: []byte("out")})
				})
			}
			return s.find(ids[i]).State == skein.Failed
		})
		if i == 1 {
			break
		}
	}
	for range 2 {
		var got []skein.CallID
		for after := ""; ; {
			letters, next, err := s.deadLetters(t.Context(), "", after, 1)
			if err != nil || len(letters) > 1 {
				t.Fatal(letters, err)
			}
			for _, l := range letters {
				got = append(got, l.ID)
				if len(l.Attempts) != 1 || l.Attempts[0].Reason != "STORE_DOWN" || !l.Dead || len(l.Input) != 0 {
					t.Errorf("%+v", l)
				}
			}
			if after = next; after == "" {
				break
			}
		}
		if len(got) != 2 || got[0] != ids[1] || got[1] != ids[0] {
			t.Errorf("%v, want %v, newest first", got, ids)
		}
		if l, next, err := s.deadLetters(t.Context(), "bob", "", 10); err != nil || len(l) != 1 || next != "" {
			t.Errorf("%v %q %v", l, next, err)
		}
		hooks, err := s.dueHooks(t.Context(), time.Now(), 10)
		if err != nil || len(hooks) != 2 || hooks[0].URL != "http://h/" {
			t.Errorf("%v %v", hooks, err)
		}
		s.crash()
		s = sit(t, url).leads()
	}
	letter, err := s.deadLetter(t.Context(), ids[0])
	if err != nil || !bytes.Equal(letter.Input, large) || len(letter.Args) != 1 {
		t.Errorf("%v %v", letter.ID, err)
	}
	for i, id := range ids {
		if err := s.putHook(t.Context(), id, 3, time.Now().Add(-time.Duration(i)*time.Second)); err != nil {
			t.Error(err)
		}
	}
	hooks, err := s.dueHooks(t.Context(), time.Now(), 1)
	if err != nil || len(hooks) != 1 || hooks[0].ID != ids[1] || hooks[0].Tries != 3 {
		t.Errorf("%v %v", hooks, err)
	}
	if err := s.putHook(t.Context(), ids[1], 0, time.Time{}); err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if err := s.removeDead(t.Context(), id); err != nil {
			t.Error(err)
		}
		wantFault(t, s.removeDead(t.Context(), id), fault.NotFound, "NO_DEAD_LETTER")
		_, err := s.Find(t.Context(), id)
		wantFault(t, err, fault.NotFound, "NO_CALL")
	}
	if left := keysBut(t, s.db); len(left) != 0 {
		t.Errorf("left behind: %q", left)
	}
	if _, _, err := s.deadLetters(t.Context(), "", "x", 1); fault.From(err).Reason != "BAD_PAGE_TOKEN" {
		t.Error(err)
	}
}

// A Redis that would lose calls is refused, unless one asks for it.
func TestVolatileRedis(t *testing.T) {
	for _, args := range [][]string{{"--appendonly", "no"}, {"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"}} {
		s := sit(t, redistest.Start(t, args...).URL())
		s.eventually("it says why", func() bool { return fault.From(s.standing()).Reason == "JOURNAL_VOLATILE" })
	}
}

// A Redis that has no memory left refuses calls, and keeps what it has.
func TestRedisFull(t *testing.T) {
	r := redistest.Start(t, "--maxmemory", "4mb", "--maxmemory-policy", "noeviction")
	s := sit(t, r.URL()).leads()
	var accepted []skein.CallID
	for range 100 {
		rec, err := s.Submit(t.Context(), Request{Function: skein.Function{User: "ann", Name: "f"}, Async: true, Input: make([]byte, 200<<10)})
		if err != nil {
			wantFault(t, err, fault.Exhausted, "JOURNAL_FULL")
			break
		}
		accepted = append(accepted, rec.ID)
	}
	if len(accepted) == 0 || len(accepted) == 100 {
		t.Fatalf("%d were accepted", len(accepted))
	}
	x := s.attach("x", 1000)
	for _, id := range accepted {
		s.eventually("it ends", func() bool { s.answer("x", x); return s.find(id).State == skein.Succeeded || s.journal.pending() > 0 })
	}
}

// Scripts find one another's keys in a cluster: all are in one slot.
func TestJournalInCluster(t *testing.T) {
	r := redistest.Start(t, "--cluster-enabled", "yes")
	c := redis.NewClient(&redis.Options{Addr: r.Addr})
	defer func() { _ = c.Close() }()
	if err := c.Do(t.Context(), "CLUSTER", "ADDSLOTSRANGE", 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	s := sit(t, r.URL()+"?addr="+r.Addr).leads()
	x := s.attach("x", 10)
	id := s.submit(Request{Input: make([]byte, 100<<10), RequestID: "r", Webhook: "http://h/"}).ID
	s.eventually("it ends", func() bool { s.answer("x", x); return s.find(id).State == skein.Succeeded })
	if _, err := s.dueHooks(t.Context(), time.Now(), 10); err != nil {
		t.Error(err)
	}
}

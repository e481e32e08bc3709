package state

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"google.golang.org/protobuf/types/known/durationpb"

	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	statev1 "skein.dev/proto/skein/state/v1"
)

func client(t *testing.T) statev1.StateServiceClient {
	t.Helper()
	conn, err := service.Connect(serve(t, "redis://"+miniredis.RunT(t).Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return statev1.NewStateServiceClient(conn)
}

func TestPatchValue(t *testing.T) {
	c, ctx, k := client(t), t.Context(), []byte("k\xff")
	send := func(id string, all ...at) (*statev1.PatchValueResponse, error) {
		p := patchOf(all...)
		return c.PatchValue(ctx, &statev1.PatchValueRequest{User: "ann", Key: k, RequestId: id, Runs: p.Runs, Data: p.Data})
	}
	id := strings.Repeat("i", maxRequestID)
	two := []at{{0, []byte("abc")}, {300_000, []byte("far")}}
	resp, err := send(id, two...)
	first := resp.GetInfo()
	if err != nil || first.GetSize() != 300_003 || resp.GetPreviousVersion() != 0 {
		t.Fatal(resp, err)
	}
	if again, err := send(id, two...); err != nil || again.GetInfo().GetVersion() != first.GetVersion() || again.GetPreviousVersion() != 0 {
		t.Error(again, err)
	}
	_, err = send(id, two[0], at{300_001, []byte("far")})
	reason(t, "other ranges", err, fault.Exists, "REQUEST_ID_REUSED")
	_, err = send(id+"i", two...)
	reason(t, "long id", err, fault.Invalid, "BAD_REQUEST_ID")
	_, err = send("")
	reason(t, "nothing", err, fault.Invalid, "BAD_RUNS")
	// Many bytes, and a long range.
	want := bytes.Repeat([]byte("skein"), maxPatchBytes/5)
	if _, err = send("", at{400_000, want}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: k, Offset: 400_000}); err != nil || !bytes.Equal(got.GetData(), want) {
		t.Error(len(got.GetData()), err)
	}
	_, err = send("", at{0, make([]byte, maxPatchBytes+1)})
	reason(t, "large", err, fault.TooLarge, "TOO_LARGE")
	if _, err := send("", at{1, []byte("XY")}, at{11, []byte("XY")}); err != nil {
		t.Fatal(err)
	}
	if r, err := c.ResizeValue(ctx, &statev1.ResizeValueRequest{User: "ann", Key: k, Size: 300_013}); err != nil {
		t.Fatal(err)
	} else {
		first = r.GetInfo()
	}
	got, err := c.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: k, Length: 13})
	if err != nil || string(got.GetData()) != "aXY\x00\x00\x00\x00\x00\x00\x00\x00XY" {
		t.Errorf("%q %v", got.GetData(), err)
	}

	changes := func(since int64) (infos []*statev1.ValueInfo, bytes int) {
		t.Helper()
		stream, err := c.ReadChanges(ctx, &statev1.ReadChangesRequest{User: "ann", Key: k, SinceVersion: since})
		for err == nil {
			var m *statev1.ReadChangesResponse
			if m, err = stream.Recv(); err == nil {
				bytes += len(m.GetData())
				if m.GetInfo() != nil {
					infos = append(infos, m.GetInfo())
				}
			}
		}
		if !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		return infos, bytes
	}
	if infos, n := changes(0); n != 300_013 || len(infos) != 2 || infos[0].GetVersion() != infos[1].GetVersion() {
		t.Error(n, infos)
	}
	if infos, n := changes(first.GetVersion()); n != 0 || len(infos) != 1 {
		t.Error(n, infos)
	}
	if r, err := c.ResizeValue(ctx, &statev1.ResizeValueRequest{User: "ann", Key: k, Size: 2}); err != nil || r.GetInfo().GetSize() != 2 {
		t.Error(r, err)
	}
	if infos, n := changes(first.GetVersion()); n != 2 || infos[0].GetSize() != 2 {
		t.Error(n, infos)
	}
	if r, err := c.AddInt64(ctx, &statev1.AddInt64Request{User: "ann", Key: k, Offset: 8, Delta: math.MinInt64}); err != nil || r.GetValue() != math.MinInt64 {
		t.Error(r, err)
	}
	if r, err := c.AppendElement(ctx, &statev1.AppendElementRequest{User: "ann", Key: k, Data: []byte("e")}); err != nil || r.GetIndex() != 0 {
		t.Error(r, err)
	}
	if u, err := c.GetUsage(ctx, &statev1.GetUsageRequest{User: "ann"}); err != nil || u.GetBytes() != 16+1+elementCost || u.GetValues() != 1 {
		t.Error(u, err)
	}
	e, err := c.SetExpiry(ctx, &statev1.SetExpiryRequest{User: "ann", Key: k, TimeToLive: durationpb.New(time.Hour)})
	if err != nil || e.GetInfo().GetExpireTime() == nil {
		t.Error(e, err)
	}
	_, err = c.SetExpiry(ctx, &statev1.SetExpiryRequest{User: "ann", Key: k, TimeToLive: durationpb.New(0)})
	reason(t, "no time at all", err, fault.Invalid, "BAD_EXPIRY")
	if e, err = c.SetExpiry(ctx, &statev1.SetExpiryRequest{User: "ann", Key: k}); err != nil || e.GetInfo().GetExpireTime() != nil {
		t.Error(e, err)
	}
}

// hold opens a stream that holds a lock, or gives why it doesn't.
func hold(ctx context.Context, c statev1.StateServiceClient, r *statev1.HoldLockRequest) (statev1.StateService_HoldLockClient, int64, error) {
	stream, err := c.HoldLock(ctx)
	if err != nil {
		return nil, 0, err
	}
	r.User, r.Key = "ann", []byte("k")
	if err := stream.Send(r); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	got, err := stream.Recv()
	return stream, got.GetToken(), err
}

func TestHoldLock(t *testing.T) {
	c, ctx := client(t), t.Context()
	minute := durationpb.New(time.Minute)
	first, token, err := hold(ctx, c, &statev1.HoldLockRequest{Holder: "call-7"})
	if err != nil || token == 0 {
		t.Fatal(token, err)
	}
	_, _, err = hold(ctx, c, &statev1.HoldLockRequest{Shared: true})
	reason(t, "held", err, fault.Timeout, "LOCK_TIMEOUT")
	set := func(token int64) error {
		_, err := c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("k"), Data: []byte("x"), Fence: &statev1.Fence{Key: []byte("k"), Token: token}})
		return err
	}
	if err := set(token); err != nil {
		t.Error(err)
	}
	// Given back by closing.
	if err := first.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	reason(t, "given back", set(token), fault.Conflict, "FENCED")
	// Given back by going away.
	gone, cancel := context.WithCancel(ctx)
	if _, _, err := hold(gone, c, &statev1.HoldLockRequest{Patience: minute, Lease: minute}); err != nil {
		t.Fatal(err)
	}
	cancel()
	// Kept by beats beyond the lease, and lost without.
	stream, token, err := hold(ctx, c, &statev1.HoldLockRequest{Patience: minute, Lease: durationpb.New(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	for range 8 {
		time.Sleep(250 * time.Millisecond)
		if err := stream.Send(&statev1.HoldLockRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := set(token); err != nil {
		t.Error("with beats:", err)
	}
	_, err = stream.Recv()
	reason(t, "without beats", err, fault.Conflict, "LOCK_LOST")
	reason(t, "lost", set(token), fault.Conflict, "FENCED")
	_, _, err = hold(ctx, c, &statev1.HoldLockRequest{Lease: durationpb.New(time.Hour)})
	reason(t, "lease", err, fault.Invalid, "BAD_LEASE")
	none, err := c.HoldLock(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = none.CloseSend()
	_, err = none.Recv()
	reason(t, "nothing", err, fault.Invalid, "NO_KEY")
}

// A process that is to end does not wait for holders and waiters: they go on with another, and nothing comes between.
func TestHoldLockMoves(t *testing.T) {
	url, ctx := "redis://"+miniredis.RunT(t).Addr(), t.Context()
	minute := durationpb.New(time.Minute)
	leaving, stop := serving(t, url)
	var clients []statev1.StateServiceClient
	for _, addr := range []string{leaving, serve(t, url)} {
		conn, err := service.Connect(addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		clients = append(clients, statev1.NewStateServiceClient(conn))
	}
	first, token, err := hold(ctx, clients[0], &statev1.HoldLockRequest{Lease: minute})
	if err != nil {
		t.Fatal(err)
	}
	waiter := make(chan error, 1)
	go func() {
		_, _, err := hold(ctx, clients[0], &statev1.HoldLockRequest{Patience: minute})
		waiter <- err
	}()
	stopped := make(chan struct{})
	go func() { stop(); close(stopped) }()
	_, err = first.Recv()
	reason(t, "the holder", err, fault.Unavailable, "DRAINING")
	if err := <-waiter; !errors.Is(err, fault.Unavailable) {
		t.Error("the waiter:", err)
	}
	select {
	case <-stopped:
	case <-time.After(service.DefaultConfig().Grace):
		t.Error("it waits out its grace")
	}
	set := func() error {
		_, err := clients[1].SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("k"), Fence: &statev1.Fence{Key: []byte("k"), Token: token}})
		return err
	}
	if err := set(); err != nil {
		t.Error("between:", err)
	}
	_, _, err = hold(ctx, clients[1], &statev1.HoldLockRequest{})
	reason(t, "another", err, fault.Timeout, "LOCK_TIMEOUT")
	_, _, err = hold(ctx, clients[1], &statev1.HoldLockRequest{Token: token + 1})
	reason(t, "a token of nobody", err, fault.Conflict, "LOCK_LOST")
	again, same, err := hold(ctx, clients[1], &statev1.HoldLockRequest{Token: token, Lease: minute})
	if err != nil || same != token {
		t.Fatal(same, token, err)
	}
	_ = again.CloseSend()
	if _, err := again.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	reason(t, "given back", set(), fault.Conflict, "FENCED")
	_, _, err = hold(ctx, clients[1], &statev1.HoldLockRequest{Token: token})
	reason(t, "gone on with too late", err, fault.Conflict, "LOCK_LOST")
}

func TestWatchValues(t *testing.T) {
	c, ctx := client(t), t.Context()
	stream, err := c.WatchValues(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&statev1.WatchValuesRequest{User: "ann", Keys: [][]byte{[]byte("k")}}); err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetVersion() != 0 || m.GetUser() != "ann" || string(m.GetKey()) != "k" {
		t.Fatal(m, err)
	}
	set, err := c.SetValue(ctx, &statev1.SetValueRequest{User: "ann", Key: []byte("k")})
	if err != nil {
		t.Fatal(err)
	}
	if m, err := stream.Recv(); err != nil || m.GetVersion() != set.GetInfo().GetVersion() {
		t.Fatal(m, err)
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	bad, err := c.WatchValues(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = bad.Send(&statev1.WatchValuesRequest{User: "ann", Keys: [][]byte{nil}})
	_, err = bad.Recv()
	reason(t, "no key", err, fault.Invalid, "BAD_NAME")
}

// A browser that watches hears what the value is, and each change.
func TestWatchEvents(t *testing.T) {
	base := "http://" + serve(t, "redis://"+miniredis.RunT(t).Addr()) + "/v1/state/ann/k%3Awatch"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+":watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatal(resp, err)
	}
	defer func() { _ = resp.Body.Close() }()
	lines := bufio.NewScanner(resp.Body)
	next := func() string {
		t.Helper()
		for lines.Scan() {
			if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				return data
			}
		}
		t.Fatal("the stream ended:", lines.Err())
		return ""
	}
	if got := next(); got != `{"version": "0"}` {
		t.Error(got)
	}
	put, err := http.NewRequestWithContext(t.Context(), http.MethodPut, base, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	stored, err := http.DefaultClient.Do(put)
	if err != nil {
		t.Fatal(err)
	}
	_ = stored.Body.Close()
	if got := next(); got != `{"version": "`+strings.Trim(stored.Header.Get("ETag"), `"`)+`"}` {
		t.Error(got, stored.Header)
	}
}

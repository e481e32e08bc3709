// Package replicatest is a state service in memory, for tests of what uses one: Client gives a real gRPC connection to a
// fresh one.
package replicatest

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"

	"skein.dev/platform/fault"
	"skein.dev/platform/service"
	"skein.dev/proto/runs"
	statev1 "skein.dev/proto/skein/state/v1"
)

// Client connects to a new, empty service that ends with the test. If SKEIN_TEST_STATE has the address of a real one, it is
// that, and ann's values there are deleted.
func Client(t testing.TB) statev1.StateServiceClient {
	if address := os.Getenv("SKEIN_TEST_STATE"); address != "" {
		return realOne(t, address)
	}
	client, _ := Service(t)
	return client
}

func realOne(t testing.TB, address string) statev1.StateServiceClient {
	client := connect(t, address)
	for {
		resp, err := client.ListValues(t.Context(), &statev1.ListValuesRequest{User: "ann", PageSize: 1000})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.GetValues()) == 0 {
			return client
		}
		for _, v := range resp.GetValues() {
			if _, err := client.DeleteValue(t.Context(), &statev1.DeleteValueRequest{User: "ann", Key: v.GetKey()}); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// Faults makes the service fail.
type Faults struct{ s *server }

// Service is Client, with a hold on the service.
func Service(t testing.TB) (statev1.StateServiceClient, Faults) {
	s := &server{values: map[string]*value{}, dead: map[string]int64{}, lists: map[string][][]byte{}, locks: map[string]*lock{}, broken: make(chan struct{})}
	cfg := service.DefaultConfig()
	listening, done := make(chan string, 1), make(chan error, 1)
	cfg.Name, cfg.Listen, cfg.Quiet, cfg.Grace = "state", "127.0.0.1:0", true, 100*time.Millisecond
	cfg.OnListen = func(addr string) { listening <- addr }
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		done <- service.Run(ctx, cfg, func(_ context.Context, on *service.Server) error {
			statev1.RegisterStateServiceServer(on, s)
			return nil
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case addr := <-listening:
		return connect(t, addr), Faults{s}
	case err := <-done:
		done <- nil
		t.Fatal(err)
	}
	return nil, Faults{}
}

// connect gives a client that has the way past gRPC too.
func connect(t testing.TB, address string) statev1.StateServiceClient {
	conn, err := service.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	beside := service.Bulk(conn)
	t.Cleanup(func() { _, _ = beside.Close(), conn.Close() })
	return statev1.NewStateServiceClient(beside)
}

// Lose takes all locks from who holds them.
func (f Faults) Lose() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	for _, l := range f.s.locks {
		for token, stop := range l.held {
			delete(l.held, token)
			close(stop)
		}
		l.nudge()
	}
}

// Break ends the streams of all locks as a process does that is to end; the locks stay held.
func (f Faults) Break() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	close(f.s.broken)
	f.s.broken = make(chan struct{})
}

// During has f called in the middle of the next stream of patches.
func (f Faults) During(do func() error) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.during = do
}

// DuringRead has f called before the last chunk that the next pull gets.
func (f Faults) DuringRead(do func()) {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.read = do
}

// Past is how many calls came past gRPC.
func (f Faults) Past() int64 { return f.s.past.Load() }

// way counts.
func (s *server) way(ctx context.Context) {
	if grpc.ServerTransportStreamFromContext(ctx) == nil {
		s.past.Add(1)
	}
}

const chunk = 256 << 10

type value struct {
	data    []byte
	life    time.Duration
	version int64
	at      []int64 // of chunks
	base    int64   // when all of them were made, or some were cut off
	lost    int64   // the last version of one that was deleted before
	anew    bool
	touched [][2]int
}

type server struct {
	statev1.UnimplementedStateServiceServer
	mu      sync.Mutex
	values  map[string]*value
	dead    map[string]int64 // last versions of values that were deleted
	lists   map[string][][]byte
	locks   map[string]*lock
	version int64
	during  func() error
	read    func()
	past    atomic.Int64
	unliked int
	broken  chan struct{} // closed to break the streams of locks
}

type named interface {
	GetUser() string
	GetKey() []byte
}

func name(r named) string { return r.GetUser() + "/" + string(r.GetKey()) }

func (s *server) get(r named) (*value, error) {
	v, ok := s.values[name(r)]
	if !ok {
		return nil, fault.NotFound.New("NO_VALUE", "there is no value").GRPCStatus().Err()
	}
	return v, nil
}

func (v *value) info() *statev1.ValueInfo {
	return &statev1.ValueInfo{Size: int64(len(v.data)), Version: v.version}
}

// change makes a new version of a value by f.
func (s *server) change(r named, fence *statev1.Fence, f func(v *value)) (*statev1.ValueInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if fence != nil {
		l := s.locks[r.GetUser()+"/"+string(fence.GetKey())]
		if l == nil || l.held[fence.GetToken()] == nil {
			return nil, fault.Conflict.New("FENCED", "the lock is another's").GRPCStatus().Err()
		}
	}
	v := s.values[name(r)]
	if v == nil {
		v = &value{lost: s.dead[name(r)]}
		s.values[name(r)] = v
	}
	f(v)
	s.version += 1000 // as if by a clock
	v.version = s.version
	if v.base == 0 || v.anew {
		v.base, v.anew = v.version, false
	}
	chunks := (len(v.data) + chunk - 1) / chunk
	for len(v.at) < chunks {
		v.at = append(v.at, v.version)
	}
	v.at = v.at[:chunks]
	for _, t := range v.touched {
		for i := t[0] / chunk; i*chunk < t[1] && i < chunks; i++ {
			v.at[i] = v.version
		}
	}
	v.touched = nil
	return v.info(), nil
}

func (v *value) set(data []byte) {
	v.data, v.anew = data, true
	v.touched = append(v.touched, [2]int{0, len(data)})
}

func (v *value) resize(n int) {
	old := len(v.data)
	if n > old {
		v.data = append(v.data, make([]byte, n-old)...)
	} else {
		v.data, v.anew = v.data[:n:n], true
	}
	v.touched = append(v.touched, [2]int{min(old, n), max(old, n)})
}

func (v *value) put(off int64, data []byte) {
	to := int(off) + len(data)
	if to > len(v.data) {
		v.resize(to)
	}
	copy(v.data[off:], data)
	v.touched = append(v.touched, [2]int{int(off), to})
}

func (s *server) StatValue(_ context.Context, r *statev1.StatValueRequest) (*statev1.StatValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(r)
	if err != nil {
		return nil, err
	}
	return &statev1.StatValueResponse{Info: v.info()}, nil
}

func (s *server) GetValue(_ context.Context, r *statev1.GetValueRequest) (*statev1.GetValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(r)
	if err != nil {
		return nil, err
	}
	part := v.data[min(int64(len(v.data)), r.GetOffset()):]
	if r.GetLength() > 0 {
		part = part[:min(int64(len(part)), r.GetLength())]
	}
	return &statev1.GetValueResponse{Info: v.info(), Data: slices.Clone(part)}, nil
}

func (s *server) ReadChanges(r *statev1.ReadChangesRequest, out grpc.ServerStreamingServer[statev1.ReadChangesResponse]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.way(out.Context())
	v, err := s.get(r)
	if err != nil {
		return err
	}
	do := s.read
	s.read = nil
	if err := out.Send(&statev1.ReadChangesResponse{Info: v.info()}); err != nil {
		return err
	}
	end := int64(len(v.data))
	if r.GetLength() > 0 {
		end = min(end, r.GetOffset()+r.GetLength())
	}
	for off := r.GetOffset(); off < end; {
		i := int(off / chunk)
		to := min(end, int64(i+1)*chunk)
		since := r.GetSinceVersion()
		if n := i - int(r.GetOffset()/chunk); n < len(r.GetChunkVersions()) {
			since = r.GetChunkVersions()[n]
		}
		if to == end && do != nil {
			do()
		}
		if v.at[i] > since {
			if err := out.Send(&statev1.ReadChangesResponse{Offset: off, Data: slices.Clone(v.data[off:to])}); err != nil {
				return err
			}
		}
		off = to
	}
	return out.Send(&statev1.ReadChangesResponse{Info: v.info()})
}

func (s *server) SetValue(ctx context.Context, r *statev1.SetValueRequest) (*statev1.SetValueResponse, error) {
	s.way(ctx)
	info, err := s.change(r, r.GetFence(), func(v *value) { v.set(r.GetData()) })
	return &statev1.SetValueResponse{Info: info}, err
}

func (s *server) WriteValue(in grpc.ClientStreamingServer[statev1.WriteValueRequest, statev1.WriteValueResponse]) error {
	s.way(in.Context())
	first, err := in.Recv()
	if err != nil {
		return err
	}
	data := first.GetData()
	for {
		m, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		data = append(data, m.GetData()...)
	}
	info, err := s.change(first, first.GetFence(), func(v *value) { v.set(data) })
	if err != nil {
		return err
	}
	return in.SendAndClose(&statev1.WriteValueResponse{Info: info})
}

func (s *server) PatchValue(ctx context.Context, r *statev1.PatchValueRequest) (*statev1.PatchValueResponse, error) {
	s.way(ctx)
	s.mu.Lock()
	during := s.during
	s.during = nil
	s.mu.Unlock()
	if during != nil {
		if err := during(); err != nil {
			return nil, err
		}
	}
	sum, err := runs.Check(r.GetRuns())
	if size := int64(len(r.GetData())); err != nil || sum.Bytes != size || size > 1<<20 || sum.Count > 4<<10 && (sum.Count > 16<<10 || sum.End-sum.Start > 1<<20) {
		return nil, fault.Invalid.New("BAD_RUNS", "%+v for %d bytes: %v", sum, size, err).GRPCStatus().Err()
	}
	if err := s.unlike(r, sum); err != nil {
		return nil, err
	}
	var previous int64
	info, err := s.change(r, r.GetFence(), func(v *value) {
		data := r.GetData()
		previous = v.lost
		for at, n := range runs.All(r.GetRuns()) {
			for i := int(at / chunk); int64(i)*chunk < at+n && v.version > 0; i++ {
				previous = max(previous, v.base)
				if i < len(v.at) {
					previous = max(previous, v.at[i])
				}
			}
			v.put(at, data[:n])
			data = data[n:]
		}
	})
	return &statev1.PatchValueResponse{Info: info, PreviousVersion: previous}, err
}

// unlike refuses a patch of what has changed since; tests of races are for the real service.
func (s *server) unlike(r *statev1.PatchValueRequest, sum runs.Summary) error {
	if r.GetIfUnchangedSince() == 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.values[name(r)]
	changed := sum.Count > 1 || v == nil
	for i := sum.Start / chunk; !changed && i*chunk < sum.End; i++ {
		at := v.base
		if int(i) < len(v.at) {
			at = max(at, v.at[i])
		}
		changed = at > r.GetIfUnchangedSince()
	}
	if !changed {
		return nil
	}
	s.unliked++
	return fault.Conflict.New("CHUNK_CHANGED", "it has changed").GRPCStatus().Err()
}

// Unliked is how many patches were refused because others had changed what they would have replaced.
func (f Faults) Unliked() int {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	return f.s.unliked
}

func (s *server) ResizeValue(_ context.Context, r *statev1.ResizeValueRequest) (*statev1.ResizeValueResponse, error) {
	created := false
	info, err := s.change(r, r.GetFence(), func(v *value) {
		created = v.version == 0
		v.resize(int(r.GetSize()))
	})
	return &statev1.ResizeValueResponse{Info: info, Created: created}, err
}

func (s *server) AppendValue(_ context.Context, r *statev1.AppendValueRequest) (*statev1.AppendValueResponse, error) {
	var at int64
	_, err := s.change(r, r.GetFence(), func(v *value) {
		at = int64(len(v.data))
		v.put(at, r.GetData())
	})
	return &statev1.AppendValueResponse{Offset: at}, err
}

func (s *server) CompareAndSet(_ context.Context, r *statev1.CompareAndSetRequest) (*statev1.CompareAndSetResponse, error) {
	s.mu.Lock()
	v := s.values[name(r)]
	same := v == nil && r.GetExpectedVersion() == 0 || v != nil && v.version == r.GetExpectedVersion()
	s.mu.Unlock() // tests of races are for the real service
	if !same {
		return nil, fault.Conflict.New("CAS_MISMATCH", "another version").GRPCStatus().Err()
	}
	info, err := s.change(r, r.GetFence(), func(v *value) { v.set(r.GetData()) })
	return &statev1.CompareAndSetResponse{Info: info}, err
}

func (s *server) AddInt64(_ context.Context, r *statev1.AddInt64Request) (*statev1.AddInt64Response, error) {
	var sum int64
	info, err := s.change(r, r.GetFence(), func(v *value) {
		sum = r.GetDelta()
		if len(v.data) >= 8 {
			sum += int64(binary.LittleEndian.Uint64(v.data))
		}
		v.put(0, binary.LittleEndian.AppendUint64(nil, uint64(sum)))
	})
	return &statev1.AddInt64Response{Value: sum, Info: info}, err
}

func (s *server) ListValues(_ context.Context, r *statev1.ListValuesRequest) (*statev1.ListValuesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &statev1.ListValuesResponse{}
	for _, n := range slices.Sorted(maps.Keys(s.values)) {
		if key, ok := strings.CutPrefix(n, r.GetUser()+"/"); ok && strings.HasPrefix(key, string(r.GetPrefix())) && key > r.GetPageToken() {
			if len(resp.GetValues()) == 2 { // small pages, so that there are several
				resp.NextPageToken = string(resp.GetValues()[1].GetKey())
				break
			}
			resp.Values = append(resp.Values, &statev1.ValueInfo{Key: []byte(key)})
		}
	}
	return resp, nil
}

func (s *server) AppendElement(_ context.Context, r *statev1.AppendElementRequest) (*statev1.AppendElementResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists[name(r)] = append(s.lists[name(r)], r.GetData())
	return &statev1.AppendElementResponse{Index: int64(len(s.lists[name(r)]) - 1)}, nil
}

func (s *server) ReadElements(r *statev1.ReadElementsRequest, out grpc.ServerStreamingServer[statev1.ReadElementsResponse]) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.lists[name(r)]
	for i := r.GetIndex(); i < int64(len(list)) && (r.GetCount() == 0 || i < r.GetIndex()+r.GetCount()); i++ {
		if err := out.Send(&statev1.ReadElementsResponse{Elements: [][]byte{list[i]}}); err != nil {
			return err
		}
	}
	return nil
}

func (s *server) ClearElements(_ context.Context, r *statev1.ClearElementsRequest) (*statev1.ClearElementsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.lists, name(r))
	return &statev1.ClearElementsResponse{}, nil
}

// SetExpiry takes note and ends nothing.
func (s *server) SetExpiry(_ context.Context, r *statev1.SetExpiryRequest) (*statev1.SetExpiryResponse, error) {
	s.mu.Lock()
	_, err := s.get(r)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	info, err := s.change(r, r.GetFence(), func(v *value) { v.life = r.GetTimeToLive().AsDuration() })
	return &statev1.SetExpiryResponse{Info: info}, err
}

func (s *server) DeleteValue(_ context.Context, r *statev1.DeleteValueRequest) (*statev1.DeleteValueResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(r)
	if err != nil {
		return nil, err
	}
	s.dead[name(r)] = v.version
	delete(s.values, name(r))
	return &statev1.DeleteValueResponse{}, nil
}

package host

import (
	"testing"

	"skein.dev"
	statev1 "skein.dev/proto/skein/state/v1"
	"skein.dev/services/executor/internal/machine"
	"skein.dev/services/executor/internal/replica"
	"skein.dev/services/executor/internal/replica/replicatest"
)

// What a guest wrote to a mapping is known to the replica, though the instance is gone before its call is ended.
func TestMappingOfEndedInstance(t *testing.T) {
	ctx := t.Context()
	m, err := machine.Open(ctx, machine.Config{GuestMemory: 64 << 20}, Link)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close(ctx) }()
	mod := load(t, m, buildC(t, "testdata/leaves.c", "-Wl,--export=malloc"))
	f, _ := skein.NewFunction("ann", "leaves")
	client := replicatest.Client(t)
	store := replica.New(client, 1<<30)
	c := &Call{Context: ctx, Function: f, Args: []string{"leaves"}, Log: &Log{}, State: store}
	if exit := mod.Run(c); exit.State != skein.Succeeded || exit.Code != 0 {
		t.Fatalf("%+v", exit)
	}
	if err := mod.Close(ctx); err != nil {
		t.Fatal(err)
	}
	c.End()
	s := store.Open()
	defer s.End()
	k := skein.StateKey{User: "ann", Key: "v"}
	if err := s.Push(ctx, k, 0, -1); err != nil {
		t.Fatal(err)
	}
	got, err := client.GetValue(ctx, &statev1.GetValueRequest{User: "ann", Key: []byte("v"), Offset: 500000, Length: 1})
	if err != nil || string(got.GetData()) != "v" {
		t.Errorf("%q, %v", got.GetData(), err)
	}
}

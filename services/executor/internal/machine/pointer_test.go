package machine_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"skein.dev"
	"skein.dev/services/executor/internal/host"
	"skein.dev/services/executor/internal/machine"
)

// Functions of the table are called in instances as the snapshot says, whether there is one or not, and leave nothing.
func TestRunPointer(t *testing.T) {
	for name, cfg := range tiers {
		for _, booted := range []bool{true, false} {
			m := open(t, cfg)
			mod := load(t, m, "pointer.c")
			if booted {
				mod = boot(t, m, "pointer.c")
			}
			exit, c, _ := run(t.Context(), mod, nil)
			if exit.State != skein.Succeeded || len(c.Output) != 24 {
				t.Fatalf("%s: %+v, %d bytes", name, exit, len(c.Output))
			}
			entry := func(i int) uint32 { return binary.LittleEndian.Uint32(c.Output[4*i:]) }
			point := func(e uint32, input string) machine.Exit {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				return mod.RunPointer(&host.Call{Context: ctx}, machine.Pointer{Entry: e, Input: []byte(input)})
			}
			for range 3 {
				for _, want := range []struct {
					entry  uint32
					input  string
					code   int32
					reason string
				}{
					{entry(0), "", 5, "GUEST_EXIT"},
					{entry(1), "10", 15, "GUEST_EXIT"},
					{entry(1), "-5", 0, ""},
					{entry(1), "ten", 0, "BAD_INPUT"},
					{entry(1), "", 0, "BAD_INPUT"},
					{entry(1), "99999999999", 0, "BAD_INPUT"},
					{entry(2), "10", 0, ""},
					{entry(4), "500", 0, ""},
					{entry(4), "100000", 0, "GUEST_TRAP"},
					{entry(5), "", 0, "BAD_ENTRY"}, // it takes two
					{0, "", 0, "BAD_ENTRY"},
					{1 << 20, "", 0, "BAD_ENTRY"},
					{1<<32 - 1, "", 0, "BAD_ENTRY"},
				} {
					if exit := point(want.entry, want.input); exit.Code != want.code || exit.Reason != want.reason {
						t.Errorf("%s, booted %v, entry %d, input %q: %+v, want %d %q", name, booted, want.entry, want.input, exit, want.code, want.reason)
					}
				}
			}
			if exit := point(entry(3), ""); exit.State != skein.TimedOut {
				t.Errorf("%s: what spins ends with %+v", name, exit)
			}
			if exit, _, _ := run(t.Context(), mod, nil); exit.State != skein.Succeeded {
				t.Errorf("%s: the usual entry afterwards: %+v", name, exit)
			}
		}
	}
}

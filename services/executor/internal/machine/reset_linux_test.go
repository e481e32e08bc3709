package machine_test

import (
	"encoding/binary"
	"testing"

	"skein.dev"
	"skein.dev/services/executor/internal/machine"
)

// Every way to find out what a call has written to brings all of it back, and so does giving up beyond a few pages.
func TestScans(t *testing.T) {
	for how := range machine.Scans {
		for _, most := range []int{1024, 5} {
			m := open(t, tiers["native"])
			m.Compare()
			if !m.ScanBy(how, most) {
				t.Logf("this system has no scan by %s", how)
				continue
			}
			for _, name := range guests {
				mod := boot(t, m, name)
				for i := range 40 {
					var input []byte
					if name == "tiny.c" && i%2 == 0 {
						input = binary.LittleEndian.AppendUint32([]byte("g..."), uint32(i))
					}
					if exit, _, out := run(t.Context(), mod, input); exit.State != skein.Succeeded {
						t.Fatalf("%s, %d, %s: %+v\n%s", how, most, name, exit, out)
					}
				}
				mod.Settle()
				if mod.Idle() != 1 {
					t.Errorf("%s, %d, %s: %d idle instances", how, most, name, mod.Idle())
				}
			}
			if m.Differences() != 0 {
				t.Errorf("%s, %d: %d resets left something", how, most, m.Differences())
			}
		}
	}
}

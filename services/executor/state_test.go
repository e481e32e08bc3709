package executor

import (
	"testing"
	"time"

	callv1 "skein.dev/proto/skein/call/v1"
)

// Who waits for a lock gives its slot to whoever may release it, and locks end with their calls, however these end.
func TestLocksAndSlots(t *testing.T) {
	for _, slots := range []int{1, 4} {
		d, p := chains(t)
		d.attach(t, p, slots)
		d.want(t, "chain", "lock", "")
		d.want(t, "chain", "lock", "")
		stuck := d.start("chain", "dead", 300*time.Millisecond)
		<-stuck.done
		if stuck.outcome.GetState() == callv1.CallState_CALL_STATE_SUCCEEDED {
			t.Errorf("%v", stuck.outcome)
		}
		d.want(t, "chain", "want", "5")
	}
}

// Instances that map a value see each other's writes at once, and what they pushed is there when their end is told.
func TestSharedCounter(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 4)
	for range 3 {
		d.want(t, "chain", "counts", "32000")
	}
}

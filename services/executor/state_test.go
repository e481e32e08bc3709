package executor

import (
	"fmt"
	"strings"
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

// What goes to the state service has a span under the call's, with its bytes and not its key.
func TestStateSpans(t *testing.T) {
	d, p := chains(t)
	d.attach(t, p, 1)
	p.spans.Reset()
	d.want(t, "chain", "count", "")
	found := ""
	for _, s := range p.spans.Ended() {
		if strings.HasPrefix(s.Name(), "state ") {
			found = fmt.Sprint(s.Name(), " ", s.Parent().IsValid(), " ", s.Attributes())
			if strings.Contains(found, "count") {
				t.Errorf("it tells the key: %s", found)
			}
		}
	}
	if !strings.Contains(found, "state push true") || !strings.Contains(found, "skein.state.bytes") {
		t.Errorf("the last of state: %q", found)
	}
}

package executor

import (
	"testing"

	"skein.dev"
)

func TestHomes(t *testing.T) {
	a, b := skein.StateKey{User: "ann", Key: "a"}, skein.StateKey{User: "ann", Key: "b"}
	f, g := skein.Digest{1}, skein.Digest{2}
	var h homes
	h.note(f, []skein.StateKey{a, b})
	h.note(g, []skein.StateKey{b})
	h.note(g, nil) // a call that used nothing changes nothing
	loaded := map[skein.Digest]bool{f: true, g: true}
	for _, c := range []struct {
		has  skein.StateKey
		f, g bool
	}{{a, true, false}, {b, true, true}, {skein.StateKey{User: "bob", Key: "b"}, false, false}} {
		here := h.here(loaded, func(k skein.StateKey) bool { return k == c.has })
		if here[f] != c.f || here[g] != c.g {
			t.Errorf("with a replica of %v: %v", c.has, here)
		}
	}
	if here := h.here(map[skein.Digest]bool{g: true}, func(skein.StateKey) bool { return true }); len(here) != 1 || len(h.keys) != 1 {
		t.Errorf("after f was dropped: %v of %v", here, h.keys)
	}
}

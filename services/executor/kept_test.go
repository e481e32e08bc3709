package executor

import (
	"strings"
	"testing"

	"skein.dev/services/executor/internal/vfs"
	"skein.dev/services/executor/internal/vfs/vfstest"
)

// A layer is kept for its user and view, and goes when it is idle and all together have more than they may.
func TestKeptLayers(t *testing.T) {
	k := kept{store: vfs.NewStore(t.TempDir(), 1<<20, 0), budget: 10}
	lower := vfstest.New(nil)
	write := func(l *vfs.Layer, text string) {
		t.Helper()
		tab := vfs.NewTable(vfs.Setup{Layer: l}, nil, nil, nil)
		defer tab.End()
		root, err := tab.GetDir(vfs.Root)
		if err != nil {
			t.Fatal(err)
		}
		fd, err := tab.OpenAt(t.Context(), root, "x", vfs.How{Write: true, Create: true})
		if err != nil {
			t.Fatal(err)
		}
		o, err := tab.Get(fd)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Write(t.Context(), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	ann, bob, eve := keptKey{"ann", ""}, keptKey{"bob", ""}, keptKey{"eve", ""}
	first := k.acquire(ann, lower)
	write(first, "12345")
	if again := k.acquire(ann, lower); again != first {
		t.Error("two calls of one user have two layers")
	}
	other := k.acquire(keptKey{"ann", "view"}, lower)
	if other == first {
		t.Error("two views have one layer")
	}
	if l := k.acquire(bob, lower); l == first || l.Bytes() != 0 {
		t.Error("two users have one layer")
	}
	k.release(ann)
	write(other, strings.Repeat("x", 6)) // more than the budget, and all layers are in use
	k.acquire(bob, lower)
	if first.Bytes() != 5 || len(k.all) != 3 {
		t.Errorf("a layer in use lost what it had: %d", first.Bytes())
	}
	k.release(ann)
	k.acquire(eve, lower)
	if k.all[ann] != nil || len(k.all) != 3 || k.store.Memory() > 6 {
		t.Errorf("%d layers keep %d bytes", len(k.all), k.store.Memory())
	}
}

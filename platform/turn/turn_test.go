package turn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
)

// One at a time has a name, in the order in which they asked; other names are in nobody's way, and none is remembered.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turns Turns
		enter := func(name string) func() {
			t.Helper()
			leave, err := turns.Enter(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		first := enter("a")
		enter("b")()
		var order []int
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				leave := enter("a")
				order = append(order, i)
				leave()
			})
			synctest.Wait() // it is in line
		}
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := turns.Enter(gone, "a"); !errors.Is(err, context.Canceled) {
			t.Error("who goes away has", err)
		}
		if len(order) > 0 {
			t.Error("two at a time")
		}
		first()
		wg.Wait()
		if !slices.Equal(order, []int{0, 1, 2, 3, 4}) {
			t.Error("order", order)
		}
		if len(turns.all) > 0 {
			t.Errorf("%d names are remembered", len(turns.all))
		}
	})
}

func TestManyTurns(t *testing.T) {
	var turns Turns
	var wg sync.WaitGroup
	var counts [3]int
	for i := range 30 {
		wg.Go(func() {
			for range 100 {
				leave, err := turns.Enter(t.Context(), fmt.Sprint(i%3))
				if err != nil {
					t.Error(err)
					return
				}
				counts[i%3]++
				leave()
			}
		})
	}
	wg.Wait()
	if counts != [3]int{1000, 1000, 1000} {
		t.Error(counts)
	}
}

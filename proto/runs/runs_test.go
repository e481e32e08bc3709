package runs

import (
	"math"
	"testing"
)

func TestBad(t *testing.T) {
	for name, packed := range map[string][]byte{
		"half a range":    {3},
		"half a number":   {3, 0x80},
		"a long number":   {3, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1},
		"no bytes":        Append(Append(nil, 1, 2), 3, 0),
		"negative":        Append(nil, -1, 1),
		"past the end":    Append(nil, math.MaxInt64, 1),
		"two too long":    Append(Append(nil, 0, math.MaxInt64), 1, 1),
		"a length beyond": Append(nil, 1, math.MaxInt64),
	} {
		if s, err := Check(packed); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzRuns(f *testing.F) {
	f.Add(Append(Append(Append(nil, 0, 5), 0, 1), 300_000, 70_000))
	f.Add(Append(nil, math.MaxInt64-1, 1))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, packed []byte) {
		s, err := Check(packed)
		if err != nil {
			return
		}
		var again []byte
		var end, sum int64
		n := 0
		for at, length := range All(packed) {
			if at < end || length <= 0 || at+length < at || n == 0 && at != s.Start {
				t.Fatal(at, length)
			}
			again = Append(again, at-end, length)
			end, sum, n = at+length, sum+length, n+1
		}
		if n != s.Count || sum != s.Bytes || end != s.End {
			t.Fatal(n, sum, end, s)
		}
		if other, err := Check(again); err != nil || other != s {
			t.Fatal(other, err)
		}
	})
}

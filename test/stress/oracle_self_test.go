package stress_test

import (
	"slices"
	"testing"
	"time"
)

// TestOracle checks that the oracle accepts an answer only from a state that the
// request can have met.
func TestOracle(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	f := &fact[int]{values: []timed[int]{{1, at(0), at(0)}, {2, at(10), at(20)}, {3, at(30), at(40)}, {4, at(50), time.Time{}}}}
	for _, c := range []struct {
		from, to int
		want     []int
	}{
		{1, 9, []int{1}},
		{1, 10, []int{1, 2}},
		{20, 21, []int{1, 2}},
		{21, 29, []int{2}},
		{5, 35, []int{1, 2, 3}},
		{41, 42, []int{3}},
		{41, 55, []int{3, 4}},
		{60, 70, []int{3, 4}},
	} {
		got := f.during(at(c.from), at(c.to))
		slices.Sort(got)
		if !slices.Equal(got, c.want) {
			t.Errorf("from %d to %d: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}

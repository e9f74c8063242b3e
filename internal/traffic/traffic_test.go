package traffic

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// counts returns counters of that many admissions, refusals for "a" and for "b".
func counts(admitted, a, b uint64) Counts {
	return Counts{Admitted: admitted, Tokens: admitted / 2, Refused: map[string]uint64{"a": a, "b": b}, ReportOnly: map[string]uint64{"b": b / 2}}
}

func TestTrafficOfTheLastHour(t *testing.T) {
	h := new(Hour)
	if got := h.Traffic(); got.Minutes != 0 || got.Admitted.Minute == nil || got.Reasons == nil {
		t.Errorf("before anything is observed: %+v", got)
	}
	h.Observe(noon, counts(100, 7, 0)) // what has been counted before does not count
	h.Observe(noon.Add(59*time.Second), counts(103, 7, 0))
	h.Observe(noon.Add(60*time.Second), counts(104, 7, 4))
	h.Observe(noon.Add(3*time.Minute), counts(104, 8, 6))
	got := h.Traffic()
	if got.Minutes != 4 || got.Admitted.Total != 4 || !slices.Equal(got.Admitted.Minute, []uint64{3, 1, 0, 0}) ||
		got.Refused.Total != 7 || !slices.Equal(got.Refused.Minute, []uint64{0, 4, 0, 3}) || got.Tokens.Total != 2 {
		t.Errorf("%+v", got)
	}
	if len(got.Reasons) != 2 || got.Reasons[0].Reason != "b" || got.Reasons[0].Total != 6 || got.Reasons[0].ReportOnly != 3 ||
		got.Reasons[1].Reason != "a" || got.Reasons[1].Total != 1 || !slices.Equal(got.Reasons[1].Minute, []uint64{0, 0, 0, 1}) {
		t.Errorf("%+v", got.Reasons)
	}

	// after an hour, the first minute is gone, and after another one, everything
	h.Observe(noon.Add(60*time.Minute+30*time.Second), counts(104, 8, 6))
	got = h.Traffic()
	if got.Minutes != 60 || len(got.Admitted.Minute) != 60 || got.Admitted.Total != 1 || got.Admitted.Minute[0] != 1 || got.Refused.Total != 7 {
		t.Errorf("after an hour: %+v", got)
	}
	h.Observe(noon.Add(24*time.Hour), counts(105, 8, 6))
	if got = h.Traffic(); got.Minutes != 60 || got.Admitted.Total != 1 || got.Admitted.Minute[59] != 1 || got.Refused.Total != 0 || len(got.Reasons) != 0 {
		t.Errorf("after a day: %+v", got)
	}
}

// TestTrafficWithStrangeClocks checks that neither a clock nor counters that go back make
// up traffic.
func TestTrafficWithStrangeClocks(t *testing.T) {
	h := new(Hour)
	h.Observe(noon, counts(10, 0, 0))
	h.Observe(noon.Add(-30*time.Second), counts(12, 0, 0)) // two nodes of a reload, or a leap
	h.Observe(noon.Add(30*time.Second), counts(13, 0, 0))
	if got := h.Traffic(); got.Minutes != 1 || got.Admitted.Total != 3 {
		t.Errorf("%+v", got)
	}
	h.Observe(noon.Add(-5*time.Hour), counts(20, 0, 0))
	h.Observe(noon.Add(-5*time.Hour), counts(21, 0, 0))
	if got := h.Traffic(); got.Minutes != 1 || got.Admitted.Total != 1 {
		t.Errorf("after the clock was set back: %+v", got)
	}
	h.Observe(noon.Add(-5*time.Hour), counts(2, 0, 0))
	if got := h.Traffic(); got.Admitted.Total != 3 {
		t.Errorf("after the counters began anew: %+v", got)
	}
}

func TestTrafficConcurrently(t *testing.T) {
	h := new(Hour)
	h.Observe(noon, Counts{})
	var all sync.WaitGroup
	for worker := range 4 {
		all.Go(func() {
			for i := range 100 {
				h.Observe(noon.Add(time.Duration(i)*time.Minute), Counts{Refused: map[string]uint64{fmt.Sprint(worker): uint64(i)}})
				h.Traffic()
			}
		})
	}
	all.Wait()
}

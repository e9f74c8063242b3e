package status

import (
	"testing"
	"time"
)

func TestLateSources(t *testing.T) {
	now := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		age, normal time.Duration
		want        float64
		late        bool
	}{
		"new":                   {0, time.Second, 1, false},
		"less than a second":    {time.Second, 250 * time.Millisecond, 1, false},
		"a failure of a moment": {20 * time.Second, 250 * time.Millisecond, 1, false},
		"broken":                {40 * time.Second, 250 * time.Millisecond, 1, true},
		"on time":               {64 * time.Minute, time.Hour, 3600, false},
		"an hour and a bit":     {67 * time.Minute, time.Hour, 3600, true},
		"does not age":          {1e6 * time.Second, 0, 0, false},
		"from the future":       {-time.Hour, time.Second, 1, false},
	} {
		s := Source{LastSuccess: now.Add(-c.age)}
		if s.Judge(c.normal, now); s.Normal != c.want || s.Late != c.late {
			t.Errorf("%s: %+v", name, s)
		}
	}
	never := new(Source)
	if never.Judge(0, now); !never.Late {
		t.Error("a source that was never read is not late")
	}
}

package statuspage

import (
	"math"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func TestRelative(t *testing.T) {
	const day = 24 * time.Hour
	for distance, want := range map[time.Duration]string{
		0: "just now", time.Second: "in a minute", -time.Second: "just now", -50 * time.Second: "a minute ago", -time.Minute: "1 minute ago", 89 * time.Minute: "in 89 minutes",
		-100 * time.Minute: "2 hours ago", 47 * time.Hour: "in 47 hours", 3*day - 1: "in 2 days", -800 * day: "2 years ago",
		math.MaxInt64: "in 292 years", math.MinInt64: "146 years ago", // a Duration reaches no further
	} {
		if got := relative(noon.Add(distance), noon); got != want {
			t.Errorf("%v: %q, want %q", distance, got, want)
		}
	}
	if got := relative(time.Time{}, noon); got != "146 years ago" {
		t.Errorf("the zero time: %q", got)
	}
}

func TestNormal(t *testing.T) {
	for seconds, want := range map[float64]string{
		0: "", -5: "", math.NaN(): "", 60: "60 seconds", 119: "119 seconds", 3600: "60 minutes", 3900: "65 minutes", 90000: "25 hours", math.Inf(1): "31 years",
	} {
		if got := normal(seconds); got != want {
			t.Errorf("%v: %q, want %q", seconds, got, want)
		}
	}
}

// TestBarsOfOddSeries checks that no series breaks the drawing.
func TestBarsOfOddSeries(t *testing.T) {
	for name, minutes := range map[string][]uint64{
		"none": nil, "zero": make([]uint64, 60), "one": {7}, "huge": {math.MaxUint64, 1}, "long": make([]uint64, 500),
	} {
		for _, b := range bars("x", status.Series{Minute: minutes}, noon).Bars {
			if b.X < 0 || b.X >= chartMinutes || b.H < minBar || b.H > chartHeight || b.Y < 0 || b.Y+b.H > chartHeight+0.01 {
				t.Errorf("%s: a bar at %+v", name, b)
			}
		}
	}
	if got := bars("x", status.Series{Minute: []uint64{7}}, noon).Bars; len(got) != 1 || got[0].X != chartMinutes-1 || got[0].Title != "12:00: 7" {
		t.Errorf("the current minute is %+v", got)
	}
}

// TestTimelineOfOddTimes checks that certificates outside of the time line are at its ends.
func TestTimelineOfOddTimes(t *testing.T) {
	list := []status.Expiring{{}, {NotAfter: noon.Add(-time.Hour)}, {NotAfter: noon.Add(20 * 24 * time.Hour)}, {NotAfter: noon.AddDate(7000, 0, 0)}}
	c := line(list, noon)
	if c.Label != "Time line of 90 days: 2 within 14 days, 1 within 30 days, 1 later" || len(c.Bars) != 3 || c.Bars[0].X != 0 || c.Bars[1].X != 20 || c.Bars[1].Level != "warn" || c.Bars[2].X != timelineDays-1 {
		t.Errorf("%+v", c)
	}
	if got := line(nil, noon).Bars; len(got) != 0 {
		t.Errorf("without certificates there are the bars %+v", got)
	}
}

// TestAttentionIsShort checks that a hundred faults are a few notes.
func TestAttentionIsShort(t *testing.T) {
	r := realmView{At: noon, Realm: status.Realm{Issuer: new(status.Issuer), Shadow: &status.Shadow{Failing: make([]status.ShadowFailure, 2)}}}
	for range 100 {
		r.Sources = append(r.Sources, status.Source{Name: "crl:a", Error: "x", Copy: "y", Refused: 2})
		r.Expiring = append(r.Expiring, status.Expiring{ClientID: "a", NotAfter: noon})
	}
	notes := r.Attention()
	want := []string{
		"crl:a cannot be read", "crl:a cannot be read", "crl:a cannot be read", "100 sources need attention",
		"the certificate of a expired just now", "the certificate of a expired just now", "the certificate of a expired just now", "100 certificates expire within 14 days",
		"no key signs tokens", "2 clients fail under the shadow trust pool", "crl:a is in use as its last good copy", "2 records of crl:a not in force", "201 more to look at",
	}
	for i := range max(len(want), len(notes)) {
		if i >= len(want) || i >= len(notes) || notes[i].Text != want[i] {
			t.Fatalf("note %d of %+v, want %q", i, notes, want)
		}
	}
}

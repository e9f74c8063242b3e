package source

import (
	"net/http"
	"testing"
	"time"
)

func TestFreshness(t *testing.T) {
	const date, later = "Sun, 01 Mar 2026 12:00:00 GMT", "Sun, 01 Mar 2026 12:10:00 GMT"
	for name, test := range map[string]struct {
		header http.Header
		want   time.Duration
		said   bool
	}{
		"nothing":            {http.Header{}, 0, false},
		"max-age":            {http.Header{"Cache-Control": {"public, max-age=600"}}, 10 * time.Minute, true},
		"case, quotes":       {http.Header{"Cache-Control": {`Max-Age="600"`}}, 10 * time.Minute, true},
		"max-age less age":   {http.Header{"Cache-Control": {"max-age=600"}, "Age": {"90"}}, 510 * time.Second, true},
		"older than max-age": {http.Header{"Cache-Control": {"max-age=600"}, "Age": {"601"}}, 0, true},
		"two max-ages":       {http.Header{"Cache-Control": {"max-age=600", "max-age=60, max-age=61"}}, time.Minute, true},
		"before expires":     {http.Header{"Cache-Control": {"max-age=60"}, "Expires": {later}, "Date": {date}}, time.Minute, true},
		"no-store":           {http.Header{"Cache-Control": {"max-age=600, No-Store"}}, 0, true},
		"no-cache":           {http.Header{"Cache-Control": {"no-cache"}}, 0, true},
		"other directives":   {http.Header{"Cache-Control": {"private, s-maxage=600"}}, 0, false},
		"no number":          {http.Header{"Cache-Control": {"max-age=soon"}}, 0, true},
		"negative":           {http.Header{"Cache-Control": {"max-age=-600"}}, 0, true},
		"too large":          {http.Header{"Cache-Control": {"max-age=99999999999999999999"}}, (1<<31 - 1) * time.Second, true},
		"too old":            {http.Header{"Cache-Control": {"max-age=600"}, "Age": {"99999999999999999999"}}, 0, true},
	} {
		if got, said := freshness(test.header); got != test.want || said != test.said {
			t.Errorf("%s: %s, %v; want %s, %v", name, got, said, test.want, test.said)
		}
	}
}

// FuzzFreshness tests that no header leads to a time that is negative or overflows.
func FuzzFreshness(f *testing.F) {
	f.Add("max-age=600", "60")
	f.Add(`max-age="1", no-store`, "")
	f.Add("", "99999999999999999999")
	f.Fuzz(func(t *testing.T, control, age string) {
		fresh, _ := freshness(http.Header{"Cache-Control": {control}, "Age": {age}})
		if fresh < 0 || fresh > (1<<31-1)*time.Second {
			t.Errorf("%s", fresh)
		}
	})
}

package refusals

import (
	"strings"
	"testing"
	"time"
	"unicode"
)

var queryTime = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

func TestParseQuery(t *testing.T) {
	for raw, want := range map[string]struct {
		realm string
		q     Query
	}{
		"":                                   {"", Query{Limit: 100}},
		"realm=default&limit=1":              {"default", Query{Limit: 1}},
		"client_id=a%2Fb&reason=token_type":  {"", Query{ClientID: "a/b", Reason: "token_type", Limit: 100}},
		"since=90m&limit=1000":               {"", Query{Since: queryTime.Add(-90 * time.Minute), Limit: 1000}},
		"since=2030-01-01T00%3A00%3A00Z":     {"", Query{Since: queryTime.Truncate(24 * time.Hour).Add(-24 * time.Hour), Limit: 100}},
		"since=2030-01-02T01:00:00%2B01:00":  {"", Query{Since: queryTime.Truncate(24 * time.Hour), Limit: 100}},
		"reason=%3Cscript%3E&client_id=%E2x": {"", Query{Reason: "<script>", ClientID: "\xe2x", Limit: 100}},
	} {
		realm, q, err := ParseQuery(raw, queryTime)
		if err != nil || realm != want.realm || !q.Since.Equal(want.q.Since) {
			t.Errorf("%s: %q, %+v, %v", raw, realm, q, err)
		}
		if q.Since, want.q.Since = (time.Time{}), (time.Time{}); q != want.q {
			t.Errorf("%s: %+v, want %+v", raw, q, want.q)
		}
	}
}

func TestBadQueriesAreRefused(t *testing.T) {
	for raw, want := range map[string]string{
		"client=a":                            `unknown parameter "client"; known are realm, client_id, reason, since and limit`,
		"Reason=a":                            `unknown parameter "Reason"`,
		"=a":                                  `parameter ""`,
		"reason=":                             `parameter "reason" is empty; give it a value or leave it out`,
		"reason=a&reason=b":                   `parameter "reason" appears 2 times; name it once`,
		"limit=0":                             `limit is "0"; use a number from 1 to 1000`,
		"limit=1001":                          `limit is "1001"`,
		"limit=-1":                            `limit is "-1"`,
		"limit=1e3":                           `limit is "1e3"`,
		"limit=99999999999999999999":          `limit is "99999999999999999999"`,
		"since=yesterday":                     `since is "yesterday"; use a time such as 2026-01-02T15:04:05Z, or a duration such as 1h`,
		"since=-1h":                           `since is "-1h"`,
		"since=0s":                            `since is "0s"`,
		"since=1":                             `since is "1"`,
		"reason=%zz":                          `the query cannot be read`,
		"reason=a;client_id=b":                `the query cannot be read`,
		"%1b%5b31m=" + "x":                    `unknown parameter "\x1b[31m"`,
		"limit=%E2%80%AE1":                    `limit is "\u202e1"`,
		strings.Repeat("a", 1<<20):            `parameter "aaaa`,
		"limit=" + strings.Repeat("9", 1<<20): `limit is "9999`,
	} {
		if _, _, err := ParseQuery(raw, queryTime); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("%.60s: %.400v, want %q", raw, err, want)
		}
	}
	if limit, err := ParseLimit(""); limit != 100 || err != nil {
		t.Errorf("%d, %v", limit, err)
	}
	if limit, err := ParseLimit("limit=7"); limit != 7 || err != nil {
		t.Errorf("%d, %v", limit, err)
	}
	for _, raw := range []string{"limit=0", "reason=a", "limit=1&limit=2"} {
		if _, err := ParseLimit(raw); err == nil {
			t.Errorf("%s is taken", raw)
		}
	}
}

func FuzzParseQuery(f *testing.F) {
	for _, seed := range []string{"", "realm=a&client_id=b&reason=c&since=1h&limit=5", "since=2030-01-02T03:04:05Z", "limit=%31", "a=b", "%00=%ff", "reason=a&reason=a", "since=9999999h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		_, q, err := ParseQuery(raw, queryTime)
		if err == nil && (q.Limit < 1 || q.Limit > maxLimit) {
			t.Errorf("limit %d", q.Limit)
		}
		if err != nil && (len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) })) {
			t.Errorf("error %q", err)
		}
	})
}

package trust_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestRevocationMetrics checks the freshness of the deny file and of CRLs, and the
// expiry of CRLs. The timestamp of a broken or missing source stops advancing.
func TestRevocationMetrics(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	end := time.Now().Add(240 * time.Hour).Truncate(time.Second)
	fetched := testpki.CRL(t, r.CA, 1, end.Add(time.Hour))
	var down atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(fetched)
	}))
	defer server.Close()
	file, deny := r.Write("clients.crl", testpki.CRL(t, r.CA, 1, end)), r.Write("deny", nil)
	url := server.URL + "/clients.crl"
	realm := strings.Replace(rig.ClockRealmOf(t), "\n\tclient billing.partner", "\n\trevocation {\n\t\tcrl \"@DIR@/clients.crl\" "+url+"\n\t\tdeny \"@DIR@/deny\"\n\t}\n\tclient billing.partner", 1)
	r.Start(realm, rig.OneSite)

	success := func(source string) string { return `source_last_success_timestamp_seconds{source="` + source + `"}` }
	nextUpdate := func(source string) string {
		return `crl_next_update_timestamp_seconds{source="` + source + `"}`
	}
	ofFile, ofURL := "crl:"+file, "crl:"+url
	// until waits until right accepts the series.
	until := func(what string, right func(map[string]float64) bool) map[string]float64 {
		t.Helper()
		var got map[string]float64
		for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if got = rig.Series(t, rig.Metrics(r, t), "default"); right(got) {
				return got
			}
		}
		t.Fatalf("%s: %v", what, got)
		return nil
	}
	since := func(at time.Time, names ...string) func(map[string]float64) bool {
		return func(got map[string]float64) bool {
			for _, name := range names {
				if got[name] < float64(at.Unix()) {
					return false
				}
			}
			return true
		}
	}
	got := until("the start", since(clock.Now().Add(-time.Minute), success(ofFile), success(ofURL), success("deny")))
	rig.CheckGauges(t, got, map[string]float64{nextUpdate(ofFile): float64(end.Unix()), nextUpdate(ofURL): float64(end.Add(time.Hour).Unix())})

	// unchanged files are fresh; a CRL that cannot be fetched is not
	down.Store(true)
	clock.Advance(2 * time.Hour)
	got = until("two hours later", since(clock.Now().Add(-time.Minute), success(ofFile), success("deny")))
	if got[success(ofURL)] > float64(clock.Now().Add(-time.Hour).Unix()) {
		t.Error("the CRL is fresh although it could not be fetched")
	}

	spoil := map[string]func(path string) error{
		"broken":  func(path string) error { return os.WriteFile(path, []byte("garbage\n"), 0o600) },
		"missing": os.Remove,
	}
	for _, state := range []string{"broken", "missing"} {
		for _, path := range []string{file, deny} {
			if err := spoil[state](path); err != nil {
				t.Fatal(err)
			}
		}
		clock.Advance(time.Minute)
		for _, source := range []string{"deny", "crl"} {
			text := map[string]string{"broken": "unknown rule", "missing": "no such file"}[state]
			if state == "broken" && source == "crl" {
				text = "not a CRL in DER or PEM"
			}
			clock.Advance(time.Minute)
			r.Logs.Wait(t, state+" "+source, func(entry rig.LogEntry) bool {
				return entry.Str("source") == source && strings.Contains(entry.Str("error"), text)
			})
		}
		clock.Advance(time.Hour)
		got = rig.Series(t, rig.Metrics(r, t), "default")
		for _, source := range []string{ofFile, "deny"} {
			if got[success(source)] > float64(clock.Now().Add(-time.Hour).Unix()) {
				t.Errorf("%s is fresh although it is %s", source, state)
			}
		}
		rig.CheckGauges(t, got, map[string]float64{nextUpdate(ofFile): float64(end.Unix())})
	}
	next := end.Add(time.Minute)
	r.Write("clients.crl", testpki.CRL(t, r.CA, 2, next))
	r.Write("deny", nil)
	got = until("repaired", since(clock.Now().Add(-time.Minute), success(ofFile), success("deny")))
	rig.CheckGauges(t, got, map[string]float64{nextUpdate(ofFile): float64(next.Unix())})

	// the CRL expires, and the log reports it once
	stale := func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "stale CRL no longer vouches for any certificate" && entry.Str("level") == "warn" && entry.Str("place") == file
	}
	if len(r.Logs.All(stale)) > 0 {
		t.Error("the CRL was reported stale too early")
	}
	clock.Advance(300 * time.Hour)
	r.Logs.Wait(t, "the end", stale)
	until("the end", since(clock.Now().Add(-time.Minute), success(ofFile)))
	if n := len(r.Logs.All(stale)); n != 1 {
		t.Errorf("the stale CRL was reported %d times", n)
	}
}

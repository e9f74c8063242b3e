package trust_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestCRLFromAURL_C4 checks that a CRL is fetched in the background, survives a
// configuration reload and an outage of its server, and is fetched again before it
// goes stale. Until the first fetch, revocation status is unknown, so no caller
// with a chain is admitted.
func TestCRLFromAURL_C4(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	var content atomic.Pointer[[]byte]
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		crl := content.Load()
		if crl == nil {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(*crl)
	}))
	defer server.Close()
	realm := strings.Replace(rig.ClockRealmOf(t), "\n\tclient billing.partner", "\n\trevocation {\n\t\tcrl "+server.URL+"/clients.crl\n\t}\n\tclient billing.partner", 1)
	r.Start(realm, rig.OneSite)
	r.Logs.Wait(t, "the first attempt", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "refreshing revocation source failed") && strings.Contains(entry.Str("error"), "503")
	})
	c := r.Caller(t, "h2", billing)
	c.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "revocation_unavailable" })

	first := rig.CRL(r, 1)
	content.Store(&first)
	clock.Advance(2 * time.Minute) // a failed fetch is retried after a minute
	c.Eventually(t, http.StatusOK)
	content.Store(nil)
	r.Reload(realm, rig.OneSite)
	c = r.Caller(t, "h2", billing)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)

	before := asked.Load()
	second := rig.CRL(r, 2, billing)
	content.Store(&second)
	clock.Advance(54 * time.Minute)
	c.Eventually(t, http.StatusUnauthorized)
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "certificate_revoked" })
	if got := asked.Load() - before; got > 2 {
		t.Errorf("the server was asked %d times for one CRL", got)
	}
}

package mtlsauth

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestC4_CRLFromAURL: a CRL is fetched in the background, is kept across a
// reload of the configuration and while its server is down, and is fetched
// again before it is stale; until the first fetch nobody knows, so nobody with
// a chain is admitted.
func TestC4_CRLFromAURL(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
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
	realm := strings.Replace(clockRealmOf(t), "\n\tclient billing.partner", "\n\trevocation {\n\t\tcrl "+server.URL+"/clients.crl\n\t}\n\tclient billing.partner", 1)
	r.start(realm, oneSite)
	r.logs.wait(t, "the first attempt", func(entry logEntry) bool {
		return strings.HasPrefix(entry.str("msg"), "a source of revocations failed") && strings.Contains(entry.str("error"), "503")
	})
	c := r.caller(t, "h2", billing)
	c.get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	r.logs.wait(t, "the reason", func(entry logEntry) bool { return entry.str("reason") == "revocation_unavailable" })

	first := r.crl(1)
	content.Store(&first)
	clock.advance(2 * time.Minute) // a failed fetch is tried again after a minute
	c.eventually(t, http.StatusOK)
	content.Store(nil)
	r.reload(realm, oneSite)
	c = r.caller(t, "h2", billing)
	c.get("https://api.test/").wantStatus(t, http.StatusOK)

	before := asked.Load()
	second := r.crl(2, billing)
	content.Store(&second)
	clock.advance(54 * time.Minute)
	c.eventually(t, http.StatusUnauthorized)
	r.logs.wait(t, "the reason", func(entry logEntry) bool { return entry.str("reason") == "certificate_revoked" })
	if got := asked.Load() - before; got > 2 {
		t.Errorf("the server was asked %d times for one CRL", got)
	}
}

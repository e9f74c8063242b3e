package trust_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const (
	shadowComplaint = "client would fail under the shadow trust pool"
	shadowOK        = `shadow_trust_total{result="ok"}`
	shadowFails     = `shadow_trust_total{result="fail"}`
	shadowFailing   = "shadow_trust_failing_clients"
)

// shadowRealm is a realm with a shadow trust pool. Its clients are identified in
// every way that depends on a chain, and in one that does not.
const shadowRealm = `
mtls shadowed {
	trust_pool combined {
		source file @DIR@/pool.pem
		source rig @DIR@/clients-ca.pem CLOCK
	}
	shadow_trust_pool file @DIR@/next.pem
	client moved {
		subject CN=moved
	}
	client old {
		subject CN=old
	}
	client narrow {
		subject CN=narrow
		issued_by OTHERCA
	}
	client chained {
		certificate @DIR@/chained.pem
		require_chain
	}
	client pinned {
		certificate @DIR@/pinned.pem
	}
}
`

var shadowSite = strings.Replace(rig.OneSite, "mtls_auth\n", "mtls_auth {\n\t\trealm shadowed\n\t}\n", 1)

// TestShadowTrustPool checks that clients who would fail under the next CA bundle
// are logged once, counted, and otherwise unaffected.
func TestShadowTrustPool(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	r.AdminOn = true
	r.Write("pool.pem", append(r.CA.PEM(), r.OtherCA.PEM()...))
	r.Write("next.pem", r.OtherCA.PEM())
	moved, old := r.IssueBy(r.OtherCA, "moved"), r.Issue("old")
	narrow, chained := r.IssueBy(r.OtherCA, "narrow"), r.Issue("chained")
	pinned, stranger := r.SelfSigned("pinned"), r.Issue("stranger")
	r.Start(strings.NewReplacer("CLOCK", t.Name(), "OTHERCA", testpki.HashOf(r.OtherCA.Cert.Raw)).Replace(shadowRealm), shadowSite)
	first := rig.Series(t, rig.Metrics(r, t), "shadowed")
	now := func() map[string]float64 {
		current := rig.Series(t, rig.Metrics(r, t), "shadowed")
		current[shadowOK] -= first[shadowOK]
		current[shadowFails] -= first[shadowFails]
		return current
	}
	reach := func(ok, fails, failing float64) {
		t.Helper()
		clock.Until(r.T, fmt.Sprintf("%v ok, %v fail, %v failing (it is %v)", ok, fails, failing, now()), func() bool {
			got := now()
			return got[shadowOK] == ok && got[shadowFails] == fails && got[shadowFailing] == failing
		})
	}
	if _, there := first[shadowFails]; !there || first[shadowFailing] != 0 {
		t.Errorf("before the first request the series are %v", first)
	}
	if first[`source_last_success_timestamp_seconds{source="shadow_trust_pool"}`] == 0 {
		t.Error("the shadow trust pool has no last-success series")
	}

	callers := make(map[string]*rig.Caller)
	for id, leaf := range map[string]*testpki.Leaf{"moved": moved, "old": old, "narrow": narrow, "chained": chained, "pinned": pinned} {
		callers[id] = r.Caller(t, "h2", leaf)
		callers[id].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, id)
	}
	r.Caller(t, "h1", stranger).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	reach(2, 2, 2)
	for id, leaf := range map[string]*testpki.Leaf{"old": old, "chained": chained} {
		said := r.Logs.All(func(entry rig.LogEntry) bool {
			return entry.Str("msg") == shadowComplaint && entry.Str("client_id") == id
		})
		if len(said) != 1 {
			t.Fatalf("%d log lines about %s", len(said), id)
		}
		line := said[0]
		if line.Str("level") != "warn" || line.Str("realm") != "shadowed" || line.Str("subject") != "CN="+id || line.Str("issuer") != "CN=Clients CA" ||
			line.Str("thumbprint") != testpki.HashOf(leaf.Cert.Raw) || !strings.Contains(line.Str("why"), "unknown authority") {
			t.Errorf("log line %v", line)
		}
	}

	// the status says who would fail, and why
	_, text := rig.Ask(r, t, http.MethodGet, "/mtls/status?realm=shadowed", "")
	var report status.Report
	if err := json.Unmarshal([]byte(text), &report); err != nil || len(report.Realms) != 1 || report.Realms[0].Shadow == nil {
		t.Fatalf("%v: %s", err, text)
	}
	failing := report.Realms[0].Shadow.Failing
	if len(failing) != 2 || failing[0].ClientID != "chained" || failing[1].ClientID != "old" {
		t.Fatalf("failing are %+v", failing)
	}
	want := status.ShadowFailure{ClientID: "old", Subject: "CN=old", Thumbprint: testpki.HashOf(old.Cert.Raw), NotAfter: old.Cert.NotAfter.UTC(), Why: failing[1].Why}
	if failing[1] != want || !strings.Contains(want.Why, "unknown authority") || report.Realms[0].Shadow.More != 0 {
		t.Errorf("got %+v, want %+v", failing[1], want)
	}

	// a cached certificate is not checked again, on any protocol
	for _, protocol := range rig.Protocols {
		r.Caller(t, protocol, old).Get("https://api.test/").WantStatus(t, http.StatusOK)
	}
	reach(2, 2, 2)

	// a bundle with both CAs accepts all clients; each is then checked again
	r.Write("next.pem", append(r.CA.PEM(), r.OtherCA.PEM()...))
	reach(2, 2, 0)
	for id, c := range callers {
		c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, id)
	}
	reach(6, 2, 0)

	// a bundle with neither CA accepts only the pinned client
	r.Write("next.pem", r.ServerCA.PEM())
	clock.Until(r.T, "the next pool", func() bool {
		return len(r.Logs.All(func(entry rig.LogEntry) bool {
			return entry.Str("msg") == "trust pool changed" && entry.Str("pool") == "shadow_trust_pool"
		})) == 2
	})
	for id, c := range callers {
		c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, id)
	}
	reach(6, 6, 4)

	// a broken bundle changes nothing
	r.Write("next.pem", []byte("garbage"))
	clock.Until(r.T, "a complaint", func() bool { return len(r.Logs.Said(poolComplaint, "next.pem' has no PEM certificate")) == 1 })
	callers["old"].Get("https://api.test/").WantStatus(t, http.StatusOK)
	reach(6, 6, 4)

	// expired certificates no longer count, because they fail anyway
	clock.Advance(25 * time.Hour)
	reach(6, 6, 0)
}

// TestShadowTrustPoolIssuedBy checks that the chain must satisfy the client's
// issued_by under the shadow pool too.
func TestShadowTrustPoolIssuedBy(t *testing.T) {
	r := rig.New(t)
	// another CA certificate with the same key: the chain verifies, but lacks the required CA
	again := testpki.MustCA(t, testpki.CommonName("Clients CA"), testpki.Key(r.CA.Key))
	r.Write("next.pem", again.PEM())
	billing := r.Issue("billing")
	r.Start("mtls {\ntrust_pool file @DIR@/clients-ca.pem\nshadow_trust_pool file @DIR@/next.pem\nclient billing.partner {\nsubject CN=billing\nissued_by "+
		testpki.HashOf(r.CA.Cert.Raw)+"\n}\n}\n", rig.OneSite)
	r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	line := r.Logs.Wait(t, "the failure", func(entry rig.LogEntry) bool { return entry.Str("msg") == shadowComplaint })
	if line.Str("why") != "no certificate of the chain is in the client's issued_by" || line.Str("client_id") != "billing.partner" {
		t.Errorf("log line %v", line)
	}
}

// TestShadowTrustPoolThatPanics checks that a panicking shadow pool module does not
// affect requests.
func TestShadowTrustPoolThatPanics(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	counts := newPoolCounts(t, r.OtherCA)
	billing := r.Issue("billing")
	panics := func() error { panic("out of order") }
	counts.fail.Store(&panics)
	realm := poolRealm(clocked(t) + "\nshadow_trust_pool counted " + t.Name() + "\ntrust_pool_refresh 1m")
	r.HTTPS, r.HTTP = rig.FreePort(t), rig.FreePort(t)
	err := r.Load(realm, rig.PatientSite)
	testtool.WantError(t, err, "realm 'default': shadow_trust_pool: the module 'counted' panicked: out of order")
	counts.fail.Store(nil)
	r.Start(realm, rig.PatientSite)
	c := r.Caller(t, "h2", billing)
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	r.Logs.Wait(t, "the failure", func(entry rig.LogEntry) bool { return entry.Str("msg") == shadowComplaint })
	counts.fail.Store(&panics)
	clock.Until(r.T, "the panic", func() bool { return len(r.Logs.Said(poolComplaint, "panicked: out of order")) == 1 })
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	counts.fail.Store(nil)
	gate := make(chan struct{})
	counts.gate.Store(&gate)
	clock.Until(r.T, "a load that hangs", func() bool { return counts.loading.Load() == 1 })
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	close(gate)
}

// TestShadowKeepsFailuresOfRenewedClients checks that a client goes on failing after it
// came with a certificate that passes, because another program of it may still have the
// old one, and that the status says so.
func TestShadowKeepsFailuresOfRenewedClients(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	r.AdminOn = true
	r.Write("pool.pem", append(r.CA.PEM(), r.OtherCA.PEM()...))
	r.Write("next.pem", r.OtherCA.PEM())
	r.SelfSigned("pinned")
	r.Issue("chained")
	r.Start(strings.NewReplacer("CLOCK", t.Name(), "OTHERCA", testpki.HashOf(r.OtherCA.Cert.Raw)).Replace(shadowRealm), shadowSite)
	failing := func() []status.ShadowFailure {
		_, text := rig.Ask(r, t, http.MethodGet, "/mtls/status?realm=shadowed", "")
		var report status.Report
		if err := json.Unmarshal([]byte(text), &report); err != nil || len(report.Realms) != 1 || report.Realms[0].Shadow == nil {
			t.Fatalf("%v: %s", err, text)
		}
		return report.Realms[0].Shadow.Failing
	}
	old := r.Issue("old")
	r.Caller(t, "h2", old).Get("https://api.test/").WantStatus(t, http.StatusOK)
	clock.Until(t, "old fails", func() bool { return len(failing()) == 1 })
	if got := failing()[0]; !got.Another.IsZero() {
		t.Errorf("before: %+v", got)
	}
	r.Caller(t, "h2", r.IssueBy(r.OtherCA, "old")).Get("https://api.test/").WantStatus(t, http.StatusOK)
	clock.Until(t, "it came with another certificate", func() bool { return !failing()[0].Another.IsZero() })
	if list := failing(); len(list) != 1 || list[0].Thumbprint != testpki.HashOf(old.Cert.Raw) || clock.Now().Sub(list[0].Another).Abs() > 2*time.Minute {
		t.Errorf("after: %+v", list)
	}
}

package mtlsauth

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const (
	shadowComplaint = "client would fail under the shadow trust pool"
	shadowOK        = `shadow_trust_total{result="ok"}`
	shadowFails     = `shadow_trust_total{result="fail"}`
	shadowFailing   = "shadow_trust_failing_clients"
)

// shadowRealm is a realm with a shadow trust pool, and with clients that are
// known in every way that a chain counts, and in one that it does not.
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

var shadowSite = strings.Replace(oneSite, "mtls_auth\n", "mtls_auth {\n\t\trealm shadowed\n\t}\n", 1)

// TestShadowTrustPool: who would fail under the next CA bundle is logged once
// and counted, and nothing else happens to him.
func TestShadowTrustPool(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	r.adminOn = true
	r.write("pool.pem", append(r.ca.PEM(), r.otherCA.PEM()...))
	r.write("next.pem", r.otherCA.PEM())
	moved, old := r.issueBy(r.otherCA, "moved"), r.issue("old")
	narrow, chained := r.issueBy(r.otherCA, "narrow"), r.issue("chained")
	pinned, stranger := r.selfSigned("pinned"), r.issue("stranger")
	r.start(strings.NewReplacer("CLOCK", t.Name(), "OTHERCA", testpki.HashOf(r.otherCA.Cert.Raw)).Replace(shadowRealm), shadowSite)
	first := series(t, r.metrics(t), "shadowed")
	now := func() map[string]float64 {
		current := series(t, r.metrics(t), "shadowed")
		current[shadowOK] -= first[shadowOK]
		current[shadowFails] -= first[shadowFails]
		return current
	}
	reach := func(ok, fails, failing float64) {
		t.Helper()
		r.until(clock, fmt.Sprintf("%v ok, %v fail, %v failing (it is %v)", ok, fails, failing, now()), func() bool {
			got := now()
			return got[shadowOK] == ok && got[shadowFails] == fails && got[shadowFailing] == failing
		})
	}
	if _, there := first[shadowFails]; !there || first[shadowFailing] != 0 {
		t.Errorf("before anybody came the series are %v", first)
	}
	if first[`source_last_success_timestamp_seconds{source="shadow_trust_pool"}`] == 0 {
		t.Error("there is no last success of the shadow trust pool")
	}

	callers := make(map[string]*caller)
	for id, leaf := range map[string]*testpki.Leaf{"moved": moved, "old": old, "narrow": narrow, "chained": chained, "pinned": pinned} {
		callers[id] = r.caller(t, "h2", leaf)
		callers[id].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, id)
	}
	r.caller(t, "h1", stranger).get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	reach(2, 2, 2)
	for id, leaf := range map[string]*testpki.Leaf{"old": old, "chained": chained} {
		said := r.logs.all(func(entry logEntry) bool { return entry.str("msg") == shadowComplaint && entry.str("client_id") == id })
		if len(said) != 1 {
			t.Fatalf("%d lines about %s", len(said), id)
		}
		line := said[0]
		if line.str("level") != "warn" || line.str("realm") != "shadowed" || line.str("subject") != "CN="+id || line.str("issuer") != "CN=Clients CA" ||
			line.str("thumbprint") != testpki.HashOf(leaf.Cert.Raw) || !strings.Contains(line.str("why"), "unknown authority") {
			t.Errorf("log line %v", line)
		}
	}

	// a certificate that is remembered costs nothing, on any protocol
	for _, protocol := range rigProtocols {
		r.caller(t, protocol, old).get("https://api.test/").wantStatus(t, http.StatusOK)
	}
	reach(2, 2, 2)

	// a bundle that has both CAs would do; then everybody is looked at again
	r.write("next.pem", append(r.ca.PEM(), r.otherCA.PEM()...))
	reach(2, 2, 0)
	for id, c := range callers {
		c.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, id)
	}
	reach(6, 2, 0)

	// one with neither would not, but for him who is pinned
	r.write("next.pem", r.serverCA.PEM())
	r.until(clock, "the next pool", func() bool {
		return len(r.logs.all(func(entry logEntry) bool {
			return entry.str("msg") == "the trust pool has changed" && entry.str("pool") == "shadow_trust_pool"
		})) == 2
	})
	for id, c := range callers {
		c.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, id)
	}
	reach(6, 6, 4)

	// a broken one changes nothing
	r.write("next.pem", []byte("garbage"))
	r.until(clock, "a complaint", func() bool { return len(r.said(poolComplaint, "next.pem' holds no PEM certificate")) == 1 })
	callers["old"].get("https://api.test/").wantStatus(t, http.StatusOK)
	reach(6, 6, 4)

	// a certificate that has expired fails anyway
	clock.advance(25 * time.Hour)
	reach(6, 6, 0)
}

// TestShadowTrustPoolIssuedBy: the chain must satisfy the client's issued_by
// under the shadow pool too.
func TestShadowTrustPoolIssuedBy(t *testing.T) {
	r := newRig(t)
	// the same key under another certificate: the chain verifies, but has not the CA
	again := testpki.MustCA(t, testpki.CommonName("Clients CA"), testpki.Key(r.ca.Key))
	r.write("next.pem", again.PEM())
	billing := r.issue("billing")
	r.start("mtls {\ntrust_pool file @DIR@/clients-ca.pem\nshadow_trust_pool file @DIR@/next.pem\nclient billing.partner {\nsubject CN=billing\nissued_by "+
		testpki.HashOf(r.ca.Cert.Raw)+"\n}\n}\n", oneSite)
	r.caller(t, "h2", billing).get("https://api.test/").wantStatus(t, http.StatusOK)
	line := r.logs.wait(t, "the failure", func(entry logEntry) bool { return entry.str("msg") == shadowComplaint })
	if line.str("why") != "no certificate of the chain is in the client's issued_by" || line.str("client_id") != "billing.partner" {
		t.Errorf("log line %v", line)
	}
}

// TestShadowTrustPoolThatPanics: a shadow pool of a module that goes wrong
// decides nothing either.
func TestShadowTrustPoolThatPanics(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	counts := newPoolCounts(t, r.otherCA)
	billing := r.issue("billing")
	panics := func() error { panic("out of order") }
	counts.fail.Store(&panics)
	realm := poolRealm(clocked(t) + "\nshadow_trust_pool counted " + t.Name() + "\ntrust_pool_refresh 1m")
	r.https, r.http = rigPort(t), rigPort(t)
	err := r.load(realm, patientSite)
	testtool.WantError(t, err, "realm 'default': shadow_trust_pool: the module 'counted' panics: out of order")
	counts.fail.Store(nil)
	r.start(realm, patientSite)
	c := r.caller(t, "h2", billing)
	c.patience = time.Minute
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	r.logs.wait(t, "the failure", func(entry logEntry) bool { return entry.str("msg") == shadowComplaint })
	counts.fail.Store(&panics)
	r.until(clock, "the panic", func() bool { return len(r.said(poolComplaint, "panics: out of order")) == 1 })
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	counts.fail.Store(nil)
	gate := make(chan struct{})
	counts.gate.Store(&gate)
	r.until(clock, "a load that hangs", func() bool { return counts.loading.Load() == 1 })
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	close(gate)
}

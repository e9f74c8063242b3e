package trust_test

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// revocationRealm returns BillingAndSensor with a revocation block of the given
// lines.
func revocationRealm(lines string) string {
	return strings.Replace(rig.BillingAndSensor, "\n\tclient billing.partner", "\n\trevocation {\n"+lines+"\n\t}\n\tclient billing.partner", 1)
}

// TestCRL_C4 checks that a certificate on a CRL is refused, on an open connection
// too. A CRL that is older, broken or from another CA changes nothing.
func TestCRL_C4(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	file := r.Write("clients.crl", rig.CRL(r, 1))
	r.Start(revocationRealm(`crl "@DIR@/clients.crl"`), rig.OneSite)
	open := map[string]*rig.Caller{}
	for _, protocol := range rig.Protocols {
		open[protocol] = r.Caller(t, protocol, billing)
		open[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
	replace := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file+".new", content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	replace(rig.CRL(r, 2, billing))
	for _, protocol := range rig.Protocols {
		got := open[protocol].Eventually(t, http.StatusUnauthorized)
		got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
		r.Caller(t, protocol, sensor).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
	}
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool {
		return entry.Str("reason") == "certificate_revoked" && strings.Contains(entry.Str("detail"), "according to a CRL")
	})
	replace([]byte("no CRL"))
	r.Logs.Wait(t, "the broken CRL", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "refreshing revocation source failed")
	})
	replace(rig.CRL(r, 1))
	r.Logs.Wait(t, "the old CRL", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "refreshing revocation source failed") && strings.Contains(entry.Str("error"), "its number goes back from 2 to 1")
	})
	open["h1"].Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	replace(rig.CRL(r, 3))
	open["h1"].Eventually(t, http.StatusOK)
}

// TestMissingCRL_C4_R8 checks that a chain with a CA that lacks a CRL is refused,
// unless configured otherwise.
func TestMissingCRL_C4_R8(t *testing.T) {
	for setting, want := range map[string]int{"": http.StatusUnauthorized, "\non_unavailable refuse": http.StatusUnauthorized, "\non_unavailable allow": http.StatusOK} {
		r := rig.New(t)
		billing := r.Issue("billing")
		r.SelfSigned("sensor")
		other := testpki.MustCA(t)
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}, other.Cert, other.Key)
		if err != nil {
			t.Fatal(err)
		}
		r.Write("other.crl", der)
		r.Start(revocationRealm(`crl "@DIR@/other.crl"`+setting), rig.OneSite)
		r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, want)
		if want != http.StatusOK {
			r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "revocation_unavailable" })
		}
	}
}

// ocspResponder answers for the rig's CA with the given state; -1 means that it is
// down.
func ocspResponder(r *rig.Rig, state func(*ocsp.Request) int) *httptest.Server {
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			r.T.Error(err)
			return
		}
		question, err := ocsp.ParseRequest(body)
		if err != nil {
			r.T.Error(err)
			return
		}
		status := state(question)
		if status < 0 {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		der, err := ocsp.CreateResponse(r.CA.Cert, r.CA.Cert, ocsp.Response{
			Status: status, SerialNumber: question.SerialNumber, RevokedAt: time.Now().Add(-time.Hour),
			ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}, r.CA.Key)
		if err != nil {
			r.T.Error(err)
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(der)
	}))
	r.T.Cleanup(responder.Close)
	return responder
}

// TestOCSP checks that the responder's answer decides, and that the caller is
// refused while the responder is down.
func TestOCSP(t *testing.T) {
	r := rig.New(t)
	good, revoked := r.Issue("billing"), r.IssueBy(r.CA, "second", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	var down atomic.Bool
	responder := ocspResponder(r, func(request *ocsp.Request) int {
		switch {
		case down.Load():
			return -1
		case request.SerialNumber.Cmp(revoked.Cert.SerialNumber) == 0:
			return ocsp.Revoked
		}
		return ocsp.Good
	})
	r.Start(revocationRealm("ocsp "+responder.URL), rig.OneSite)
	for _, protocol := range rig.Protocols {
		r.Caller(t, protocol, good).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		r.Caller(t, protocol, revoked).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
	}
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "certificate_revoked" })
	down.Store(true)
	fresh := r.IssueBy(r.CA, "third", testpki.CommonName("billing"))
	r.Caller(t, "h1", fresh).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "revocation_unavailable" })
	r.Caller(t, "h1", good).Get("https://api.test/").WantStatus(t, http.StatusOK)
}

// TestDenyFileOverAReload_C2 checks that rules deleted just before a reload stay in
// force until the file has settled.
func TestDenyFileOverAReload_C2(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	sensor := r.SelfSigned("sensor")
	r.Write("deny", []byte("thumbprint "+testpki.HashOf(sensor.Cert.Raw)+"\n"))
	r.Start(revocationRealm(`deny "@DIR@/deny"`), rig.OneSite)
	r.Caller(t, "h1", sensor).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	r.Write("deny", nil)
	if err := r.Load(revocationRealm(`deny "@DIR@/deny"`), rig.OneSite); err != nil {
		t.Fatal(err)
	}
	// the new configuration logs this only if it dropped inherited rules
	r.Logs.Wait(t, "the empty file", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "deny file in force" && entry["rules"] == float64(0)
	})
	r.Logs.Wait(t, "that it became shorter", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "deny file has fewer rules than before" && entry["before"] == float64(1) && entry["after"] == float64(0)
	})
	r.Caller(t, "h2", sensor).Eventually(t, http.StatusOK)
}

// TestDenyFile_C2 checks that a rule applies to the next requests on an open
// connection, for pins too, and that a broken file keeps the previous rules.
func TestDenyFile_C2(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	file := r.Write("deny", []byte("# nobody\n"))
	r.Start(revocationRealm(`deny "@DIR@/deny"`), rig.OneSite)
	named, pinned := r.Caller(t, "h2", billing), r.Caller(t, "h1", sensor)
	named.Get("https://api.test/").WantStatus(t, http.StatusOK)
	pinned.Get("https://api.test/").WantStatus(t, http.StatusOK)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules := "thumbprint " + testpki.HashOf(sensor.Cert.Raw) + "\n"
	write(rules)
	pinned.Eventually(t, http.StatusUnauthorized).WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
	named.Get("https://api.test/").WantStatus(t, http.StatusOK)
	rules += fmt.Sprintf("serial %s %s\n", hex.EncodeToString(billing.Cert.SerialNumber.Bytes()), r.CA.Cert.Subject)
	write(rules)
	named.Eventually(t, http.StatusUnauthorized)
	write("nonsense\n")
	r.Logs.Wait(t, "the broken file", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "refreshing revocation source failed") && entry.Str("source") == "deny"
	})
	pinned.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	write("# nobody any more\n")
	pinned.Eventually(t, http.StatusOK)
	named.Eventually(t, http.StatusOK)
}

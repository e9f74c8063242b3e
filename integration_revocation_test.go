package mtlsauth

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

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// revocationRealm is billingAndSensor with the lines of a revocation block.
func revocationRealm(lines string) string {
	return strings.Replace(billingAndSensor, "\n\tclient billing.partner", "\n\trevocation {\n"+lines+"\n\t}\n\tclient billing.partner", 1)
}

// crl makes a CRL of the rig's CA with a number and these certificates on it.
func (r *rig) crl(number int64, revoked ...*testpki.Leaf) []byte {
	r.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, leaf := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: leaf.Cert.SerialNumber, RevocationTime: time.Now().Add(-time.Minute),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, r.ca.Cert, r.ca.Key)
	if err != nil {
		r.t.Fatal(err)
	}
	return der
}

// eventually asks over one open connection until the answer is what it should be.
func (c *caller) eventually(t *testing.T, status int) reply {
	t.Helper()
	var got reply
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if got = c.get("https://api.test/"); got.status == status {
			return got
		}
	}
	t.Fatalf("still %d, want %d", got.status, status)
	return got
}

// TestC4_CRL: a certificate on a CRL is refused, on a connection that is open
// too; a CRL that is gone back, broken or of another CA changes nothing.
func TestC4_CRL(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	file := r.write("clients.crl", r.crl(1))
	r.start(revocationRealm(`crl "@DIR@/clients.crl"`), oneSite)
	open := map[string]*caller{}
	for _, protocol := range rigProtocols {
		open[protocol] = r.caller(t, protocol, billing)
		open[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
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
	replace(r.crl(2, billing))
	for _, protocol := range rigProtocols {
		got := open[protocol].eventually(t, http.StatusUnauthorized)
		got.wantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
		r.caller(t, protocol, sensor).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
	}
	r.logs.wait(t, "the reason", func(entry logEntry) bool {
		return entry.str("reason") == "certificate_revoked" && strings.Contains(entry.str("detail"), "a CRL says it is revoked")
	})
	replace([]byte("no CRL"))
	r.logs.wait(t, "the broken CRL", func(entry logEntry) bool {
		return strings.HasPrefix(entry.str("msg"), "a source of revocations failed")
	})
	replace(r.crl(1))
	r.logs.wait(t, "the old CRL", func(entry logEntry) bool {
		return strings.HasPrefix(entry.str("msg"), "a source of revocations failed") && strings.Contains(entry.str("error"), "the number of the CRL goes back from 2 to 1")
	})
	open["h1"].get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	r.caller(t, "h2", billing).get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	replace(r.crl(3))
	open["h1"].eventually(t, http.StatusOK)
}

// TestC4_R8_MissingCRL: a CA of the chain without a CRL refuses, unless told
// otherwise.
func TestC4_R8_MissingCRL(t *testing.T) {
	for setting, want := range map[string]int{"": http.StatusUnauthorized, "\non_unavailable refuse": http.StatusUnauthorized, "\non_unavailable allow": http.StatusOK} {
		r := newRig(t)
		billing := r.issue("billing")
		r.selfSigned("sensor")
		other := testpki.MustCA(t)
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}, other.Cert, other.Key)
		if err != nil {
			t.Fatal(err)
		}
		r.write("other.crl", der)
		r.start(revocationRealm(`crl "@DIR@/other.crl"`+setting), oneSite)
		r.caller(t, "h1", billing).get("https://api.test/").wantStatus(t, want)
		if want != http.StatusOK {
			r.logs.wait(t, "the reason", func(entry logEntry) bool { return entry.str("reason") == "revocation_unavailable" })
		}
	}
}

// ocspResponder answers for the rig's CA as state says, -1 being that it is down.
func (r *rig) ocspResponder(state func(*ocsp.Request) int) *httptest.Server {
	responder := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			r.t.Error(err)
			return
		}
		question, err := ocsp.ParseRequest(body)
		if err != nil {
			r.t.Error(err)
			return
		}
		status := state(question)
		if status < 0 {
			http.Error(w, "down", http.StatusInternalServerError)
			return
		}
		der, err := ocsp.CreateResponse(r.ca.Cert, r.ca.Cert, ocsp.Response{
			Status: status, SerialNumber: question.SerialNumber, RevokedAt: time.Now().Add(-time.Hour),
			ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour),
		}, r.ca.Key)
		if err != nil {
			r.t.Error(err)
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(der)
	}))
	r.t.Cleanup(responder.Close)
	return responder
}

// TestOCSP: the responder's answer counts, and a responder that is down refuses.
func TestOCSP(t *testing.T) {
	r := newRig(t)
	good, revoked := r.issue("billing"), r.issueBy(r.ca, "second", testpki.CommonName("billing"))
	r.selfSigned("sensor")
	var down atomic.Bool
	responder := r.ocspResponder(func(request *ocsp.Request) int {
		switch {
		case down.Load():
			return -1
		case request.SerialNumber.Cmp(revoked.Cert.SerialNumber) == 0:
			return ocsp.Revoked
		}
		return ocsp.Good
	})
	r.start(revocationRealm("ocsp "+responder.URL), oneSite)
	for _, protocol := range rigProtocols {
		r.caller(t, protocol, good).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		r.caller(t, protocol, revoked).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
	}
	r.logs.wait(t, "the reason", func(entry logEntry) bool { return entry.str("reason") == "certificate_revoked" })
	down.Store(true)
	fresh := r.issueBy(r.ca, "third", testpki.CommonName("billing"))
	r.caller(t, "h1", fresh).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
	r.logs.wait(t, "the reason", func(entry logEntry) bool { return entry.str("reason") == "revocation_unavailable" })
	r.caller(t, "h1", good).get("https://api.test/").wantStatus(t, http.StatusOK)
}

// TestC2_DenyFileOverAReload: rules that are gone when the configuration is
// loaded anew count until the file has been quiet.
func TestC2_DenyFileOverAReload(t *testing.T) {
	r := newRig(t)
	r.issue("billing")
	sensor := r.selfSigned("sensor")
	r.write("deny", []byte("thumbprint "+testpki.HashOf(sensor.Cert.Raw)+"\n"))
	r.start(revocationRealm(`deny "@DIR@/deny"`), oneSite)
	r.caller(t, "h1", sensor).get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	r.write("deny", nil)
	if err := r.load(revocationRealm(`deny "@DIR@/deny"`), oneSite); err != nil {
		t.Fatal(err)
	}
	// said by the new configuration alone if it had the old rules to drop
	r.logs.wait(t, "the empty file", func(entry logEntry) bool {
		return entry.str("msg") == "the deny file is in force" && entry["rules"] == float64(0)
	})
	r.caller(t, "h2", sensor).eventually(t, http.StatusOK)
}

// TestC2_DenyFile: a rule counts on the next requests of an open connection,
// for pins too, and a broken file keeps the rules it had.
func TestC2_DenyFile(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	file := r.write("deny", []byte("# nobody\n"))
	r.start(revocationRealm(`deny "@DIR@/deny"`), oneSite)
	named, pinned := r.caller(t, "h2", billing), r.caller(t, "h1", sensor)
	named.get("https://api.test/").wantStatus(t, http.StatusOK)
	pinned.get("https://api.test/").wantStatus(t, http.StatusOK)
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	rules := "thumbprint " + testpki.HashOf(sensor.Cert.Raw) + "\n"
	write(rules)
	pinned.eventually(t, http.StatusUnauthorized).wantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
	named.get("https://api.test/").wantStatus(t, http.StatusOK)
	rules += fmt.Sprintf("serial %s %s\n", hex.EncodeToString(billing.Cert.SerialNumber.Bytes()), r.ca.Cert.Subject)
	write(rules)
	named.eventually(t, http.StatusUnauthorized)
	write("nonsense\n")
	r.logs.wait(t, "the broken file", func(entry logEntry) bool {
		return strings.HasPrefix(entry.str("msg"), "a source of revocations failed") && entry.str("source") == "deny"
	})
	pinned.get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	write("# nobody any more\n")
	pinned.eventually(t, http.StatusOK)
	named.eventually(t, http.StatusOK)
}

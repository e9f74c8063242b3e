package mtlsauth

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// TestC4_RevokedIntermediate: whom a CA has issued that is revoked is refused,
// on an open connection too, and nobody else.
func TestC4_RevokedIntermediate(t *testing.T) {
	r := newRig(t)
	sub := testpki.MustIntermediate(t, r.ca, testpki.CommonName("Sub"))
	below, beside := r.issueBy(sub, "below", testpki.CommonName("billing")), r.issue("beside", testpki.CommonName("billing"))
	r.selfSigned("sensor")
	tomorrow := time.Now().Add(24 * time.Hour)
	file := r.write("root.crl", testpki.CRL(t, r.ca, 1, tomorrow))
	r.write("sub.crl", testpki.CRL(t, sub, 1, tomorrow))
	r.start(revocationRealm(`crl "@DIR@/root.crl" "@DIR@/sub.crl"`), oneSite)
	open := map[string]*caller{}
	for _, protocol := range rigProtocols {
		open[protocol] = r.caller(t, protocol, below)
		open[protocol].get("https://api.test/").wantStatus(t, http.StatusOK)
	}
	if err := os.WriteFile(file, testpki.CRL(t, r.ca, 2, tomorrow, sub.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range rigProtocols {
		open[protocol].eventually(t, http.StatusUnauthorized).wantRefused(t, "default", http.StatusUnauthorized, rigRefused)
		r.caller(t, protocol, beside).get("https://api.test/").wantStatus(t, http.StatusOK)
	}
	r.logs.wait(t, "the reason", func(entry logEntry) bool {
		return entry.str("reason") == "certificate_revoked" && strings.Contains(entry.str("detail"), fmt.Sprintf("certificate number %x of CN=Clients CA: a CRL", sub.Cert.SerialNumber))
	})
}

// TestOCSPThatHangsHoldsUpNobodyElse: the first request of a certificate waits
// for three seconds at most, the next one not at all, and others never.
func TestOCSPThatHangsHoldsUpNobodyElse(t *testing.T) {
	r := newRig(t)
	slow, other := r.issue("billing"), r.issue("second", testpki.CommonName("billing"))
	r.selfSigned("sensor")
	asked, end := make(chan struct{}, 100), make(chan struct{})
	responder := r.ocspResponder(func(question *ocsp.Request) int {
		if question.SerialNumber.Cmp(slow.Cert.SerialNumber) == 0 {
			asked <- struct{}{}
			<-end
		}
		return ocsp.Good
	})
	defer close(end)
	r.start(revocationRealm("ocsp "+responder.URL), oneSite)
	held, free := r.caller(t, "h2", slow), r.caller(t, "h2", other)
	answered := make(chan reply)
	start := time.Now()
	go func() { answered <- held.get("https://api.test/") }()
	<-asked
	free.get("https://api.test/").wantStatus(t, http.StatusOK)
	free.get("https://api.test/").wantStatus(t, http.StatusOK)
	select {
	case got := <-answered:
		t.Errorf("the other client's requests waited, or this one did not: %d", got.status)
	default:
		(<-answered).wantRefused(t, "default", http.StatusUnauthorized, rigRefused)
	}
	if took := time.Since(start); took < 2*time.Second || took > 2*revocation.DefaultOCSPTimeout {
		t.Errorf("waited for %s", took)
	}
	start = time.Now()
	held.get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	if took := time.Since(start); took > revocation.DefaultOCSPTimeout/2 {
		t.Errorf("then waited for %s", took)
	}
	failure := r.logs.wait(t, "the failure", func(entry logEntry) bool { return entry.str("msg") == "no OCSP responder gives a usable answer" })
	if want := fmt.Sprintf("number %x of CN=Clients CA", slow.Cert.SerialNumber); failure.str("certificate") != want || failure.str("level") != "error" {
		t.Errorf("%v, want %s", failure, want)
	}
}

// TestOCSPAnswersOverAReload: the next configuration knows the answers.
func TestOCSPAnswersOverAReload(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	var asked atomic.Int64
	responder := r.ocspResponder(func(*ocsp.Request) int {
		if asked.Add(1) > 1 {
			return -1
		}
		return ocsp.Good
	})
	realm := revocationRealm("ocsp " + responder.URL)
	r.start(realm, oneSite)
	r.caller(t, "h1", billing).get("https://api.test/").wantStatus(t, http.StatusOK)
	for n := range 2 {
		r.reload(fmt.Sprintf("%s\n# change %d", realm, n), oneSite)
		r.caller(t, "h2", billing).get("https://api.test/").wantStatus(t, http.StatusOK)
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("%d questions", got)
	}
}

// revokedAndOthers is a realm whose clients are refused for all that has to do
// with revocation, by the name of their certificate.
func revokedAndOthers(t *testing.T, r *rig) (realm string, leaves map[string]*testpki.Leaf) {
	silent := testpki.MustIntermediate(t, r.ca, testpki.CommonName("Has no CRL"))
	leaves = map[string]*testpki.Leaf{
		"billing":  r.issue("billing"),
		"revoked":  r.issue("revoked", testpki.CommonName("billing")),
		"unknown":  r.issueBy(silent, "unknown", testpki.CommonName("billing")),
		"denied":   r.issue("denied", testpki.CommonName("billing")),
		"sensor":   r.selfSigned("sensor"),
		"stranger": r.issueBy(r.otherCA, "stranger", testpki.CommonName("billing")),
	}
	r.write("clients.crl", testpki.CRL(t, r.ca, 1, time.Now().Add(time.Hour), leaves["revoked"].Cert))
	r.write("deny", []byte("thumbprint "+testpki.HashOf(leaves["denied"].Cert.Raw)+"\nthumbprint "+testpki.HashOf(leaves["sensor"].Cert.Raw)+"\n"))
	realm = strings.Replace(issuerRealm(""), "issuer https", "revocation {\ncrl \"@DIR@/clients.crl\"\ndeny \"@DIR@/deny\"\n}\nissuer https", 1)
	return realm, leaves
}

// TestC6_RevokedClientCannotRenew: no token for who is revoked or denied, or of
// whom nobody knows, however the client is known.
func TestC6_RevokedClientCannotRenew(t *testing.T) {
	r := newRig(t)
	realm, leaves := revokedAndOthers(t, r)
	r.start(realm, oneSite+issuerSite)
	for _, protocol := range rigProtocols {
		r.token(t, r.caller(t, protocol, leaves["billing"]), "https://auth.test/connect/token", form("billing.partner"))
		for name, reason := range map[string]string{
			"revoked": "certificate_revoked", "denied": "certificate_revoked", "sensor": "certificate_revoked", "unknown": "revocation_unavailable",
		} {
			client := "billing.partner"
			if name == "sensor" {
				client = "sensor-7"
			}
			got := r.caller(t, protocol, leaves[name]).do(http.MethodPost, "https://auth.test/connect/token", form(client)).wantStatus(t, http.StatusUnauthorized)
			if answer := asJSON(t, got.body); answer["error"] != "invalid_client" || answer["access_token"] != nil {
				t.Errorf("%s: %s", name, got.body)
			}
			thumbprint := testpki.HashOf(leaves[name].Cert.Raw)
			r.logs.wait(t, "the reason of "+name, func(entry logEntry) bool {
				return entry.str("reason") == reason && entry.str("thumbprint") == thumbprint
			})
		}
	}
	// and a connection that has got tokens before
	c := r.caller(t, "h2", leaves["billing"])
	r.token(t, c, "https://auth.test/connect/token", form("billing.partner"))
	r.write("deny", []byte("thumbprint "+testpki.HashOf(leaves["billing"].Cert.Raw)+"\n"))
	c.eventually(t, http.StatusUnauthorized)
	c.do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner")).wantStatus(t, http.StatusUnauthorized)
}

// TestE1_RevokedLooksTheSame: a caller does not learn that its certificate is
// revoked, or that nobody knows.
func TestE1_RevokedLooksTheSame(t *testing.T) {
	r := newRig(t)
	realm, leaves := revokedAndOthers(t, r)
	r.start(realm, oneSite+issuerSite)
	for _, protocol := range rigProtocols {
		want := sameness(r.caller(t, protocol, leaves["stranger"]).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, rigRefused))
		tokenOf := func(name string) string {
			got := r.caller(t, protocol, leaves[name]).do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner")).wantStatus(t, http.StatusUnauthorized)
			header := got.header.Clone()
			header.Del("Date")
			header.Del("Alt-Svc")
			before, _, _ := strings.Cut(got.body, "error_id") // of which each request has its own
			return fmt.Sprint(header, before[:min(len(before), 60)], len(got.body))
		}
		wantToken := tokenOf("stranger")
		for _, name := range []string{"revoked", "denied", "sensor", "unknown"} {
			if got := sameness(r.caller(t, protocol, leaves[name]).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, rigRefused)); got != want {
				t.Errorf("%s, %s is answered\n%s\nand a stranger\n%s", protocol, name, got, want)
			}
			if got := tokenOf(name); got != wantToken {
				t.Errorf("%s, at the token endpoint %s is answered\n%s\nand a stranger\n%s", protocol, name, got, wantToken)
			}
		}
	}
}

// TestOCSPByOpenSSL: a responder that others have written.
func TestOCSPByOpenSSL(t *testing.T) {
	testtool.Path(t, "openssl")
	r := newRig(t)
	good, revoked := r.issue("billing"), r.issue("second", testpki.CommonName("billing"))
	r.selfSigned("sensor")
	r.write("clients-ca.key", r.ca.KeyPEM())
	end := time.Now().Add(24 * time.Hour).UTC().Format("060102150405Z")
	past := time.Now().Add(-time.Hour).UTC().Format("060102150405Z")
	r.write("index.txt", fmt.Appendf(nil, "V\t%s\t\t%s\tunknown\t/CN=billing\nR\t%s\t%s\t%s\tunknown\t/CN=billing\n",
		end, serialHex(good), end, past, serialHex(revoked)))
	r.start(revocationRealm("ocsp "+opensslResponder(t, r.dir)), oneSite)
	for _, protocol := range rigProtocols {
		r.caller(t, protocol, good).eventually(t, http.StatusOK)
		r.caller(t, protocol, revoked).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, rigRefused)
	}
	r.logs.wait(t, "the reason", func(entry logEntry) bool {
		return entry.str("reason") == "certificate_revoked" && strings.Contains(entry.str("detail"), "an OCSP responder says it is revoked")
	})
}

// serialHex is a serial number as openssl's index has it.
func serialHex(leaf *testpki.Leaf) string {
	return strings.ToUpper(fmt.Sprintf("%x", leaf.Cert.SerialNumber.Bytes()))
}

// opensslResponder starts "openssl ocsp", which prints the port it has found.
func opensslResponder(t *testing.T, dir string) (url string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, "openssl", "ocsp", "-index", "index.txt", "-CA", "clients-ca.pem", "-rsigner", "clients-ca.pem", "-rkey", "clients-ca.key", "-nmin", "5", "-port", "0")
	command.Dir = filepath.FromSlash(dir)
	output, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	command.Stderr = command.Stdout
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = command.Wait()
	})
	var said []string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		said = append(said, lines.Text())
		fields := strings.Fields(lines.Text()) // ACCEPT [::]:40123 PID=7
		if len(fields) < 2 || fields[0] != "ACCEPT" {
			continue
		}
		if _, port, err := net.SplitHostPort(fields[1]); err == nil {
			go func() { _, _ = io.Copy(io.Discard, output) }() // or it would block on a full pipe
			return "http://localhost:" + port
		}
	}
	t.Skipf("openssl ocsp does not say where it listens, as versions before 3 do not: %q", said)
	return ""
}

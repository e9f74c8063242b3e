package trust_test

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

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

// TestRevokedIntermediate_C4 checks that certificates issued by a revoked CA are
// refused, on an open connection too, and that all others are admitted.
func TestRevokedIntermediate_C4(t *testing.T) {
	r := rig.New(t)
	sub := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Sub"))
	below, beside := r.IssueBy(sub, "below", testpki.CommonName("billing")), r.Issue("beside", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	tomorrow := time.Now().Add(24 * time.Hour)
	file := r.Write("root.crl", testpki.CRL(t, r.CA, 1, tomorrow))
	r.Write("sub.crl", testpki.CRL(t, sub, 1, tomorrow))
	r.Start(revocationRealm(`crl "@DIR@/root.crl" "@DIR@/sub.crl"`), rig.OneSite)
	open := map[string]*rig.Caller{}
	for _, protocol := range rig.Protocols {
		open[protocol] = r.Caller(t, protocol, below)
		open[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK)
	}
	if err := os.WriteFile(file, testpki.CRL(t, r.CA, 2, tomorrow, sub.Cert), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range rig.Protocols {
		open[protocol].Eventually(t, http.StatusUnauthorized).WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
		r.Caller(t, protocol, beside).Get("https://api.test/").WantStatus(t, http.StatusOK)
	}
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool {
		return entry.Str("reason") == "certificate_revoked" && strings.Contains(entry.Str("detail"), fmt.Sprintf("certificate number %x of CN=Clients CA: revoked since ", sub.Cert.SerialNumber))
	})
}

// TestOCSPThatHangsHoldsUpNobodyElse checks that the first request with a
// certificate waits at most three seconds for a hanging responder, later ones do
// not wait, and requests with other certificates never do. A busy machine can make
// any request slow, so the test begins again with another certificate if one was.
func TestOCSPThatHangsHoldsUpNobodyElse(t *testing.T) {
	r := rig.New(t)
	other := r.Issue("second", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	asked, end := make(chan struct{}, 100), make(chan struct{})
	responder := ocspResponder(r, func(question *ocsp.Request) int {
		if question.SerialNumber.Cmp(other.Cert.SerialNumber) != 0 {
			asked <- struct{}{}
			<-end
		}
		return ocsp.Good
	})
	defer close(end)
	r.Start(revocationRealm("ocsp "+responder.URL), rig.OneSite)
	const attempts = 5
	for attempt := 1; ; attempt++ {
		slow := r.Issue(fmt.Sprint("slow", attempt), testpki.CommonName("billing"))
		wrong := hangs(r, t, slow, other, asked)
		failure := r.Logs.Wait(t, "the failure", func(entry rig.LogEntry) bool {
			return entry.Str("msg") == "no usable answer from any OCSP responder" && entry.Str("certificate") == fmt.Sprintf("number %x of CN=Clients CA", slow.Cert.SerialNumber)
		})
		if failure.Str("level") != "error" {
			t.Errorf("the failure is logged as %v", failure)
		}
		if wrong == "" || t.Failed() {
			return
		}
		if attempt == attempts {
			t.Fatal(wrong)
		}
		t.Log("once more: ", wrong)
	}
}

// hangs asks with a certificate whose responder hangs, and meanwhile with another. It
// returns what took too long.
func hangs(r *rig.Rig, t *testing.T, slow, other *testpki.Leaf, asked <-chan struct{}) (wrong string) {
	t.Helper()
	held, free := r.Caller(t, "h2", slow), r.Caller(t, "h2", other)
	answered := make(chan rig.Reply)
	start := time.Now()
	go func() {
		got, err := held.Try(http.MethodGet, "https://api.test/")
		if err != nil {
			t.Error(err)
		}
		answered <- got
	}()
	<-asked
	free.Get("https://api.test/").WantStatus(t, http.StatusOK)
	free.Get("https://api.test/").WantStatus(t, http.StatusOK)
	var got rig.Reply
	select {
	case got = <-answered:
		wrong = "the other client's requests waited as well"
	default:
		got = <-answered
	}
	got.WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
	took := time.Since(start)
	if took < 2*time.Second {
		t.Errorf("waited for %s only", took)
	}
	start = time.Now()
	held.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	again := time.Since(start)
	if took > 2*revocation.DefaultOCSPTimeout || again > revocation.DefaultOCSPTimeout/2 {
		wrong += fmt.Sprintf("; waited for %s, and then for %s", took, again)
	}
	return wrong
}

// TestOCSPAnswersOverAReload checks that the next configuration inherits OCSP
// answers.
func TestOCSPAnswersOverAReload(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	var asked atomic.Int64
	responder := ocspResponder(r, func(*ocsp.Request) int {
		if asked.Add(1) > 1 {
			return -1
		}
		return ocsp.Good
	})
	realm := revocationRealm("ocsp " + responder.URL)
	r.Start(realm, rig.OneSite)
	r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	for n := range 2 {
		r.Reload(fmt.Sprintf("%s\n# change %d", realm, n), rig.OneSite)
		r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	}
	if got := asked.Load(); got != 1 {
		t.Errorf("%d OCSP requests", got)
	}
}

// revokedAndOthers returns a realm that refuses clients for every reason to do with
// revocation, and their certificates by name.
func revokedAndOthers(t *testing.T, r *rig.Rig) (realm string, leaves map[string]*testpki.Leaf) {
	silent := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Has no CRL"))
	leaves = map[string]*testpki.Leaf{
		"billing":  r.Issue("billing"),
		"revoked":  r.Issue("revoked", testpki.CommonName("billing")),
		"unknown":  r.IssueBy(silent, "unknown", testpki.CommonName("billing")),
		"denied":   r.Issue("denied", testpki.CommonName("billing")),
		"sensor":   r.SelfSigned("sensor"),
		"stranger": r.IssueBy(r.OtherCA, "stranger", testpki.CommonName("billing")),
	}
	r.Write("clients.crl", testpki.CRL(t, r.CA, 1, time.Now().Add(time.Hour), leaves["revoked"].Cert))
	r.Write("deny", []byte("thumbprint "+testpki.HashOf(leaves["denied"].Cert.Raw)+"\nthumbprint "+testpki.HashOf(leaves["sensor"].Cert.Raw)+"\n"))
	realm = strings.Replace(rig.IssuerRealm(""), "issuer https", "revocation {\ncrl \"@DIR@/clients.crl\"\ndeny \"@DIR@/deny\"\n}\nissuer https", 1)
	return realm, leaves
}

// TestRevokedClientCannotRenew_C6 checks that a client that is revoked, denied or
// of unknown status gets no token, however the realm identifies it.
func TestRevokedClientCannotRenew_C6(t *testing.T) {
	r := rig.New(t)
	realm, leaves := revokedAndOthers(t, r)
	r.Start(realm, rig.OneSite+rig.IssuerSite)
	for i, protocol := range rig.Protocols {
		rig.Token(r, t, r.Caller(t, protocol, leaves["billing"]), "https://auth.test/connect/token", rig.Form("billing.partner"))
		for name, reason := range map[string]string{
			"revoked": "certificate_revoked", "denied": "certificate_revoked", "sensor": "certificate_revoked", "unknown": "revocation_unavailable",
		} {
			client := "billing.partner"
			if name == "sensor" {
				client = "sensor-7"
			}
			got := r.Caller(t, protocol, leaves[name]).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form(client)).WantStatus(t, http.StatusBadRequest)
			if answer := rig.JSON(t, got.Body); answer["error"] != "invalid_client" || answer["access_token"] != nil {
				t.Errorf("%s: %s", name, got.Body)
			}
			thumbprint := testpki.HashOf(leaves[name].Cert.Raw)
			rig.WaitForRefusals(t, i+1, func(entry rig.LogEntry) bool {
				return entry.Str("reason") == reason && entry.Str("thumbprint") == thumbprint
			})
		}
	}
	// a connection that has already received tokens gets no more
	c := r.Caller(t, "h2", leaves["billing"])
	rig.Token(r, t, c, "https://auth.test/connect/token", rig.Form("billing.partner"))
	r.Write("deny", []byte("thumbprint "+testpki.HashOf(leaves["billing"].Cert.Raw)+"\n"))
	c.Eventually(t, http.StatusUnauthorized)
	c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).WantStatus(t, http.StatusBadRequest)
}

// TestRevokedLooksTheSame_E1 checks that callers cannot tell from a response that
// their certificate is revoked or that its status is unknown.
func TestRevokedLooksTheSame_E1(t *testing.T) {
	r := rig.New(t)
	realm, leaves := revokedAndOthers(t, r)
	r.Start(realm, rig.OneSite+rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		want := rig.Sameness(r.Caller(t, protocol, leaves["stranger"]).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused))
		tokenOf := func(name string) string {
			got := r.Caller(t, protocol, leaves[name]).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).WantStatus(t, http.StatusBadRequest)
			header := got.Header.Clone()
			header.Del("Date")
			header.Del("Alt-Svc")
			before, _, _ := strings.Cut(got.Body, "error_id") // the error_id differs for each request
			return fmt.Sprint(header, before[:min(len(before), 60)], len(got.Body))
		}
		wantToken := tokenOf("stranger")
		for _, name := range []string{"revoked", "denied", "sensor", "unknown"} {
			if got := rig.Sameness(r.Caller(t, protocol, leaves[name]).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)); got != want {
				t.Errorf("%s: response to %s:\n%s\nresponse to a stranger:\n%s", protocol, name, got, want)
			}
			if got := tokenOf(name); got != wantToken {
				t.Errorf("%s: token endpoint's response to %s:\n%s\nresponse to a stranger:\n%s", protocol, name, got, wantToken)
			}
		}
	}
}

// TestOCSPByOpenSSL checks interoperability with OpenSSL's responder.
func TestOCSPByOpenSSL(t *testing.T) {
	testtool.Path(t, "openssl")
	r := rig.New(t)
	good, revoked := r.Issue("billing"), r.Issue("second", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	r.Write("clients-ca.key", r.CA.KeyPEM())
	end := time.Now().Add(24 * time.Hour).UTC().Format("060102150405Z")
	past := time.Now().Add(-time.Hour).UTC().Format("060102150405Z")
	r.Write("index.txt", fmt.Appendf(nil, "V\t%s\t\t%s\tunknown\t/CN=billing\nR\t%s\t%s\t%s\tunknown\t/CN=billing\n",
		end, serialHex(good), end, past, serialHex(revoked)))
	r.Start(revocationRealm("ocsp "+opensslResponder(t, r.Dir)), rig.OneSite)
	for _, protocol := range rig.Protocols {
		r.Caller(t, protocol, good).Eventually(t, http.StatusOK)
		r.Caller(t, protocol, revoked).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
	}
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool {
		return entry.Str("reason") == "certificate_revoked" && strings.Contains(entry.Str("detail"), "according to an OCSP responder")
	})
}

// serialHex returns a serial number in the form of openssl's index.
func serialHex(leaf *testpki.Leaf) string {
	return strings.ToUpper(fmt.Sprintf("%x", leaf.Cert.SerialNumber.Bytes()))
}

// opensslResponder starts "openssl ocsp", which chooses a port and prints it.
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
			go func() { _, _ = io.Copy(io.Discard, output) }() // otherwise openssl would block on a full pipe
			return "http://localhost:" + port
		}
	}
	t.Skipf("openssl ocsp does not print its port, which requires version 3: %q", said)
	return ""
}

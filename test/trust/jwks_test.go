package trust_test

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// jwksServer is a client's HTTPS server. Only the clock's transport trusts its
// certificate.
type jwksServer struct {
	url   string
	close func()

	mu     sync.Mutex
	answer http.HandlerFunc
}

func newJWKSServer(t *testing.T, clock *rig.Clock) *jwksServer {
	s := new(jwksServer)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	clock.Transport = server.Client().Transport
	s.url, s.close = server.URL, server.CloseClientConnections
	return s
}

func (s *jwksServer) serve(answer http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *jwksServer) publish(t *testing.T, leaves ...*testpki.Leaf) {
	set := testpki.JWKS(t, leaves...)
	s.serve(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
}

func jwksRealm(t *testing.T, options string) string {
	return `
mtls {
	trust_pool rig "@DIR@/clients-ca.pem" ` + t.Name() + `
	client billing.partner {
		subject "CN=billing"
		scopes api1
	}
	` + options + `
}
`
}

// TestJWKSBehindURL_R9_R10 checks that the certificates a client publishes at its
// jwks_uri identify it, without a trusted CA and several at once. When the client
// publishes other certificates, the next request on every connection uses them,
// without a configuration change. No failure of its server drops the known ones.
func TestJWKSBehindURL_R9_R10(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	server := newJWKSServer(t, clock)
	billing, old, next := r.Issue("billing"), r.SelfSigned("old"), r.SelfSigned("next")
	server.publish(t, old)
	r.AdminOn = true
	realm := jwksRealm(t, "client partner {\njwks "+server.url+"/jwks.json\nscopes api1\n}\nissuer https://auth.test")
	r.Start(realm, rig.OneSite+rig.IssuerSite)
	open, later := map[string]*rig.Caller{}, map[string]*rig.Caller{}
	for _, protocol := range rig.Protocols {
		open[protocol], later[protocol] = r.Caller(t, protocol, old), r.Caller(t, protocol, next)
		open[protocol].Eventually(t, http.StatusOK).WantClient(t, "partner")
		later[protocol].Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	}
	if _, _, claims := rig.Token(r, t, open["h1"], "https://auth.test/connect/token", rig.Form("partner")); claims["client_id"] != "partner" {
		t.Errorf("claims %v", claims)
	}
	// R26: the metadata announces the newly usable method
	metadata := r.Caller(t, "h1", nil).Get("https://auth.test/.well-known/openid-configuration").Body
	if !strings.Contains(metadata, "self_signed_tls_client_auth") {
		t.Errorf("metadata %s", metadata)
	}

	server.publish(t, old, next)
	clock.Advance(time.Hour)
	for _, protocol := range rig.Protocols {
		later[protocol].Eventually(t, http.StatusOK).WantClient(t, "partner")
		open[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	}
	server.publish(t, next)
	clock.Advance(time.Hour)
	for _, protocol := range rig.Protocols {
		open[protocol].Eventually(t, http.StatusUnauthorized).WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
		later[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	}

	end := make(chan struct{})
	for name, failure := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"error":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "answers 500"},
		"huge":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 2<<20)) }, "more than 1048576 bytes"},
		"empty":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) }, "it has no keys"},
		"nothing":  {func(http.ResponseWriter, *http.Request) {}, "not a JWK Set"},
		"redirect": {http.RedirectHandler("http://127.0.0.1/jwks.json", http.StatusFound).ServeHTTP, "away from https"},
		"private": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte(`{"keys":[{"kty":"EC","d":"c2VjcmV0LXBhcnQ","x5c":[]}]}`))
		}, "PRIVATE"},
	} {
		server.serve(failure.answer)
		clock.Advance(time.Hour)
		sourceFailed(r, t, "jwks:partner", failure.want)
		if got := later["h1"].Get("https://api.test/"); got.Status != http.StatusOK {
			t.Errorf("%s: %d", name, got.Status)
		}
	}
	// a hanging server delays no request
	hangs := make(chan struct{}, 10)
	server.serve(func(_ http.ResponseWriter, r *http.Request) {
		hangs <- struct{}{}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	clock.Advance(time.Hour)
	<-hangs
	later["h2"].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	close(end)

	// a new configuration inherits the known certificates at once
	server.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	r.Reload(realm, rig.OneSite+rig.IssuerSite)
	r.Caller(t, "h1", next).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	got := r.Caller(t, "h1", old).Get("https://api.test/")
	r.WantReason(t, got, "certificate_untrusted")
	if found := rig.Series(t, rig.Metrics(r, t), "default"); found[`source_last_success_timestamp_seconds{source="jwks:partner"}`] == 0 || found["jwks_ignored_certificates"] != 0 {
		t.Errorf("metrics %v", found)
	}
	// the new configuration then refreshes them
	server.publish(t, old)
	clock.Advance(2 * time.Hour)
	r.Caller(t, "h1", old).Eventually(t, http.StatusOK)
}

// TestJWKSFile_R10 checks that a JWKS can be a file, which is watched.
func TestJWKSFile_R10(t *testing.T) {
	r := rig.New(t)
	one, two := r.SelfSigned("one"), r.SelfSigned("two")
	r.Write("partner.json", testpki.JWKS(t, one))
	r.Start("mtls {\nclient partner {\njwks \"@DIR@/partner.json\"\n}\n}", rig.OneSite)
	open := r.Caller(t, "h2", one)
	open.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	replace(r, "partner.json", []byte(`{"keys":[]}`))
	sourceFailed(r, t, "jwks:partner", "it has no keys")
	open.Get("https://api.test/").WantStatus(t, http.StatusOK)
	replace(r, "partner.json", testpki.JWKS(t, two))
	open.Eventually(t, http.StatusUnauthorized)
	r.Caller(t, "h2", two).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
}

// TestStolenCertificate_B10 checks that a client that lists another client's
// certificate in its JWKS neither becomes that client nor locks it out.
func TestStolenCertificate_B10(t *testing.T) {
	r := rig.New(t)
	victims := map[string]*testpki.Leaf{
		"by-subject": r.Issue("billing"), "by-thumbprint": r.SelfSigned("pinned"), "by-key": r.SelfSigned("key"),
		"by-file": r.SelfSigned("file"), "by-name": r.Issue("san", testpki.DNSNames("san.example.com")),
	}
	own := r.SelfSigned("thief")
	stolen := []*testpki.Leaf{own}
	for _, victim := range victims {
		stolen = append(stolen, victim)
	}
	r.Write("thief.json", testpki.JWKS(t, stolen...))
	r.AdminOn = true
	r.Start(`mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client thief {
		jwks "@DIR@/thief.json"
	}
	client by-subject {
		subject CN=billing
	}
	client by-name {
		san_dns *.example.com
	}
	client by-thumbprint {
		thumbprint `+testpki.HashOf(victims["by-thumbprint"].Cert.Raw)+`
	}
	client by-key {
		public_key `+testpki.HashOf(victims["by-key"].Cert.RawSubjectPublicKeyInfo)+`
	}
	client by-file {
		certificate "@DIR@/file.pem"
	}
}`, rig.OneSite)
	check := func() {
		t.Helper()
		for id, victim := range victims {
			r.Caller(t, "h1", victim).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, id)
		}
		r.Caller(t, "h1", own).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "thief")
	}
	check()
	for id := range victims {
		r.Logs.Wait(t, "what is ignored", func(entry rig.LogEntry) bool {
			return strings.HasPrefix(entry.Str("msg"), "certificate in JWKS ignored") &&
				entry.Str("client_id") == "thief" && entry.Str("holder") == id
		})
	}
	if found := rig.Series(t, rig.Metrics(r, t), "default"); found["jwks_ignored_certificates"] != float64(len(victims)) {
		t.Errorf("metrics %v", found)
	}
	replace(r, "thief.json", testpki.JWKS(t, append(stolen, r.SelfSigned("more"))...))
	r.Caller(t, "h1", r.Leaves[len(r.Leaves)-1]).Eventually(t, http.StatusOK).WantClient(t, "thief")
	check()
}

// TestCertificateInTwoJWKS_B10 checks that while two clients list the same
// certificate, it is refused as ambiguous, on open connections too. Only a token
// request can name the client. The log names both clients when the conflict begins
// and when it ends.
func TestCertificateInTwoJWKS_B10(t *testing.T) {
	r := rig.New(t)
	shared, own := r.SelfSigned("shared"), r.SelfSigned("own")
	r.Write("first.json", testpki.JWKS(t, shared))
	r.Write("second.json", testpki.JWKS(t, own))
	r.Start(`mtls {
	client first {
		jwks   "@DIR@/first.json"
		scopes api1
	}
	client second {
		jwks   "@DIR@/second.json"
		scopes api1
	}
	issuer https://auth.test
}`, rig.OneSite+rig.IssuerSite)
	logged := func(level, message string) {
		t.Helper()
		r.Logs.Wait(t, message, func(entry rig.LogEntry) bool {
			return strings.HasPrefix(entry.Str("msg"), message) && entry.Str("level") == level && entry.Str("realm") == "default" &&
				fmt.Sprint(entry["client_ids"]) == "[first second]" && entry.Str("thumbprint") == testpki.HashOf(shared.Cert.Raw)
		})
	}
	open := map[string]*rig.Caller{}
	for _, protocol := range rig.Protocols {
		open[protocol] = r.Caller(t, protocol, shared)
		open[protocol].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "first")
	}
	replace(r, "second.json", testpki.JWKS(t, own, shared))
	logged("error", "certificate in the JWKS of several clients")
	for _, protocol := range rig.Protocols {
		got := open[protocol].Eventually(t, http.StatusUnauthorized).WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
		r.WantReason(t, got, "certificate_ambiguous")
		for _, id := range []string{"first", "second"} {
			rig.WantToken(r, t, rig.AskToken(open[protocol], "https://auth.test", id), id, shared)
		}
		r.Caller(t, protocol, own).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "second")
	}
	// when either client drops the certificate, the other keeps it
	replace(r, "first.json", testpki.JWKS(t, r.SelfSigned("next")))
	logged("info", "certificate no longer in the JWKS of several clients")
	for _, protocol := range rig.Protocols {
		open[protocol].Eventually(t, http.StatusOK).WantClient(t, "second")
		rig.WantNoToken(r, t, rig.AskToken(open[protocol], "https://auth.test", "first"), "client_mismatch")
	}
}

// TestRestartWithoutJWKSServer checks that clients need not wait for their JWKS
// after a restart, and that damaged copies do no harm.
func TestRestartWithoutJWKSServer(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	server := newJWKSServer(t, clock)
	partner := r.SelfSigned("partner")
	server.publish(t, partner)
	realm := jwksRealm(t, "client partner {\njwks "+server.url+"/partner\n}")
	r.Start(realm, rig.OneSite)
	r.Caller(t, "h1", partner).Eventually(t, http.StatusOK).WantClient(t, "partner")
	stored := func() (files []string) {
		files, err := filepath.Glob(filepath.Join(r.Dir, "storage", "mtls", "default", "jwks.json"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	for deadline := time.Now().Add(rig.Patience); len(stored()) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stored files: %q", stored())
		}
	}
	if info, err := os.Stat(stored()[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err) // only the owner may read it
	}
	restart := func() {
		t.Helper()
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		r.Reload(realm, rig.OneSite)
	}
	server.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	restart()
	r.Caller(t, "h1", partner).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	sourceFailed(r, t, "jwks:partner", "answers 502")
	r.Caller(t, "h1", partner).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")

	if err := os.WriteFile(stored()[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.publish(t, partner)
	restart()
	r.Logs.Wait(t, "the damage", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "reading JWKS copies failed") && strings.Contains(entry.Str("error"), "mtls/default/jwks.json")
	})
	r.Caller(t, "h1", partner).Eventually(t, http.StatusOK).WantClient(t, "partner")
}

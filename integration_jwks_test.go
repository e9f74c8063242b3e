package mtlsauth

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
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// jwksServer is the https server of a client, whose certificate only the
// clock's transport trusts.
type jwksServer struct {
	url   string
	close func()

	mu      sync.Mutex
	answer  http.HandlerFunc
	fetches int
}

func newJWKSServer(t *testing.T, clock *rigClock) *jwksServer {
	s := new(jwksServer)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.fetches++
		answer := s.answer
		s.mu.Unlock()
		answer(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	clock.transport = server.Client().Transport
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

func (s *jwksServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetches
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

// TestR9_R10_JWKS: the certificates that a client publishes behind its jwks_uri
// are the client, without a trusted CA, several of them side by side, and
// others as soon as it publishes others: on the next request of every
// connection, without a change here. Nothing that its server does instead makes
// them go away.
func TestR9_R10_JWKS(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	server := newJWKSServer(t, clock)
	billing, old, next := r.issue("billing"), r.selfSigned("old"), r.selfSigned("next")
	server.publish(t, old)
	r.adminOn = true
	realm := jwksRealm(t, "client partner {\njwks "+server.url+"/jwks.json\nscopes api1\n}\nissuer https://auth.test")
	r.start(realm, oneSite+issuerSite)
	open, later := map[string]*caller{}, map[string]*caller{}
	for _, protocol := range rigProtocols {
		open[protocol], later[protocol] = r.caller(t, protocol, old), r.caller(t, protocol, next)
		open[protocol].eventually(t, http.StatusOK).wantClient(t, "partner")
		later[protocol].get("https://api.test/").wantStatus(t, http.StatusUnauthorized)
	}
	if _, _, claims := r.token(t, open["h1"], "https://auth.test/connect/token", form("partner")); claims["client_id"] != "partner" {
		t.Errorf("claims %v", claims)
	}
	// R26: what has come to be usable is announced
	metadata := r.caller(t, "h1", nil).get("https://auth.test/.well-known/openid-configuration").body
	if !strings.Contains(metadata, "self_signed_tls_client_auth") {
		t.Errorf("metadata %s", metadata)
	}

	server.publish(t, old, next)
	clock.advance(time.Hour)
	for _, protocol := range rigProtocols {
		later[protocol].eventually(t, http.StatusOK).wantClient(t, "partner")
		open[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
	}
	server.publish(t, next)
	clock.advance(time.Hour)
	for _, protocol := range rigProtocols {
		open[protocol].eventually(t, http.StatusUnauthorized).wantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
		later[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
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
		clock.advance(time.Hour)
		r.sourceFailed(t, "jwks:partner", failure.want)
		if got := later["h1"].get("https://api.test/"); got.status != http.StatusOK {
			t.Errorf("%s: %d", name, got.status)
		}
	}
	// one that hangs holds up nothing
	hangs := make(chan struct{}, 10)
	server.serve(func(_ http.ResponseWriter, r *http.Request) {
		hangs <- struct{}{}
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	clock.advance(time.Hour)
	<-hangs
	later["h2"].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
	r.caller(t, "h2", billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	close(end)

	// what is known is taken over by a new configuration at once
	server.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) })
	r.reload(realm, oneSite+issuerSite)
	r.caller(t, "h1", next).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
	got := r.caller(t, "h1", old).get("https://api.test/")
	r.wantReason(t, got, "certificate_untrusted")
	if found := series(t, r.metrics(t), "default"); found[`source_last_success_timestamp_seconds{source="jwks:partner"}`] == 0 || found["jwks_ignored_certificates"] != 0 {
		t.Errorf("metrics %v", found)
	}
	// and then kept fresh by that
	server.publish(t, old)
	clock.advance(2 * time.Hour)
	r.caller(t, "h1", old).eventually(t, http.StatusOK)
}

// TestR10_JWKSFile: a JWKS can be a file, which is watched.
func TestR10_JWKSFile(t *testing.T) {
	r := newRig(t)
	one, two := r.selfSigned("one"), r.selfSigned("two")
	r.write("partner.json", testpki.JWKS(t, one))
	r.start("mtls {\nclient partner {\njwks \"@DIR@/partner.json\"\n}\n}", oneSite)
	open := r.caller(t, "h2", one)
	open.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
	r.replace("partner.json", []byte(`{"keys":[]}`))
	r.sourceFailed(t, "jwks:partner", "it has no keys")
	open.get("https://api.test/").wantStatus(t, http.StatusOK)
	r.replace("partner.json", testpki.JWKS(t, two))
	open.eventually(t, http.StatusUnauthorized)
	r.caller(t, "h2", two).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
}

// TestB10_StolenCertificate: who lists somebody else's certificate in its JWKS
// does not become somebody else, nor does he keep the other out.
func TestB10_StolenCertificate(t *testing.T) {
	r := newRig(t)
	victims := map[string]*testpki.Leaf{
		"by-subject": r.issue("billing"), "by-thumbprint": r.selfSigned("pinned"), "by-key": r.selfSigned("key"),
		"by-file": r.selfSigned("file"), "by-name": r.issue("san", testpki.DNSNames("san.example.com")),
	}
	own := r.selfSigned("thief")
	stolen := []*testpki.Leaf{own}
	for _, victim := range victims {
		stolen = append(stolen, victim)
	}
	r.write("thief.json", testpki.JWKS(t, stolen...))
	r.adminOn = true
	r.start(`mtls {
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
}`, oneSite)
	check := func() {
		t.Helper()
		for id, victim := range victims {
			r.caller(t, "h1", victim).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, id)
		}
		r.caller(t, "h1", own).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "thief")
	}
	check()
	for id := range victims {
		r.logs.wait(t, "what is ignored", func(entry logEntry) bool {
			return strings.HasPrefix(entry.str("msg"), "a JWKS lists a certificate that is a credential of another client") &&
				entry.str("client_id") == "thief" && entry.str("holder") == id
		})
	}
	if found := series(t, r.metrics(t), "default"); found["jwks_ignored_certificates"] != float64(len(victims)) {
		t.Errorf("metrics %v", found)
	}
	r.replace("thief.json", testpki.JWKS(t, append(stolen, r.selfSigned("more"))...))
	r.caller(t, "h1", r.leaves[len(r.leaves)-1]).eventually(t, http.StatusOK).wantClient(t, "thief")
	check()
}

// TestB10_CertificateInTwoJWKS: a certificate that two clients list is refused as
// ambiguous, on open connections too, while one of them lists it; only a token
// request can name the client. The log names both when it begins and when it
// ends.
func TestB10_CertificateInTwoJWKS(t *testing.T) {
	r := newRig(t)
	shared, own := r.selfSigned("shared"), r.selfSigned("own")
	r.write("first.json", testpki.JWKS(t, shared))
	r.write("second.json", testpki.JWKS(t, own))
	r.start(`mtls {
	client first {
		jwks   "@DIR@/first.json"
		scopes api1
	}
	client second {
		jwks   "@DIR@/second.json"
		scopes api1
	}
	issuer https://auth.test
}`, oneSite+issuerSite)
	logged := func(level, message string) {
		t.Helper()
		r.logs.wait(t, message, func(entry logEntry) bool {
			return strings.HasPrefix(entry.str("msg"), message) && entry.str("level") == level && entry.str("realm") == "default" &&
				fmt.Sprint(entry["client_ids"]) == "[first second]" && entry.str("thumbprint") == testpki.HashOf(shared.Cert.Raw)
		})
	}
	open := map[string]*caller{}
	for _, protocol := range rigProtocols {
		open[protocol] = r.caller(t, protocol, shared)
		open[protocol].get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "first")
	}
	r.replace("second.json", testpki.JWKS(t, own, shared))
	logged("error", "a certificate is in the JWKS of several clients")
	for _, protocol := range rigProtocols {
		got := open[protocol].eventually(t, http.StatusUnauthorized).wantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
		r.wantReason(t, got, "certificate_ambiguous")
		for _, id := range []string{"first", "second"} {
			r.wantToken(t, askToken(open[protocol], "https://auth.test", id), id, shared)
		}
		r.caller(t, protocol, own).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "second")
	}
	// whichever of them drops it, the other has it
	r.replace("first.json", testpki.JWKS(t, r.selfSigned("next")))
	logged("info", "a certificate is no longer in the JWKS of several clients")
	for _, protocol := range rigProtocols {
		open[protocol].eventually(t, http.StatusOK).wantClient(t, "second")
		r.wantNoToken(t, askToken(open[protocol], "https://auth.test", "first"), "client_mismatch")
	}
}

// TestRestartWithoutJWKSServer: after a restart clients need not wait for their
// JWKS, and copies that are damaged do no harm.
func TestRestartWithoutJWKSServer(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	server := newJWKSServer(t, clock)
	partner := r.selfSigned("partner")
	server.publish(t, partner)
	realm := jwksRealm(t, "client partner {\njwks "+server.url+"/partner\n}")
	r.start(realm, oneSite)
	r.caller(t, "h1", partner).eventually(t, http.StatusOK).wantClient(t, "partner")
	stored := func() (files []string) {
		files, err := filepath.Glob(filepath.Join(r.dir, "storage", "mtls", "default", "jwks", "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		return files
	}
	for deadline := time.Now().Add(rigPatience); len(stored()) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("stored are %q", stored())
		}
	}
	if info, err := os.Stat(stored()[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Error(info.Mode(), err) // nobody but the owner reads it
	}
	restart := func() {
		t.Helper()
		if err := caddy.Stop(); err != nil {
			t.Fatal(err)
		}
		if err := r.load(realm, oneSite); err != nil {
			t.Fatal(err)
		}
	}
	server.serve(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	restart()
	r.caller(t, "h1", partner).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")
	r.sourceFailed(t, "jwks:partner", "answers 502")
	r.caller(t, "h1", partner).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "partner")

	if err := os.WriteFile(stored()[0], []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	server.publish(t, partner)
	restart()
	r.logs.wait(t, "the damage", func(entry logEntry) bool {
		return strings.HasPrefix(entry.str("msg"), "JWKS copies cannot be read") && strings.Contains(entry.str("error"), "mtls/default/jwks/")
	})
	r.caller(t, "h1", partner).eventually(t, http.StatusOK).wantClient(t, "partner")
}

// TestJWKSIsNotFetchedAtProvisioning: `caddy validate` asks nobody, and until
// the first fetch the client has no certificate.
func TestJWKSIsNotFetchedAtProvisioning(t *testing.T) {
	var fetches atomic.Int32
	server := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { fetches.Add(1) }))
	defer server.Close()
	app := provisionRealm(t, `{"clients":[{"client_id":"a","jwks_uri":"`+server.URL+`/jwks.json"}]}`)
	realm := app.Realms[defaultRealm]
	if got := fetches.Load(); got != 0 || realm.directory.Unfetched() != 1 {
		t.Errorf("%d fetches", got)
	}
	registry := realm.current.Load().parts.registry
	if a := registry.Client("a"); a == nil || len(registry.Listed(a)) != 0 || registry.HasPins() || a.Credentials[0].Kind != clients.KindJWKS {
		t.Errorf("client %+v", a)
	}
}

// TestNearMissOfAJWKS: a renewed certificate that is not in the JWKS yet has a
// hint in the log, and explain tells more.
func TestNearMissOfAJWKS(t *testing.T) {
	key := testpki.MustKey(t, testpki.P256)
	listed, renewed := testpki.MustSelfSigned(t, testpki.Key(key)), testpki.MustSelfSigned(t, testpki.Key(key))
	app := provisionRealm(t, `{"clients":[{"client_id":"a","jwks":`+string(testpki.JWKS(t, listed))+`},{"client_id":"b","jwks_uri":"https://b.example/jwks.json"}]}`)
	realm := app.Realms[defaultRealm]
	current := realm.current.Load()
	id, refusal, _ := current.Authenticate(t.Context(), listed.Presented(), "")
	if refusal != nil || id.Client().ID != "a" || id.Credential.Kind != clients.KindJWKS || id.Matched != testpki.HashOf(listed.Cert.Raw) {
		t.Fatalf("%+v, %v", id, refusal)
	}
	_, refusal, _ = current.Authenticate(t.Context(), renewed.Presented(), "")
	if refusal == nil || !strings.Contains(refusal.Hint, "the JWKS of client 'a' lists another certificate of the same key, as before a renewal") {
		t.Fatalf("refusal %+v", refusal)
	}
	told := strings.Join(current.Explain(renewed.Presented(), "a", refusal, time.Now()), "\n")
	for _, want := range []string{"the JWKS of client 'a' lists another certificate", "client 'a' declares the jwks 'written out'", "the JWKS of client 'a' lists the certificate '" + testpki.HashOf(listed.Cert.Raw) + "'"} {
		if !strings.Contains(told, want) {
			t.Errorf("explained as %s, want %s", told, want)
		}
	}
	explanation, err := explainer{app}.Explain(command.Question{At: time.Now()}, renewed.Presented())
	if err != nil || explanation.Refusal == nil || explanation.UnfetchedJWKS != 1 {
		t.Errorf("explanation %+v, %v", explanation, err)
	}
}

package mtlsauth

import (
	"context"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// provisionHandlers provisions mtls_auth directives, without serving, with a realm
// `default` and a realm `other`.
func provisionHandlers(t *testing.T, realm, other string, directives ...string) []*Handler {
	t.Helper()
	for i, directive := range directives {
		directives[i] = `{"handler":"mtls_auth",` + directive + `}`
	}
	var config caddy.Config
	text := `{"admin":{"disabled":true},"logging":{"logs":{"default":{"writer":{"output":"discard"}}}},"apps":{"mtls":{"realms":{"default":` + realm + `,"other":` + other + `}},` +
		oneServer(strings.Join(directives, ",")) + `}}`
	if err := json.Unmarshal([]byte(text), &config); err != nil {
		t.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(&config)
	if err != nil {
		t.Fatal(err)
	}
	app, err := ctx.App("http")
	if err != nil {
		t.Fatal(err)
	}
	var handlers []*Handler
	for _, handler := range app.(*caddyhttp.App).Servers["api"].Routes[0].Handlers {
		handlers = append(handlers, handler.(*Handler))
	}
	return handlers
}

// oneServer returns the http app with one server and these handlers.
func oneServer(handler string) string {
	return `"http":{"servers":{"api":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},"routes":[{"handle":[` + handler + `]}]}}}`
}

// newRequest returns a request as Caddy passes it to a directive. If leaf is nil, the
// caller has no certificate.
func newRequest(leaf *testpki.Leaf) (*http.Request, *caddy.Replacer) {
	r := httptest.NewRequest(http.MethodGet, "https://api.example.com/", nil)
	r.TLS = &tls.ConnectionState{HandshakeComplete: true}
	if leaf != nil {
		r.TLS.PeerCertificates = leaf.Presented()
	}
	repl := caddy.NewReplacer()
	return caddyhttp.PrepareRequest(r, repl, httptest.NewRecorder(), nil), repl
}

// serve passes a request through directives. It returns the request that the
// upstream gets, or nil and the error.
func serve(r *http.Request, handlers ...*Handler) (reached *http.Request, err error) {
	next := caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		reached = r
		return nil
	})
	for _, handler := range slices.Backward(handlers) {
		after := next
		next = func(w http.ResponseWriter, r *http.Request) error { return handler.ServeHTTP(w, r, after) }
	}
	err = next(httptest.NewRecorder(), r)
	return reached, err
}

const noClients = `{}`

func pinnedRealm(leaf *testpki.Leaf, members string) string {
	return `{"clients":[{"client_id":"a","x509_thumbprints":"` + testpki.HashOf(leaf.Cert.Raw) + `"` + members + `}]}`
}

// TestProtectedHeadersAreStripped_A1 checks that identity headers from a caller
// reach neither the upstream nor an error route, whatever happens to the request.
func TestProtectedHeadersAreStripped_A1(t *testing.T) {
	leaf, stranger := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	forged := []string{"X-Client-Id", "x-client-id", "X_Client_Id", "X.client.id", "X-Forwarded-Client-Cert", "Client-Cert", "X-Ssl-Client-S-Dn"}
	for _, test := range []struct {
		name, directive string
		leaf            *testpki.Leaf
		change          func(*http.Request)
		status          int
		want            string
	}{
		{name: "admitted", directive: `"realm":"default"`, leaf: leaf, want: "a"},
		{name: "refused", directive: `"realm":"default"`, leaf: stranger, status: http.StatusUnauthorized},
		{name: "not allowed", directive: `"allow":["b"]`, leaf: leaf, status: http.StatusForbidden},
		{name: "no certificate", directive: `"realm":"default"`, status: http.StatusUnauthorized},
		{name: "optional", directive: `"optional":true`},
		{name: "optional and refused", directive: `"optional":true`, leaf: stranger, status: http.StatusUnauthorized},
		{name: "report_only", directive: `"report_only":true`, leaf: stranger},
		{name: "report_only without a certificate", directive: `"report_only":true`},
		{name: "report_only and admitted", directive: `"report_only":true`, leaf: leaf, want: "a"},
		{name: "plain HTTP", directive: `"realm":"default"`, change: func(r *http.Request) { r.TLS = nil }, status: http.StatusUnauthorized},
		{name: "optional over plain HTTP", directive: `"optional":true`, change: func(r *http.Request) { r.TLS = nil }},
		{name: "early data", directive: `"report_only":true`, leaf: leaf, change: func(r *http.Request) { r.TLS.HandshakeComplete = false }, status: http.StatusTooEarly},
	} {
		t.Run(test.name, func(t *testing.T) {
			handler := provisionHandlers(t, pinnedRealm(leaf, ""), noClients, test.directive)[0]
			r, _ := newRequest(test.leaf)
			for _, name := range forged {
				r.Header[name] = []string{"admin", "admin"}
			}
			r.Header["Connection"] = []string{"X-Client-Id"}
			if test.change != nil {
				test.change(r)
			}
			reached, err := serve(r, handler)
			var failure caddyhttp.HandlerError
			if errors.As(err, &failure); failure.StatusCode != test.status || (reached == nil) != (test.status > 0) {
				t.Fatalf("status %d (%v), want %d", failure.StatusCode, err, test.status)
			}
			for _, name := range append(forged, "Connection") {
				values, want := r.Header[name], ""
				if name == "X-Client-Id" {
					want = test.want
				}
				if strings.Join(values, "|") != want || want == "" && values != nil {
					t.Errorf("%s: %q, want %q", name, values, want)
				}
			}
		})
	}
}

// TestEmptyHeaderIsRemoved_A4 checks that a header whose value would be empty is
// removed, and not left as the caller sent it.
func TestEmptyHeaderIsRemoved_A4(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	handler := provisionHandlers(t, pinnedRealm(leaf, `,"claims":{"tenant":"acme","blank":"  ","lines":"a\r\nX-Client-Id: admin"}`), noClients,
		`"header_up":{"X-Tenant":"{http.mtls.claim.tenant}","X-Email":"{http.mtls.claim.email}","x-mixed":" {http.mtls.claim.email}/{http.mtls.claim.tenant} ","X-Blank":"{http.mtls.claim.blank}","X-Lines":"{http.mtls.claim.lines}","X-Other":"{http.request.header.X-None}"}`)[0]
	r, _ := newRequest(leaf)
	for _, name := range []string{"X-Tenant", "X-Email", "X-Mixed", "X-Blank", "X-Lines", "X-Other"} {
		r.Header.Set(name, "of the caller")
	}
	r.Header.Set("X-Client-Id", "of the caller")
	reached, err := serve(r, handler)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"X-Tenant": "acme", "X-Mixed": "/acme", "X-Lines": `a\0D\0AX-Client-Id: admin`} {
		if got := reached.Header[name]; len(got) != 1 || got[0] != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{"X-Email", "X-Blank", "X-Other"} {
		if got, there := reached.Header[name]; there {
			t.Errorf("%s: %q, want none", name, got)
		}
	}
	// no directive sets it, but the upstream may read it
	if got, there := reached.Header["X-Client-Id"]; there {
		t.Errorf("X-Client-Id is %q", got)
	}
}

// TestPlaceholdersAreKnownAndEmpty checks that every http.mtls.* placeholder is
// known, and empty if it has no value.
func TestPlaceholdersAreKnownAndEmpty(t *testing.T) {
	names := []string{"client_id", "realm", "scope", "credential", "matched", "thumbprint", "subject", "not_after", "issuer", "issuer_legacy", "subject_legacy", "serial", "fingerprint_sha256", "fingerprint_sha1", "not_before", "claim.tenant", "claim.", "claim", "error", "nonsense", ""}
	r, repl := newRequest(nil)
	if got := repl.ReplaceAll("{http.mtls.client_id}", "unknown"); got != "unknown" {
		t.Fatalf("before any directive: %q", got)
	}
	state := stateOf(new(App), r)
	for _, name := range names {
		if got, known := repl.GetString("http.mtls." + name); !known || got != "" {
			t.Errorf("%s is %q, known: %t", name, got, known)
		}
	}
	if _, known := repl.GetString("http.mtlsx.client_id"); known {
		t.Error("a placeholder outside of http.mtls.* is known")
	}
	if stateOf(new(App), r) != state {
		t.Error("one request has two states")
	}

	ca := testpki.MustCA(t, testpki.Subject(pkix.Name{CommonName: "CA/é", Organization: []string{"o"}}))
	leaf := testpki.MustIssue(t, ca, testpki.Subject(pkix.Name{CommonName: "Zoë\r\nX: y", Organization: []string{"a,b"}}), testpki.Serial(big.NewInt(0xabcde)))
	record := pinned("a", leaf)
	record.Scope, record.Claims = "api1 api2", map[string]json.RawMessage{"tenant": []byte(`"acme"`), "n": []byte(`[1, 2]`)}
	registry := registryOf(t, record)
	id, refusal, _ := authn.New(authn.Config{Registry: registry, Now: time.Now}).Decide(t.Context(), leaf.Presented(), "")
	if refusal != nil {
		t.Fatal(refusal)
	}
	state.admit(&Realm{name: "partners"}, identity{Identity: id}, nil)
	want := map[string]string{
		"client_id": "a", "realm": "partners", "scope": "api1 api2", "credential": "thumbprint", "matched": testpki.HashOf(leaf.Cert.Raw),
		"thumbprint": id.Thumbprint, "subject": `CN=Zo\C3\AB\0D\0AX: y,O=a\,b`, "not_after": leaf.Cert.NotAfter.UTC().Format(time.RFC3339),
		"subject_legacy": `/O=a,b/CN=Zo\xC3\xAB\x0D\x0AX: y`, "issuer": `CN=CA/\C3\A9,O=o`, "issuer_legacy": `/O=o/CN=CA\x2F\xC3\xA9`,
		"serial": "0ABCDE", "not_before": leaf.Cert.NotBefore.UTC().Format(time.RFC3339),
		"fingerprint_sha256": testpki.HashOf(leaf.Cert.Raw), "fingerprint_sha1": fmt.Sprintf("%x", sha1.Sum(leaf.Cert.Raw)),
		"claim.tenant": "acme", "claim.n": "[1,2]", "claim.none": "", "claim.": "", "claim": "", "error": "", "nonsense": "",
	}
	for name, text := range want {
		if got, known := repl.GetString("http.mtls." + name); !known || got != text {
			t.Errorf("%s is %q, want %q", name, got, text)
		}
	}
	if got, _ := repl.GetString(userIDPlaceholder); got != "a" {
		t.Errorf("user id %q", got)
	}

	state.clear()
	state.refused = &validators.Refusal{Reason: validators.CertificateUnknown}
	for name := range want {
		expected := ""
		if name == "error" {
			expected = "certificate_unknown"
		}
		if got, known := repl.GetString("http.mtls." + name); !known || got != expected {
			t.Errorf("after clearing, %s is %q", name, got)
		}
	}
	if got, known := repl.GetString(userIDPlaceholder); known {
		t.Errorf("after clearing, the user id is %q", got)
	}
	// the user id that another directive set is left alone
	repl.Set(userIDPlaceholder, "operator")
	state.clear()
	if got, _ := repl.GetString(userIDPlaceholder); got != "operator" {
		t.Errorf("the user id of basic_auth became %q", got)
	}
}

// TestRealmIsAskedOnceARequest checks that a realm with several directives
// authenticates a request once, and that another realm authenticates it again.
func TestRealmIsAskedOnceARequest(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	handlers := provisionHandlers(t, pinnedRealm(leaf, ""), pinnedRealm(leaf, `,"claims":{"tenant":"acme"}`),
		`"realm":"default"`, `"allow":["a"]`, `"realm":"other","header_up":{"X-Tenant":"{http.mtls.claim.tenant}"}`)
	asked := make(map[string]int)
	for _, handler := range []*Handler{handlers[0], handlers[2]} {
		name := handler.realm.name
		setClock(handler.realm, func() time.Time {
			asked[name]++
			return time.Now()
		})
	}
	r, repl := newRequest(leaf)
	r.Header.Set("X-Client-Id", "admin")
	reached, err := serve(r, handlers...)
	if err != nil {
		t.Fatal(err)
	}
	if asked["default"] != 1 || asked["other"] != 1 {
		t.Errorf("authenticated %v times", asked)
	}
	// a later directive replaces only the headers that it sets itself
	if got := reached.Header; got.Get("X-Client-Id") != "a" || got.Get("X-Tenant") != "acme" {
		t.Errorf("headers %v", got)
	}
	if got, _ := repl.GetString("http.mtls.realm"); got != "other" {
		t.Errorf("realm %q", got)
	}
}

// TestOutcomeOfEachReason checks what a caller learns of each reason.
func TestOutcomeOfEachReason(t *testing.T) {
	for _, reason := range validators.Reasons {
		status, word := outcome(reason)
		wantStatus, wantWord := http.StatusUnauthorized, refusedWord
		switch reason {
		case validators.CertificateMissing:
			wantWord = "certificate_missing"
		case validators.ClientNotAllowed, validators.ScopeMissing:
			wantStatus, wantWord = http.StatusForbidden, string(reason)
		}
		if status != wantStatus || word != wantWord {
			t.Errorf("%s: %d %s, want %d %s", reason, status, word, wantStatus, wantWord)
		}
	}
}

func TestCertificatesOfARequest(t *testing.T) {
	r := httptest.NewRequest(http.MethodGet, "http://api.example.com/", nil)
	if got, _ := new(requestState).certificates(&Realm{app: new(App)}, r); got != nil || earlyData(r) {
		t.Errorf("plain HTTP: %v", got)
	}
	leaf := testpki.MustSelfSigned(t)
	realm := provisionHandlers(t, pinnedRealm(leaf, ""), pinnedRealm(leaf, ""), `"realm":"default"`)[0].realm
	for connection, want := range map[*tls.ConnectionState]string{nil: "plain HTTP has none; serve the site over HTTPS", {}: "no certificate was presented"} {
		r.TLS = connection
		if _, refusal := new(requestState).identify(realm, r); refusal == nil || refusal.Reason != validators.CertificateMissing || !strings.HasSuffix(refusal.Detail, want) {
			t.Errorf("%v, want %s", refusal, want)
		}
	}
	r.TLS = &tls.ConnectionState{PeerCertificates: leaf.Presented(), VerifiedChains: [][]*x509.Certificate{{testpki.MustSelfSigned(t).Cert}}}
	if got, _ := new(requestState).certificates(&Realm{app: new(App)}, r); len(got) != 1 || got[0] != leaf.Cert || !earlyData(r) {
		t.Errorf("before the handshake has ended: %v", got)
	}
	r.TLS.HandshakeComplete = true
	if earlyData(r) {
		t.Error("a finished handshake counts as early data")
	}
}

// TestProxyAddressWithAZone checks that the zone of a link-local peer address is
// ignored.
func TestProxyAddressWithAZone(t *testing.T) {
	config := ForwardedCertificate{Format: "nginx", From: []string{"fe80::/10", "10.0.0.7"}}
	f, err := config.compile()
	if err != nil {
		t.Fatal(err)
	}
	for peer, want := range map[string]bool{
		"[fe80::1%eth0]:4711": true, "[fe80::1]:4711": true, "[fec0::1%eth0]:4711": false, "[::1%lo]:4711": false,
		"10.0.0.7:4711": true, "[::ffff:10.0.0.7]:4711": true, "[::ffff:10.0.0.7%eth0]:4711": true, "10.0.0.8:4711": false,
		"fe80::1%eth0": false, "@": false, "": false,
	} {
		r, _ := newRequest(nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.IPv6loopback, Port: 443}))
		r.RemoteAddr = peer
		if f.trusts(r) != want {
			t.Errorf("%q is trusted: %t, want %t", peer, !want, want)
		}
	}
}

// TestNoSpanCostsNothing checks that a request that is not traced allocates nothing more.
func TestNoSpanCostsNothing(t *testing.T) {
	r, realm := httptest.NewRequest(http.MethodGet, "/", nil), &Realm{name: "default"}
	if n := testing.AllocsPerRun(100, func() {
		if startSpan(r, directiveAuth, realm) != nil {
			t.Error("there is a span")
		}
		noteSpan(r, "ok", "a", "")
	}); n > 0 && !testtool.RaceEnabled {
		t.Errorf("%v allocations", n)
	}
}

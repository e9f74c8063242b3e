package clienttoken

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/go-jose/go-jose/v4"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// world is an issuer, and what its answers are.
type world struct {
	*httptest.Server
	ca     *testpki.CA
	client *testpki.Leaf
	answer func(w http.ResponseWriter, r *http.Request) // instead of a token
	token  func() string
	seen   *http.Request
}

func newWorld(t *testing.T, change func(*tls.Config, *testpki.CA), options ...testpki.Option) *world {
	t.Helper()
	w := &world{ca: testpki.MustCA(t), client: testpki.MustSelfSigned(t, testpki.CommonName("sensor-7"))}
	key, err := testpki.NewKey(testpki.P256)
	if err != nil {
		t.Fatal(err)
	}
	w.token = func() string { return w.sign(t, key, nil) }
	mux := http.NewServeMux()
	mux.HandleFunc("/.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = fmt.Fprintf(rw, `{"issuer":%q,"token_endpoint":"%s/none","jwks_uri":"%s/jwks","mtls_endpoint_aliases":{"token_endpoint":"%s/token"}}`, w.URL, w.URL, w.URL, w.URL)
	})
	mux.HandleFunc("/plain/.well-known/openid-configuration", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, `{"hello":"world"}`)
	})
	mux.HandleFunc("/jwks", func(rw http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(rw).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "ES256"}}})
	})
	mux.HandleFunc("POST /token", func(rw http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		w.seen = r
		if w.answer != nil {
			w.answer(rw, r)
			return
		}
		_, _ = fmt.Fprintf(rw, `{"access_token":%q,"token_type":"Bearer","expires_in":3600,"scope":"a b"}`, w.token())
	})
	w.Server = httptest.NewUnstartedServer(mux)
	w.Config.ErrorLog = log.New(io.Discard, "", 0)
	server := testpki.MustIssue(t, w.ca, append([]testpki.Option{testpki.CommonName("server"), testpki.DNSNames("localhost"), testpki.EKU(x509.ExtKeyUsageServerAuth)}, options...)...)
	w.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{server.Cert.Raw}, PrivateKey: server.Key}}, ClientAuth: tls.RequestClientCert}
	if change != nil {
		change(w.TLS, w.ca)
	}
	w.EnableHTTP2 = true
	w.StartTLS()
	w.URL = strings.Replace(w.URL, "127.0.0.1", "localhost", 1)
	t.Cleanup(w.Close)
	return w
}

// sign returns a token with these claims in place of good ones; nil removes one.
func (w *world) sign(t *testing.T, key any, claims map[string]any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(w.client.Cert.Raw)
	all := map[string]any{
		"iss": w.URL, "sub": "sensor-7", "client_id": "sensor-7", "aud": "https://api.example.com", "jti": "x",
		"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
		"cnf": map[string]string{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])},
	}
	maps.Copy(all, claims)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	compact, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return compact
}

func (w *world) request() *Request {
	return &Request{
		Issuer: w.URL, ClientID: "sensor-7", Roots: w.ca.Pool(), Timeout: time.Minute,
		Identity: &tls.Certificate{Certificate: [][]byte{w.client.Cert.Raw}, PrivateKey: w.client.Key, Leaf: w.client.Cert},
	}
}

// TestGetFollowsTheAlias checks what is sent, and where to.
func TestGetFollowsTheAlias(t *testing.T) {
	w := newWorld(t, nil)
	r := w.request()
	r.Scopes, r.Resources = []string{"a", "b"}, []string{"https://api.example.com", "https://b.example.com"}
	answer, err := r.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if answer.Endpoint != w.URL+"/token" || answer.Scope != "a b" || answer.ExpiresIn != 3600 || answer.TokenType != "Bearer" {
		t.Errorf("%+v", answer)
	}
	form := w.seen.PostForm
	if form.Get("client_id") != "sensor-7" || form.Get("scope") != "a b" || len(form["resource"]) != 2 || form.Get("grant_type") != "client_credentials" || !w.seen.TLS.PeerCertificates[0].Equal(w.client.Cert) {
		t.Errorf("%v", form)
	}
	if err := r.Verify(t.Context(), answer.AccessToken); err != nil {
		t.Error(err)
	}
	header, claims, ok := Decode(answer.AccessToken)
	if !ok || !strings.Contains(string(header), "ES256") || !strings.Contains(string(claims), `"client_id":"sensor-7"`) {
		t.Errorf("%s %s", header, claims)
	}
}

// TestVerify checks that a token is verified as an API would.
func TestVerify(t *testing.T) {
	w := newWorld(t, nil)
	other, err := testpki.NewKey(testpki.P256)
	if err != nil {
		t.Fatal(err)
	}
	w.token = func() string { return w.sign(t, other, nil) }
	verify := func(token string) error {
		r := w.request()
		r.Resources = []string{"https://api.example.com"}
		return r.Verify(t.Context(), token)
	}
	if err := verify(w.token()); err == nil || !strings.Contains(err.Error(), "token_signature") {
		t.Error(err)
	}
	w = newWorld(t, nil)
	good := w.token()
	if err := verify(good); err != nil {
		t.Error(err)
	}
	for _, token := range []string{"", "opaque", "a.b.c", "e30.e30", "e30.e30.x.y", deep("[", "]"), deep(`{"a":`, "0}"), deep(`{"a":`, `{}}`)} {
		if _, _, ok := Decode(token); ok {
			t.Errorf("%.80q is decoded", token)
		}
	}
	w.client = testpki.MustSelfSigned(t)
	if err := verify(good); err == nil || !strings.Contains(err.Error(), "token_certificate") {
		t.Error(err)
	}
	r := w.request()
	r.Resources = []string{"https://c.example.com"}
	if err := r.Verify(t.Context(), good); err == nil || !strings.Contains(err.Error(), "token_audience") {
		t.Error(err)
	}
	r = w.request()
	r.Issuer += "/other"
	if err := r.Verify(t.Context(), good); err == nil || !strings.Contains(err.Error(), "the keys of the issuer cannot be read") {
		t.Error(err)
	}
}

// deep returns a token with claims so nested that they would take megabytes on a terminal.
func deep(begin, end string) string {
	last := end[:len(end)-1]
	claims := strings.Repeat(begin, 2000) + last + strings.Repeat(end[len(end)-1:], 2000)
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".x"
}

// TestTLSFailureIsToldOnce checks that a cause which both the handshake and the request
// report is told once.
func TestTLSFailureIsToldOnce(t *testing.T) {
	closes, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer closes.Close()
	go func() {
		for {
			conn, err := closes.Accept()
			if err != nil {
				return
			}
			_ = conn.Close()
		}
	}()
	r := newWorld(t, nil).request()
	r.Endpoint = "https://" + closes.Addr().String()
	_, err = r.Get(t.Context())
	failure, ok := errors.AsType[*RequestError](err)
	if !ok {
		t.Fatal(err)
	}
	last := failure.Steps[len(failure.Steps)-1]
	if last.Name != StepTLS || strings.Contains(last.Text, `\n`) {
		t.Errorf("%+v", last)
	}
}

// TestNamesBelowLocalhost checks that they are this machine, whatever the resolver says.
func TestNamesBelowLocalhost(t *testing.T) {
	w := newWorld(t, nil, testpki.DNSNames("auth.localhost"))
	w.URL = strings.Replace(w.URL, "localhost", "auth.localhost", 1)
	r := w.request()
	answer, err := r.Get(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(t.Context(), answer.AccessToken); err != nil {
		t.Error(err)
	}
}

// TestFailuresSayWhereAndWhy checks the last step of requests that fail, and that those
// before it are good.
func TestFailuresSayWhereAndWhy(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	say := func(status int, text string) func(*world, *Request) {
		return func(w *world, _ *Request) {
			w.answer = func(rw http.ResponseWriter, _ *http.Request) {
				rw.Header().Set("Location", "https://elsewhere.example.com/")
				rw.WriteHeader(status)
				_, _ = io.WriteString(rw, text)
			}
		}
	}
	require := func(c *tls.Config, ca *testpki.CA) {
		c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, ca.Pool()
	}
	for name, tc := range map[string]struct {
		server  func(*tls.Config, *testpki.CA)
		options []testpki.Option
		change  func(*world, *Request)
		step    string
		want    []string
	}{
		"no such name":  {change: func(_ *world, r *Request) { r.Issuer = "https://none.invalid" }, step: StepName, want: []string{"'none.invalid' has no address"}},
		"nothing there": {change: func(_ *world, r *Request) { r.Issuer = "https://127.0.0.1:1" }, step: StepConnect, want: []string{"connection refused", "is the server running"}},
		"silent": {change: func(_ *world, r *Request) {
			r.Issuer = "https://" + silent.Addr().String()
			r.Timeout = 5 * time.Second
		}, step: StepTLS, want: []string{"does not answer the TLS handshake in time"}},
		"not TLS":      {change: func(_ *world, r *Request) { r.Issuer = strings.Replace(plain.URL, "http:", "https:", 1) }, step: StepTLS, want: []string{"does not speak TLS"}},
		"unknown CA":   {change: func(_ *world, r *Request) { r.Roots = x509.NewCertPool() }, step: StepTLS, want: []string{"certificate 'CN=server' is not trusted", "its CA 'CN=Test Root CA' is not", "--cacert"}},
		"another name": {options: []testpki.Option{testpki.Template(func(c *x509.Certificate) { c.DNSNames = []string{"a.example.com", "b.example.com"} })}, step: StepTLS, want: []string{"is not for 'localhost'", "a.example.com, b.example.com"}},
		"expired":      {options: []testpki.Option{testpki.Validity(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))}, step: StepTLS, want: []string{"'CN=server' is valid from", "renew it"}},
		"no such host": {server: func(c *tls.Config, _ *testpki.CA) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("no") }
		}, step: StepTLS, want: []string{"internal error", "no certificate for 'localhost'"}},
		"refused":         {server: require, step: StepCertificate, want: []string{"'CN=sensor-7' sent", "asks for certificates of other CAs", "refused it in the handshake", "'mode request'"}},
		"refused, TLS1.2": {server: func(c *tls.Config, ca *testpki.CA) { require(c, ca); c.MaxVersion = tls.VersionTLS12 }, step: StepCertificate, want: []string{"refused it in the handshake"}},
		"refused, h1":     {server: func(c *tls.Config, ca *testpki.CA) { require(c, ca); c.NextProtos = []string{"http/1.1"} }, step: StepCertificate, want: []string{"refused it in the handshake"}},
		"another issuer":  {change: func(w *world, r *Request) { r.Issuer += "/" }, step: StepAnswer, want: []string{"the metadata of issuer 'https://localhost:"}},
		"not an issuer":   {change: func(_ *world, r *Request) { r.Issuer += "/plain" }, step: StepAnswer, want: []string{"the answer is not the metadata of an issuer"}},
		"no metadata":     {change: func(w *world, r *Request) { r.Issuer += "/x" }, step: StepAnswer, want: []string{"404 Not Found"}},
		"redirect":        {change: say(302, ""), step: StepAnswer, want: []string{"302 Found, to 'https://elsewhere.example.com/", "does not follow"}},
		"page":            {change: say(200, "<html>"), step: StepToken, want: []string{"no access_token"}},
		"type":            {change: say(200, `{"access_token":"x","expires_in":"3600"}`), step: StepToken, want: []string{"the member 'expires_in' of the answer is a string"}},
		"not a token":     {change: say(200, `{"access_token":"x\n\u001b[31m"}`), step: StepToken, want: []string{"characters that no header can have"}},
		"not for servers": {options: []testpki.Option{testpki.EKU(x509.ExtKeyUsageClientAuth)}, step: StepTLS, want: []string{"the server's certificate 'CN=server' is not for servers"}},
		"large":           {change: say(200, strings.Repeat("x", maxAnswer+1)), step: StepAnswer, want: []string{"more than 262144 bytes"}},
		"refused client":  {change: say(400, `{"error":"invalid_client","error_description":"client authentication failed (error id: k3f9abcde)"}`), step: StepAnswer, want: []string{"400 invalid_client, client authentication failed", "'caddy mtls why k3f9abcde'"}},
		"hostile":         {change: say(400, `{"error":"\u001b[2Jx","error_description":"\u202egnp"}`), step: StepAnswer, want: []string{`400 \x1b[2Jx, \u202egnp`}},
		"ends": {change: func(w *world, _ *Request) {
			w.answer = func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
		}, step: StepAnswer, want: []string{"the server does not answer"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, tc.server, tc.options...)
			r := w.request()
			if tc.change != nil {
				tc.change(w, r)
			}
			_, err := r.Get(t.Context())
			failure := (*RequestError)(nil)
			if !errors.As(err, &failure) {
				t.Fatalf("%v", err)
			}
			last := failure.Steps[len(failure.Steps)-1]
			for _, want := range tc.want {
				if last.Name != tc.step || last.OK || !strings.Contains(last.Text, want) {
					t.Errorf("%+v, want %s %q", last, tc.step, want)
				}
			}
			for _, step := range failure.Steps {
				if strings.ContainsFunc(step.Text, func(c rune) bool { return !unicode.IsPrint(c) }) || !step.OK && step != last {
					t.Errorf("%+v", step)
				}
			}
		})
	}
}

// TestCertificateNotAskedFor checks that it is said if the server asks for none.
func TestCertificateNotAskedFor(t *testing.T) {
	w := newWorld(t, func(c *tls.Config, _ *testpki.CA) { c.ClientAuth = tls.NoClientCert })
	w.answer = func(rw http.ResponseWriter, _ *http.Request) {
		rw.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(rw, `{"error":"invalid_client"}`)
	}
	_, err := w.request().Get(t.Context())
	failure := (*RequestError)(nil)
	if !errors.As(err, &failure) || failure.OAuthError != "invalid_client" || failure.Status != 400 {
		t.Fatal(err)
	}
	for _, step := range failure.Steps {
		if step.Name == StepCertificate && strings.Contains(step.Text, "NOT sent") {
			return
		}
	}
	t.Errorf("%+v", failure.Steps)
}

// TestProxyIsNamed checks that a proxy of the environment is not taken for the server.
func TestProxyIsNamed(t *testing.T) {
	trail := &trail{host: "auth.example.com", proxied: true, leaf: testpki.MustSelfSigned(t).Cert}
	trail.addresses, trail.dialed = []string{"192.0.2.1"}, "192.0.2.1:3128"
	steps, failed := trail.steps(errors.New("Forbidden"))
	if !failed || steps[0].Name != StepConnect || !strings.Contains(steps[0].Text, "the proxy of the environment at 192.0.2.1:3128") || steps[1].Name != StepTLS || !strings.Contains(steps[1].Text, "Forbidden") {
		t.Errorf("%+v", steps)
	}
}

// TestOtherMetadataIsTried checks that an issuer is found whose server answers the first
// of the well-known addresses with something else.
func TestOtherMetadataIsTried(t *testing.T) {
	w := newWorld(t, nil)
	inner := w.Config.Handler
	w.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/oauth-authorization-server" {
			_, _ = io.WriteString(rw, "<html>")
			return
		}
		inner.ServeHTTP(rw, r)
	})
	if _, err := w.request().Get(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestOnlyTheIssuerSeesTheCertificate checks that an issuer cannot have the client
// authenticate itself elsewhere, by what its metadata names or a redirect leads to.
func TestOnlyTheIssuerSeesTheCertificate(t *testing.T) {
	w, elsewhere := newWorld(t, nil), newWorld(t, nil)
	var presented []int
	elsewhere.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		presented = append(presented, len(r.TLS.PeerCertificates))
	})
	r, inner := w.request(), w.Config.Handler
	r.Roots.AddCert(elsewhere.ca.Cert)
	redirects := false
	w.Config.Handler = http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		switch {
		case redirects && r.URL.Path == "/jwks":
			http.Redirect(rw, r, elsewhere.URL+"/transfer", http.StatusFound)
		case !redirects && strings.HasPrefix(r.URL.Path, "/.well-known/"):
			_, _ = fmt.Fprintf(rw, `{"issuer":%q,"token_endpoint":"%s/token","jwks_uri":"%s/transfer"}`, w.URL, w.URL, elsewhere.URL)
		default:
			inner.ServeHTTP(rw, r)
		}
	})
	for _, redirects = range []bool{false, true} {
		if err := r.Verify(t.Context(), w.token()); err == nil {
			t.Error("verified without keys")
		}
	}
	if fmt.Sprint(presented) != "[0 0]" {
		t.Errorf("the certificates presented elsewhere: %v", presented)
	}
}

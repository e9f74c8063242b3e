package rig

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Query makes a request an introspection or revocation request of the client.
func Query(clientID, token string, parameters ...string) func(*http.Request) {
	values := url.Values{"client_id": {clientID}, "token": {token}}
	for i := 0; i < len(parameters); i += 2 {
		values.Add(parameters[i], parameters[i+1])
	}
	return WithBody("application/x-www-form-urlencoded", values.Encode())
}

// Inactive is the introspection response for an inactive token.
const Inactive = `{"active":false}`

// IssuerSite serves the issuer at auth.test and proxies other paths to the
// upstream.
const IssuerSite = `
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
	reverse_proxy @UP@
}
`

// IssuerRealm returns [BillingAndSensor] with an issuer that has these options.
func IssuerRealm(options string) string {
	return strings.Replace(BillingAndSensor, "client billing.partner", "issuer https://auth.test {\n"+options+"\n}\nclient billing.partner", 1)
}

// HTTPClient returns the caller as an HTTP client for OAuth libraries.
func (c *Caller) HTTPClient() *http.Client {
	return &http.Client{Transport: c.Rt, Timeout: Patience}
}

// Form makes a request a token request of the client.
func Form(clientID string, parameters ...string) func(*http.Request) {
	values := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}}
	for i := 0; i < len(parameters); i += 2 {
		values.Add(parameters[i], parameters[i+1])
	}
	return WithBody("application/x-www-form-urlencoded", values.Encode())
}

// Token requests a token and returns the response and the token's header and
// claims. It ends the test if no token is issued. It does not check the signature;
// [Verify] does.
func Token(r *Rig, t *testing.T, c *Caller, target string, request func(*http.Request)) (answer, header, claims map[string]any) {
	t.Helper()
	got := c.Do(http.MethodPost, target, request).WantStatus(t, http.StatusOK)
	CheckTokenHeaders(t, got)
	answer = JSON(t, got.Body)
	token, _ := answer["access_token"].(string)
	parts := strings.Split(token, ".")
	if len(parts) != 3 || answer["token_type"] != "Bearer" {
		t.Fatalf("the response is not a token: %.200q", got.Body)
	}
	r.Secrets = append(r.Secrets, token, parts[2])
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		*into = JSON(t, string(text))
	}
	return answer, header, claims
}

// CheckTokenHeaders fails the test unless a response of the token endpoint must not
// be cached and is JSON (E4).
func CheckTokenHeaders(t *testing.T, got Reply) {
	t.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json"} {
		if value := got.Header.Get(name); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
}

// Verify checks a token as a resource server with an OpenID Connect library does.
// It finds the keys through the issuer's metadata.
func Verify(t *testing.T, c *Caller, issuer, audience, token string) (*oidc.IDToken, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(oidc.ClientContext(context.Background(), c.HTTPClient()), Patience)
	t.Cleanup(cancel)
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		t.Fatalf("go-oidc does not accept the metadata: %v", err)
	}
	return provider.Verifier(&oidc.Config{ClientID: audience}).Verify(ctx, token)
}

// SigningKeyPEM writes a private key to a file and returns its path.
func SigningKeyPEM(r *Rig, t *testing.T, name string, key crypto.Signer) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	r.Secrets = append(r.Secrets, strings.Split(string(text), "\n")[1])
	return r.Write(name, text)
}

// MustSigner generates a P-256 key.
func MustSigner(t *testing.T) crypto.Signer {
	t.Helper()
	return testpki.MustKey(t, testpki.P256)
}

// VerifiedToken gets a token, has go-oidc verify it, and returns its header.
func VerifiedToken(r *Rig, t *testing.T, protocol string, leaf *testpki.Leaf, issuer string) map[string]any {
	t.Helper()
	answer, header, _ := Token(r, t, r.Caller(t, protocol, leaf), issuer+"/connect/token", Form("sensor-7"))
	if _, err := Verify(t, r.Caller(t, protocol, nil), issuer, issuer, answer["access_token"].(string)); err != nil {
		t.Error(err)
	}
	return header
}

// Await waits for a condition. It ends the test after [Patience].
func Await(r *Rig, t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(Patience); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("condition not reached: %s", what)
		}
	}
}

// Revoke revokes a token as the client.
func Revoke(r *Rig, t *testing.T, protocol string, leaf *testpki.Leaf, clientID, token string, parameters ...string) {
	t.Helper()
	got := r.Caller(t, protocol, leaf).Do(http.MethodPost, "https://auth.test/connect/revocation", Query(clientID, token, parameters...)).WantStatus(t, http.StatusOK)
	if got.Body != "" || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("the revocation response is %q with %v", got.Body, got.Header)
	}
}

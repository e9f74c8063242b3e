package mtlsauth

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// issuerSite serves the issuer at auth.test; other paths go to the API.
const issuerSite = `
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
	reverse_proxy @UP@
}
`

// issuerRealm is billingAndSensor with an issuer, and with what the test adds
// to the issuer.
func issuerRealm(options string) string {
	return strings.Replace(billingAndSensor, "client billing.partner", "issuer https://auth.test {\n"+options+"\n}\nclient billing.partner", 1)
}

// httpClient is the caller as an OAuth library wants it.
func (c *caller) httpClient() *http.Client {
	return &http.Client{Transport: c.rt, Timeout: rigPatience}
}

// form is a token request of the client.
func form(clientID string, parameters ...string) func(*http.Request) {
	values := url.Values{"grant_type": {"client_credentials"}, "client_id": {clientID}}
	for i := 0; i < len(parameters); i += 2 {
		values.Add(parameters[i], parameters[i+1])
	}
	return withBody("application/x-www-form-urlencoded", values.Encode())
}

// token requests a token that must be granted, and returns the response and
// the token's header and claims. The signature is not checked: see [verify].
func (r *rig) token(t *testing.T, c *caller, target string, request func(*http.Request)) (answer, header, claims map[string]any) {
	t.Helper()
	got := c.do(http.MethodPost, target, request).wantStatus(t, http.StatusOK)
	checkTokenHeaders(t, got)
	answer = asJSON(t, got.body)
	token, _ := answer["access_token"].(string)
	parts := strings.Split(token, ".")
	if len(parts) != 3 || answer["token_type"] != "Bearer" {
		t.Fatalf("the answer is no token: %.200q", got.body)
	}
	r.secrets = append(r.secrets, token, parts[2])
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		*into = asJSON(t, string(text))
	}
	return answer, header, claims
}

// checkTokenHeaders is E4 for the token endpoint.
func checkTokenHeaders(t *testing.T, got reply) {
	t.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "Pragma": "no-cache", "Content-Type": "application/json"} {
		if value := got.header.Get(name); value != want {
			t.Errorf("%s is %q, want %q", name, value, want)
		}
	}
}

// verify checks a token as a resource server with an OpenID Connect library
// does: it finds the keys through the issuer's metadata.
func verify(t *testing.T, c *caller, issuer, audience, token string) (*oidc.IDToken, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(oidc.ClientContext(context.Background(), c.httpClient()), rigPatience)
	t.Cleanup(cancel)
	provider, err := oidc.NewProvider(ctx, issuer)
	if err != nil {
		t.Fatalf("the metadata does not suit go-oidc: %v", err)
	}
	return provider.Verifier(&oidc.Config{ClientID: audience}).Verify(ctx, token)
}

func TestMetadataAndKeys(t *testing.T) {
	for _, issuer := range []string{"https://auth.test", "https://auth.test/tenant/one", "https://auth.test/"} {
		t.Run(issuer, func(t *testing.T) {
			r := newRig(t)
			r.issue("billing")
			r.selfSigned("sensor")
			r.start(strings.Replace(issuerRealm(""), "https://auth.test", issuer, 1), issuerSite)
			base, path := strings.TrimSuffix(issuer, "/"), strings.TrimSuffix(strings.TrimPrefix(issuer, "https://auth.test"), "/")
			places := []string{
				base + "/.well-known/openid-configuration", base + "/.well-known/oauth-authorization-server",
				"https://auth.test/.well-known/openid-configuration" + path, "https://auth.test/.well-known/oauth-authorization-server" + path,
			}
			want := map[string]any{
				"issuer": issuer, "token_endpoint": base + "/connect/token", "jwks_uri": base + "/.well-known/openid-configuration/jwks",
				"scopes_supported":      []any{"invoices.read", "invoices.write", "telemetry"},
				"grant_types_supported": []any{"client_credentials"}, "token_endpoint_auth_methods_supported": []any{"self_signed_tls_client_auth", "tls_client_auth"},
				"introspection_endpoint": base + "/connect/introspect", "introspection_endpoint_auth_methods_supported": []any{"self_signed_tls_client_auth", "tls_client_auth"},
				"revocation_endpoint": base + "/connect/revocation", "revocation_endpoint_auth_methods_supported": []any{"self_signed_tls_client_auth", "tls_client_auth"},
				"tls_client_certificate_bound_access_tokens": true,
				"mtls_endpoint_aliases": map[string]any{
					"token_endpoint": base + "/connect/mtls/token", "introspection_endpoint": base + "/connect/mtls/introspect", "revocation_endpoint": base + "/connect/mtls/revocation",
				},
				"id_token_signing_alg_values_supported": []any{"ES256"},
			}
			for _, protocol := range rigProtocols {
				c := r.caller(t, protocol, nil) // nobody needs a certificate for this
				for _, place := range places {
					got := c.get(place).wantStatus(t, http.StatusOK)
					if metadata := asJSON(t, got.body); !reflect.DeepEqual(metadata, want) {
						t.Errorf("%s: metadata\n%v, want\n%v", place, metadata, want)
					}
					checkPublicDocument(t, c, place, got)
				}
				got := c.get(base+"/.well-known/openid-configuration/jwks").wantStatus(t, http.StatusOK)
				checkPublicDocument(t, c, base+"/.well-known/openid-configuration/jwks", got)
				keys := asJSON(t, got.body)["keys"].([]any)
				if key := keys[0].(map[string]any); len(keys) != 1 || key["kty"] != "EC" || key["alg"] != "ES256" || key["use"] != "sig" || key["d"] != nil {
					t.Errorf("the keys are %s", got.body)
				}
				if got := c.get("https://auth.test/elsewhere"); got.seen == nil {
					t.Errorf("another path does not go to the next handler: %d", got.status)
				}
			}
		})
	}
}

// checkPublicDocument checks how a document for everyone may be cached.
func checkPublicDocument(t *testing.T, c *caller, place string, got reply) {
	t.Helper()
	etag := got.header.Get("Etag")
	if got.header.Get("Content-Type") != "application/json" || !strings.Contains(got.header.Get("Cache-Control"), "public") || etag == "" {
		t.Errorf("%s has the headers %v", place, got.header)
	}
	c.get(place, with("If-None-Match", etag)).wantStatus(t, http.StatusNotModified)
	if got := c.do(http.MethodHead, place).wantStatus(t, http.StatusOK); got.body != "" || got.header.Get("Etag") != etag {
		t.Errorf("HEAD %s answers %q with %v", place, got.body, got.header)
	}
	if got := c.do(http.MethodPost, place).wantStatus(t, http.StatusMethodNotAllowed); got.header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST %s: Allow is %q", place, got.header.Get("Allow"))
	}
}

func TestTokensWithOAuthLibraries(t *testing.T) {
	r := newRig(t)
	leaves := map[string]*testpki.Leaf{"billing.partner": r.issue("billing"), "sensor-7": r.selfSigned("sensor")}
	r.start(issuerRealm("audience https://api.test"), issuerSite)
	for _, protocol := range rigProtocols {
		for id, leaf := range leaves {
			for name, style := range map[string]oauth2.AuthStyle{"in params": oauth2.AuthStyleInParams, "auto": oauth2.AuthStyleAutoDetect} {
				for _, path := range []string{"/connect/token", "/connect/mtls/token"} {
					t.Run(protocol+"/"+id+"/"+name+path, func(t *testing.T) {
						config := clientcredentials.Config{ClientID: id, TokenURL: "https://auth.test" + path, AuthStyle: style}
						ctx := context.WithValue(context.Background(), oauth2.HTTPClient, r.caller(t, protocol, leaf).httpClient())
						token, err := config.Token(ctx)
						if err != nil {
							t.Fatal(err)
						}
						r.secrets = append(r.secrets, token.AccessToken)
						verified, err := verify(t, r.caller(t, protocol, nil), "https://auth.test", "https://api.test", token.AccessToken)
						if err != nil {
							t.Fatal(err)
						}
						checkClaims(t, verified, leaf, id)
						if lifetime := time.Until(token.Expiry); lifetime < 59*time.Minute || lifetime > time.Hour {
							t.Errorf("the token lives for %v", lifetime)
						}
						if _, err := verify(t, r.caller(t, protocol, nil), "https://auth.test", "https://other.test", token.AccessToken); err == nil {
							t.Error("the token is good for another audience")
						}
					})
				}
			}
		}
	}
}

func checkClaims(t *testing.T, token *oidc.IDToken, leaf *testpki.Leaf, id string) {
	t.Helper()
	var claims map[string]any
	if err := token.Claims(&claims); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"iss": "https://auth.test", "sub": id, "client_id": id, "aud": "https://api.test", "scope": "telemetry",
		"cnf": map[string]any{"x5t#S256": validators.X5tS256(sha256.Sum256(leaf.Cert.Raw))},
	}
	if id == "billing.partner" {
		want["scope"], want["tenant"] = "invoices.read invoices.write", "partner 7"
	}
	for _, name := range []string{"exp", "iat", "jti"} {
		if claims[name] == nil {
			t.Errorf("the token has no %s", name)
		}
		delete(claims, name)
	}
	if !reflect.DeepEqual(claims, want) {
		t.Errorf("the claims are %v, want %v", claims, want)
	}
}

// TestR17_R18_MixedHosts: people with a browser are asked for no certificate by
// the issuer's own host, and clients find the host that asks them in the
// metadata.
func TestR17_R18_MixedHosts(t *testing.T) {
	for _, alias := range []string{"https://alias.test", "https://alias.test/base"} {
		t.Run(alias, func(t *testing.T) {
			r := newRig(t)
			billing := r.issue("billing")
			r.selfSigned("sensor")
			r.start(issuerRealm("mtls_alias "+alias), `
https://auth.test:@HTTPS@ {
	import tls_without_client_auth
	mtls_issuer
	reverse_proxy @UP@
}
https://alias.test:@HTTPS@ {
	import mtls
	mtls_issuer
	reverse_proxy @UP@
}
`)
			for _, protocol := range rigProtocols {
				c := r.caller(t, protocol, billing)
				var asked atomic.Int64
				present := c.tls.GetClientCertificate
				c.tls.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked.Add(1)
					return present(info)
				}
				for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration/jwks", "/"} {
					c.get("https://auth.test"+path).wantStatus(t, http.StatusOK)
				}
				metadata := asJSON(t, c.get("https://auth.test/.well-known/openid-configuration").wantStatus(t, http.StatusOK).body)
				place := metadata["mtls_endpoint_aliases"].(map[string]any)["token_endpoint"].(string)
				if place != alias+"/connect/token" || metadata["token_endpoint"] != "https://auth.test/connect/token" {
					t.Errorf("the metadata is %v", metadata)
				}
				// without a certificate, that is an answer in JSON, not an end of the connection
				got := c.do(http.MethodPost, "https://auth.test/connect/token", form("billing.partner")).wantStatus(t, http.StatusUnauthorized)
				checkTokenHeaders(t, got)
				if asJSON(t, got.body)["error"] != "invalid_client" || got.header.Get("WWW-Authenticate") != "" {
					t.Errorf("without a certificate: %q", got.body)
				}
				if n := asked.Load(); n > 0 {
					t.Errorf("%s: the issuer's own host asked for a certificate %d times", protocol, n)
				}

				answer, _, claims := r.token(t, c, place, form("billing.partner"))
				if claims["iss"] != "https://auth.test" || claims["cnf"] == nil {
					t.Errorf("the claims are %v", claims)
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("%s: the alias host asked for a certificate %d times", protocol, n)
				}
				if _, err := verify(t, r.caller(t, protocol, nil), "https://auth.test", "https://auth.test", answer["access_token"].(string)); err != nil {
					t.Error(err)
				}
				for _, path := range []string{"/.well-known/openid-configuration", "/.well-known/openid-configuration/jwks", "/connect/mtls/token", "/connect/mtls/introspect", "/connect/mtls/revocation"} {
					if got := c.get("https://alias.test" + path); got.seen == nil {
						t.Errorf("the alias host serves %s: %d %.100q", path, got.status, got.body)
					}
				}
			}
		})
	}
}

// The endpoints are at their exact paths, whatever spelling a client tries.
func TestD3_PathsOfTheIssuer(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(issuerRealm(""), issuerSite)
	body := "grant_type=client_credentials&client_id=billing.partner"
	for _, target := range []string{
		"//connect/token", "/connect//token", "/Connect/Token", "/connect/token/", "/connect/token;x", "/connect/token;x=/", "/connect/./token",
		"/x/../connect/token", "/connect/tokens", "/connect/tok", "/connect", "/connect/token%20", "/connect/token%00", "/connect/token%3f", "/connect%252ftoken",
		"/auth.test/connect/token", "/connect/mtls/token/x", "/connect/mtls//token",
	} {
		got := r.raw(t, billing, "auth.test").send(fmt.Sprintf("POST %s HTTP/1.1\nHost: auth.test\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n\n%s", target, len(body), body))
		if got.seen == nil && got.status < 400 {
			t.Errorf("%s is answered %d %.100q, want it to go to the next handler", target, got.status, got.body)
		}
		if strings.Contains(got.body, "access_token") {
			t.Errorf("%s gives a token", target)
		}
	}
	// these are the path itself, and the same rules apply to them
	for _, target := range []string{"/connect%2ftoken", "/%63onnect/token", "/connect/token?", "https://auth.test/connect/token"} {
		for leaf, want := range map[*testpki.Leaf]int{billing: http.StatusOK, nil: http.StatusUnauthorized} {
			r.raw(t, leaf, "auth.test").send(fmt.Sprintf("POST %s HTTP/1.1\nHost: auth.test\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n\n%s", target, len(body), body)).wantStatus(t, want)
		}
	}
}

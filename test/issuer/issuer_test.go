package issuer_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func TestMetadataAndKeys(t *testing.T) {
	for _, issuer := range []string{"https://auth.test", "https://auth.test/tenant/one", "https://auth.test/"} {
		t.Run(issuer, func(t *testing.T) {
			r := rig.New(t)
			r.Issue("billing")
			r.SelfSigned("sensor")
			r.Start(strings.Replace(rig.IssuerRealm(""), "https://auth.test", issuer, 1), rig.IssuerSite)
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
				"subject_types_supported":               []any{"public"},
			}
			for _, protocol := range rig.Protocols {
				c := r.Caller(t, protocol, nil) // public documents require no certificate
				for _, place := range places {
					got := c.Get(place).WantStatus(t, http.StatusOK)
					if metadata := rig.JSON(t, got.Body); !reflect.DeepEqual(metadata, want) {
						t.Errorf("%s: metadata\n%v, want\n%v", place, metadata, want)
					}
					checkPublicDocument(t, c, place, got)
				}
				got := c.Get(base+"/.well-known/openid-configuration/jwks").WantStatus(t, http.StatusOK)
				checkPublicDocument(t, c, base+"/.well-known/openid-configuration/jwks", got)
				keys := rig.JSON(t, got.Body)["keys"].([]any)
				if key := keys[0].(map[string]any); len(keys) != 1 || key["kty"] != "EC" || key["alg"] != "ES256" || key["use"] != "sig" || key["d"] != nil {
					t.Errorf("the keys are %s", got.Body)
				}
				if got := c.Get("https://auth.test/elsewhere"); got.Seen == nil {
					t.Errorf("another path does not reach the next handler: %d", got.Status)
				}
			}
		})
	}
}

// checkPublicDocument checks the caching headers and methods of a public document.
func checkPublicDocument(t *testing.T, c *rig.Caller, place string, got rig.Reply) {
	t.Helper()
	etag := got.Header.Get("Etag")
	if got.Header.Get("Content-Type") != "application/json" || !strings.Contains(got.Header.Get("Cache-Control"), "public") || etag == "" {
		t.Errorf("%s is served with headers %v", place, got.Header)
	}
	c.Get(place, rig.With("If-None-Match", etag)).WantStatus(t, http.StatusNotModified)
	if got := c.Do(http.MethodHead, place).WantStatus(t, http.StatusOK); got.Body != "" || got.Header.Get("Etag") != etag {
		t.Errorf("HEAD %s returns %q with %v", place, got.Body, got.Header)
	}
	ranges := make([]string, len(got.Body)-1) // each of them would have headers of its own
	for i := range ranges {
		ranges[i] = fmt.Sprintf("%d-%[1]d", i)
	}
	if ranged := c.Get(place, rig.With("Range", "bytes="+strings.Join(ranges, ","))).WantStatus(t, http.StatusOK); ranged.Body != got.Body {
		t.Errorf("many ranges of %s return %d octets", place, len(ranged.Body))
	}
	if got := c.Do(http.MethodPost, place).WantStatus(t, http.StatusMethodNotAllowed); got.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST %s: Allow is %q", place, got.Header.Get("Allow"))
	}
}

func TestTokensWithOAuthLibraries(t *testing.T) {
	r := rig.New(t)
	leaves := map[string]*testpki.Leaf{"billing.partner": r.Issue("billing"), "sensor-7": r.SelfSigned("sensor")}
	r.Start(rig.IssuerRealm("audience https://api.test"), rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		for id, leaf := range leaves {
			for name, style := range map[string]oauth2.AuthStyle{"in params": oauth2.AuthStyleInParams, "in header": oauth2.AuthStyleInHeader, "auto": oauth2.AuthStyleAutoDetect} {
				for _, path := range []string{"/connect/token", "/connect/mtls/token"} {
					t.Run(protocol+"/"+id+"/"+name+path, func(t *testing.T) {
						config := clientcredentials.Config{ClientID: id, TokenURL: "https://auth.test" + path, AuthStyle: style}
						ctx := context.WithValue(context.Background(), oauth2.HTTPClient, r.Caller(t, protocol, leaf).HTTPClient())
						token, err := config.Token(ctx)
						if err != nil {
							t.Fatal(err)
						}
						r.Secrets = append(r.Secrets, token.AccessToken)
						verified, err := rig.Verify(t, r.Caller(t, protocol, nil), "https://auth.test", "https://api.test", token.AccessToken)
						if err != nil {
							t.Fatal(err)
						}
						checkClaims(t, verified, leaf, id)
						if lifetime := time.Until(token.Expiry); lifetime < 59*time.Minute || lifetime > time.Hour {
							t.Errorf("the token lives for %v", lifetime)
						}
						if _, err := rig.Verify(t, r.Caller(t, protocol, nil), "https://auth.test", "https://other.test", token.AccessToken); err == nil {
							t.Error("the token is valid for another audience")
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

// TestMixedHosts_R17_R18 checks that the issuer's own host requests no certificate, so
// browsers show no prompt. Clients find the host that requests one in the metadata.
func TestMixedHosts_R17_R18(t *testing.T) {
	for _, alias := range []string{"https://alias.test", "https://alias.test/base"} {
		t.Run(alias, func(t *testing.T) {
			r := rig.New(t)
			billing := r.Issue("billing")
			r.SelfSigned("sensor")
			r.Start(rig.IssuerRealm("mtls_alias "+alias), `
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
			for _, protocol := range rig.Protocols {
				c := r.Caller(t, protocol, billing)
				var asked atomic.Int64
				present := c.Tls.GetClientCertificate
				c.Tls.GetClientCertificate = func(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
					asked.Add(1)
					return present(info)
				}
				for _, path := range []string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration/jwks", "/"} {
					c.Get("https://auth.test"+path).WantStatus(t, http.StatusOK)
				}
				metadata := rig.JSON(t, c.Get("https://auth.test/.well-known/openid-configuration").WantStatus(t, http.StatusOK).Body)
				place := metadata["mtls_endpoint_aliases"].(map[string]any)["token_endpoint"].(string)
				if place != alias+"/connect/token" || metadata["token_endpoint"] != "https://auth.test/connect/token" {
					t.Errorf("the metadata is %v", metadata)
				}
				// a missing certificate leads to a JSON response, not a failed handshake
				got := c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).WantStatus(t, http.StatusBadRequest)
				rig.CheckTokenHeaders(t, got)
				if rig.JSON(t, got.Body)["error"] != "invalid_client" || got.Header.Get("WWW-Authenticate") != "" {
					t.Errorf("without a certificate: %q", got.Body)
				}
				if detail := r.Logs.WithErrorID(t, "client refused", got.ErrorID).Str("detail"); !strings.Contains(detail, place+" in the mtls_endpoint_aliases") {
					t.Errorf("the detail does not say where to go: %s", detail)
				}
				if n := asked.Load(); n > 0 {
					t.Errorf("%s: the issuer's own host asked for a certificate %d times", protocol, n)
				}

				answer, _, claims := rig.Token(r, t, c, place, rig.Form("billing.partner"))
				if claims["iss"] != "https://auth.test" || claims["cnf"] == nil {
					t.Errorf("the claims are %v", claims)
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("%s: the alias host asked for a certificate %d times", protocol, n)
				}
				if _, err := rig.Verify(t, r.Caller(t, protocol, nil), "https://auth.test", "https://auth.test", answer["access_token"].(string)); err != nil {
					t.Error(err)
				}
				rig.Token(r, t, c, alias+"/connect/mtls/token", rig.Form("billing.partner"))
				for _, url := range []string{
					alias + "/.well-known/openid-configuration", "https://alias.test/.well-known/openid-configuration/jwks", "https://alias.test/.well-known/oauth-authorization-server/base",
					alias + "/connect/tokens", alias + "/connect/", "https://auth.test/connect/tokens", "https://auth.test/connect/mtls/token/",
				} {
					c.Get(url).WantStatus(t, http.StatusNotFound)
					c.Do(http.MethodPost, url, rig.Form("billing.partner")).WantStatus(t, http.StatusNotFound)
				}
				for _, url := range []string{"https://alias.test/", "https://alias.test/connected", "https://auth.test/other"} {
					if got := c.Get(url); got.Seen == nil {
						t.Errorf("%s did not reach the next handler: %d %.100q", url, got.Status, got.Body)
					}
				}
			}
		})
	}
}

// TestPathsOfTheIssuer_D3 checks that the endpoints answer only at their exact paths.
func TestPathsOfTheIssuer_D3(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.IssuerSite)
	body := "grant_type=client_credentials&client_id=billing.partner"
	for _, target := range []string{
		"//connect/token", "/connect//token", "/Connect/Token", "/connect/token/", "/connect/token;x", "/connect/token;x=/", "/connect/./token",
		"/x/../connect/token", "/connect/tokens", "/connect/tok", "/connect", "/connect/token%20", "/connect/token%00", "/connect/token%3f", "/connect%252ftoken",
		"/auth.test/connect/token", "/connect/mtls/token/x", "/connect/mtls//token",
	} {
		got := r.Raw(t, billing, "auth.test").Send(fmt.Sprintf("POST %s HTTP/1.1\nHost: auth.test\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n\n%s", target, len(body), body))
		if got.Seen == nil && got.Status < 400 {
			t.Errorf("%s returns %d %.100q, want the next handler", target, got.Status, got.Body)
		}
		if strings.Contains(got.Body, "access_token") {
			t.Errorf("%s issues a token", target)
		}
	}
	// these are equivalent to the exact path, so the same rules apply
	for _, target := range []string{"/connect%2ftoken", "/%63onnect/token", "/connect/token?", "https://auth.test/connect/token"} {
		for leaf, want := range map[*testpki.Leaf]int{billing: http.StatusOK, nil: http.StatusBadRequest} {
			r.Raw(t, leaf, "auth.test").Send(fmt.Sprintf("POST %s HTTP/1.1\nHost: auth.test\nContent-Type: application/x-www-form-urlencoded\nContent-Length: %d\n\n%s", target, len(body), body)).WantStatus(t, want)
		}
	}
}

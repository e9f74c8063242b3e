package issuer_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const forwardTokenSites = rig.IssuerSite + `
https://api.test:@HTTPS@ {
	import mtls
	log
	mtls_auth {
		forward_token {
			audience urn:behind
		}
	}
	reverse_proxy @UP@
}
https://alias.test:@HTTPS@ {
	import mtls
	mtls_auth {
		forward_token X-Gateway-Token {
			audience urn:behind
		}
	}
	reverse_proxy @STREAM@
}
https://public.test:@HTTPS@ {
	import mtls
	log
	mtls_auth {
		optional
		header_up X-Client-ID {http.mtls.client_id}
		forward_token X-Gateway-Token {
			audience urn:behind
			scopes   telemetry invoices.read nobody.has.it
			lifetime 2m
		}
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		report_only
		allow billing.partner
		forward_token {
			audience urn:other
			scopes   telemetry
		}
	}
	reverse_proxy @UP@
}
`

// startForwardToken starts forwardTokenSites with a clock the test controls.
func startForwardToken(t *testing.T, lines string) (r *rig.Rig, clock *rig.Clock, leaves map[string]*testpki.Leaf) {
	r, clock = rig.New(t), rig.NewClock(t)
	rig.WithoutProxyLog(r)
	soon := testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(90*time.Second).Truncate(time.Second))
	leaves = map[string]*testpki.Leaf{
		"billing": r.Issue("billing"), "sensor": r.SelfSigned("sensor"), "stranger": r.IssueBy(r.OtherCA, "billing"), "soon": r.Issue("soon", testpki.CommonName("billing"), soon), "": nil,
	}
	r.Start(forwardTokenRealm(t, lines), forwardTokenSites)
	return r, clock, leaves
}

func forwardTokenRealm(t *testing.T, lines string) string {
	realm := strings.Replace(rig.ClockRealmOf(t), "scopes  invoices.read\n", "scopes  invoices.read invoices.write\n\t\tclaim   tenant \"partner 7\"\n", 1)
	return strings.Replace(realm, "client billing.partner", lines+"\nclient billing.partner", 1)
}

// toldToken returns the token that the upstream received, its header and its claims. It
// also adds the token to the secrets that no log may contain.
func toldToken(r *rig.Rig, t *testing.T, got rig.Reply, name string) (token string, header, claims map[string]any) {
	t.Helper()
	if got.Seen == nil {
		t.Fatalf("the request did not reach the upstream: %d %.300q", got.Status, got.Body)
	}
	values := got.Seen.Header[name]
	if len(values) != 1 {
		t.Fatalf("the upstream received %s: %q", name, values)
	}
	token = values[0]
	if name == "Authorization" {
		var bearer bool
		if token, bearer = strings.CutPrefix(token, "Bearer "); !bearer {
			t.Errorf("Authorization is %.30q…", values[0])
		}
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%.60q is not a token", token)
	}
	if !slices.Contains(r.Secrets, parts[2]) {
		r.Secrets = append(r.Secrets, parts[2])
	}
	for i, into := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		*into = rig.JSON(t, string(text))
	}
	return token, header, claims
}

// TestForwardToken checks that the upstream can verify the token with only the issuer's
// published keys.
func TestForwardToken(t *testing.T) {
	r, clock, leaves := startForwardToken(t, "")
	// the verifier's client uses the system clock, so the test clock must agree with it
	clock.Ahead.Store(0)
	for _, protocol := range rig.Protocols {
		for _, tc := range []struct {
			name, leaf, host, header, aud string
			scope                         any
			lifetime                      float64
			client                        string
		}{
			{"all scopes", "billing", "api.test", "Authorization", "urn:behind", "invoices.read invoices.write", 60, "billing.partner"},
			{"some scopes", "billing", "public.test", "X-Gateway-Token", "urn:behind", "invoices.read", 120, "billing.partner"},
			{"none of the scopes", "billing", "other.test", "Authorization", "urn:other", nil, 60, "billing.partner"},
			{"a client without scopes", "sensor", "api.test", "Authorization", "urn:behind", nil, 60, "sensor-7"},
		} {
			t.Run(protocol+"/"+tc.name, func(t *testing.T) {
				got := r.Caller(t, protocol, leaves[tc.leaf]).Get("https://"+tc.host+"/").WantStatus(t, http.StatusOK).WantClient(t, tc.client)
				token, header, claims := toldToken(r, t, got, tc.header)
				if header["typ"] != "gateway+jwt" || header["alg"] != "ES256" || len(header) != 3 {
					t.Errorf("the header is %v", header)
				}
				if _, err := rig.Verify(t, r.Caller(t, protocol, nil), "https://auth.test", tc.aud, token); err != nil {
					t.Error(err)
				}
				if claims["exp"].(float64)-claims["iat"].(float64) != tc.lifetime || claims["jti"] == "" {
					t.Errorf("the claims are %v", claims)
				}
				for _, name := range []string{"exp", "iat", "jti"} {
					delete(claims, name)
				}
				want := map[string]any{
					"iss": "https://auth.test", "sub": tc.client, "client_id": tc.client, "aud": tc.aud,
					"client_cert_x5t#S256": validators.X5tS256(sha256.Sum256(leaves[tc.leaf].Cert.Raw)),
				}
				if tc.scope != nil {
					want["scope"] = tc.scope
				}
				if tc.client == "billing.partner" {
					want["tenant"] = "partner 7"
				}
				if !reflect.DeepEqual(claims, want) {
					t.Errorf("the claims are %v, want %v", claims, want)
				}
			})
		}
	}
	// the access log contains no token, whichever header carries it
	for _, uri := range []string{"https://api.test/logged", "https://public.test/logged"} {
		r.Caller(t, "h1", leaves["billing"]).Get(uri).WantStatus(t, http.StatusOK)
	}
	r.Logs.Access(t, "/logged")
}

// TestForwardedTokenIsNotTheCallersChoice_A10 checks that callers can neither influence
// the token's contents nor replace the token.
func TestForwardedTokenIsNotTheCallersChoice_A10(t *testing.T) {
	r, _, leaves := startForwardToken(t, "")
	forged := []func(*http.Request){
		rig.With("Authorization", "Bearer forged", "Basic forged"), rig.With("authorization", "Bearer forged"), rig.With("X-Gateway-Token", "forged"),
		rig.With("x_gateway_token", "forged"), rig.With("X-Client-Id", "admin"), rig.With("Audience", "forged"), rig.With("Scope", "forged"), rig.With("X-Forwarded-User", "forged"),
	}
	const query = "/?aud=forged&audience=forged&sub=forged&client_id=sensor-7&scope=forged&resource=urn:forged&tenant=forged&access_token=forged"
	body := rig.WithBody("application/x-www-form-urlencoded", "client_id=sensor-7&aud=forged&scope=forged&access_token=forged")
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for host, header := range map[string]string{"api.test": "Authorization", "public.test": "X-Gateway-Token", "other.test": "Authorization"} {
				c := r.Caller(t, protocol, leaves["billing"])
				_, _, want := toldToken(r, t, c.Get("https://"+host+"/"), header)
				got := c.Do(http.MethodPost, "https://"+host+query, append(forged, body)...).WantStatus(t, http.StatusOK)
				_, _, claims := toldToken(r, t, got, header)
				for _, name := range []string{"jti", "iat", "exp"} { // these differ if the token was renewed in between
					delete(want, name)
					delete(claims, name)
				}
				if !reflect.DeepEqual(claims, want) {
					t.Errorf("%s: the claims are %v, want %v", host, claims, want)
				}
			}
			// an unauthenticated caller's own token is removed
			for host, leaf := range map[string]string{"public.test": "", "other.test": "stranger"} {
				for _, leaf := range []string{leaf, ""} {
					got := r.Caller(t, protocol, leaves[leaf]).Get("https://"+host+query, forged...).WantStatus(t, http.StatusOK).WantClient(t, "")
					for name, values := range got.Seen.Header {
						if rig.IsNamed(name, map[string]string{"public.test": "x-gateway-token", "other.test": "authorization"}[host]) {
							t.Errorf("%s: the upstream received %s: %q", host, name, values)
						}
					}
				}
			}
			r.Caller(t, protocol, leaves["sensor"]).Get("https://other.test/", forged...).WantClient(t, "") // not on the allow list
			r.Caller(t, protocol, leaves["stranger"]).Get("https://api.test/", forged...).WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
			r.Caller(t, protocol, nil).Get("https://api.test/", forged...).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			// forged trailers are removed too; Caddy drops all trailers over HTTP/3
			if protocol == "h3" {
				return
			}
			got := r.Caller(t, protocol, leaves["billing"]).Do(http.MethodPost, "https://alias.test/", func(request *http.Request) {
				request.Body, request.ContentLength = io.NopCloser(strings.NewReader("body")), -1
				request.Trailer = http.Header{"X-Gateway-Token": {"forged"}, "X_gateway_token": {"forged"}, "X-Checksum": {"42"}}
			})
			toldToken(r, t, got, "X-Gateway-Token")
			if trailer := got.Seen.Trailer; trailer.Get("X-Checksum") != "42" || len(trailer) != 1 {
				t.Errorf("the trailers are %v", trailer)
			}
		})
	}
	// over HTTP/1.1, Connection can ask a hop to drop headers
	got := r.Raw(t, leaves["billing"], "api.test").Send("GET / HTTP/1.1\nHost: api.test\nAuthorization: Bearer forged\nConnection: close, Authorization\n\n")
	toldToken(r, t, got, "Authorization")
}

// TestForwardTokenIsReused checks that requests share a token until its renewal is due.
// The token never outlives the certificate and is not used for a refused client.
func TestForwardTokenIsReused(t *testing.T) {
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r, clock, leaves := startForwardToken(t, "")
			clock.Freeze()
			c := r.Caller(t, protocol, leaves["billing"])
			ask := func() string {
				t.Helper()
				token, _, _ := toldToken(r, t, c.Get("https://api.test/"), "Authorization")
				return token
			}
			first := ask()
			for range 3 {
				if ask() != first {
					t.Error("a cached token is not reused")
				}
			}
			if token, _, _ := toldToken(r, t, r.Caller(t, protocol, leaves["soon"]).Get("https://api.test/"), "Authorization"); token == first {
				t.Error("two certificates share a token")
			}
			clock.Advance(45 * time.Second)
			second := ask()
			if second == first {
				t.Error("a token is still used once its renewal is due")
			}
			if ask() != second {
				t.Error("the renewed token is not reused")
			}
			// this certificate expires before a token usually would
			soon := r.Caller(t, protocol, leaves["soon"])
			_, _, claims := toldToken(r, t, soon.Get("https://api.test/"), "Authorization")
			if claims["exp"] != float64(leaves["soon"].Cert.NotAfter.Unix()) {
				t.Errorf("exp is %v, but the certificate expires at %d", claims["exp"], leaves["soon"].Cert.NotAfter.Unix())
			}
			clock.Advance(time.Hour)
			r.WantReason(t, soon.Get("https://api.test/"), "certificate_expired")
			// a configuration change reaches the claims at once
			third := ask()
			r.Reload(strings.Replace(forwardTokenRealm(t, ""), "partner 7", "partner 8", 1), forwardTokenSites)
			if token, _, claims := toldToken(r, t, r.Caller(t, protocol, leaves["billing"]).Get("https://api.test/"), "Authorization"); token == third || claims["tenant"] != "partner 8" {
				t.Errorf("after a reload the claims are %v", claims)
			}
		})
	}
}

// TestForwardTokenOfADeniedClient checks that a cached token does not admit a denied
// client.
func TestForwardTokenOfADeniedClient(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	clock.Ahead.Store(0)
	rig.WithoutProxyLog(r)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	deny := r.Write("deny.txt", nil)
	r.Start(forwardTokenRealm(t, "revocation {\ndeny \"@DIR@/deny.txt\"\n}"), forwardTokenSites)
	open := make(map[string]*rig.Caller)
	for _, protocol := range rig.Protocols {
		open[protocol] = r.Caller(t, protocol, billing)
		toldToken(r, t, open[protocol].Get("https://api.test/"), "Authorization")
	}
	if err := os.WriteFile(deny, []byte("thumbprint "+testpki.HashOf(billing.Cert.Raw)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, protocol := range rig.Protocols {
		open[protocol].Eventually(t, http.StatusUnauthorized)
		toldToken(r, t, r.Caller(t, protocol, sensor).Get("https://api.test/"), "Authorization")
	}
}

// TestForwardTokenWithoutKeys checks that a request is refused if its token cannot be
// minted.
func TestForwardTokenWithoutKeys(t *testing.T) {
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r, clock := rig.New(t), rig.NewClock(t)
			rig.WithoutProxyLog(r)
			billing, _ := r.Issue("billing"), r.SelfSigned("sensor")
			blocker := r.Write("storage", nil) // a file in place of the folder makes storage unusable
			r.Start(forwardTokenRealm(t, ""), forwardTokenSites)
			c := r.Caller(t, protocol, billing)
			for range 2 {
				hits := r.Upstream.Hits.Load()
				got := c.Get("https://api.test/", rig.With("Authorization", "Bearer forged")).WantStatus(t, http.StatusServiceUnavailable)
				if r.Upstream.Hits.Load() != hits || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Retry-After") == "" || strings.Contains(got.Body, "storage") {
					t.Errorf("without keys: %q %v", got.Body, got.Header)
				}
				entry := r.Logs.Wait(t, "a refusal without keys", func(e rig.LogEntry) bool { return e.Str("msg") == "request refused: gateway token unavailable" })
				if entry.Str("reason") != "temporarily_unavailable" || entry.Str("client_id") != "billing.partner" || !strings.Contains(entry.Str("detail"), "storage") || entry.Str("error_id") == "" {
					t.Errorf("the log line is %v", entry)
				}
			}
			// with report_only, the request passes without a client
			got := c.Get("https://other.test/", rig.With("Authorization", "Bearer forged")).WantStatus(t, http.StatusOK).WantClient(t, "")
			if told := got.Seen.Header["Authorization"]; len(told) > 0 {
				t.Errorf("the upstream received %q", told)
			}
			if err := os.Remove(blocker); err != nil {
				t.Fatal(err)
			}
			clock.Advance(time.Minute)     // past the pause between attempts
			c.Eventually(t, http.StatusOK) // an attempt may have begun before
			toldToken(r, t, c.Get("https://api.test/").WantClient(t, "billing.partner"), "Authorization")
		})
	}
}

// TestForwardTokenIsNoAccessToken checks that forward_token affects neither access
// tokens nor the number of signing keys.
func TestForwardTokenIsNoAccessToken(t *testing.T) {
	r, _, leaves := startForwardToken(t, "")
	_, _, claims := rig.Token(r, t, r.Caller(t, "h2", leaves["billing"]), "https://auth.test/connect/token", rig.Form("billing.partner"))
	if claims["aud"] == "urn:behind" || claims["client_cert_x5t#S256"] != nil {
		t.Errorf("an access token has the claims %v", claims)
	}
	if files, err := filepath.Glob(filepath.Join(r.Dir, "storage", "mtls", "default", "keys", "*.json")); err != nil || len(files) != 1 {
		t.Errorf("the keys are %q", files)
	}
	site := func(audience string) string {
		return fmt.Sprintf("https://api.test:@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n\t\tforward_token {\n\t\t\taudience %s\n\t\t}\n\t}\n\treverse_proxy @UP@\n}\n", audience)
	}
	err := r.Load(forwardTokenRealm(t, ""), site("https://auth.test"))
	testtool.WantError(t, err, "mtls_auth: forward_token: audience 'https://auth.test' is also the issuer of realm 'default', so its access tokens and gateway tokens could be mistaken for each other; choose another audience")
}

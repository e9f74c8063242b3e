package issuer_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// introspectRealm configures two APIs and their clients.
const introspectRealm = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client billing.partner {
		subject "CN=billing"
		scopes  invoices.read invoices.write ship.read
		claim   tenant "partner 7"
	}
	client invoices.api {
		subject    "CN=invoices"
		introspect https://invoices.test
	}
	client ship.api {
		certificate "@DIR@/sensor.pem"
		introspect  https://ship.test/v1 urn:events
	}
	client gone {
		subject CN=gone
		disabled
	}
	issuer https://auth.test {
		OPTIONS
		resource https://invoices.test {
			scopes invoices.read invoices.write
		}
		resource https://ship.test/v1 {
			scopes ship.read
		}
		resource urn:events
	}
}
`

func introspectRealmWith(options string) string {
	return strings.Replace(introspectRealm, "OPTIONS", options, 1)
}

func startIntrospection(t *testing.T, options string) (r *rig.Rig, leaves map[string]*testpki.Leaf) {
	r = rig.New(t)
	leaves = map[string]*testpki.Leaf{
		"billing.partner": r.Issue("billing"), "invoices.api": r.Issue("invoices"), "ship.api": r.SelfSigned("sensor"),
		"gone": r.Issue("gone"), "stranger": r.Issue("stranger"), "": nil,
	}
	r.Start(introspectRealmWith(options), rig.IssuerSite)
	return r, leaves
}

// tokenFor requests a token for billing.partner and returns it with its claims.
func tokenFor(r *rig.Rig, t *testing.T, leaf *testpki.Leaf, parameters ...string) (token string, claims map[string]any) {
	t.Helper()
	answer, _, claims := rig.Token(r, t, r.Caller(t, "h2", leaf), "https://auth.test/connect/token", rig.Form("billing.partner", parameters...))
	return answer["access_token"].(string), claims
}

// introspect queries a token's state and returns the response body.
func introspect(r *rig.Rig, t *testing.T, protocol string, leaf *testpki.Leaf, clientID, token string) string {
	t.Helper()
	got := r.Caller(t, protocol, leaf).Do(http.MethodPost, "https://auth.test/connect/introspect", rig.Query(clientID, token)).WantStatus(t, http.StatusOK)
	rig.CheckTokenHeaders(t, got)
	return got.Body
}

func TestIntrospection_E4_R13_R36_R38(t *testing.T) {
	for _, form := range []string{"", "scope_claim array"} {
		r, leaves := startIntrospection(t, form)
		for _, protocol := range rig.Protocols {
			token, claims := tokenFor(r, t, leaves["billing.partner"], "resource", "https://invoices.test")
			want := maps.Clone(claims)
			want["active"], want["token_type"], want["scope"] = true, "Bearer", "invoices.read invoices.write"
			if form != "" && !reflect.DeepEqual(claims["scope"], []any{"invoices.read", "invoices.write"}) {
				t.Errorf("the claim scope is %v", claims["scope"])
			}
			for _, id := range []string{"billing.partner", "invoices.api"} {
				for _, path := range []string{"/connect/introspect", "/connect/mtls/introspect"} {
					for _, hint := range []string{"", "access_token", "refresh_token", "nonsense"} {
						got := r.Caller(t, protocol, leaves[id]).Do(http.MethodPost, "https://auth.test"+path, rig.Query(id, token, "token_type_hint", hint)).WantStatus(t, http.StatusOK)
						rig.CheckTokenHeaders(t, got)
						if answer := rig.JSON(t, got.Body); !reflect.DeepEqual(answer, want) {
							t.Errorf("%s receives\n%v, want\n%v", id, answer, want)
						}
					}
				}
			}
		}
	}
}

// TestInactiveTokensLookTheSame_R37_E1 checks that inactive tokens and tokens for
// another API get the same response. Only the log gives the reason.
func TestInactiveTokensLookTheSame_R37_E1(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	invoices, claims := tokenFor(r, t, leaves["billing.partner"], "resource", "https://invoices.test")
	both, _ := tokenFor(r, t, leaves["billing.partner"], "resource", "https://invoices.test", "resource", "https://ship.test/v1")
	changed := invoices[:len(invoices)-10] + "AAAAAAAAAA"
	for _, protocol := range rig.Protocols {
		for name, tc := range map[string]struct {
			caller, token, reason string
		}{
			"for another API":   {"ship.api", invoices, "token_of_other"},
			"for its API":       {"invoices.api", invoices, ""},
			"for its API too":   {"ship.api", both, ""},
			"changed":           {"invoices.api", changed, "token_signature"},
			"changed, stranger": {"ship.api", changed, "token_signature"},
			"no token":          {"ship.api", "nonsense", "token_malformed"},
			"hostile":           {"ship.api", "a\r\n\x00\"<script>" + strings.Repeat("x", 30<<10), "token_malformed"},
			"a refresh token":   {"invoices.api", "tGzv3JOkF0XG5Qx2TlKWIA", "token_malformed"},
		} {
			body := introspect(r, t, protocol, leaves[tc.caller], tc.caller, tc.token)
			if tc.reason == "" {
				if answer := rig.JSON(t, body); answer["active"] != true || answer["jti"] == "" {
					t.Errorf("%s: got %s", name, body)
				}
				continue
			}
			if body != rig.Inactive {
				t.Errorf("%s: got %s", name, body)
			}
			entry := r.Logs.Wait(t, name, func(e rig.LogEntry) bool {
				return e.Str("msg") == "token inactive" && e.Str("client_id") == tc.caller && e.Str("reason") == tc.reason
			})
			if entry.Str("realm") != "default" || entry.Str("remote_ip") != "127.0.0.1" || entry.Str("level") != "info" || entry.Str("detail") == "" || len(entry.Str("detail")) > 500 {
				t.Errorf("%s: the log line is %v", name, entry)
			}
		}
	}
	// tokens become inactive along with their client
	r.Reload(strings.Replace(introspectRealmWith(""), `subject "CN=billing"`, "subject \"CN=billing\"\ndisabled", 1), rig.IssuerSite)
	if got := introspect(r, t, "h2", leaves["invoices.api"], "invoices.api", invoices); got != rig.Inactive {
		t.Errorf("the token of a disabled client: %s", got)
	}
	r.Reload(strings.Replace(introspectRealmWith(""), "client billing.partner", "client successor", 1), rig.IssuerSite)
	if got := introspect(r, t, "h2", leaves["invoices.api"], "invoices.api", invoices); got != rig.Inactive {
		t.Errorf("the token of a removed client: %s", got)
	}
	r.Reload(introspectRealmWith(""), rig.IssuerSite)
	if got := rig.JSON(t, introspect(r, t, "h2", leaves["invoices.api"], "invoices.api", invoices)); got["jti"] != claims["jti"] {
		t.Errorf("the token of a restored client: %v", got)
	}
}

// TestTokensForTheAPIBehind_R37 checks that tokens forwarded by mtls_auth are not
// accepted as access tokens, although the same key signs them.
func TestTokensForTheAPIBehind_R37(t *testing.T) {
	r := rig.New(t)
	rig.WithoutProxyLog(r)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(introspectRealmWith(""), rig.IssuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		forward_token X-Gateway-Token {
			audience urn:behind
		}
	}
	reverse_proxy @UP@
}
`)
	for _, protocol := range rig.Protocols {
		got := r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
		token := got.Seen.Header.Get("X-Gateway-Token")
		if strings.Count(token, ".") != 2 {
			t.Fatalf("the upstream received %q", token)
		}
		r.Secrets = append(r.Secrets, token)
		if got := introspect(r, t, protocol, billing, "billing.partner", token); got != rig.Inactive {
			t.Errorf("got %s", got)
		}
		r.Logs.Wait(t, "the reason", func(e rig.LogEntry) bool { return e.Str("msg") == "token inactive" && e.Str("reason") == "token_type" })
	}
}

// TestExpiredTokens_R37 checks that an expired token is inactive.
func TestExpiredTokens_R37(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.ClockRealmOf(t), rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		clock.Ahead.Store(0)
		token, _ := tokenFor(r, t, billing)
		if got := introspect(r, t, protocol, billing, "billing.partner", token); rig.JSON(t, got)["active"] != true {
			t.Errorf("a new token: %s", got)
		}
		clock.Advance(time.Hour)
		if got := introspect(r, t, protocol, billing, "billing.partner", token); got != rig.Inactive {
			t.Errorf("an hour later: %s", got)
		}
		rig.Revoke(r, t, protocol, billing, "billing.partner", token) // revoking an expired token is harmless
	}
}

// TestRefusedQueries_R36_R39 checks that the introspection and revocation endpoints
// refuse requests as the token endpoint does.
func TestRefusedQueries_R36_R39(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	token, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	const urlencoded, invalid, client = "application/x-www-form-urlencoded", "invalid_request", "invalid_client"
	body := "client_id=billing.partner&token=" + token
	also := func(first, second func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { first(r); second(r) }
	}
	good := rig.Query("billing.partner", token)
	alike := make(map[string]string)
	for _, tc := range []refusedToken{
		{"GET", "billing.partner", http.MethodGet, func(*http.Request) {}, 405, invalid, "", [2]string{"Allow", "POST"}},
		{"JSON", "billing.partner", "", rig.WithBody("application/json", `{"token":"x"}`), 400, invalid, "", [2]string{}},
		{"65 KiB", "billing.partner", "", rig.WithBody(urlencoded, body+strings.Repeat("x", 65<<10)), 413, invalid, "", [2]string{}},
		{"no token", "billing.partner", "", rig.WithBody(urlencoded, "client_id=billing.partner"), 400, invalid, "", [2]string{}},
		{"empty token", "billing.partner", "", rig.Query("billing.partner", ""), 400, invalid, "", [2]string{}},
		{"token twice", "billing.partner", "", rig.WithBody(urlencoded, body+"&token="+token), 400, invalid, "", [2]string{}},
		{"no client_id", "billing.partner", "", rig.WithBody(urlencoded, "token="+token), 400, invalid, "", [2]string{}},
		{"client_secret", "billing.partner", "", rig.Query("billing.partner", token, "client_secret", "hunter2"), 400, invalid, "", [2]string{}},
		{"Basic", "billing.partner", "", also(good, rig.With("Authorization", "Basic YmlsbGluZy5wYXJ0bmVyOmh1bnRlcjI=")), 401, client, "", [2]string{"Www-Authenticate", `Basic realm="token endpoint"`}},
		{"Bearer", "billing.partner", "", also(good, rig.With("Authorization", "Bearer hunter2")), 400, invalid, "", [2]string{}},
		{"in the URL", "billing.partner", "", also(good, func(r *http.Request) { r.URL.RawQuery = "token=hunter2" }), 400, invalid, "", [2]string{}},
		{"no certificate", "", "", good, 401, client, "certificate_missing", [2]string{}},
		{"stranger", "stranger", "", good, 401, client, "certificate_unknown", [2]string{}},
		{"stranger by its own name", "stranger", "", rig.Query("stranger", token), 401, client, "certificate_unknown", [2]string{}},
		{"another's client_id", "invoices.api", "", good, 401, client, "client_mismatch", [2]string{}},
		{"disabled", "gone", "", rig.Query("gone", token), 401, client, "client_disabled", [2]string{}},
	} {
		for n, path := range []string{"/connect/introspect", "/connect/mtls/introspect", "/connect/revocation", "/connect/mtls/revocation"} {
			protocol := rig.Protocols[n%len(rig.Protocols)]
			method := tc.method
			if method == "" {
				method = http.MethodPost
			}
			got := r.Caller(t, protocol, leaves[tc.leaf]).Do(method, "https://auth.test"+path, tc.request)
			unauthenticated := tc.code == client && tc.header[0] == ""
			if unauthenticated && strings.HasSuffix(path, "/revocation") {
				tc.status = http.StatusBadRequest // as at the token endpoint
			} else if unauthenticated {
				tc.status = http.StatusUnauthorized // RFC 7662 §2.3
			}
			if challenged := got.Header.Get("WWW-Authenticate") != ""; challenged != (got.Status == http.StatusUnauthorized) {
				t.Errorf("%s, %s: %d with challenge: %v", tc.name, path, got.Status, challenged)
			}
			if got.Status != tc.status || rig.JSON(t, got.Body)["error"] != tc.code {
				t.Errorf("%s, %s: got %d %q, want %d %s", tc.name, path, got.Status, got.Body, tc.status, tc.code)
			}
			rig.CheckTokenHeaders(t, got)
			if name, want := tc.header[0], tc.header[1]; name != "" && got.Header.Get(name) != want {
				t.Errorf("%s, %s: %s is %q, want %q", tc.name, path, name, got.Header.Get(name), want)
			}
			logged := tc
			logged.name = "" // skips the check that the detail names the client
			checkTokenLog(r, t, got, logged)
			if unauthenticated && tc.reason != "certificate_missing" {
				text := rig.Sameness(got)
				if alike[protocol+path] == "" {
					alike[protocol+path] = text
				}
				if text != alike[protocol+path] {
					t.Errorf("%s is distinguishable:\n%s\nothers get\n%s", tc.name, text, alike[protocol+path])
				}
			}
		}
	}
	if got := introspect(r, t, "h2", leaves["billing.partner"], "billing.partner", token); rig.JSON(t, got)["active"] != true {
		t.Errorf("after the refused queries, the token is %s", got)
	}
}

// TestStrangersAreAnsweredBeforeTheirBody_S2 checks that the response does not wait for
// the request body, which may never end. It skips HTTP/1.1 because Go's server reads
// the body first there.
func TestStrangersAreAnsweredBeforeTheirBody_S2(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	stranger := r.SelfSigned("stranger")
	const urlencoded = "application/x-www-form-urlencoded"
	// the first time, its body is read; then it is known
	r.Caller(t, "h2", stranger).Do(http.MethodPost, "https://auth.test/connect/token", rig.WithBody(urlencoded, "grant_type=client_credentials&client_id=x")).WantStatus(t, http.StatusBadRequest)
	for _, protocol := range []string{"h2", "h3"} {
		for _, path := range []string{"/connect/token", "/connect/introspect", "/connect/revocation"} {
			for leaf, contentType := range map[*testpki.Leaf]string{
				nil: urlencoded, stranger: urlencoded,
				leaves["billing.partner"]: "text/plain", // a body that is not a form is not read either
			} {
				body, rest := io.Pipe()
				want := http.StatusBadRequest
				if leaf != leaves["billing.partner"] && path == "/connect/introspect" {
					want = http.StatusUnauthorized
				}
				r.Caller(t, protocol, leaf).Do(http.MethodPost, "https://auth.test"+path, func(r *http.Request) {
					r.Body, r.ContentLength = body, 60000
					r.Header.Set("Content-Type", contentType)
				}).WantStatus(t, want)
				_ = rest.Close()
			}
		}
	}
}

// TestEarlyDataAtTheIssuer_D5 checks that the issuer refuses early data because it may
// be replayed.
func TestEarlyDataAtTheIssuer_D5(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED under the race detector: quic-go's client has a data race of its own when it sends early data")
	}
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), strings.Replace(rig.IssuerSite, "import mtls", "import tls_without_client_auth", 1))
	for _, path := range []string{"/connect/token", "/connect/introspect", "/connect/revocation"} {
		cache, early := new(rig.OneSession), 0
		for range 10 {
			c := r.Caller(t, "h3", nil)
			c.Tls.ClientSessionCache, c.Early = cache, true
			if got := c.Do(http3.MethodGet0RTT, "https://auth.test"+path); got.Status == http.StatusTooEarly {
				early++
			} else {
				got.WantStatus(t, http.StatusMethodNotAllowed)
			}
			c.Close()
		}
		if early == 0 {
			t.Errorf("%s: none of ten requests was sent as early data, so nothing was tested", path)
		}
	}
}

func TestTokenQueriesOnAnotherHost(t *testing.T) {
	r := rig.New(t)
	leaves := map[string]*testpki.Leaf{"billing.partner": r.Issue("billing"), "invoices.api": r.Issue("invoices")}
	r.SelfSigned("sensor")
	r.Start(introspectRealmWith("mtls_alias https://alias.test/base"), rig.IssuerSite+strings.ReplaceAll(rig.IssuerSite, "auth.test", "alias.test"))
	metadata := rig.JSON(t, r.Caller(t, "h2", nil).Get("https://auth.test/.well-known/oauth-authorization-server").Body)
	places := metadata["mtls_endpoint_aliases"].(map[string]any)
	if want := (map[string]any{
		"token_endpoint": "https://alias.test/base/connect/token", "introspection_endpoint": "https://alias.test/base/connect/introspect",
		"revocation_endpoint": "https://alias.test/base/connect/revocation",
	}); !reflect.DeepEqual(places, want) {
		t.Errorf("the aliases are %v", places)
	}
	for _, protocol := range rig.Protocols {
		answer, _, _ := rig.Token(r, t, r.Caller(t, protocol, leaves["billing.partner"]), fmt.Sprint(places["token_endpoint"]), rig.Form("billing.partner", "scope", "invoices.read"))
		token := answer["access_token"].(string)
		ask := func() string {
			return r.Caller(t, protocol, leaves["invoices.api"]).Do(http.MethodPost, fmt.Sprint(places["introspection_endpoint"]), rig.Query("invoices.api", token)).WantStatus(t, http.StatusOK).Body
		}
		if got := rig.JSON(t, ask()); got["active"] != true || got["iss"] != "https://auth.test" {
			t.Errorf("got %v", got)
		}
		r.Caller(t, protocol, leaves["billing.partner"]).Do(http.MethodPost, fmt.Sprint(places["revocation_endpoint"]), rig.Query("billing.partner", token)).WantStatus(t, http.StatusOK)
		if got := ask(); got != rig.Inactive {
			t.Errorf("got %s", got)
		}
	}
}

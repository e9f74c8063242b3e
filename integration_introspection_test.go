package mtlsauth

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// introspectRealm has the clients of two APIs, and the APIs.
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

func startIntrospection(t *testing.T, options string) (r *rig, leaves map[string]*testpki.Leaf) {
	r = newRig(t)
	leaves = map[string]*testpki.Leaf{
		"billing.partner": r.issue("billing"), "invoices.api": r.issue("invoices"), "ship.api": r.selfSigned("sensor"),
		"gone": r.issue("gone"), "stranger": r.issue("stranger"), "": nil,
	}
	r.start(introspectRealmWith(options), issuerSite)
	return r, leaves
}

// query is an introspection or revocation request of the client.
func query(clientID, token string, parameters ...string) func(*http.Request) {
	values := url.Values{"client_id": {clientID}, "token": {token}}
	for i := 0; i < len(parameters); i += 2 {
		values.Add(parameters[i], parameters[i+1])
	}
	return withBody("application/x-www-form-urlencoded", values.Encode())
}

// tokenFor gets billing.partner a token, and returns its claims too.
func (r *rig) tokenFor(t *testing.T, leaf *testpki.Leaf, parameters ...string) (token string, claims map[string]any) {
	t.Helper()
	answer, _, claims := r.token(t, r.caller(t, "h2", leaf), "https://auth.test/connect/token", form("billing.partner", parameters...))
	return answer["access_token"].(string), claims
}

// introspect asks about a token and returns the body of the answer.
func (r *rig) introspect(t *testing.T, protocol string, leaf *testpki.Leaf, clientID, token string) string {
	t.Helper()
	got := r.caller(t, protocol, leaf).do(http.MethodPost, "https://auth.test/connect/introspect", query(clientID, token)).wantStatus(t, http.StatusOK)
	checkTokenHeaders(t, got)
	return got.body
}

const inactive = `{"active":false}`

func TestE4_R13_R36_R38_Introspection(t *testing.T) {
	for _, form := range []string{"", "scope_claim array"} {
		r, leaves := startIntrospection(t, form)
		for _, protocol := range rigProtocols {
			token, claims := r.tokenFor(t, leaves["billing.partner"], "resource", "https://invoices.test")
			want := maps.Clone(claims)
			want["active"], want["token_type"], want["scope"] = true, "Bearer", "invoices.read invoices.write"
			if form != "" && !reflect.DeepEqual(claims["scope"], []any{"invoices.read", "invoices.write"}) {
				t.Errorf("the claim scope is %v", claims["scope"])
			}
			for _, id := range []string{"billing.partner", "invoices.api"} {
				for _, path := range []string{"/connect/introspect", "/connect/mtls/introspect"} {
					for _, hint := range []string{"", "access_token", "refresh_token", "nonsense"} {
						got := r.caller(t, protocol, leaves[id]).do(http.MethodPost, "https://auth.test"+path, query(id, token, "token_type_hint", hint)).wantStatus(t, http.StatusOK)
						checkTokenHeaders(t, got)
						if answer := asJSON(t, got.body); !reflect.DeepEqual(answer, want) {
							t.Errorf("%s is told\n%v, want\n%v", id, answer, want)
						}
					}
				}
			}
		}
	}
}

// TestR37_E1_InactiveTokens: what is inactive, or not for the caller, looks the
// same; only the log says why.
func TestR37_E1_InactiveTokens(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	invoices, claims := r.tokenFor(t, leaves["billing.partner"], "resource", "https://invoices.test")
	both, _ := r.tokenFor(t, leaves["billing.partner"], "resource", "https://invoices.test", "resource", "https://ship.test/v1")
	changed := invoices[:len(invoices)-10] + "AAAAAAAAAA"
	for _, protocol := range rigProtocols {
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
			body := r.introspect(t, protocol, leaves[tc.caller], tc.caller, tc.token)
			if tc.reason == "" {
				if answer := asJSON(t, body); answer["active"] != true || answer["jti"] == "" {
					t.Errorf("%s: got %s", name, body)
				}
				continue
			}
			if body != inactive {
				t.Errorf("%s: got %s", name, body)
			}
			entry := r.logs.wait(t, name, func(e logEntry) bool {
				return e.str("msg") == "token inactive" && e.str("client_id") == tc.caller && e.str("reason") == tc.reason
			})
			if entry.str("realm") != "default" || entry.str("remote_ip") != "127.0.0.1" || entry.str("level") != "info" || entry.str("detail") == "" || len(entry.str("detail")) > 500 {
				t.Errorf("%s: the log line is %v", name, entry)
			}
		}
	}
	// the client goes: so do its tokens
	r.reload(strings.Replace(introspectRealmWith(""), `subject "CN=billing"`, "subject \"CN=billing\"\ndisabled", 1), issuerSite)
	if got := r.introspect(t, "h2", leaves["invoices.api"], "invoices.api", invoices); got != inactive {
		t.Errorf("the token of a disabled client: %s", got)
	}
	r.reload(strings.Replace(introspectRealmWith(""), "client billing.partner", "client successor", 1), issuerSite)
	if got := r.introspect(t, "h2", leaves["invoices.api"], "invoices.api", invoices); got != inactive {
		t.Errorf("the token of a client that is gone: %s", got)
	}
	r.reload(introspectRealmWith(""), issuerSite)
	if got := asJSON(t, r.introspect(t, "h2", leaves["invoices.api"], "invoices.api", invoices)); got["jti"] != claims["jti"] {
		t.Errorf("the token of a client that is back: %v", got)
	}
}

// TestR37_TokensForTheAPIBehind: what mtls_auth tells an API is signed with the
// same key, and is no access token.
func TestR37_TokensForTheAPIBehind(t *testing.T) {
	r := newRig(t)
	r.withoutProxyLog()
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(introspectRealmWith(""), issuerSite+`
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
	for _, protocol := range rigProtocols {
		got := r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK)
		token := got.seen.Header.Get("X-Gateway-Token")
		if strings.Count(token, ".") != 2 {
			t.Fatalf("the API was told %q", token)
		}
		r.secrets = append(r.secrets, token)
		if got := r.introspect(t, protocol, billing, "billing.partner", token); got != inactive {
			t.Errorf("got %s", got)
		}
		r.logs.wait(t, "the reason", func(e logEntry) bool { return e.str("msg") == "token inactive" && e.str("reason") == "token_type" })
	}
}

// TestR37_ExpiredTokens: with the clock of the test.
func TestR37_ExpiredTokens(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(clockRealmOf(t), issuerSite)
	for _, protocol := range rigProtocols {
		clock.ahead.Store(0)
		token, _ := r.tokenFor(t, billing)
		if got := r.introspect(t, protocol, billing, "billing.partner", token); asJSON(t, got)["active"] != true {
			t.Errorf("a new token: %s", got)
		}
		clock.advance(time.Hour)
		if got := r.introspect(t, protocol, billing, "billing.partner", token); got != inactive {
			t.Errorf("an hour later: %s", got)
		}
		r.revoke(t, protocol, billing, "billing.partner", token) // which changes nothing
	}
}

// TestR36_R39_RefusedQueries: both endpoints are guarded as the token endpoint
// is.
func TestR36_R39_RefusedQueries(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	token, _ := r.tokenFor(t, leaves["billing.partner"], "scope", "invoices.read")
	const urlencoded, invalid, client = "application/x-www-form-urlencoded", "invalid_request", "invalid_client"
	body := "client_id=billing.partner&token=" + token
	also := func(first, second func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { first(r); second(r) }
	}
	good := query("billing.partner", token)
	alike := make(map[string]string)
	for _, tc := range []refusedToken{
		{"GET", "billing.partner", http.MethodGet, func(*http.Request) {}, 405, invalid, "", [2]string{"Allow", "POST"}},
		{"JSON", "billing.partner", "", withBody("application/json", `{"token":"x"}`), 400, invalid, "", [2]string{}},
		{"65 KiB", "billing.partner", "", withBody(urlencoded, body+strings.Repeat("x", 65<<10)), 413, invalid, "", [2]string{}},
		{"no token", "billing.partner", "", withBody(urlencoded, "client_id=billing.partner"), 400, invalid, "", [2]string{}},
		{"empty token", "billing.partner", "", query("billing.partner", ""), 400, invalid, "", [2]string{}},
		{"token twice", "billing.partner", "", withBody(urlencoded, body+"&token="+token), 400, invalid, "", [2]string{}},
		{"no client_id", "billing.partner", "", withBody(urlencoded, "token="+token), 400, invalid, "", [2]string{}},
		{"client_secret", "billing.partner", "", query("billing.partner", token, "client_secret", "hunter2"), 400, invalid, "", [2]string{}},
		{"Basic", "billing.partner", "", also(good, with("Authorization", "Basic YmlsbGluZy5wYXJ0bmVyOmh1bnRlcjI=")), 401, client, "", [2]string{"Www-Authenticate", `Basic realm="token endpoint"`}},
		{"Bearer", "billing.partner", "", also(good, with("Authorization", "Bearer hunter2")), 400, invalid, "", [2]string{}},
		{"in the URL", "billing.partner", "", also(good, func(r *http.Request) { r.URL.RawQuery = "token=hunter2" }), 400, invalid, "", [2]string{}},
		{"no certificate", "", "", good, 401, client, "certificate_missing", [2]string{}},
		{"stranger", "stranger", "", good, 401, client, "certificate_unknown", [2]string{}},
		{"stranger by its own name", "stranger", "", query("stranger", token), 401, client, "certificate_unknown", [2]string{}},
		{"another's client_id", "invoices.api", "", good, 401, client, "client_mismatch", [2]string{}},
		{"disabled", "gone", "", query("gone", token), 401, client, "client_disabled", [2]string{}},
	} {
		for n, path := range []string{"/connect/introspect", "/connect/mtls/introspect", "/connect/revocation", "/connect/mtls/revocation"} {
			protocol := rigProtocols[n%len(rigProtocols)]
			method := tc.method
			if method == "" {
				method = http.MethodPost
			}
			got := r.caller(t, protocol, leaves[tc.leaf]).do(method, "https://auth.test"+path, tc.request)
			if got.status != tc.status || asJSON(t, got.body)["error"] != tc.code {
				t.Errorf("%s, %s: got %d %q, want %d %s", tc.name, path, got.status, got.body, tc.status, tc.code)
			}
			checkTokenHeaders(t, got)
			if name, want := tc.header[0], tc.header[1]; name != "" && got.header.Get(name) != want {
				t.Errorf("%s, %s: %s is %q, want %q", tc.name, path, name, got.header.Get(name), want)
			}
			logged := tc
			logged.name = "" // whose client it is, is checked elsewhere
			r.checkTokenLog(t, got, logged)
			if tc.code == client && tc.reason != "" {
				text := sameness(got)
				if alike[protocol] == "" {
					alike[protocol] = text
				}
				if text != alike[protocol] {
					t.Errorf("%s is told apart:\n%s\nothers get\n%s", tc.name, text, alike[protocol])
				}
			}
		}
	}
	if got := r.introspect(t, "h2", leaves["billing.partner"], "billing.partner", token); asJSON(t, got)["active"] != true {
		t.Errorf("after all that the token is %s", got)
	}
}

// A stranger is answered before it has sent the body, which need not end. Over
// HTTP/1.1 Go's server waits for the body first, until the deadline.
func TestStrangersAreAnsweredBeforeTheirBody(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	for _, protocol := range []string{"h2", "h3"} {
		for _, path := range []string{"/connect/token", "/connect/introspect", "/connect/revocation"} {
			for _, leaf := range []*testpki.Leaf{nil, leaves["billing.partner"]} {
				body, rest := io.Pipe()
				want := http.StatusUnauthorized
				if leaf != nil { // a form that is none is not read either
					want = http.StatusBadRequest
				}
				r.caller(t, protocol, leaf).do(http.MethodPost, "https://auth.test"+path, func(r *http.Request) {
					r.Body, r.ContentLength = body, 60000
					r.Header.Set("Content-Type", "text/plain")
				}).wantStatus(t, want)
				_ = rest.Close()
			}
		}
	}
}

// TestD5_EarlyDataAtTheIssuer: a request that came before the handshake ended
// may be one that somebody sends again.
func TestD5_EarlyDataAtTheIssuer(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED under the race detector: quic-go's client has a data race of its own when it sends early data")
	}
	r := newRig(t)
	r.issue("billing")
	r.selfSigned("sensor")
	r.start(issuerRealm(""), strings.Replace(issuerSite, "import mtls", "import tls_without_client_auth", 1))
	for _, path := range []string{"/connect/token", "/connect/introspect", "/connect/revocation"} {
		cache, early := new(oneSession), 0
		for range 10 {
			c := r.caller(t, "h3", nil)
			c.tls.ClientSessionCache, c.early = cache, true
			if got := c.do(http3.MethodGet0RTT, "https://auth.test"+path); got.status == http.StatusTooEarly {
				early++
			} else {
				got.wantStatus(t, http.StatusMethodNotAllowed)
			}
			c.close()
		}
		if early == 0 {
			t.Errorf("%s: no request of ten came as early data, so nothing is tested here", path)
		}
	}
}

func TestTokenQueriesOnAnotherHost(t *testing.T) {
	r := newRig(t)
	leaves := map[string]*testpki.Leaf{"billing.partner": r.issue("billing"), "invoices.api": r.issue("invoices")}
	r.selfSigned("sensor")
	r.start(introspectRealmWith("mtls_alias https://alias.test/base"), issuerSite+strings.ReplaceAll(issuerSite, "auth.test", "alias.test"))
	metadata := asJSON(t, r.caller(t, "h2", nil).get("https://auth.test/.well-known/oauth-authorization-server").body)
	places := metadata["mtls_endpoint_aliases"].(map[string]any)
	if want := (map[string]any{
		"token_endpoint": "https://alias.test/base/connect/token", "introspection_endpoint": "https://alias.test/base/connect/introspect",
		"revocation_endpoint": "https://alias.test/base/connect/revocation",
	}); !reflect.DeepEqual(places, want) {
		t.Errorf("the aliases are %v", places)
	}
	for _, protocol := range rigProtocols {
		answer, _, _ := r.token(t, r.caller(t, protocol, leaves["billing.partner"]), fmt.Sprint(places["token_endpoint"]), form("billing.partner", "scope", "invoices.read"))
		token := answer["access_token"].(string)
		ask := func() string {
			return r.caller(t, protocol, leaves["invoices.api"]).do(http.MethodPost, fmt.Sprint(places["introspection_endpoint"]), query("invoices.api", token)).wantStatus(t, http.StatusOK).body
		}
		if got := asJSON(t, ask()); got["active"] != true || got["iss"] != "https://auth.test" {
			t.Errorf("got %v", got)
		}
		r.caller(t, protocol, leaves["billing.partner"]).do(http.MethodPost, fmt.Sprint(places["revocation_endpoint"]), query("billing.partner", token)).wantStatus(t, http.StatusOK)
		if got := ask(); got != inactive {
			t.Errorf("got %s", got)
		}
	}
}

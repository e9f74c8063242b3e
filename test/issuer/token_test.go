package issuer_test

import (
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// tokenRealm configures clients and resources for every rule of the token endpoint.
const tokenRealm = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client billing.partner {
		subject        "CN=billing"
		scopes         invoices.read invoices.write ship.read loose
		default_scopes invoices.read
		claim          tenant "partner 7"
		token_lifetime 5m
	}
	client sensor-7 {
		certificate "@DIR@/sensor.pem"
		scopes      telemetry
	}
	client all-of-it {
		subject CN=all
		scopes  invoices.read ship.read
	}
	client no-scope {
		subject CN=bare
	}
	client narrow {
		subject   CN=narrow
		scopes    invoices.read ship.read
		resources https://ship.test/v1
	}
	client gone {
		subject CN=gone
		disabled
	}
	client twin-1 {
		subject CN=twin
		shared_credential
		scopes telemetry
	}
	client twin-2 {
		subject CN=twin
		shared_credential
	}
	issuer https://auth.test {
		token_lifetime 30m
		audience       https://api.test
		resource https://invoices.test {
			scopes invoices.read invoices.write
		}
		resource https://ship.test/v1 {
			scopes ship.read
		}
		resource urn:nobody {
			scopes nobody
		}
	}
}
`

func startToken(t *testing.T) (r *rig.Rig, leaves map[string]*testpki.Leaf) {
	r = rig.New(t)
	leaves = make(map[string]*testpki.Leaf)
	for _, name := range []string{"billing", "all", "bare", "narrow", "gone", "twin", "stranger"} {
		leaves[name] = r.Issue(name)
	}
	leaves["sensor"], leaves["impostor"], leaves[""] = r.SelfSigned("sensor"), r.IssueBy(r.OtherCA, "billing"), nil
	now := time.Now()
	leaves["expired"] = r.Issue("billing", testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour)))
	leaves["server"] = r.Issue("billing", testpki.EKU(1))
	r.Start(tokenRealm, rig.IssuerSite)
	return r, leaves
}

func TestTokensGranted_R32_R33_R35(t *testing.T) {
	r, leaves := startToken(t)
	tests := map[string]struct {
		leaf, id   string
		parameters []string
		scope, aud any
		lifetime   float64
	}{
		"default scopes":        {"billing", "billing.partner", nil, "invoices.read", "https://invoices.test", 300},
		"both scopes of one":    {"billing", "billing.partner", []string{"scope", " invoices.write  invoices.read "}, "invoices.write invoices.read", "https://invoices.test", 300},
		"a scope of no one":     {"billing", "billing.partner", []string{"scope", "loose"}, "loose", "https://api.test", 300},
		"named resource":        {"billing", "billing.partner", []string{"scope", "ship.read", "resource", "https://ship.test/v1"}, "ship.read", "https://ship.test/v1", 300},
		"two named resources":   {"all", "all-of-it", []string{"resource", "https://ship.test/v1", "resource", "https://invoices.test"}, "invoices.read ship.read", []any{"https://ship.test/v1", "https://invoices.test"}, 1800},
		"resource narrows":      {"all", "all-of-it", []string{"resource", "https://ship.test/v1"}, "ship.read", "https://ship.test/v1", 1800},
		"one of its resources":  {"narrow", "narrow", []string{"resource", "https://ship.test/v1"}, "ship.read", "https://ship.test/v1", 1800},
		"by its scope":          {"narrow", "narrow", []string{"scope", "ship.read"}, "ship.read", "https://ship.test/v1", 1800},
		"one resource twice":    {"all", "all-of-it", []string{"resource", "https://ship.test/v1", "resource", "https://ship.test/v1"}, "ship.read", "https://ship.test/v1", 1800},
		"empty parameters":      {"sensor", "sensor-7", []string{"scope", "", "resource", "", "client_secret", ""}, "telemetry", "https://api.test", 1800},
		"unknown parameters":    {"sensor", "sensor-7", []string{"foo", "bar"}, "telemetry", "https://api.test", 1800},
		"no scope at all":       {"bare", "no-scope", nil, nil, "https://api.test", 1800},
		"client_id tells twins": {"twin", "twin-1", nil, "telemetry", "https://api.test", 1800},
		"the other twin":        {"twin", "twin-2", nil, nil, "https://api.test", 1800},
	}
	for _, protocol := range rig.Protocols {
		for name, tc := range tests {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				answer, header, claims := rig.Token(r, t, r.Caller(t, protocol, leaves[tc.leaf]), "https://auth.test/connect/token", rig.Form(tc.id, tc.parameters...))
				if claims["sub"] != tc.id || claims["client_id"] != tc.id || claims["scope"] != tc.scope || answer["scope"] != tc.scope || !reflect.DeepEqual(claims["aud"], tc.aud) {
					t.Errorf("the claims are %v", claims)
				}
				if header["typ"] != "at+jwt" || header["alg"] != "ES256" || header["kid"] == "" || len(header) != 3 {
					t.Errorf("the header is %v", header)
				}
				promised, lasts := answer["expires_in"].(float64), claims["exp"].(float64)-claims["iat"].(float64)
				if lasts != tc.lifetime || promised > lasts || promised < lasts-1 {
					t.Errorf("expires_in is %v, exp-iat %v, want %v", promised, lasts, tc.lifetime)
				}
				if answer["refresh_token"] != nil {
					t.Error("the response contains a refresh token")
				}
			})
		}
	}
}

// refusedToken describes a token request that must be refused.
type refusedToken struct {
	name, leaf string
	method     string // default POST
	request    func(*http.Request)
	status     int
	code       string
	reason     string // in the log; default: the code
	header     [2]string
}

func refusedTokens() []refusedToken {
	const urlencoded = "application/x-www-form-urlencoded"
	body := func(text string) func(*http.Request) { return rig.WithBody(urlencoded, text) }
	also := func(first func(*http.Request), second func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) { first(r); second(r) }
	}
	good := rig.Form("billing.partner")
	const grant = "grant_type=client_credentials&client_id=billing.partner"
	query := func(text string) func(*http.Request) {
		return also(good, func(r *http.Request) { r.URL.RawQuery = text })
	}
	const invalid, client, scope, target = "invalid_request", "invalid_client", "invalid_scope", "invalid_target"
	return []refusedToken{
		{"GET", "billing", http.MethodGet, func(*http.Request) {}, 405, invalid, "", [2]string{"Allow", "POST"}},
		{"PUT", "billing", http.MethodPut, good, 405, invalid, "", [2]string{"Allow", "POST"}},
		{"HEAD", "billing", http.MethodHead, func(*http.Request) {}, 405, "", invalid, [2]string{"Allow", "POST"}},
		{"JSON", "billing", "", rig.WithBody("application/json", `{"grant_type":"client_credentials","client_id":"billing.partner"}`), 400, invalid, "", [2]string{}},
		{"no content type", "billing", "", rig.WithBody("", grant), 400, invalid, "", [2]string{}},
		{"two content types", "billing", "", also(good, rig.With("Content-Type", urlencoded, "text/plain")), 400, invalid, "", [2]string{}},
		{"no body", "billing", "", body(""), 400, invalid, "", [2]string{}},
		{"65 KiB", "billing", "", body(grant + "&x=" + strings.Repeat("x", 65<<10)), 413, invalid, "", [2]string{}},
		{"many parameters", "billing", "", body(grant + strings.Repeat("&x", 200)), 400, invalid, "", [2]string{}},
		{"client_id twice", "billing", "", body(grant + "&client_id=billing.partner"), 400, invalid, "", [2]string{}},
		{"scope twice", "billing", "", body(grant + "&scope=invoices.read&scope=invoices.write"), 400, invalid, "", [2]string{}},
		{"grant_type twice", "billing", "", body(grant + "&grant_type=password"), 400, invalid, "", [2]string{}},
		{"unknown twice", "billing", "", body(grant + "&foo=1&foo=2"), 400, invalid, "", [2]string{}},
		{"semicolons", "billing", "", body("grant_type=client_credentials;client_id=billing.partner"), 400, invalid, "", [2]string{}},
		{"broken escape", "billing", "", body(grant + "&x=%zz"), 400, invalid, "", [2]string{}},
		{"not UTF-8", "billing", "", body(grant + "&scope=%ff"), 400, invalid, "", [2]string{}},
		{"client_secret", "billing", "", rig.Form("billing.partner", "client_secret", "hunter2"), 400, invalid, "", [2]string{}},
		{"client_assertion", "billing", "", rig.Form("billing.partner", "client_assertion", "x"), 400, invalid, "", [2]string{}},
		{"Basic", "billing", "", also(good, rig.With("Authorization", "Basic YmlsbGluZy5wYXJ0bmVyOmh1bnRlcjI=")), 401, client, "", [2]string{"Www-Authenticate", `Basic realm="token endpoint"`}},
		{"Bearer", "billing", "", also(good, rig.With("Authorization", "Bearer x")), 400, invalid, "", [2]string{}},
		{"parameters in the URL", "billing", "", query("client_id=billing.partner"), 400, invalid, "", [2]string{}},
		{"secret in the URL", "billing", "", query("client_secret=hunter2"), 400, invalid, "", [2]string{}},
		{"no client_id", "billing", "", body("grant_type=client_credentials"), 400, invalid, "", [2]string{}},
		{"empty client_id", "billing", "", body("grant_type=client_credentials&client_id="), 400, invalid, "", [2]string{}},
		{"no grant_type", "billing", "", body("client_id=billing.partner"), 400, invalid, "", [2]string{}},
		{"other grant_type", "billing", "", body("client_id=billing.partner&grant_type=password"), 400, "unsupported_grant_type", "", [2]string{}},
		{"other grant_type, stranger", "stranger", "", body("client_id=billing.partner&grant_type=password"), 400, client, "certificate_unknown", [2]string{}},

		{"no certificate", "", "", good, 400, client, "certificate_missing", [2]string{}},
		{"stranger", "stranger", "", good, 400, client, "certificate_unknown", [2]string{}},
		{"impostor", "impostor", "", good, 400, client, "certificate_untrusted", [2]string{}},
		{"expired", "expired", "", good, 400, client, "certificate_expired", [2]string{}},
		{"server certificate", "server", "", good, 400, client, "certificate_unsuitable", [2]string{}},
		{"another's client_id", "billing", "", rig.Form("sensor-7"), 400, client, "client_mismatch", [2]string{}},
		{"another's client_id, pinned", "sensor", "", good, 400, client, "client_mismatch", [2]string{}},
		{"client_id in another case", "billing", "", rig.Form("BILLING.partner"), 400, client, "client_mismatch", [2]string{}},
		{"nobody's client_id", "billing", "", rig.Form("nobody"), 400, client, "client_mismatch", [2]string{}},
		{"hostile client_id", "billing", "", rig.Form("a\r\n\x00\"" + strings.Repeat("x", 500)), 400, client, "client_mismatch", [2]string{}},
		{"a twin as a third", "twin", "", rig.Form("sensor-7"), 400, client, "client_mismatch", [2]string{}},
		{"disabled", "gone", "", rig.Form("gone"), 400, client, "client_disabled", [2]string{}},

		{"unknown scope", "billing", "", rig.Form("billing.partner", "scope", "nonsense"), 400, scope, "", [2]string{}},
		{"foreign scope", "billing", "", rig.Form("billing.partner", "scope", "telemetry"), 400, scope, "", [2]string{}},
		{"one of two scopes", "billing", "", rig.Form("billing.partner", "scope", "invoices.read telemetry"), 400, scope, "", [2]string{}},
		{"hostile scope", "billing", "", rig.Form("billing.partner", "scope", "a\"b\\c"), 400, scope, "", [2]string{}},
		{"scopes of two resources", "all", "", rig.Form("all-of-it"), 400, scope, "", [2]string{}},
		{"scopes of one and none", "billing", "", rig.Form("billing.partner", "scope", "invoices.read loose"), 400, scope, "", [2]string{}},
		{"scope outside the resource", "billing", "", rig.Form("billing.partner", "scope", "ship.read", "resource", "https://invoices.test"), 400, scope, "", [2]string{}},
		{"unknown resource", "billing", "", rig.Form("billing.partner", "resource", "https://unknown.test"), 400, target, "", [2]string{}},
		{"resource almost", "billing", "", rig.Form("billing.partner", "resource", "https://invoices.test/"), 400, target, "", [2]string{}},
		{"resource without its scopes", "billing", "", rig.Form("billing.partner", "resource", "urn:nobody"), 400, target, "", [2]string{}},
		{"resource not among its own", "narrow", "", rig.Form("narrow", "resource", "https://invoices.test"), 400, target, "", [2]string{}},
		{"two, one not among its own", "narrow", "", rig.Form("narrow", "resource", "https://ship.test/v1", "resource", "https://invoices.test"), 400, target, "", [2]string{}},
		{"scope of a resource not among its own", "narrow", "", rig.Form("narrow", "scope", "invoices.read"), 400, scope, "", [2]string{}},
		{"relative resource", "billing", "", rig.Form("billing.partner", "resource", "/invoices"), 400, target, "", [2]string{}},
		{"resource with fragment", "billing", "", rig.Form("billing.partner", "resource", "https://invoices.test#x"), 400, target, "", [2]string{}},
		{"one bad resource", "billing", "", rig.Form("billing.partner", "resource", "https://invoices.test", "resource", "https://unknown.test"), 400, target, "", [2]string{}},
	}
}

func TestTokenRefusals_R2_R3(t *testing.T) {
	r, leaves := startToken(t)
	alike := make(map[string]string) // by protocol, what every client refusal must look like
	for _, protocol := range rig.Protocols {
		for _, tc := range refusedTokens() {
			t.Run(protocol+"/"+tc.name, func(t *testing.T) {
				method := tc.method
				if method == "" {
					method = http.MethodPost
				}
				for _, path := range []string{"/connect/token", "/connect/mtls/token"} {
					got := r.Caller(t, protocol, leaves[tc.leaf]).Do(method, "https://auth.test"+path, tc.request).WantStatus(t, tc.status)
					rig.CheckTokenHeaders(t, got)
					if name, want := tc.header[0], tc.header[1]; name != "" && got.Header.Get(name) != want {
						t.Errorf("%s is %q, want %q", name, got.Header.Get(name), want)
					}
					if tc.header[0] != "Www-Authenticate" && got.Header.Get("WWW-Authenticate") != "" {
						t.Errorf("unexpected challenge: %q", got.Header.Get("WWW-Authenticate"))
					}
					if method == http.MethodHead {
						continue // HEAD has no body
					}
					answer := rig.JSON(t, got.Body)
					description, _ := answer["error_description"].(string)
					if answer["error"] != tc.code || len(answer) != 2 || strings.ContainsAny(description, "\"\\\r\n\x00") || strings.Contains(description, "hunter2") {
						t.Errorf("the response is %q, want error %s", got.Body, tc.code)
					}
					checkTokenLog(r, t, got, tc)
					if tc.reason == "certificate_missing" {
						if !strings.HasPrefix(description, "no client certificate was presented (error id: ") {
							t.Errorf("the description is %q", description)
						}
					} else if tc.code == "invalid_client" && tc.reason != "" {
						text := rig.Sameness(got)
						if alike[protocol] == "" {
							alike[protocol] = text
						}
						if text != alike[protocol] {
							t.Errorf("%s is distinguishable:\n%s\nothers get\n%s", tc.name, text, alike[protocol])
						}
					}
				}
			})
		}
		// a valid request still succeeds after the refusals
		rig.Token(r, t, r.Caller(t, protocol, leaves["billing"]), "https://auth.test/connect/token", rig.Form("billing.partner"))
	}
}

// checkTokenLog finds the log line by the response's error id and checks its fields.
func checkTokenLog(r *rig.Rig, t *testing.T, got rig.Reply, tc refusedToken) {
	t.Helper()
	message, reason := "token request refused", tc.code
	if tc.reason != "" {
		message, reason = "client refused", tc.reason
	}
	entry := r.Logs.WithErrorID(t, message, got.ErrorID)
	if entry.Str("reason") != reason || entry.Str("realm") != "default" || entry.Str("remote_ip") != "127.0.0.1" || entry.Str("level") != "warn" || entry.Str("detail") == "" {
		t.Errorf("the log line is %v, want reason %s", entry, reason)
	}
	for name, value := range entry {
		if text, ok := value.(string); ok && (strings.Contains(text, "hunter2") || strings.Contains(text, "YmlsbGluZy5wYXJ0bmVy") || len(text) > 1000) {
			t.Errorf("log field %s is %.100q", name, text)
		}
	}
	if strings.HasPrefix(tc.name, "another's") && !strings.Contains(entry.Str("detail"), "'"+map[string]string{"billing": "billing.partner", "sensor": "sensor-7"}[tc.leaf]+"'") {
		t.Errorf("the detail does not name the certificate's client: %s", entry["detail"])
	}
}

func TestNoTokenOutlivesItsCertificate_C6(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	clock.Freeze()
	until := time.Now().Add(10 * time.Minute).Truncate(time.Second)
	billing := r.Issue("billing", testpki.Validity(until.Add(-time.Hour), until))
	r.SelfSigned("sensor")
	r.Start(rig.ClockRealmOf(t), rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		clock.Ahead.Store(0)
		c := r.Caller(t, protocol, billing)
		for _, ahead := range []time.Duration{0, 9 * time.Minute} {
			clock.Ahead.Store(int64(ahead))
			answer, _, claims := rig.Token(r, t, c, "https://auth.test/connect/token", rig.Form("billing.partner"))
			if lasts := claims["exp"].(float64) - claims["iat"].(float64); claims["exp"] != float64(until.Unix()) || answer["expires_in"].(float64) > lasts || answer["expires_in"].(float64) < lasts-1 {
				t.Errorf("exp is %v, but the certificate expires at %v; expires_in is %v", claims["exp"], until.Unix(), answer["expires_in"])
			}
		}
		clock.Advance(2 * time.Minute)
		got := c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).WantStatus(t, http.StatusBadRequest)
		if rig.JSON(t, got.Body)["error"] != "invalid_client" {
			t.Errorf("the response to an expired certificate is %q", got.Body)
		}
	}
	// a disabled client gets no more tokens
	disabled := strings.Replace(rig.ClockRealmOf(t), `subject "CN=billing"`, "subject \"CN=billing\"\ndisabled", 1)
	clock.Ahead.Store(0)
	r.Reload(disabled, rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		got := r.Caller(t, protocol, billing).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner")).WantStatus(t, http.StatusBadRequest)
		if entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID); entry.Str("reason") != "client_disabled" {
			t.Errorf("the reason is %q", entry["reason"])
		}
	}
}

// TestAccessLogOfTokenRequests checks that the access log names the authenticated
// client, or no client if authentication failed.
func TestAccessLogOfTokenRequests(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), strings.Replace(rig.IssuerSite, "import mtls", "import mtls\nlog", 1))
	for _, protocol := range rig.Protocols {
		for name, tc := range map[string]struct {
			leaf     *testpki.Leaf
			claimed  string
			want     string
			endpoint string
		}{
			"granted": {billing, "billing.partner", "billing.partner", "/connect/token"}, "mismatch": {billing, "sensor-7", "", "/connect/token"},
			"nobody": {nil, "billing.partner", "", "/connect/mtls/token"}, "wrong scope": {billing, "billing.partner", "billing.partner", "/connect/mtls/token"},
		} {
			uri := tc.endpoint + "?" + protocol + "=" + strings.ReplaceAll(name, " ", "-")
			parameters := []string{}
			if name == "wrong scope" {
				parameters = []string{"scope", "nonsense"}
			}
			r.Caller(t, protocol, tc.leaf).Do(http.MethodPost, "https://auth.test"+uri, rig.Form(tc.claimed, parameters...))
			if id, _ := r.Logs.Access(t, uri)["user_id"].(string); id != tc.want {
				t.Errorf("%s over %s: user_id is %q, want %q", name, protocol, id, tc.want)
			}
		}
	}
}

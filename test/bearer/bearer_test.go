package bearer_test

import (
	"encoding/base64"
	"encoding/hex"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func TestTokenReachesTheAPI_R11_R34(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.BearerSites)
	tokens := map[*testpki.Leaf]string{billing: rig.AccessToken(r, t, billing, "billing.partner"), sensor: rig.AccessToken(r, t, sensor, "sensor-7")}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for range 2 { // the second request uses the cache
				got := r.Caller(t, protocol, billing).Get("https://api.test/", rig.Bearer(tokens[billing])).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				want := map[string]string{
					"X-Client-Scope": "invoices.read invoices.write", "X-Client-Tenant": "partner 7", "Authorization": "Bearer " + tokens[billing],
					"X-Client-Other": "default token " + thumbprintOf(billing) + " CN=billing " + billing.Cert.NotAfter.UTC().Format(time.RFC3339) + " https://auth.test",
				}
				for name, value := range want {
					if seen := got.Seen.Header[name]; len(seen) != 1 || seen[0] != value {
						t.Errorf("%s is %q, want %q", name, seen, value)
					}
				}
				got = r.Caller(t, protocol, sensor).Get("https://api.test/", rig.Bearer(tokens[sensor])).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
				if tenant := got.Seen.Header["X-Client-Tenant"]; tenant != nil {
					t.Errorf("the upstream received tenant %q for a client without the claim", tenant)
				}
			}
			// the scheme is case-insensitive and may be followed by several spaces
			for _, value := range []string{"bearer ", "BEARER  "} {
				r.Caller(t, protocol, sensor).Get("https://api.test/", rig.With("Authorization", value+tokens[sensor])).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			}
		})
	}
	if entry := r.Logs.Access(t, "/"); entry.Str("user_id") != "billing.partner" {
		t.Errorf("the user id in the access log is %q", entry["user_id"])
	}
}

func thumbprintOf(leaf *testpki.Leaf) string {
	sum, _ := hex.DecodeString(testpki.HashOf(leaf.Cert.Raw))
	return base64.RawURLEncoding.EncodeToString(sum)
}

// TestWrongCertificate_R11_R20 checks that a token is refused with any certificate
// other than the one it is bound to, even one of the same client.
func TestWrongCertificate_R11_R20(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	renewed, stranger := r.Issue("billing"), r.SelfSigned("stranger")
	r.Start(rig.IssuerRealm(""), rig.BearerSites)
	token := rig.AccessToken(r, t, billing, "billing.partner")
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			r.Caller(t, protocol, billing).Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			for leaf, reason := range map[*testpki.Leaf]string{
				renewed: "token_certificate", sensor: "token_certificate", stranger: "token_certificate", nil: "certificate_missing",
			} {
				got := rig.WantBearer(r, t, r.Caller(t, protocol, leaf).Get("https://api.test/", rig.Bearer(token)), reason)
				if got.Body != "401 invalid_token "+reason {
					t.Errorf("the error route received %q", got.Body)
				}
			}
			// only the first certificate in the chain counts
			both := testpki.Presenting(sensor, billing.Cert)
			rig.WantBearer(r, t, r.Caller(t, protocol, both).Get("https://api.test/", rig.Bearer(token)), "token_certificate")
			r.Caller(t, protocol, renewed).Get("https://api.test/", rig.Bearer(rig.AccessToken(r, t, renewed, "billing.partner"))).WantStatus(t, http.StatusOK)
		})
	}
}

// TestHostileTokens_S2 checks that cheap checks come first: a token without a certificate
// is not looked at, and of one with a certificate no more than its refusal needs.
func TestHostileTokens_S2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.BearerSites)
	encode := base64.RawURLEncoding.EncodeToString
	header, rest, _ := strings.Cut(rig.AccessToken(r, t, billing, "billing.partner"), ".")
	claims, signature, _ := strings.Cut(rest, ".")
	hostile := map[string]struct{ token, reason string }{
		"thousands of numbers": {encode([]byte(`{"typ":"at+jwt","alg":"ES256","x":[0`+strings.Repeat(",0", 5000)+`]}`)) + ".e30.AAAA", "token_malformed"},
		"numbers in 2 KiB":     {encode([]byte(`{"typ":"at+jwt","alg":"ES256","x":[0`+strings.Repeat(",0", 700)+`]}`)) + ".e30.AAAA", "token_key_unknown"},
		"many members":         {encode([]byte(`{"typ":"at+jwt","alg":"ES256"`+strings.Repeat(`,"":0`, 200)+`}`)) + ".e30.AAAA", "token_malformed"},
		"garbage":              {strings.Repeat("A", 15<<10), "token_malformed"},
		"long signature":       {header + "." + claims + "." + strings.Repeat("A", 12<<10), "token_signature"},
		"long claims":          {header + "." + strings.Repeat("A", 12<<10) + "." + signature, "token_signature"},
	}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for name, test := range hostile {
				for leaf, reason := range map[*testpki.Leaf]string{billing: test.reason, nil: "certificate_missing"} {
					t.Run(name, func(t *testing.T) {
						rig.WantBearer(r, t, r.Caller(t, protocol, leaf).Get("https://api.test/", rig.Bearer(test.token)), reason)
					})
				}
			}
		})
	}
}

// TestOnlyInTheHeader_R46 checks that a token is accepted only in a single
// Authorization header.
func TestOnlyInTheHeader_R46(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	// Caddy's own loggers write requests verbatim, so the search for secrets must skip
	// them
	r.Change = func(config map[string]any) {
		rig.Member(t, config, "logging", "logs", "default")["exclude"] = []string{"events", "http.log"}
	}
	r.Start(rig.IssuerRealm(""), rig.BearerSites)
	token := rig.AccessToken(r, t, billing, "billing.partner")
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, billing)
		for name, test := range map[string]struct {
			url    string
			send   func(*http.Request)
			reason string
		}{
			"nothing":         {"https://api.test/", rig.With("X-None"), "token_missing"},
			"query":           {"https://api.test/?access_token=" + token, rig.With("X-None"), "token_missing"},
			"body":            {"https://api.test/", rig.WithBody("application/x-www-form-urlencoded", "access_token="+token), "token_missing"},
			"another header":  {"https://api.test/", rig.With("X-Authorization", "Bearer "+token), "token_missing"},
			"with underscore": {"https://api.test/", rig.With("Authorization_", "Bearer "+token), "token_missing"},
			"Basic":           {"https://api.test/", rig.With("Authorization", "Basic "+token), "token_missing"},
			"no scheme":       {"https://api.test/", rig.With("Authorization", token), "token_missing"},
			"another scheme":  {"https://api.test/", rig.With("Authorization", "BearerX "+token), "token_missing"},
			"empty":           {"https://api.test/", rig.With("Authorization", ""), "token_missing"},
			"no token":        {"https://api.test/", rig.With("Authorization", "Bearer"), "authorization_malformed"},
			"two tokens":      {"https://api.test/", rig.With("Authorization", "Bearer "+token+" "+token), "authorization_malformed"},
			"two in a list":   {"https://api.test/", rig.With("Authorization", "Bearer "+token+", Bearer "+token), "authorization_malformed"},
			"in quotes":       {"https://api.test/", rig.With("Authorization", `Bearer "`+token+`"`), "authorization_malformed"},
			"two headers":     {"https://api.test/", rig.With("Authorization", "Bearer "+token, "Bearer "+token), "authorization_malformed"},
			"Basic as well":   {"https://api.test/", rig.With("Authorization", "Bearer "+token, "Basic dTpw"), "authorization_malformed"},
			"empty as well":   {"https://api.test/", rig.With("Authorization", "", "Bearer "+token), "authorization_malformed"},
			"no JWT":          {"https://api.test/", rig.Bearer("abc~+/=="), "token_malformed"},
			"too large":       {"https://api.test/", rig.Bearer(strings.Repeat("A", 17<<10)), "token_malformed"},
			"cut off":         {"https://api.test/", rig.Bearer(token[:len(token)-2]), "token_signature"},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				if protocol != "h1" && name == "too large" {
					t.Skip("the header exceeds this server's limit")
				}
				rig.WantBearer(r, t, c.Get(test.url, test.send), test.reason)
			})
		}
	}
}

// TestInsufficientScope_R34 checks the challenge of RFC 6750 §3.1.
func TestInsufficientScope_R34(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(strings.Replace(rig.IssuerRealm(""), "scopes      telemetry", "scopes telemetry invoices.read", 1), rig.BearerSites)
	got := r.Caller(t, "h2", billing).Get("https://other.test/", rig.Bearer(rig.AccessToken(r, t, billing, "billing.partner")))
	rig.WantBearer(r, t, got, "scope_missing")
	want := `Bearer error="insufficient_scope", scope="invoices.read telemetry", error_id="` + got.ErrorID + `"`
	if challenge := got.Header.Get("WWW-Authenticate"); challenge != want {
		t.Errorf("WWW-Authenticate is %q, want %q", challenge, want)
	}
	r.Caller(t, "h2", sensor).Get("https://other.test/", rig.Bearer(rig.AccessToken(r, t, sensor, "sensor-7"))).WantStatus(t, http.StatusOK)
	// the token's scopes count, not the client's
	answer, _, _ := rig.Token(r, t, r.Caller(t, "h2", sensor), "https://auth.test/connect/token", rig.Form("sensor-7", "scope", "telemetry"))
	rig.WantBearer(r, t, r.Caller(t, "h2", sensor).Get("https://other.test/", rig.Bearer(answer["access_token"].(string))), "scope_missing")
}

// TestAudience_R34 checks that an API refuses tokens for another API.
func TestAudience_R34(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	const two = rig.IssuerSite + `
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://api.test
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://other.test urn:other
	}
	reverse_proxy @UP@
}
`
	r.Start(rig.IssuerRealm("resource https://api.test {\nscopes invoices.read\n}\nresource urn:other {\nscopes invoices.write\n}"), two)
	for scope, hosts := range map[string][2]string{"invoices.read": {"api.test", "other.test"}, "invoices.write": {"other.test", "api.test"}} {
		answer, _, _ := rig.Token(r, t, r.Caller(t, "h2", billing), "https://auth.test/connect/token", rig.Form("billing.partner", "scope", scope))
		c, token := r.Caller(t, "h2", billing), answer["access_token"].(string)
		c.Get("https://"+hosts[0]+"/", rig.Bearer(token)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		rig.WantBearer(r, t, c.Get("https://"+hosts[1]+"/", rig.Bearer(token)), "token_audience")
	}
}

// TestTokenEndsOnALiveConnection_C1 checks that every request honors the expiry of the
// token and of its certificate, although both are cached.
func TestTokenEndsOnALiveConnection_C1(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	clock.Freeze()
	billing := r.Issue("billing", testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(90*time.Minute)))
	r.SelfSigned("sensor")
	r.Start(rig.ClockRealmOf(t), rig.BearerSites)
	token := rig.AccessToken(r, t, billing, "billing.partner") // valid for an hour
	callers := make(map[string]*rig.Caller)
	each := func(check func(c *rig.Caller)) {
		for _, protocol := range rig.Protocols {
			if callers[protocol] == nil {
				callers[protocol] = r.Caller(t, protocol, billing)
			}
			check(callers[protocol])
		}
	}
	good := func(c *rig.Caller) {
		c.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
	each(good)
	clock.Advance(59 * time.Minute)
	each(good)
	clock.Advance(time.Minute)
	each(func(c *rig.Caller) {
		rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(token)), "token_expired")
	})
	clock.Advance(-2 * time.Hour) // the token was issued in the future
	other := r.Caller(t, "h2", billing)
	clock.Advance(60*time.Minute - 5*time.Second)
	other.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
	clock.Advance(95 * time.Minute)
	each(func(c *rig.Caller) {
		rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(token)), "token_expired")
	})
}

// TestTokenOfAClientThatIsGone_C2 checks that open connections refuse a client that was
// disabled, removed or given another certificate, despite its valid token.
func TestTokenOfAClientThatIsGone_C2(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	realm := rig.IssuerRealm("")
	r.Start(realm, rig.BearerSites)
	tokens := map[string]string{"billing": rig.AccessToken(r, t, billing, "billing.partner"), "sensor": rig.AccessToken(r, t, sensor, "sensor-7")}
	for _, protocol := range rig.Protocols {
		b, s := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor)
		ask := func(c *rig.Caller, token, reason string) {
			t.Helper()
			got := c.Get("https://api.test/", rig.Bearer(tokens[token]))
			if reason == "" {
				got.WantStatus(t, http.StatusOK)
				return
			}
			rig.WantBearer(r, t, got, reason)
		}
		ask(b, "billing", "")
		ask(s, "sensor", "")
		r.Reload(strings.Replace(realm, "claim   tenant", "disabled\nclaim   tenant", 1), rig.BearerSites)
		ask(b, "billing", "client_disabled")
		ask(s, "sensor", "")
		r.Reload(strings.Replace(realm, "client billing.partner", "client billing.renamed", 1), rig.BearerSites)
		ask(b, "billing", "client_mismatch")
		r.Reload(strings.Replace(realm, `certificate "@DIR@/sensor.pem"`, "thumbprint "+testpki.SomeSHA256, 1), rig.BearerSites)
		ask(b, "billing", "")
		ask(s, "sensor", "certificate_untrusted")
		r.Reload(realm, rig.BearerSites)
		ask(b, "billing", "")
		ask(s, "sensor", "")
	}
}

// TestTokenOfADeniedCertificate_C2 checks that the deny file takes effect without a
// reload.
func TestTokenOfADeniedCertificate_C2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	file := r.Write("deny.txt", []byte("# nobody\n"))
	realm := strings.Replace(rig.IssuerRealm(""), "client billing.partner", "revocation {\ndeny \"@DIR@/deny.txt\"\n}\nclient billing.partner", 1)
	r.Start(realm, rig.BearerSites)
	token := rig.AccessToken(r, t, billing, "billing.partner")
	c := r.Caller(t, "h1", billing)
	c.Always = []func(*http.Request){rig.Bearer(token)}
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	if err := os.WriteFile(file, []byte("thumbprint "+testpki.HashOf(billing.Cert.Raw)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	rig.WantBearer(r, t, c.Eventually(t, http.StatusUnauthorized), "certificate_revoked")
}

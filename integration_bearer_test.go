package mtlsauth

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// bearerSites have the issuer, and two APIs that take its tokens.
const bearerSites = issuerSite + `
https://api.test:@HTTPS@ {
	import mtls
	log
	mtls_bearer {
		header_up X-Client-ID     {http.mtls.client_id}
		header_up X-Client-Scope  {http.mtls.scope}
		header_up X-Client-Tenant {http.mtls.claim.tenant}
		header_up X-Client-Other  "{http.mtls.realm} {http.mtls.credential} {http.mtls.thumbprint} {http.mtls.subject} {http.mtls.not_after} {http.mtls.claim.iss}{http.mtls.matched}"
	}
	reverse_proxy @UP@
	handle_errors {
		respond "{err.status_code} {err.message} {http.mtls.error}"
	}
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		require_scope invoices.read telemetry
	}
	reverse_proxy @UP@
}
`

// bearer sends a token.
func bearer(token string) func(*http.Request) { return with("Authorization", "Bearer "+token) }

// accessToken gets a token from the issuer at auth.test.
func (r *rig) accessToken(t *testing.T, leaf *testpki.Leaf, clientID string) string {
	t.Helper()
	answer, _, _ := r.token(t, r.caller(t, "h2", leaf), "https://auth.test/connect/token", form(clientID))
	return answer["access_token"].(string)
}

// wantBearer fails the test unless mtls_bearer refused the request as RFC 6750
// §3.1 says, for this reason.
func (r *rig) wantBearer(t *testing.T, got reply, reason string) reply {
	t.Helper()
	want := struct {
		status int
		word   string
	}{http.StatusUnauthorized, "invalid_token"}
	switch reason {
	case "authorization_malformed":
		want.status, want.word = http.StatusBadRequest, "invalid_request"
	case "scope_missing":
		want.status, want.word = http.StatusForbidden, "insufficient_scope"
	case "token_keys_unavailable":
		want.status, want.word = http.StatusServiceUnavailable, "temporarily_unavailable"
	}
	got.wantStatus(t, want.status)
	if got.seen != nil {
		t.Errorf("the request reached the API with %v", got.seen.Header)
	}
	challenge := strings.Join(got.header.Values("WWW-Authenticate"), " / ")
	if reason == "token_missing" {
		if challenge != "Bearer" {
			t.Errorf("WWW-Authenticate is %q, want a bare challenge", challenge)
		}
		return got
	}
	if expected := fmt.Sprintf(`Bearer error="%s", error_id="%s"`, want.word, got.errorID); want.word != "insufficient_scope" && challenge != expected {
		t.Errorf("WWW-Authenticate is %q, want %q", challenge, expected)
	}
	if got.header.Get("Cache-Control") != "no-store" {
		t.Errorf("Cache-Control is %q", got.header.Get("Cache-Control"))
	}
	if entry := r.logs.withErrorID(t, "token refused", got.errorID); entry.str("reason") != reason {
		t.Errorf("the reason is %q (%s), want %q", entry["reason"], entry["detail"], reason)
	}
	return got
}

func TestR11_R34_TokenReachesTheAPI(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.start(issuerRealm(""), bearerSites)
	tokens := map[*testpki.Leaf]string{billing: r.accessToken(t, billing, "billing.partner"), sensor: r.accessToken(t, sensor, "sensor-7")}
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			for range 2 { // at first sight, and remembered
				got := r.caller(t, protocol, billing).get("https://api.test/", bearer(tokens[billing])).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				want := map[string]string{
					"X-Client-Scope": "invoices.read invoices.write", "X-Client-Tenant": "partner 7", "Authorization": "Bearer " + tokens[billing],
					"X-Client-Other": "default token " + thumbprintOf(billing) + " CN=billing " + billing.Cert.NotAfter.UTC().Format(time.RFC3339) + " https://auth.test",
				}
				for name, value := range want {
					if seen := got.seen.Header[name]; len(seen) != 1 || seen[0] != value {
						t.Errorf("%s is %q, want %q", name, seen, value)
					}
				}
				got = r.caller(t, protocol, sensor).get("https://api.test/", bearer(tokens[sensor])).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
				if tenant := got.seen.Header["X-Client-Tenant"]; tenant != nil {
					t.Errorf("a client without the claim is told as of tenant %q", tenant)
				}
			}
			// scheme without regard to case, and runs of spaces
			for _, value := range []string{"bearer ", "BEARER  "} {
				r.caller(t, protocol, sensor).get("https://api.test/", with("Authorization", value+tokens[sensor])).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
			}
		})
	}
	if entry := r.logs.access(t, "/"); entry.str("user_id") != "billing.partner" {
		t.Errorf("the user id in the access log is %q", entry["user_id"])
	}
}

func thumbprintOf(leaf *testpki.Leaf) string {
	sum, _ := hex.DecodeString(testpki.HashOf(leaf.Cert.Raw))
	return base64.RawURLEncoding.EncodeToString(sum)
}

// TestR11_R20_WrongCertificate: a token is worth nothing without the certificate it
// is bound to, be the other one that of the same client.
func TestR11_R20_WrongCertificate(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	renewed, stranger := r.issue("billing"), r.selfSigned("stranger")
	r.start(issuerRealm(""), bearerSites)
	token := r.accessToken(t, billing, "billing.partner")
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			r.caller(t, protocol, billing).get("https://api.test/", bearer(token)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
			for leaf, reason := range map[*testpki.Leaf]string{
				renewed: "token_certificate", sensor: "token_certificate", stranger: "token_certificate", nil: "certificate_missing",
			} {
				got := r.wantBearer(t, r.caller(t, protocol, leaf).get("https://api.test/", bearer(token)), reason)
				if got.body != "401 invalid_token "+reason {
					t.Errorf("the error route was told %q", got.body)
				}
			}
			// the certificate that counts is the first one
			both := testpki.Presenting(sensor, billing.Cert)
			r.wantBearer(t, r.caller(t, protocol, both).get("https://api.test/", bearer(token)), "token_certificate")
			r.caller(t, protocol, renewed).get("https://api.test/", bearer(r.accessToken(t, renewed, "billing.partner"))).wantStatus(t, http.StatusOK)
		})
	}
}

// TestR46_OnlyInTheHeader: a token counts in one Authorization header and
// nowhere else.
func TestR46_OnlyInTheHeader(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	// Caddy itself logs a request as it came, to which the logs of this test are
	// not to be held
	r.change = func(config map[string]any) {
		member(t, config, "logging", "logs", "default")["exclude"] = []string{"events", "http.log"}
	}
	r.start(issuerRealm(""), bearerSites)
	token := r.accessToken(t, billing, "billing.partner")
	for _, protocol := range rigProtocols {
		c := r.caller(t, protocol, billing)
		for name, test := range map[string]struct {
			url    string
			send   func(*http.Request)
			reason string
		}{
			"nothing":         {"https://api.test/", with("X-None"), "token_missing"},
			"query":           {"https://api.test/?access_token=" + token, with("X-None"), "token_missing"},
			"body":            {"https://api.test/", withBody("application/x-www-form-urlencoded", "access_token="+token), "token_missing"},
			"another header":  {"https://api.test/", with("X-Authorization", "Bearer "+token), "token_missing"},
			"with underscore": {"https://api.test/", with("Authorization_", "Bearer "+token), "token_missing"},
			"Basic":           {"https://api.test/", with("Authorization", "Basic "+token), "token_missing"},
			"no scheme":       {"https://api.test/", with("Authorization", token), "token_missing"},
			"another scheme":  {"https://api.test/", with("Authorization", "BearerX "+token), "token_missing"},
			"empty":           {"https://api.test/", with("Authorization", ""), "token_missing"},
			"no token":        {"https://api.test/", with("Authorization", "Bearer"), "authorization_malformed"},
			"two tokens":      {"https://api.test/", with("Authorization", "Bearer "+token+" "+token), "authorization_malformed"},
			"two in a list":   {"https://api.test/", with("Authorization", "Bearer "+token+", Bearer "+token), "authorization_malformed"},
			"in quotes":       {"https://api.test/", with("Authorization", `Bearer "`+token+`"`), "authorization_malformed"},
			"two headers":     {"https://api.test/", with("Authorization", "Bearer "+token, "Bearer "+token), "authorization_malformed"},
			"Basic as well":   {"https://api.test/", with("Authorization", "Bearer "+token, "Basic dTpw"), "authorization_malformed"},
			"empty as well":   {"https://api.test/", with("Authorization", "", "Bearer "+token), "authorization_malformed"},
			"no JWT":          {"https://api.test/", bearer("abc~+/=="), "token_malformed"},
			"too large":       {"https://api.test/", bearer(strings.Repeat("A", 17<<10)), "token_malformed"},
			"cut off":         {"https://api.test/", bearer(token[:len(token)-2]), "token_signature"},
		} {
			t.Run(protocol+"/"+name, func(t *testing.T) {
				if protocol != "h1" && name == "too large" {
					t.Skip("the header is larger than this server takes")
				}
				r.wantBearer(t, c.get(test.url, test.send), test.reason)
			})
		}
	}
}

// TestR34_InsufficientScope is RFC 6750 §3.1.
func TestR34_InsufficientScope(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.start(strings.Replace(issuerRealm(""), "scopes      telemetry", "scopes telemetry invoices.read", 1), bearerSites)
	got := r.caller(t, "h2", billing).get("https://other.test/", bearer(r.accessToken(t, billing, "billing.partner")))
	r.wantBearer(t, got, "scope_missing")
	want := `Bearer error="insufficient_scope", scope="invoices.read telemetry", error_id="` + got.errorID + `"`
	if challenge := got.header.Get("WWW-Authenticate"); challenge != want {
		t.Errorf("WWW-Authenticate is %q, want %q", challenge, want)
	}
	r.caller(t, "h2", sensor).get("https://other.test/", bearer(r.accessToken(t, sensor, "sensor-7"))).wantStatus(t, http.StatusOK)
	// the token's scopes count, not those of the client
	answer, _, _ := r.token(t, r.caller(t, "h2", sensor), "https://auth.test/connect/token", form("sensor-7", "scope", "telemetry"))
	r.wantBearer(t, r.caller(t, "h2", sensor).get("https://other.test/", bearer(answer["access_token"].(string))), "scope_missing")
}

// TestR34_Audience: a token for one API is none for another.
func TestR34_Audience(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	const two = issuerSite + `
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
	r.start(issuerRealm("resource https://api.test {\nscopes invoices.read\n}\nresource urn:other {\nscopes invoices.write\n}"), two)
	for scope, hosts := range map[string][2]string{"invoices.read": {"api.test", "other.test"}, "invoices.write": {"other.test", "api.test"}} {
		answer, _, _ := r.token(t, r.caller(t, "h2", billing), "https://auth.test/connect/token", form("billing.partner", "scope", scope))
		c, token := r.caller(t, "h2", billing), answer["access_token"].(string)
		c.get("https://"+hosts[0]+"/", bearer(token)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		r.wantBearer(t, c.get("https://"+hosts[1]+"/", bearer(token)), "token_audience")
	}
}

// TestC1_TokenEndsOnALiveConnection: the end of a token and that of its
// certificate count on every request, though both are remembered.
func TestC1_TokenEndsOnALiveConnection(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	billing := r.issue("billing", testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(90*time.Minute)))
	r.selfSigned("sensor")
	r.start(clockRealmOf(t), bearerSites)
	token := r.accessToken(t, billing, "billing.partner") // for an hour
	callers := make(map[string]*caller)
	each := func(check func(c *caller)) {
		for _, protocol := range rigProtocols {
			if callers[protocol] == nil {
				callers[protocol] = r.caller(t, protocol, billing)
			}
			check(callers[protocol])
		}
	}
	good := func(c *caller) {
		c.get("https://api.test/", bearer(token)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	}
	each(good)
	clock.advance(59 * time.Minute)
	each(good)
	clock.advance(time.Minute)
	each(func(c *caller) { r.wantBearer(t, c.get("https://api.test/", bearer(token)), "token_expired") })
	clock.advance(-2 * time.Hour) // the token is of the future
	other := r.caller(t, "h2", billing)
	clock.advance(60*time.Minute - 5*time.Second)
	other.get("https://api.test/", bearer(token)).wantStatus(t, http.StatusOK)
	clock.advance(95 * time.Minute)
	each(func(c *caller) { r.wantBearer(t, c.get("https://api.test/", bearer(token)), "token_expired") })
}

// TestC2_TokenOfAClientThatIsGone: whoever is disabled, removed, or has another
// certificate now is refused on open connections, whatever its token says.
func TestC2_TokenOfAClientThatIsGone(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	realm := issuerRealm("")
	r.start(realm, bearerSites)
	tokens := map[string]string{"billing": r.accessToken(t, billing, "billing.partner"), "sensor": r.accessToken(t, sensor, "sensor-7")}
	for _, protocol := range rigProtocols {
		b, s := r.caller(t, protocol, billing), r.caller(t, protocol, sensor)
		ask := func(c *caller, token, reason string) {
			t.Helper()
			got := c.get("https://api.test/", bearer(tokens[token]))
			if reason == "" {
				got.wantStatus(t, http.StatusOK)
				return
			}
			r.wantBearer(t, got, reason)
		}
		ask(b, "billing", "")
		ask(s, "sensor", "")
		r.reload(strings.Replace(realm, "claim   tenant", "disabled\nclaim   tenant", 1), bearerSites)
		ask(b, "billing", "client_disabled")
		ask(s, "sensor", "")
		r.reload(strings.Replace(realm, "client billing.partner", "client billing.renamed", 1), bearerSites)
		ask(b, "billing", "client_mismatch")
		r.reload(strings.Replace(realm, `certificate "@DIR@/sensor.pem"`, "thumbprint "+testpki.SomeSHA256, 1), bearerSites)
		ask(b, "billing", "")
		ask(s, "sensor", "certificate_untrusted")
		r.reload(realm, bearerSites)
		ask(b, "billing", "")
		ask(s, "sensor", "")
	}
}

// TestC2_TokenOfADeniedCertificate needs no reload.
func TestC2_TokenOfADeniedCertificate(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	file := r.write("deny.txt", []byte("# nobody\n"))
	realm := strings.Replace(issuerRealm(""), "client billing.partner", "revocation {\ndeny \"@DIR@/deny.txt\"\n}\nclient billing.partner", 1)
	r.start(realm, bearerSites)
	token := r.accessToken(t, billing, "billing.partner")
	c := r.caller(t, "h1", billing)
	c.always = []func(*http.Request){bearer(token)}
	c.get("https://api.test/").wantStatus(t, http.StatusOK)
	if err := os.WriteFile(file, []byte("thumbprint "+testpki.HashOf(billing.Cert.Raw)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.wantBearer(t, c.eventually(t, http.StatusUnauthorized), "certificate_revoked")
}

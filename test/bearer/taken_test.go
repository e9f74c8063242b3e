package bearer_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const takenRealm = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	revocation {
		deny "@DIR@/deny.txt"
	}
	clients_from file "@DIR@/clients.json"
	client api {
		certificate "@DIR@/sensor.pem"
		introspect  https://auth.test
	}
	issuer https://auth.test
}
`

// startTaken starts an issuer and two APIs, and returns a function that changes the
// client billing.partner.
func startTaken(t *testing.T) (r *rig.Rig, billing, api *testpki.Leaf, register func(members string)) {
	r = rig.New(t)
	billing, api = r.Issue("billing"), r.SelfSigned("sensor")
	register = func(members string) {
		r.Write("clients.json", fmt.Appendf(nil, `[{"client_id":"billing.partner","tls_client_auth_subject_dn":"CN=billing"%s}]`, members))
	}
	register(`,"scope":"invoices.read invoices.write"`)
	r.Write("deny.txt", []byte("# none\n"))
	r.Start(takenRealm, rig.IssuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		header_up X-Client-ID    {http.mtls.client_id}
		header_up X-Client-Scope {http.mtls.scope}
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		require_scope invoices.write
	}
	reverse_proxy @UP@
}
`)
	return r, billing, api, register
}

// introspected returns what the API learns about a token.
func introspected(t *testing.T, r *rig.Rig, api *testpki.Leaf, token string) map[string]any {
	t.Helper()
	return rig.JSON(t, r.Caller(t, "h2", api).Do(http.MethodPost, "https://auth.test/connect/introspect", rig.Query("api", token)).WantStatus(t, http.StatusOK).Body)
}

// TestScopesThatWereTaken_S12 checks that a scope which is taken from a client is no
// longer in its tokens, remembered or not, and comes back with the client's.
func TestScopesThatWereTaken_S12(t *testing.T) {
	r, billing, api, register := startTaken(t)
	token := rig.AccessToken(r, t, billing, "billing.partner")
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, billing)
		for _, scopes := range []string{"invoices.read invoices.write", "invoices.read", "telemetry", "", "invoices.write invoices.read"} {
			register(fmt.Sprintf(`,"scope":%q`, scopes))
			var want []string
			for _, scope := range []string{"invoices.read", "invoices.write"} { // as in the token
				if strings.Contains(scopes, scope) {
					want = append(want, scope)
				}
			}
			rig.Await(r, t, "the scopes "+scopes, func() bool {
				seen := c.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK).Seen.Header.Get("X-Client-Scope")
				return seen == strings.Join(want, " ")
			})
			got := c.Get("https://other.test/", rig.Bearer(token))
			if strings.Contains(scopes, "invoices.write") {
				got.WantStatus(t, http.StatusOK)
			} else if detail := r.Logs.WithErrorID(t, "token refused", rig.WantBearer(r, t, got, "scope_missing").ErrorID).Str("detail"); !strings.Contains(detail, "no longer registered") {
				t.Errorf("the detail is %s", detail)
			}
			answer := introspected(t, r, api, token)
			if scope, _ := answer["scope"].(string); answer["active"] != true || scope != strings.Join(want, " ") {
				t.Errorf("with scopes %q, the token is %v", scopes, answer)
			}
		}
	}
}

// TestTokensOfDeniedCertificates_S12 checks that every rule of the deny file counts
// where tokens are taken and introspected, across a reload too.
func TestTokensOfDeniedCertificates_S12(t *testing.T) {
	r, _, api, _ := startTaken(t)
	intermediate := testpki.MustIntermediate(t, r.CA)
	billing := r.IssueBy(intermediate, "billing")
	token := rig.AccessToken(r, t, billing, "billing.partner")
	c := r.Caller(t, "h2", billing)
	for n, rule := range []string{
		"thumbprint " + testpki.HashOf(billing.Cert.Raw),
		"tbs " + testpki.HashOf(billing.Cert.RawTBSCertificate),
		"public_key " + testpki.HashOf(billing.Cert.RawSubjectPublicKeyInfo),
		fmt.Sprintf("serial %x %s", billing.Cert.SerialNumber, billing.Cert.Issuer),
		"public_key " + testpki.HashOf(intermediate.Cert.RawSubjectPublicKeyInfo),
		// of the trust pool, which no client sends
		"public_key " + testpki.HashOf(r.CA.Cert.RawSubjectPublicKeyInfo),
	} {
		if answer := introspected(t, r, api, token); answer["active"] != true {
			t.Fatalf("before the rule %q, the token is %v", rule, answer)
		}
		c.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK)
		r.Write("deny.txt", []byte(rule+"\n"))
		rig.WantBearer(r, t, untilToken(t, c, "https://api.test/", token, http.StatusUnauthorized), "certificate_revoked")
		if answer := introspected(t, r, api, token); answer["active"] != false || len(answer) != 1 {
			t.Errorf("with the rule %q, the token is %v", rule, answer)
		}
		r.Logs.Wait(t, "the reason", func(e rig.LogEntry) bool {
			return e.Str("msg") == "token inactive" && e.Str("reason") == "certificate_revoked"
		})
		r.Reload(takenRealm+strings.Repeat("# again\n", n+1), rig.BearerSites)
		if answer := introspected(t, r, api, token); answer["active"] != false {
			t.Errorf("after a reload with the rule %q, the token is %v", rule, answer)
		}
		r.Write("deny.txt", []byte("# none\n"))
		untilToken(t, r.Caller(t, "h2", billing), "https://api.test/", token, http.StatusOK)
	}
}

// TestForeignClientIDs_S11 checks that a client of another server is refused unless its
// name is a client identifier that no upstream can take for several.
func TestForeignClientIDs_S11(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	job := r.SelfSigned("sensor")
	other := newOtherServer(t, r, clock)
	r.Issue("billing")
	r.Start(rig.ClockRealmOf(t), strings.ReplaceAll(`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer OTHER {
			audience   https://api.test
			id_prefix  partner:
			trust_pool file "@DIR@/other-server.pem"
		}
		header_up X-Client-ID     {http.mtls.client_id}
		header_up X-Client-Tenant {http.mtls.claim.tenant}
	}
	reverse_proxy @UP@
}
`, "OTHER", other.URL))
	untilToken(t, r.Caller(t, "h2", job), "https://api.test/", other.token(job, "k1", nil), http.StatusOK)
	for n, id := range []string{
		"x, billing.partner", "x,billing.partner", ",", "x,", `x"; admin="1`, "a b", "x;y", "a\tb", "a\r\nX-Admin: 1", "x=y", "{http.mtls.realm}", "ä", strings.Repeat("x", 201),
	} {
		got := r.Caller(t, rig.Protocols[n%3], job).Get("https://api.test/", rig.Bearer(other.token(job, "k1", map[string]any{"client_id": id})))
		got.WantStatus(t, http.StatusUnauthorized)
		entry := r.Logs.WithErrorID(t, "token refused", got.ErrorID)
		if reason := entry.Str("reason"); reason != "token_client" && reason != "token_malformed" || len(entry.Str("detail")) > 400 {
			t.Errorf("client_id %q: the log line is %v", id, entry)
		}
	}
	for _, id := range []string{"job", "a.b_c~d:e@f/g+h-i", "0oa1b2c3", "abc@clients"} {
		got := r.Caller(t, "h2", job).Get("https://api.test/", rig.Bearer(other.token(job, "k1", map[string]any{"client_id": id, "tenant": "a\r\nX-Admin: 1"})))
		got.WantStatus(t, http.StatusOK).WantClient(t, "partner:"+id)
		if tenant := got.Seen.Header.Get("X-Client-Tenant"); tenant != `a\0D\0AX-Admin: 1` || got.Seen.Header.Get("X-Admin") != "" {
			t.Errorf("the upstream received the tenant %q and %v", tenant, got.Seen.Header)
		}
	}
}

// TestForgedTokensOfStrangers_S2 checks that the signature of a token is verified only
// for a certificate that is admitted, because it can cost milliseconds.
func TestForgedTokensOfStrangers_S2(t *testing.T) {
	r := rig.New(t)
	billing, sensor, stranger := r.Issue("billing"), r.SelfSigned("sensor"), r.SelfSigned("stranger")
	r.Start(rig.IssuerRealm("signing_algorithm ES512"), rig.IssuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		realm default
		trust_issuer https://as.example.com {
			audience  api
			id_prefix as:
			allow_unbound
		}
	}
	reverse_proxy @UP@
}
`)
	parts := strings.Split(rig.AccessToken(r, t, billing, "billing.partner"), ".")
	signature := []byte(parts[2])
	slices.Reverse(signature[10:40])
	long := strings.Repeat("A", 4<<10) // so that nothing cheap says who issued it
	for claims, refused := range map[string]string{parts[1]: "token_certificate", "e30": "certificate_untrusted", long: "certificate_untrusted"} {
		forged := parts[0] + "." + claims + "." + string(signature)
		for leaf, reason := range map[*testpki.Leaf]string{nil: "certificate_missing", stranger: refused, sensor: "token_signature", billing: "token_signature"} {
			for n, host := range []string{"api.test", "other.test"} {
				rig.WantBearer(r, t, r.Caller(t, rig.Protocols[n], leaf).Get("https://"+host+"/", rig.Bearer(forged)), reason)
			}
		}
	}
}

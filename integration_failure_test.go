package mtlsauth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// A realm that knows nobody admits nobody, in every mode.
func TestE2_NoClients(t *testing.T) {
	for name, realm := range map[string]string{
		"nothing":    "mtls {\nissuer https://auth.test\n}\n",
		"trust pool": "mtls {\ntrust_pool file @DIR@/clients-ca.pem\nissuer https://auth.test\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			leaves := []*testpki.Leaf{r.issue("billing"), r.selfSigned("sensor"), r.issue("empty", testpki.CommonName("")), nil}
			r.start(realm, modesSiteOf("mtls_auth", "api.test")+modesSiteOf("mtls_auth {\noptional\n}", "public.test")+issuerSite)
			r.logs.wait(t, "the warning that there are no clients", func(e logEntry) bool {
				return e.str("level") == "warn" && strings.Contains(e.str("msg"), "no clients")
			})
			for _, protocol := range rigProtocols {
				for _, leaf := range leaves {
					c := r.caller(t, protocol, leaf)
					word := rigRefused
					if leaf == nil {
						word = "certificate_missing"
						c.get("https://public.test/", with("X-Client-Id", "x")).wantStatus(t, http.StatusOK).wantClient(t, "")
					} else {
						c.get("https://public.test/").wantRefused(t, "default", http.StatusUnauthorized, word)
					}
					c.get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, word)
					for _, id := range []string{"billing", "x", "sensor"} {
						got := c.do(http.MethodPost, "https://auth.test/connect/token", form(id)).wantStatus(t, http.StatusUnauthorized)
						if asJSON(t, got.body)["error"] != "invalid_client" {
							t.Errorf("the answer is %q", got.body)
						}
					}
				}
			}
		})
	}
}

func modesSiteOf(directive, host string) string {
	return "https://" + host + ":@HTTPS@ {\nimport mtls\n" + directive + "\nreverse_proxy @UP@\n}\n"
}

// An allow list or a scope that fits no client admits nobody, rather than
// everybody.
func TestE2_NothingFits(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, modesSiteOf("mtls_auth {\nallow nobody-*\n}", "api.test")+modesSiteOf("mtls_auth {\nrequire_scope no.such.scope\n}", "public.test"))
	for _, protocol := range rigProtocols {
		c := r.caller(t, protocol, billing)
		c.get("https://api.test/").wantRefused(t, "default", http.StatusForbidden, "client_not_allowed")
		c.get("https://public.test/").wantRefused(t, "default", http.StatusForbidden, "scope_missing")
	}
	r.logs.wait(t, "the warning that allow names nobody", func(e logEntry) bool {
		return e.str("level") == "warn" && e.str("allow") == "nobody-*"
	})
}

// When the API behind is away, the answer is Caddy's and says nothing of who
// asked.
func TestE2_NoAPI(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.upstream.address = "127.0.0.1:1"
	r.start(billingAndSensor, oneSite)
	for _, protocol := range rigProtocols {
		got := r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusBadGateway)
		if got.body != "" {
			t.Errorf("the body is %q", got.body)
		}
		r.caller(t, protocol, nil).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
	}
}

// Claims that are no strings go into a token as they are.
func TestClaimsOfAnyKind(t *testing.T) {
	r := newRig(t)
	sensor := r.selfSigned("sensor")
	r.issue("billing")
	r.change = func(config map[string]any) {
		for _, client := range member(t, config, "apps", "mtls", "realms", "default")["clients"].([]any) {
			client.(map[string]any)["claims"] = map[string]any{
				"limits": map[string]any{"max": 5.0, "names": []any{"a", "<b>"}}, "active": true, "text": "ü\"\n",
			}
		}
	}
	r.start(issuerRealm(""), issuerSite)
	for _, protocol := range rigProtocols {
		_, _, claims := r.token(t, r.caller(t, protocol, sensor), "https://auth.test/connect/token", form("sensor-7"))
		limits, _ := claims["limits"].(map[string]any)
		names, _ := limits["names"].([]any)
		if limits["max"] != 5.0 || len(names) != 2 || names[1] != "<b>" || claims["active"] != true || claims["text"] != "ü\"\n" {
			t.Errorf("the claims are %v", claims)
		}
	}
}

package auth_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestNoClients_E2 checks that a realm without clients admits no certificate,
// in any mode.
func TestNoClients_E2(t *testing.T) {
	for name, realm := range map[string]string{
		"nothing":    "mtls {\nissuer https://auth.test\n}\n",
		"trust pool": "mtls {\ntrust_pool file @DIR@/clients-ca.pem\nissuer https://auth.test\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t)
			leaves := []*testpki.Leaf{r.Issue("billing"), r.SelfSigned("sensor"), r.Issue("empty", testpki.CommonName("")), nil}
			r.Start(realm, modesSiteOf("mtls_auth", "api.test")+modesSiteOf("mtls_auth {\noptional\n}", "public.test")+rig.IssuerSite)
			r.Logs.Wait(t, "the warning that there are no clients", func(e rig.LogEntry) bool {
				return e.Str("level") == "warn" && strings.Contains(e.Str("msg"), "no clients")
			})
			for _, protocol := range rig.Protocols {
				for _, leaf := range leaves {
					c := r.Caller(t, protocol, leaf)
					word := rig.Refused
					if leaf == nil {
						word = "certificate_missing"
						c.Get("https://public.test/", rig.With("X-Client-Id", "x")).WantStatus(t, http.StatusOK).WantClient(t, "")
					} else {
						c.Get("https://public.test/").WantRefused(t, "default", http.StatusUnauthorized, word)
					}
					c.Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, word)
					for _, id := range []string{"billing", "x", "sensor"} {
						got := c.Do(http.MethodPost, "https://auth.test/connect/token", rig.Form(id)).WantStatus(t, http.StatusBadRequest)
						if rig.JSON(t, got.Body)["error"] != "invalid_client" {
							t.Errorf("got %q, want error invalid_client", got.Body)
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

// TestNothingFits_E2 checks that an allow list or scope that matches no client
// admits nobody rather than everybody.
func TestNothingFits_E2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, modesSiteOf("mtls_auth {\nallow nobody-*\n}", "api.test")+modesSiteOf("mtls_auth {\nrequire_scope no.such.scope\n}", "public.test"))
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, billing)
		c.Get("https://api.test/").WantRefused(t, "default", http.StatusForbidden, "client_not_allowed")
		c.Get("https://public.test/").WantRefused(t, "default", http.StatusForbidden, "scope_missing")
	}
	r.Logs.Wait(t, "the warning that allow names nobody", func(e rig.LogEntry) bool {
		return e.Str("level") == "warn" && e.Str("allow") == "nobody-*"
	})
}

// TestNoAPI_E2 checks that Caddy answers with an empty 502 while the upstream is
// down.
func TestNoAPI_E2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Upstream.Address = "127.0.0.1:1"
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for _, protocol := range rig.Protocols {
		got := r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusBadGateway)
		if got.Body != "" {
			t.Errorf("the body is %q, want it empty", got.Body)
		}
		r.Caller(t, protocol, nil).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
	}
}

// TestClaimsOfAnyKind checks that claims keep their JSON types in a token.
func TestClaimsOfAnyKind(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	r.Change = func(config map[string]any) {
		for _, client := range rig.Member(t, config, "apps", "mtls", "realms", "default")["clients"].([]any) {
			client.(map[string]any)["claims"] = map[string]any{
				"limits": map[string]any{"max": 5.0, "names": []any{"a", "<b>"}}, "active": true, "text": "ü\"\n",
			}
		}
	}
	r.Start(rig.IssuerRealm(""), rig.IssuerSite)
	for _, protocol := range rig.Protocols {
		_, _, claims := rig.Token(r, t, r.Caller(t, protocol, sensor), "https://auth.test/connect/token", rig.Form("sensor-7"))
		limits, _ := claims["limits"].(map[string]any)
		names, _ := limits["names"].([]any)
		if limits["max"] != 5.0 || len(names) != 2 || names[1] != "<b>" || claims["active"] != true || claims["text"] != "ü\"\n" {
			t.Errorf("the claims are %v", claims)
		}
	}
}

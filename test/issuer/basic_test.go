package issuer_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestBasicNamesTheClient checks that HTTP Basic with an empty password names the
// client at all endpoints, as IdentityModel and Go's x/oauth2 send it, and that it
// proves nothing.
func TestBasicNamesTheClient(t *testing.T) {
	r, leaves := startIntrospection(t, "")
	token, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
	for n, path := range []string{"/connect/token", "/connect/mtls/token", "/connect/introspect", "/connect/mtls/introspect", "/connect/revocation", "/connect/mtls/revocation"} {
		unauthenticated := http.StatusBadRequest
		if strings.HasSuffix(path, "introspect") {
			unauthenticated = http.StatusUnauthorized
		}
		for name, tc := range map[string]struct {
			leaf           *testpki.Leaf
			user, password string
			client         string // client_id in the form
			status         int
			code           string
			description    string
		}{
			"name alone":             {leaves["billing.partner"], "billing.partner", "", "", 200, "", ""},
			"name and client_id":     {leaves["billing.partner"], "billing.partner", "", "billing.partner", 200, "", ""},
			"name, encoded":          {leaves["billing.partner"], "billing%2Epartner", "", "", 200, "", ""},
			"another client_id":      {leaves["billing.partner"], "billing.partner", "", "invoices.api", 400, "invalid_request", "another client than client_id"},
			"another's name":         {leaves["billing.partner"], "invoices.api", "", "", 401, "invalid_client", "client authentication failed"},
			"a password":             {leaves["billing.partner"], "billing.partner", "hunter2", "", 401, "invalid_client", "send client_id in the form"},
			"a password, client_id":  {leaves["billing.partner"], "billing.partner", "hunter2", "billing.partner", 401, "invalid_client", "send client_id in the form"},
			"no certificate":         {nil, "billing.partner", "", "", 401, "invalid_client", "no client certificate was presented"},
			"none, and client_id":    {nil, "billing.partner", "", "billing.partner", 401, "invalid_client", "no client certificate was presented"},
			"none, but a password":   {nil, "billing.partner", "hunter2", "", 401, "invalid_client", "no client certificate was presented"},
			"a stranger":             {leaves["stranger"], "billing.partner", "", "billing.partner", 401, "invalid_client", "client authentication failed"},
			"no header, no one":      {nil, "", "", "billing.partner", unauthenticated, "invalid_client", "no client certificate was presented"},
			"no header, a stranger":  {leaves["stranger"], "", "", "billing.partner", unauthenticated, "invalid_client", "client authentication failed"},
			"no header, another's":   {leaves["billing.partner"], "", "", "invoices.api", unauthenticated, "invalid_client", "client authentication failed"},
			"neither name nor field": {leaves["billing.partner"], "", "", "", 400, "invalid_request", "client_id is missing"},
		} {
			form := url.Values{"grant_type": {"client_credentials"}, "token": {token}, "scope": {"invoices.read"}}
			if strings.HasSuffix(path, "revocation") {
				form.Set("token", "nonsense") // which is revoked without effect
			}
			if tc.client != "" {
				form.Set("client_id", tc.client)
			}
			got := r.Caller(t, rig.Protocols[n%len(rig.Protocols)], tc.leaf).Do(http.MethodPost, "https://auth.test"+path, func(r *http.Request) {
				rig.WithBody("application/x-www-form-urlencoded", form.Encode())(r)
				if tc.user != "" {
					r.SetBasicAuth(tc.user, tc.password)
				}
			})
			if got.Status != tc.status {
				t.Errorf("%s, %s: got %d %q, want %d", path, name, got.Status, got.Body, tc.status)
				continue
			}
			if challenge := got.Header.Get("WWW-Authenticate"); (challenge == `Basic realm="token endpoint"`) != (tc.status == http.StatusUnauthorized) {
				t.Errorf("%s, %s: the challenge is %q", path, name, challenge)
			}
			if tc.status == http.StatusOK {
				if strings.HasSuffix(path, "introspect") && rig.JSON(t, got.Body)["active"] != true {
					t.Errorf("%s, %s: got %s", path, name, got.Body)
				}
				if strings.HasSuffix(path, "token") {
					issued := rig.JSON(t, got.Body)["access_token"].(string)
					if answer := rig.JSON(t, introspect(r, t, "h2", tc.leaf, "billing.partner", issued)); answer["client_id"] != "billing.partner" {
						t.Errorf("%s, %s: the token is %v", path, name, answer)
					}
				}
				continue
			}
			rig.CheckTokenHeaders(t, got)
			answer := rig.JSON(t, got.Body)
			if description, _ := answer["error_description"].(string); answer["error"] != tc.code || !strings.Contains(description, tc.description) {
				t.Errorf("%s, %s: got %s, want %s %q", path, name, got.Body, tc.code, tc.description)
			}
		}
	}
	for _, id := range []string{"", "billing.partner"} { // client_id in the form
		token, _ := tokenFor(r, t, leaves["billing.partner"], "scope", "invoices.read")
		form := url.Values{"token": {token}}
		if id != "" {
			form.Set("client_id", id)
		}
		r.Caller(t, "h1", leaves["billing.partner"]).Do(http.MethodPost, "https://auth.test/connect/revocation", func(r *http.Request) {
			rig.WithBody("application/x-www-form-urlencoded", form.Encode())(r)
			r.SetBasicAuth("billing.partner", "")
		}).WantStatus(t, http.StatusOK)
		if body := introspect(r, t, "h1", leaves["billing.partner"], "billing.partner", token); rig.JSON(t, body)["active"] != false {
			t.Errorf("client_id=%s: a revoked token is %s", id, body)
		}
	}
}

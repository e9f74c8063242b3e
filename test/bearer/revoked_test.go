package bearer_test

import (
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestRevokedToken_C2 checks that a revoked token is refused on the next request of an
// open connection and that a new token is accepted.
func TestRevokedToken_C2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.BearerSites)
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, billing)
		token := rig.AccessToken(r, t, billing, "billing.partner")
		c.Get("https://api.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		c.Do(http.MethodPost, "https://auth.test/connect/revocation", rig.Query("billing.partner", token)).WantStatus(t, http.StatusOK)
		rig.WantBearer(r, t, c.Get("https://api.test/", rig.Bearer(token)), "token_revoked")
		c.Get("https://api.test/", rig.Bearer(rig.AccessToken(r, t, billing, "billing.partner"))).WantStatus(t, http.StatusOK)
	}
}

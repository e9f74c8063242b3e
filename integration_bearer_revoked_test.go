package mtlsauth

import (
	"net/http"
	"testing"
)

// TestC2_RevokedToken: a token that its client revokes is refused on the next
// request of a connection that is open, and a later one is good.
func TestC2_RevokedToken(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(issuerRealm(""), bearerSites)
	for _, protocol := range rigProtocols {
		c := r.caller(t, protocol, billing)
		token := r.accessToken(t, billing, "billing.partner")
		c.get("https://api.test/", bearer(token)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		c.do(http.MethodPost, "https://auth.test/connect/revocation", query("billing.partner", token)).wantStatus(t, http.StatusOK)
		r.wantBearer(t, c.get("https://api.test/", bearer(token)), "token_revoked")
		c.get("https://api.test/", bearer(r.accessToken(t, billing, "billing.partner"))).wantStatus(t, http.StatusOK)
	}
}

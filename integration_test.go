package mtlsauth_test

import (
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// tokenSite guards a second API by access token.
const tokenSite = `
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer
	reverse_proxy @UP@
}
`

// TestWholeStory is the first test to read. Over real connections, a real Caddy
// guards an API by certificate, issues access tokens that are bound to the
// certificate, and guards another API by token. The folders of test/ check each of
// these in detail.
func TestWholeStory(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")                // known by its subject, from the trusted CA
	sensor := r.SelfSigned("sensor")             // known by its pinned certificate
	impostor := r.IssueBy(r.OtherCA, "impostor") // from a CA that the realm does not trust
	r.Start(rig.IssuerRealm(""), rig.IssuerSite+rig.OneSite+tokenSite)

	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			asBilling, asSensor := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor)
			asImpostor, asNobody := r.Caller(t, protocol, impostor), r.Caller(t, protocol, nil)

			// mtls_auth tells the upstream which client called
			asBilling.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			asSensor.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			asNobody.Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			rig.WantRefusal(r, t, asImpostor.Get("https://api.test/"), "default", "certificate_untrusted")

			// mtls_issuer issues tokens to clients only
			answer, _, claims := rig.Token(r, t, asBilling, "https://auth.test/connect/token", rig.Form("billing.partner"))
			if claims["sub"] != "billing.partner" {
				t.Errorf("the token is for %v", claims["sub"])
			}
			rig.WantNoToken(r, t, rig.AskToken(asImpostor, "https://auth.test", "billing.partner"), "certificate_untrusted")

			// mtls_bearer admits the token with the certificate it is bound to
			token := answer["access_token"].(string)
			asBilling.Get("https://other.test/", rig.Bearer(token)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
			rig.WantBearer(r, t, asSensor.Get("https://other.test/", rig.Bearer(token)), "token_certificate")
			rig.WantBearer(r, t, asNobody.Get("https://other.test/", rig.Bearer(token)), "certificate_missing")
			rig.WantBearer(r, t, asBilling.Get("https://other.test/"), "token_missing")

			// a revoked token is refused at once
			rig.Revoke(r, t, protocol, billing, "billing.partner", token)
			rig.WantBearer(r, t, asBilling.Get("https://other.test/", rig.Bearer(token)), "token_revoked")
		})
	}
}

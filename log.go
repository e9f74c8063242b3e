package mtlsauth

import (
	"net/http"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// What refuses, as operators call it.
const (
	directiveAuth     = "mtls_auth"
	directiveIssuer   = "mtls_issuer"
	directiveBearer   = "mtls_bearer"
	directiveVerifier = "verifier"
)

// logRefusal counts a refusal and hands it to the reporter, with what the realm's proxies
// have to do with it. r is nil for a refusal in the handshake.
func logRefusal(realm *Realm, r *http.Request, refused reporter.Refused) {
	if r != nil {
		refused.Forwarded = realm.proxyCertificates.trusts(r)
		if realm.proxyCertificates != nil || refused.Refusal.Reason == validators.CertificateMissing {
			refused.Ignored = realm.proxyCertificates.ignoredHeader(r)
		}
	}
	realm.refusals.Add(r, refused)
}

// reportedRealm returns what the reporter needs of a realm.
func reportedRealm(realm *Realm) *reporter.Realm {
	return &reporter.Realm{
		Name: realm.name, Logger: realm.logger, Reporter: realm.app.refusals, Memory: realm.memory.refusals,
		Authenticator: realm.authenticator, WhyUnknown: realm.troubles.whyUnknown,
		WhyIgnored: func(header, peer string) string { return realm.proxyCertificates.whyIgnored(header, peer) },
		Count:      func(record *refusals.Record) { countByClient(realm, record) },
	}
}

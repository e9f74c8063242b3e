package mtlsauth

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/metrics"
	"github.com/caddymtls/caddy-mtls-auth/internal/reporter"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Verifier refuses certificates that belong to no client of a realm during the TLS
// handshake, before strangers can send HTTP. They learn no reason: a client with an
// expired certificate sees only an alert. Callers without a certificate are up to the
// `mode`. The verifier does not replace `mtls_auth`, because a connection outlives
// the decision that admitted it. Proxies that `forwarded_certificate` trusts by
// `peer_key` may connect.
type Verifier struct {
	// The realm whose clients may connect. Default: `default`.
	Realm string `json:"realm,omitempty"`

	realm *Realm
}

// CaddyModule returns the Caddy module information.
func (Verifier) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.client_auth.verifier.mtls",
		New: func() caddy.Module { return new(Verifier) },
	}
}

// Provision finds the realm.
func (v *Verifier) Provision(ctx caddy.Context) error {
	var err error
	if v.realm, err = findRealm(ctx, cmp.Or(v.Realm, defaultRealm)); err != nil {
		return err
	}
	metrics.AddRefusals(v.realm.name, directiveVerifier, false, validators.Reasons)
	if v.realm.proxyCertificates != nil && len(v.realm.proxyCertificates.from) > 0 {
		v.realm.logger.Warn("the verifier refuses certificates of proxies that are trusted only by 'from'; add their peer_key")
	}
	return nil
}

// UnmarshalCaddyfile reads the verifier inside client_auth. Syntax:
//
//	verifier mtls [<realm>]
func (v *Verifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if err := caddyfileutil.CheckArgs(d, "mtls [<realm>]"); err != nil {
		return err
	}
	if d.NextArg() {
		v.Realm = d.Val()
		if err := syntax.CheckRealmName(v.Realm); err != nil {
			return d.WrapErr(err)
		}
	}
	return nil
}

// VerifyClientCertificate implements caddytls.ClientCertificateVerifier.
func (v *Verifier) VerifyClientCertificate(rawCerts [][]byte, _ [][]*x509.Certificate) error {
	if len(rawCerts) == 0 {
		return nil
	}
	presented := make([]*x509.Certificate, len(rawCerts))
	for i, der := range rawCerts {
		var err error
		if presented[i], err = validators.ParseCertificate(der); err != nil { // Go has parsed it, too
			return v.refuse(refuse(validators.CertificateUnsuitable, "certificate %d of %d: %s", i+1, len(rawCerts), err), nil, nil)
		}
	}
	if v.realm.proxyCertificates.trustsKey(presented[0]) {
		return nil // its own certificate never becomes an identity
	}
	id, refusal := v.realm.authenticate(context.Background(), presented, "")
	if refusal == nil || refusal.Reason == validators.CertificateAmbiguous {
		// a request can still name the client
		return nil
	}
	return v.refuse(refusal, presented, id.Notes)
}

// refuse counts and reports a refusal. The error that it returns goes to the log of
// Caddy's HTTP server, at level DEBUG.
func (v *Verifier) refuse(refusal *validators.Refusal, presented []*x509.Certificate, notes *authn.Notes) error {
	v.realm.metrics.Certificates.Count(refusal.Reason)
	logRefusal(v.realm, nil, reporter.Refused{Directive: directiveVerifier, Message: "client refused in the handshake", Refusal: refusal, Presented: presented, Notes: notes})
	return errors.New(refusedWord)
}

// Interface guards
var (
	_ caddy.Provisioner                  = (*Verifier)(nil)
	_ caddyfile.Unmarshaler              = (*Verifier)(nil)
	_ caddytls.ClientCertificateVerifier = (*Verifier)(nil)
)

package mtlsauth

import (
	"context"
	"crypto/x509"
	"errors"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Verifier refuses certificates that belong to no client of a realm in the TLS
// handshake, so that strangers get no byte of HTTP. They get no reason either:
// a client whose certificate was not renewed in time sees only an alert. It
// does not refuse callers without a certificate, which is the business of the
// `mode`, and it does not replace `mtls_auth`: a connection outlives the
// decision that let it in. Proxies that `forwarded_certificate` knows by
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
	if _, v.realm, err = findRealm(ctx, "verifier mtls", v.Realm); err != nil {
		return err
	}
	if v.realm.proxyCertificates != nil && len(v.realm.proxyCertificates.from) > 0 {
		v.realm.logger.Warn("a verifier sees no addresses, so it refuses the own certificate of proxies that are known by 'from' alone; add their peer_key, or let them connect without one")
	}
	return nil
}

// UnmarshalCaddyfile reads the verifier inside client_auth. Syntax:
//
//	verifier mtls [<realm>]
func (v *Verifier) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if d.NextArg() {
		v.Realm = d.Val()
		if err := checkRealmName(v.Realm); err != nil {
			return d.WrapErr(err)
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("unrecognized subdirective '%s'; 'verifier mtls' has no block", d.Val())
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
		if presented[i], err = x509.ParseCertificate(der); err != nil {
			return errors.New(refusedWord)
		}
	}
	if v.realm.proxyCertificates.trustsKey(presented[0]) {
		return nil // its own certificate is nobody's identity
	}
	_, refusal := v.realm.authenticate(context.Background(), presented, "")
	if refusal == nil || refusal.Reason == validators.CertificateAmbiguous {
		// which of its clients it is can still be said over HTTP
		return nil
	}
	v.realm.metrics.Certificates.Count(refusal.Reason)
	logRefusal(v.realm, nil, refusedRequest{message: "client refused in the handshake", refusal: refusal, presented: presented})
	return errors.New(refusedWord)
}

// Interface guards
var (
	_ caddy.Provisioner                  = (*Verifier)(nil)
	_ caddyfile.Unmarshaler              = (*Verifier)(nil)
	_ caddytls.ClientCertificateVerifier = (*Verifier)(nil)
)

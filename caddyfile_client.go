package mtlsauth

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
)

// parseClient reads one client. Syntax:
//
//	client <client_id> {
//		subject        <dn>
//		san_dns        <name>
//		san_uri        <uri>
//		san_ip         <address>
//		san_email      <address>
//		thumbprint     <hex-or-base64url> [until <time>]
//		public_key     <hex-or-base64url> [until <time>]
//		certificate    <pem-file>
//		jwks           <file-or-https-url>
//		issued_by      <hex-or-base64url>...
//		require_chain
//		shared_credential
//		scopes         <scope>...
//		default_scopes <scope>...
//		resources      <resource>...
//		introspect     <resource>...
//		claim          <name> <value>
//		token_lifetime <duration>
//		disabled
//	}
func parseClient(d *caddyfile.Dispenser) (clients.Record, error) {
	var record clients.Record
	d.Args(&record.ClientID)
	if err := clients.CheckID(record.ClientID); err != nil {
		return record, d.WrapErr(err)
	}
	var scopes, defaults []string
	if err := parseBlock(d, "client option", clientOptions(&record, &scopes, &defaults)); err != nil {
		return record, err
	}
	if !record.HasCredential() {
		return record, d.Errf("client '%s' has no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks", record.ClientID)
	}
	for _, scope := range defaults {
		if !slices.Contains(scopes, scope) {
			return record, d.Errf("client '%s': default scope '%s' is not one of its scopes; add it to them", record.ClientID, scope)
		}
	}
	record.Scope, record.DefaultScope = strings.Join(scopes, " "), strings.Join(defaults, " ")
	return record, nil
}

// clientOptions returns the options of a client's block.
func clientOptions(record *clients.Record, scopes, defaults *[]string) caddyfileutil.Options {
	return caddyfileutil.Options{
		"subject <dn>":                     credential(&record.SubjectDN, clients.CheckSubject),
		"san_dns <name>":                   credential(&record.SANDNS, clients.CheckName(clients.KindSANDNS)),
		"san_uri <uri>":                    credential(&record.SANURI, clients.CheckName(clients.KindSANURI)),
		"san_ip <address>":                 credential(&record.SANIP, clients.CheckName(clients.KindSANIP)),
		"san_email <address>":              credential(&record.SANEmail, clients.CheckName(clients.KindSANEmail)),
		"thumbprint <hash> [until <time>]": pin(&record.Thumbprints, clients.CheckThumbprint),
		"public_key <hash> [until <time>]": pin(&record.PublicKeys, clients.CheckPublicKey),
		"certificate <pem-file>":           credential(&record.CertificateFiles, nil),
		"jwks <file-or-https-url>":         {Parse: func(d *caddyfile.Dispenser) error { return parseJWKS(d, record) }},
		"issued_by <hash>...":              caddyfileutil.List(&record.IssuedBy, clients.CheckIssuedBy),
		"require_chain":                    caddyfileutil.Flag(&record.RequireChain),
		"shared_credential":                caddyfileutil.Flag(&record.SharedCredential),
		"scopes <scope>...":                caddyfileutil.Scopes(scopes),
		"default_scopes <scope>...":        caddyfileutil.Scopes(defaults),
		"resources <resource>...":          caddyfileutil.List(&record.Resources, nil),
		"introspect <resource>...":         caddyfileutil.List(&record.Introspect, nil),
		"claim <name> <value>":             {Parse: func(d *caddyfile.Dispenser) error { return parseClaim(d, record) }},
		"token_lifetime <duration>":        caddyfileutil.Duration(&record.TokenLifetime, checkTokenLifetime),
		"disabled":                         caddyfileutil.Flag(&record.Disabled),
	}
}

// credential reads an option that has one argument and may be given several times.
func credential(list *clients.Strings, check func(string) error) caddyfileutil.Option {
	return caddyfileutil.List(list, check)
}

// pin reads a hash, which may have an end: <hash> [until <time>].
func pin(list *clients.Strings, check func(string) error) caddyfileutil.Option {
	return caddyfileutil.Option{Check: check, Parse: func(d *caddyfile.Dispenser) error {
		option, args := d.Val(), d.RemainingArgs()
		if len(args) > 1 && args[1] != "until" {
			return d.Errf("%s: unexpected '%s'; write '%s <hash>' or '%s <hash> until <time>'", option, args[1], option, option)
		}
		if len(args) == 2 {
			return d.Errf("%s: the time is missing after 'until'; write '%s <hash> until 2027-01-31T12:00:00Z'", option, option)
		}
		return caddyfileutil.AppendValue(d, list, option, strings.Join(args, " "), check)
	}}
}

// parseJWKS reads the location of the client's JWK Set. One is enough, because a
// set can have many keys.
func parseJWKS(d *caddyfile.Dispenser, record *clients.Record) error {
	if record.JWKSURI != "" || record.JWKSFile != "" {
		return d.Errf("duplicate option '%s'; keep one", d.Val())
	}
	var place string
	if err := caddyfileutil.String(&place, nil).Parse(d); err != nil {
		return err
	}
	if !strings.Contains(place, "://") {
		record.JWKSFile = place
		return nil
	}
	record.JWKSURI = place
	if strings.Contains(place, "{") {
		return nil // a placeholder, checked when it is expanded
	}
	if err := clients.CheckJWKSURI(place); err != nil {
		return d.Errf("jwks: %w", err) // the URL may hold a password
	}
	return nil
}

func parseClaim(d *caddyfile.Dispenser, record *clients.Record) error {
	var name, value string
	d.Args(&name, &value)
	if err := checkClaimName(name); err != nil {
		return d.WrapErr(err)
	}
	if value == "" {
		return d.Errf("claim %s is empty; give it a value or remove the line", name)
	}
	if _, twice := record.Claims[name]; twice {
		return d.Errf("duplicate claim '%s'; keep one", name)
	}
	text, err := json.Marshal(value)
	if err != nil {
		return d.WrapErr(err)
	}
	if record.Claims == nil {
		record.Claims = make(map[string]json.RawMessage)
	}
	record.Claims[name] = text
	return nil
}

func checkTokenLifetime(d caddy.Duration) error { return clients.CheckTokenLifetime(time.Duration(d)) }

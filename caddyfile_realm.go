package mtlsauth

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func parseStorage(d *caddyfile.Dispenser) (json.RawMessage, error) {
	if !d.NextArg() {
		return nil, d.ArgErr()
	}
	name := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "caddy.storage."+name)
	if err != nil {
		return nil, err
	}
	if _, ok := module.(caddy.StorageConverter); !ok {
		return nil, d.Errf("storage module '%s' is no storage", name)
	}
	return caddyconfig.JSONModuleObject(module, "module", name, nil), nil
}

// parseScopes reads scopes. A brace is a legal character in them, and no
// placeholder is expanded, so one would silently be taken as it is written.
func parseScopes(d *caddyfile.Dispenser, list *[]string) error {
	first := len(*list)
	if err := parseList(d, list, clients.CheckScope); err != nil {
		return err
	}
	for _, scope := range (*list)[first:] {
		if strings.ContainsAny(scope, "{}") {
			return d.Errf("scope '%s': placeholders are not expanded in scopes; write {$NAME} for an environment variable", scope)
		}
	}
	return nil
}

func checkTokenLifetime(d caddy.Duration) error { return clients.CheckTokenLifetime(time.Duration(d)) }

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
	if !d.AllArgs(&record.ClientID) {
		return record, d.ArgErr()
	}
	if err := clients.CheckID(record.ClientID); err != nil {
		return record, d.WrapErr(err)
	}
	var scopes, defaults []string
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "subject":
			err = parseCredential(d, &record.SubjectDN, clients.CheckSubject)
		case "san_dns":
			err = parseCredential(d, &record.SANDNS, clients.CheckName(clients.KindSANDNS))
		case "san_uri":
			err = parseCredential(d, &record.SANURI, clients.CheckName(clients.KindSANURI))
		case "san_ip":
			err = parseCredential(d, &record.SANIP, clients.CheckName(clients.KindSANIP))
		case "san_email":
			err = parseCredential(d, &record.SANEmail, clients.CheckName(clients.KindSANEmail))
		case "thumbprint":
			err = parsePin(d, &record.Thumbprints, clients.CheckThumbprint)
		case "public_key":
			err = parsePin(d, &record.PublicKeys, clients.CheckPublicKey)
		case "certificate":
			err = parseCredential(d, &record.CertificateFiles, nil)
		case "jwks":
			err = parseJWKS(d, &record)
		case "issued_by":
			err = parseList(d, &record.IssuedBy, clients.CheckIssuedBy)
		case "require_chain":
			err = parseFlag(d, &record.RequireChain)
		case "shared_credential":
			err = parseFlag(d, &record.SharedCredential)
		case "scopes":
			err = parseScopes(d, &scopes)
		case "default_scopes":
			err = parseScopes(d, &defaults)
		case "resources":
			err = parseList(d, &record.Resources, nil)
		case "introspect":
			err = parseList(d, &record.Introspect, nil)
		case "claim":
			err = parseClaim(d, &record)
		case "token_lifetime":
			err = parseDuration(d, &record.TokenLifetime, checkTokenLifetime)
		case "disabled":
			err = parseFlag(d, &record.Disabled)
		default:
			err = d.Errf("unrecognized client option '%s'", word)
		}
		if err != nil {
			return record, err
		}
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

// parseClientsFrom reads a module that has more clients.
func parseClientsFrom(d *caddyfile.Dispenser) (json.RawMessage, error) {
	if !d.NextArg() {
		return nil, d.ArgErr()
	}
	name := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "mtls.clients."+name)
	if err != nil {
		return nil, err
	}
	if _, ok := module.(ClientSource); !ok {
		return nil, d.Errf("clients_from module '%s' is no source of clients", name)
	}
	return caddyconfig.JSONModuleObject(module, "source", name, nil), nil
}

// parseCredential reads a word that has one argument and may stand several times.
func parseCredential(d *caddyfile.Dispenser, list *clients.Strings, check func(string) error) error {
	if d.CountRemainingArgs() != 1 {
		return d.ArgErr()
	}
	return parseList(d, list, check)
}

// parsePin reads a hash that may have an end: <hash> [until <time>].
func parsePin(d *caddyfile.Dispenser, list *clients.Strings, check func(string) error) error {
	word := d.Val()
	if count := d.CountRemainingArgs(); count != 1 && count != 3 {
		return d.ArgErr()
	}
	args := d.RemainingArgs()
	if len(args) == 3 && args[1] != "until" {
		return d.Errf("%s: '%s' is no word here; write '%s <hash> until <time>'", word, args[1], word)
	}
	return appendValue(d, list, word, strings.Join(args, " "), check)
}

// parseJWKS reads where the client's JWK Set is. There is one, for a set has as
// many keys as its owner likes.
func parseJWKS(d *caddyfile.Dispenser, record *clients.Record) error {
	if record.JWKSURI != "" || record.JWKSFile != "" {
		return d.Errf("duplicate option '%s'", d.Val())
	}
	var place string
	if err := parseOnce(d, &place, nil); err != nil {
		return err
	}
	if !strings.Contains(place, "://") {
		record.JWKSFile = place
		return nil
	}
	record.JWKSURI = place
	return checkValue(d, "jwks", place, clients.CheckJWKSURI)
}

func parseClaim(d *caddyfile.Dispenser, record *clients.Record) error {
	var name, value string
	if !d.AllArgs(&name, &value) {
		return d.ArgErr()
	}
	if err := checkClaimName(name); err != nil {
		return d.WrapErr(err)
	}
	if value == "" {
		return d.Errf("claim %s is empty; give it a value or remove the line", name)
	}
	if _, twice := record.Claims[name]; twice {
		return d.Errf("duplicate claim '%s'", name)
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

// UnmarshalCaddyfile reads where revocations are known. Syntax:
//
//	revocation {
//		crl            <file-or-url>...
//		refresh        <duration>
//		ocsp           <url>...
//		on_unavailable refuse|allow
//		deny           <file>
//	}
func (c *Revocation) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "crl":
			err = parseList(d, &c.CRL, func(place string) error {
				if !strings.Contains(place, "://") {
					return nil
				}
				return validators.CheckFetchURL(place)
			})
		case "refresh":
			err = parseDuration(d, &c.Refresh, checkRefresh)
		case "ocsp":
			err = parseList(d, &c.OCSP, validators.CheckFetchURL)
		case "on_unavailable":
			err = parseOnce(d, &c.OnUnavailable, checkOnUnavailable)
		case "deny":
			err = parseOnce(d, &c.Deny, nil)
		default:
			err = d.Errf("unrecognized revocation option '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	if err := c.check(); err != nil {
		return d.WrapErr(fmt.Errorf("revocation: %w", err))
	}
	return nil
}

// UnmarshalCaddyfile reads where TLS may end before Caddy. Syntax:
//
//	forwarded_certificate rfc9440|nginx|haproxy|envoy|aws_alb {
//		from     <cidr>...
//		peer_key <hash>...
//		header   <name>
//	}
func (c *ForwardedCertificate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	err := parseOnce(d, &c.Format, func(format string) error {
		_, err := validators.ParseForwardFormat(format)
		return err
	})
	if err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "from":
			err = parseList(d, &c.From, func(from string) error {
				_, err := parseFrom(from)
				return err
			})
		case "peer_key":
			err = parseList(d, &c.PeerKeys, clients.CheckIssuedBy)
		case "header":
			err = parseOnce(d, &c.Header, checkHeaderName)
		default:
			err = d.Errf("unrecognized forwarded_certificate option '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	if len(c.From)+len(c.PeerKeys) == 0 {
		return d.WrapErr(fmt.Errorf("forwarded_certificate: %w", errAnybodyForwards))
	}
	return nil
}

// UnmarshalCaddyfile reads the issuer of a realm. Syntax:
//
//	issuer <https-url> {
//		token_lifetime    <duration>
//		signing_algorithm <alg>
//		signing_key       <pem-file>
//		verify_key        <pem-or-jwk-file>...
//		rotate_every      <duration>
//		announce_for      <duration>
//		mtls_alias        <https-url>
//		audience          <aud>...
//		resource          <name> {
//			scopes <scope>...
//		}
//		profile           fapi2
//		scope_claim       string|array
//	}
func (i *Issuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := parseOnce(d, &i.URL, tokens.CheckIssuerURL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "token_lifetime":
			err = parseDuration(d, &i.TokenLifetime, checkTokenLifetime)
		case "signing_algorithm":
			err = parseOnce(d, &i.SigningAlgorithm, checkAlgorithm)
		case "signing_key":
			err = parseOnce(d, &i.SigningKey, nil)
		case "verify_key":
			err = parseList(d, &i.VerifyKeys, nil)
		case "rotate_every":
			err = parseDuration(d, &i.RotateEvery, func(every caddy.Duration) error { return tokens.CheckRotateEvery(time.Duration(every)) })
		case "announce_for":
			err = parseDuration(d, &i.AnnounceFor, func(d caddy.Duration) error { return tokens.CheckAnnounceFor(time.Duration(d)) })
		case "mtls_alias":
			err = parseOnce(d, &i.MTLSAlias, tokens.CheckIssuerURL)
		case "audience":
			err = parseList(d, &i.Audience, nil)
		case "resource":
			err = i.parseResource(d)
		case "profile":
			err = parseOnce(d, &i.Profile, checkProfileName)
		case "scope_claim":
			err = parseOnce(d, &i.ScopeClaim, tokens.CheckScopeClaim)
		default:
			err = d.Errf("unrecognized issuer option '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	if err := i.checkRotation(); err != nil {
		return d.WrapErr(fmt.Errorf("issuer: %w", err))
	}
	if i.Profile == profileFAPI2 && i.SigningAlgorithm != "" {
		return checkValue(d, "signing_algorithm", i.SigningAlgorithm, func(name string) error { return checkFAPIAlgorithm(tokens.Algorithm(name)) })
	}
	return nil
}

func checkAlgorithm(name string) error {
	_, err := tokens.ParseAlgorithm(name)
	return err
}

func (i *Issuer) parseResource(d *caddyfile.Dispenser) error {
	var resource Resource
	if !d.AllArgs(&resource.Name) {
		return d.ArgErr()
	}
	if resource.Name == "" {
		return d.Err("a resource has no name; give it the URL of the API")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "scopes":
			if err := parseScopes(d, &resource.Scopes); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized resource option '%s'", word)
		}
	}
	for _, other := range i.Resources {
		if other.Name == resource.Name {
			return d.Errf("resource '%s' is declared twice; merge the two", resource.Name)
		}
		for _, scope := range resource.Scopes {
			if slices.Contains(other.Scopes, scope) {
				return d.Errf("scope '%s' belongs to the resources '%s' and '%s'; remove it from one", scope, other.Name, resource.Name)
			}
		}
	}
	i.Resources = append(i.Resources, resource)
	return nil
}

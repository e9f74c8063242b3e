package mtlsauth

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

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
//		thumbprint     <hex-or-base64url>
//		certificate    <pem-file>
//		issued_by      <hex-or-base64url>...
//		require_chain
//		shared_credential
//		scopes         <scope>...
//		default_scopes <scope>...
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
		case "thumbprint":
			err = parseCredential(d, &record.Thumbprints, clients.CheckThumbprint)
		case "certificate":
			err = parseCredential(d, &record.CertificateFiles, nil)
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
	if len(record.SubjectDN)+len(record.Thumbprints)+len(record.CertificateFiles) == 0 {
		return record, d.Errf("client '%s' has no credential; add a subject, thumbprint or certificate", record.ClientID)
	}
	for _, scope := range defaults {
		if !slices.Contains(scopes, scope) {
			return record, d.Errf("client '%s': default scope '%s' is not one of its scopes; add it to them", record.ClientID, scope)
		}
	}
	record.Scope, record.DefaultScope = strings.Join(scopes, " "), strings.Join(defaults, " ")
	return record, nil
}

// parseCredential reads a word that has one argument and may stand several times.
func parseCredential(d *caddyfile.Dispenser, list *clients.Strings, check func(string) error) error {
	if d.CountRemainingArgs() != 1 {
		return d.ArgErr()
	}
	return parseList(d, list, check)
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

// UnmarshalCaddyfile reads the issuer of a realm. Syntax:
//
//	issuer <https-url> {
//		token_lifetime    <duration>
//		signing_algorithm <alg>
//		signing_key       <pem-file>
//		mtls_alias        <https-url>
//		audience          <aud>...
//		resource          <name> {
//			scopes <scope>...
//		}
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
		case "mtls_alias":
			err = parseOnce(d, &i.MTLSAlias, tokens.CheckIssuerURL)
		case "audience":
			err = parseList(d, &i.Audience, nil)
		case "resource":
			err = i.parseResource(d)
		default:
			err = d.Errf("unrecognized issuer option '%s'", word)
		}
		if err != nil {
			return err
		}
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

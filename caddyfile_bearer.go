package mtlsauth

import (
	"cmp"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// parseBearerHandler reads the mtls_bearer directive. Syntax:
//
//	mtls_bearer [<matcher>] {
//		realm         <name>
//		trust_issuer  <https-url> {
//			jwks_uri      <https-url>
//			audience      <aud>...
//			id_prefix     <text>
//			algorithms    <alg>...
//			type          at+jwt|JWT
//			id_claim      <name>
//			allow_unbound
//			trust_pool    <module> ...
//		}
//		audience      <aud>...
//		require_scope <scope>...
//		header_up     <name> <value>
//		keep_header   <name>...
//	}
func parseBearerHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(BearerHandler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if !handler.namesRealm() {
		return handler, nil
	}
	realm, err := declaredRealm(h, handler.Realm)
	if err != nil {
		return nil, err
	}
	if realm.Issuer == nil && len(handler.TrustIssuers) == 0 {
		return nil, h.Errf("realm '%s' has no issuer, so there are no tokens of it; add 'issuer <https-url>' to it, or trust_issuer here", cmp.Or(handler.Realm, defaultRealm))
	}
	if issuer := realm.Issuer; issuer != nil && len(issuer.Resources) > 0 && len(issuer.Audience)+len(handler.Audience) == 0 {
		return nil, h.WrapErr(errSeveralAPIs(cmp.Or(handler.Realm, defaultRealm)))
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the mtls_bearer directive; parseBearerHandler has the
// syntax.
func (h *BearerHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "realm":
			err = parseOnce(d, &h.Realm, checkRealmName)
		case "trust_issuer":
			trusted := new(TrustedIssuer)
			err = trusted.UnmarshalCaddyfile(d)
			h.TrustIssuers = append(h.TrustIssuers, trusted)
		case "audience":
			err = parseList(d, &h.Audience, nil)
		case "require_scope":
			err = parseScopes(d, &h.RequireScope)
		case "header_up":
			err = parseHeaderUp(d, &h.HeaderUp)
		case "keep_header":
			err = parseList(d, &h.KeepHeader, func(name string) error { return headerguard.CheckKept(name, nil) })
		default:
			err = d.Errf("unrecognized subdirective '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// UnmarshalCaddyfile reads the block of another authorization server.
func (i *TrustedIssuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := parseOnce(d, &i.Issuer, tokens.CheckIssuerURL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch word := d.Val(); word {
		case "jwks_uri":
			err = parseOnce(d, &i.JWKSURI, tokens.CheckJWKSURI)
		case "audience":
			err = parseList(d, &i.Audience, nil)
		case "id_prefix":
			err = parseOnce(d, &i.IDPrefix, checkIDPrefix)
		case "algorithms":
			err = parseList(d, &i.Algorithms, func(name string) error {
				_, err := keyring.ParseAlgorithm(name)
				return err
			})
		case "type":
			err = parseOnce(d, &i.Type, tokens.CheckTokenType)
		case "id_claim":
			err = parseOnce(d, &i.IDClaim, nil)
		case "allow_unbound":
			err = parseFlag(d, &i.AllowUnbound)
		case "trust_pool":
			if i.TrustPoolRaw != nil {
				return d.Errf("duplicate option '%s'", word)
			}
			i.TrustPoolRaw, err = parseTrustPool(d)
		default:
			err = d.Errf("unrecognized trust_issuer option '%s'", word)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*BearerHandler)(nil)
	_ caddyfile.Unmarshaler = (*TrustedIssuer)(nil)
)

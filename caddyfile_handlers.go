package mtlsauth

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// parseHandler reads the mtls_auth directive. Syntax:
//
//	mtls_auth [<matcher>] {
//		realm         <name>
//		allow         <client_id>...
//		require_scope <scope>...
//		optional
//		report_only
//		header_up     <name> <value>
//		keep_header   <name>...
//		forward_certificate
//		forward_token [<header>] {
//			...
//		}
//	}
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(Handler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	realm, err := declaredRealm(h, handler.Realm)
	if err != nil {
		return nil, err
	}
	if handler.ForwardToken != nil && realm.Issuer == nil {
		return nil, h.Errf("forward_token: realm '%s' has no issuer to sign it; add 'issuer <https-url>' to the realm", cmp.Or(handler.Realm, defaultRealm))
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the mtls_auth directive; parseHandler has the syntax.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "realm":
			err = caddyfileutil.ParseString(d, &h.Realm, checkRealmName)
		case "allow":
			err = caddyfileutil.ParseList(d, &h.Allow, checkAllow)
		case "require_scope":
			err = caddyfileutil.ParseScopes(d, &h.RequireScope)
		case "optional":
			err = caddyfileutil.ParseFlag(d, &h.Optional)
		case "report_only":
			err = caddyfileutil.ParseFlag(d, &h.ReportOnly)
		case "header_up":
			err = parseHeaderUp(d, &h.HeaderUp)
		case "keep_header":
			err = caddyfileutil.ParseList(d, &h.KeepHeader, func(name string) error { return headerguard.CheckKept(name, nil) })
		case "forward_certificate":
			err = caddyfileutil.ParseFlag(d, &h.ForwardCertificate)
		case "forward_token":
			if h.ForwardToken != nil {
				return d.Errf("duplicate option '%s'", option)
			}
			h.ForwardToken = new(ForwardToken)
			err = h.ForwardToken.UnmarshalCaddyfile(d)
		default:
			err = d.Errf("unrecognized subdirective '%s'", option)
		}
		if err != nil {
			return err
		}
	}
	if err := h.Validate(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// UnmarshalCaddyfile reads the token for the upstream. Syntax:
//
//	forward_token [<header>] {
//		audience <aud>
//		scopes   <scope>...
//		lifetime <duration>
//	}
func (f *ForwardToken) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		f.Header = d.Val()
		if err := headerguard.CheckName(f.Header); err != nil {
			return d.WrapErr(fmt.Errorf("forward_token: %w", err))
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "audience":
			err = caddyfileutil.ParseString(d, &f.Audience, nil)
		case "scopes":
			err = caddyfileutil.ParseScopes(d, &f.Scopes)
		case "lifetime":
			err = caddyfileutil.ParseDuration(d, &f.Lifetime, checkGatewayLifetime)
		default:
			err = d.Errf("unrecognized forward_token option '%s'", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseHeaderUp reads a header to set. The option may be given several times.
func parseHeaderUp(d *caddyfile.Dispenser, headers *map[string]string) error {
	var name, value string
	if !d.Args(&name, &value) || d.NextArg() {
		return d.ArgErr()
	}
	if err := headerguard.CheckName(name); err != nil {
		return d.WrapErr(err)
	}
	if value == "" {
		return d.Errf("header_up %s has no value; remove the line or name a placeholder such as %s", name, clientIDPlaceholder)
	}
	for other := range *headers {
		if strings.EqualFold(other, name) {
			return d.Errf("duplicate header_up '%s'", name)
		}
	}
	if *headers == nil {
		*headers = make(map[string]string)
	}
	(*headers)[name] = value
	return nil
}

// parseIssuerHandler reads the mtls_issuer directive. Syntax:
//
//	mtls_issuer [<matcher>] {
//		realm <name>
//	}
func parseIssuerHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(IssuerHandler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	realm, err := declaredRealm(h, handler.Realm)
	if err != nil {
		return nil, err
	}
	if realm.Issuer == nil {
		return nil, h.Errf("realm '%s' has no issuer; add 'issuer <https-url>' to it", cmp.Or(handler.Realm, defaultRealm))
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the mtls_issuer directive; parseIssuerHandler has
// the syntax.
func (h *IssuerHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "realm":
			if err := caddyfileutil.ParseString(d, &h.Realm, checkRealmName); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized subdirective '%s'", option)
		}
	}
	return nil
}

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
		return nil, h.Errf("realm '%s' has no issuer, so it issues no tokens; add 'issuer <https-url>' to it, or trust_issuer here", cmp.Or(handler.Realm, defaultRealm))
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
		switch option := d.Val(); option {
		case "realm":
			err = caddyfileutil.ParseString(d, &h.Realm, checkRealmName)
		case "trust_issuer":
			trusted := new(TrustedIssuer)
			err = trusted.UnmarshalCaddyfile(d)
			h.TrustIssuers = append(h.TrustIssuers, trusted)
		case "audience":
			err = caddyfileutil.ParseList(d, &h.Audience, nil)
		case "require_scope":
			err = caddyfileutil.ParseScopes(d, &h.RequireScope)
		case "header_up":
			err = parseHeaderUp(d, &h.HeaderUp)
		case "keep_header":
			err = caddyfileutil.ParseList(d, &h.KeepHeader, func(name string) error { return headerguard.CheckKept(name, nil) })
		default:
			err = d.Errf("unrecognized subdirective '%s'", option)
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
	if err := caddyfileutil.ParseString(d, &i.Issuer, tokens.CheckIssuerURL); err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "jwks_uri":
			err = caddyfileutil.ParseString(d, &i.JWKSURI, tokens.CheckJWKSURI)
		case "audience":
			err = caddyfileutil.ParseList(d, &i.Audience, nil)
		case "id_prefix":
			err = caddyfileutil.ParseString(d, &i.IDPrefix, checkIDPrefix)
		case "algorithms":
			err = caddyfileutil.ParseList(d, &i.Algorithms, func(name string) error {
				_, err := keyring.ParseAlgorithm(name)
				return err
			})
		case "type":
			err = caddyfileutil.ParseString(d, &i.Type, tokens.CheckTokenType)
		case "id_claim":
			err = caddyfileutil.ParseString(d, &i.IDClaim, nil)
		case "allow_unbound":
			err = caddyfileutil.ParseFlag(d, &i.AllowUnbound)
		case "trust_pool":
			if i.TrustPoolRaw != nil {
				return d.Errf("duplicate option '%s'", option)
			}
			i.TrustPoolRaw, err = parseTrustPool(d)
		default:
			err = d.Errf("unrecognized trust_issuer option '%s'", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*ForwardToken)(nil)
	_ caddyfile.Unmarshaler = (*IssuerHandler)(nil)
	_ caddyfile.Unmarshaler = (*BearerHandler)(nil)
	_ caddyfile.Unmarshaler = (*TrustedIssuer)(nil)
)

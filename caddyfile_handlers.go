package mtlsauth

import (
	"cmp"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
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
		switch word := d.Val(); word {
		case "realm":
			err = parseOnce(d, &h.Realm, checkRealmName)
		case "allow":
			err = parseList(d, &h.Allow, checkAllow)
		case "require_scope":
			err = parseScopes(d, &h.RequireScope)
		case "optional":
			err = parseFlag(d, &h.Optional)
		case "report_only":
			err = parseFlag(d, &h.ReportOnly)
		case "header_up":
			err = parseHeaderUp(d, &h.HeaderUp)
		case "keep_header":
			err = parseList(d, &h.KeepHeader, func(name string) error { return headerguard.CheckKept(name, nil) })
		case "forward_certificate":
			err = parseFlag(d, &h.ForwardCertificate)
		case "forward_token":
			if h.ForwardToken != nil {
				return d.Errf("duplicate option '%s'", word)
			}
			h.ForwardToken = new(ForwardToken)
			err = h.ForwardToken.UnmarshalCaddyfile(d)
		default:
			err = d.Errf("unrecognized subdirective '%s'", word)
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

// parseHeaderUp reads a header to set, of which there may be several.
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
		switch word := d.Val(); word {
		case "realm":
			if err := parseOnce(d, &h.Realm, checkRealmName); err != nil {
				return err
			}
		default:
			return d.Errf("unrecognized subdirective '%s'", word)
		}
	}
	return nil
}

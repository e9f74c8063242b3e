package mtlsauth

import (
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/allowlist"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
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
//		forward_certificate [<format>...] {
//			header <name>
//		}
//		forward_token [<header>] {
//			...
//		}
//	}
func parseHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return parseDirective(h, new(Handler))
}

// UnmarshalCaddyfile reads the mtls_auth directive; parseHandler has the syntax.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := checkDirectiveArgs(d); err != nil {
		return err
	}
	if err := parseBlock(d, "subdirective", h.options()); err != nil {
		return err
	}
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// options returns the options of the block.
func (h *Handler) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"realm <name>":                        caddyfileutil.String(&h.Realm, syntax.CheckRealmName),
		"allow <client_id>...":                caddyfileutil.List(&h.Allow, allowlist.Check),
		"require_scope <scope>...":            caddyfileutil.Scopes(&h.RequireScope),
		"optional":                            caddyfileutil.Flag(&h.Optional),
		"report_only":                         caddyfileutil.Flag(&h.ReportOnly),
		"header_up <name> <value>":            headerUpOption(&h.HeaderUp),
		"keep_header <name>...":               keepHeaderOption(&h.KeepHeader),
		"forward_certificate [<format>...] {": caddyfileutil.Block(&h.ForwardCertificate, "name all formats in one line"),
		"forward_token [<header>] {":          caddyfileutil.Block(&h.ForwardToken, "a directive forwards one token"),
	}
}

// UnmarshalCaddyfile reads how the upstream gets the certificate. Syntax:
//
//	forward_certificate [<format>...] {
//		header <name>
//	}
func (f *ForwardCertificate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	formats := caddyfileutil.List(&f.Formats, func(format string) error {
		_, err := forwarded.ParseFormat(format)
		return err
	})
	if err := formats.Parse(d); err != nil {
		return err
	}
	if err := parseBlock(d, "forward_certificate option", f.options()); err != nil {
		return err
	}
	if _, err := f.compile(); err != nil {
		return d.WrapErr(fmt.Errorf("forward_certificate: %w", err))
	}
	return nil
}

// options returns the options of the block.
func (f *ForwardCertificate) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"header <name>": caddyfileutil.String(&f.Header, headerguard.CheckName),
	}
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
	return parseBlock(d, "forward_token option", f.options())
}

// options returns the options of the block.
func (f *ForwardToken) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"audience <aud>":      caddyfileutil.String(&f.Audience, nil),
		"scopes <scope>...":   caddyfileutil.Scopes(&f.Scopes),
		"lifetime <duration>": caddyfileutil.Duration(&f.Lifetime, checkGatewayLifetime),
	}
}

// headerUpOption reads a header to set. The option may be given several times.
func headerUpOption(headers *map[string]string) caddyfileutil.Option {
	return caddyfileutil.Option{Parse: func(d *caddyfile.Dispenser) error {
		var name, value string
		d.Args(&name, &value)
		if plain := strings.TrimLeft(name, "+-"); plain != name {
			return d.Errf("header_up %s: it always replaces the caller's header; write header_up %s", name, plain)
		}
		if err := headerguard.CheckName(name); err != nil {
			return d.WrapErr(err)
		}
		if value == "" {
			return d.Errf("header_up %s has no value; remove the line or name a placeholder such as %s", name, clientIDPlaceholder)
		}
		if err := checkPlaceholders(value); err != nil {
			return d.WrapErr(fmt.Errorf("header_up %s: %w", name, err))
		}
		for other := range *headers {
			if strings.EqualFold(other, name) {
				return d.Errf("duplicate header_up '%s'; keep one", name)
			}
		}
		if *headers == nil {
			*headers = make(map[string]string)
		}
		(*headers)[name] = value
		return nil
	}}
}

// keepHeaderOption reads headers to keep.
func keepHeaderOption(names *[]string) caddyfileutil.Option {
	return caddyfileutil.List(names, func(name string) error { return headerguard.CheckKept(name, nil) })
}

// parseIssuerHandler reads the mtls_issuer directive. Syntax:
//
//	mtls_issuer [<matcher>] {
//		realm <name>
//	}
func parseIssuerHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	return parseDirective(h, new(IssuerHandler))
}

// UnmarshalCaddyfile reads the mtls_issuer directive; parseIssuerHandler has
// the syntax.
func (h *IssuerHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := checkDirectiveArgs(d); err != nil {
		return err
	}
	return parseBlock(d, "subdirective", h.options())
}

// options returns the options of the block.
func (h *IssuerHandler) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"realm <name>": caddyfileutil.String(&h.Realm, syntax.CheckRealmName),
	}
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
	return parseDirective(h, new(BearerHandler))
}

// UnmarshalCaddyfile reads the mtls_bearer directive; parseBearerHandler has the
// syntax.
func (h *BearerHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if err := checkDirectiveArgs(d); err != nil {
		return err
	}
	if err := parseBlock(d, "subdirective", h.options()); err != nil {
		return err
	}
	if err := h.check(); err != nil {
		return d.WrapErr(err)
	}
	return nil
}

// options returns the options of the block.
func (h *BearerHandler) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"realm <name>": caddyfileutil.String(&h.Realm, syntax.CheckRealmName),
		"trust_issuer <https-url> {": {Parse: func(d *caddyfile.Dispenser) error {
			trusted := new(TrustedIssuer)
			h.TrustIssuers = append(h.TrustIssuers, trusted)
			return trusted.UnmarshalCaddyfile(d)
		}},
		"audience <aud>...":        caddyfileutil.List(&h.Audience, nil),
		"require_scope <scope>...": caddyfileutil.Scopes(&h.RequireScope),
		"header_up <name> <value>": headerUpOption(&h.HeaderUp),
		"keep_header <name>...":    keepHeaderOption(&h.KeepHeader),
	}
}

// UnmarshalCaddyfile reads the block of another authorization server.
func (i *TrustedIssuer) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := caddyfileutil.String(&i.Issuer, tokens.CheckIssuerURL).Parse(d); err != nil {
		return err
	}
	return parseBlock(d, "trust_issuer option", i.options())
}

// options returns the options of the block.
func (i *TrustedIssuer) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"jwks_uri <https-url>":      caddyfileutil.String(&i.JWKSURI, tokens.CheckJWKSURI),
		"audience <aud>...":         caddyfileutil.List(&i.Audience, nil),
		"id_prefix <text>":          caddyfileutil.String(&i.IDPrefix, checkIDPrefix),
		"algorithms <alg>...":       caddyfileutil.List(&i.Algorithms, checkAlgorithm),
		"type at+jwt|JWT":           caddyfileutil.String(&i.Type, tokens.CheckTokenType),
		"id_claim <name>":           caddyfileutil.String(&i.IDClaim, nil),
		"allow_unbound":             caddyfileutil.Flag(&i.AllowUnbound),
		"trust_pool <module> ... {": trustPoolOption(&i.TrustPoolRaw),
	}
}

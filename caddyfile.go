package mtlsauth

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// parseGlobalOption reads the mtls option, which may be repeated. Blocks of one
// realm are merged. Syntax:
//
//	mtls [<realm>] {
//		trust_pool         <module> ...
//		trust_pool_refresh <duration>
//		shadow_trust_pool  <module> ...
//		storage            <module> ...
//		client <client_id> {
//			...
//		}
//		clients_from <source> ... {
//			...
//		}
//		fetch {
//			...
//		}
//		revocation {
//			...
//		}
//		forwarded_certificate <format> {
//			...
//		}
//		issuer <https-url> {
//			...
//		}
//	}
func parseGlobalOption(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if previous, ok := existing.(httpcaddyfile.App); ok {
		if err := json.Unmarshal(previous.Value, app); err != nil {
			return nil, d.WrapErr(err)
		}
	}
	if app.Realms == nil {
		app.Realms = make(map[string]*Realm)
	}
	for d.Next() {
		if err := caddyfileutil.CheckArgs(d, "mtls [<realm>] {"); err != nil {
			return nil, err
		}
		name := defaultRealm
		if d.NextArg() {
			name = d.Val()
			if err := syntax.CheckRealmName(name); err != nil {
				return nil, d.WrapErr(err)
			}
		}
		realm, ok := app.Realms[name]
		if !ok {
			realm = new(Realm)
			app.Realms[name] = realm
		}
		if err := realm.UnmarshalCaddyfile(d); err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: appID, Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile reads a block of a realm, after its name, and adds it to the
// realm.
func (realm *Realm) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	return parseBlock(d, "mtls option", realm.options())
}

// options returns the options of the block.
func (realm *Realm) options() caddyfileutil.Options {
	declared := make(map[string]struct{}, len(realm.Clients))
	for _, client := range realm.Clients {
		declared[client.ClientID] = struct{}{}
	}
	return caddyfileutil.Options{
		"trust_pool <module> ... {":        trustPoolOption(&realm.TrustPoolRaw),
		"trust_pool_refresh <duration>":    caddyfileutil.Duration(&realm.TrustPoolRefresh, trustpool.CheckRefresh),
		"shadow_trust_pool <module> ... {": trustPoolOption(&realm.ShadowTrustPoolRaw),
		"storage <module> ... {":           caddyfileutil.Module[caddy.StorageConverter](&realm.StorageRaw, "caddy.storage", "module", "storage", "a realm has one storage"),
		"client <client_id> {": {Parse: func(d *caddyfile.Dispenser) error {
			record, err := parseClient(d)
			if err != nil {
				return err
			}
			if _, twice := declared[record.ClientID]; twice {
				return d.Errf("client '%s' is declared twice; give each client one block", record.ClientID)
			}
			declared[record.ClientID] = struct{}{}
			realm.Clients = append(realm.Clients, record)
			return nil
		}},
		"clients_from <source> ... {": {Parse: func(d *caddyfile.Dispenser) error {
			raw, err := caddyfileutil.ParseModule[clients.SourceModule](d, "mtls.clients", "source", "source of clients")
			realm.ClientsFromRaw = append(realm.ClientsFromRaw, raw)
			return err
		}},
		"fetch {":                          caddyfileutil.Block(&realm.Fetch, "a realm has one; name all its CAs there"),
		"revocation {":                     caddyfileutil.Block(&realm.Revocation, "name all sources in one block"),
		"forwarded_certificate <format> {": caddyfileutil.Block(&realm.ForwardedCertificate, "a realm takes certificates from one kind of proxy"),
		"refusals {":                       caddyfileutil.Block(&realm.Refusals, "a realm has one; name all options there"),
		"issuer <https-url> {":             caddyfileutil.Block(&realm.Issuer, "declare another realm for another issuer"),
		"certificate_expiring {":           caddyfileutil.Block(&realm.CertificateExpiring, "keep one"),
	}
}

// trustPoolOption reads a module that loads CA certificates.
func trustPoolOption(raw *json.RawMessage) caddyfileutil.Option {
	return caddyfileutil.Module[caddytls.CA](raw, "tls.ca_pool.source", "provider", "pool of CA certificates", "use 'combined' for several sources")
}

// UnmarshalCaddyfile reads the sources of certificate revocations. Syntax:
//
//	revocation {
//		crl            <file-or-url>...
//		refresh        <duration>
//		ocsp           <url>...
//		on_unavailable refuse|allow
//		exempt         <hash>...
//		deny           <file>
//	}
func (c *Revocation) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := parseBlock(d, "revocation option", c.options()); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return d.WrapErr(fmt.Errorf("revocation: %w", err))
	}
	return nil
}

// options returns the options of the block.
func (c *Revocation) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"crl <file-or-url>...": caddyfileutil.List(&c.CRL, func(place string) error {
			if !strings.Contains(place, "://") {
				return nil
			}
			return source.CheckURL(place)
		}),
		"refresh <duration>":          caddyfileutil.Duration(&c.Refresh, checkRefresh),
		"ocsp <url>...":               caddyfileutil.List(&c.OCSP, source.CheckURL),
		"on_unavailable refuse|allow": caddyfileutil.String(&c.OnUnavailable, checkOnUnavailable),
		"exempt <hash>...":            caddyfileutil.List(&c.Exempt, checkExempt),
		"deny <file>":                 caddyfileutil.String(&c.Deny, nil),
	}
}

// UnmarshalCaddyfile reads which proxies may terminate TLS in front of Caddy.
// Syntax:
//
//	forwarded_certificate rfc9440|nginx|haproxy|envoy|aws_alb|traefik {
//		from     <cidr>...
//		peer_key <hash>...
//		header   <name>
//	}
func (c *ForwardedCertificate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	format := caddyfileutil.String(&c.Format, func(format string) error {
		_, err := forwarded.ParseFormat(format)
		return err
	})
	if err := format.Parse(d); err != nil {
		return err
	}
	if err := parseBlock(d, "forwarded_certificate option", c.options()); err != nil {
		return err
	}
	if len(c.From)+len(c.PeerKeys) == 0 {
		return d.WrapErr(fmt.Errorf("forwarded_certificate: %w", errNoTrustedProxies))
	}
	return nil
}

// options returns the options of the block.
func (c *ForwardedCertificate) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"from <cidr>...": caddyfileutil.List(&c.From, func(from string) error {
			_, err := parseFrom(from)
			return err
		}),
		"peer_key <hash>...": caddyfileutil.List(&c.PeerKeys, clients.CheckIssuedBy),
		"header <name>":      caddyfileutil.String(&c.Header, headerguard.CheckName),
	}
}

// directive is a handler that refers to a realm.
type directive interface {
	caddyfile.Unmarshaler
	caddyhttp.MiddlewareHandler
	// realmName returns the name of the realm, or "" if the handler needs none.
	realmName() string
	// checkRealm returns why the handler cannot use the realm.
	checkRealm(*Realm) error
}

// checkDirectiveArgs refuses arguments of a directive after its matcher.
func checkDirectiveArgs(d *caddyfile.Dispenser) error {
	directive := d.Val()
	switch {
	case !d.NextArg():
		return nil
	case syntax.CheckRealmName(d.Val()) == nil:
		return d.Errf("%s: unexpected '%s'; name a realm in the block, as in '%s { realm %s }'", directive, d.Val(), directive, d.Val())
	}
	return d.Errf("%s: unexpected '%s'; it takes a matcher, such as /path or @name, and a block", directive, d.Val())
}

// parseDirective reads a directive, and checks with file and line whether its realm
// suits it.
func parseDirective(h httpcaddyfile.Helper, handler directive) (caddyhttp.MiddlewareHandler, error) {
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	name := handler.realmName()
	if name == "" {
		return handler, nil
	}
	option, ok := h.Option("mtls").(httpcaddyfile.App)
	if !ok {
		return nil, h.WrapErr(errNoRealmDeclared)
	}
	var app App
	if err := json.Unmarshal(option.Value, &app); err != nil {
		return nil, h.WrapErr(err)
	}
	realm, err := app.realm(name)
	if err != nil {
		return nil, h.WrapErr(err)
	}
	realm.name = name
	if err := handler.checkRealm(realm); err != nil {
		return nil, h.WrapErr(err)
	}
	return handler, nil
}

// parseBlock reads a block of options, as [caddyfileutil.ParseBlock] does.
func parseBlock(d *caddyfile.Dispenser, kind string, options caddyfileutil.Options) error {
	return caddyfileutil.ParseBlock(d, kind, options, allBlocks)
}

// allBlocks returns the options of all blocks, for the error about a word in the wrong
// one.
func allBlocks() []caddyfileutil.Named {
	return []caddyfileutil.Named{
		{Block: "mtls", Options: new(Realm).options()},
		{Block: "client", Options: clientOptions(new(clients.Record), new([]string), new([]string))},
		{Block: "fetch", Options: new(FetchConfig).options()},
		{Block: "revocation", Options: new(Revocation).options()},
		{Block: "forwarded_certificate", Options: new(ForwardedCertificate).options()},
		{Block: "refusals", Options: new(RefusalsConfig).options()},
		{Block: "certificate_expiring", Options: new(CertificateExpiring).options()},
		{Block: "issuer", Options: new(IssuerConfig).options()},
		{Block: "resource", Options: resourceOptions(new(tokens.Resource))},
		{Block: "mtls_auth", Options: new(Handler).options()},
		{Block: "forward_certificate", Options: new(ForwardCertificate).options()},
		{Block: "forward_token", Options: new(ForwardToken).options()},
		{Block: "mtls_issuer", Options: new(IssuerHandler).options()},
		{Block: "mtls_bearer", Options: new(BearerHandler).options()},
		{Block: "trust_issuer", Options: new(TrustedIssuer).options()},
	}
}

// Interface guards
var _ caddyfile.Unmarshaler = (*Realm)(nil)

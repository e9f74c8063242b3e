package mtlsauth

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
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
//		clients_from <source> ...
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
		name := defaultRealm
		if d.NextArg() {
			name = d.Val()
			if err := checkRealmName(name); err != nil {
				return nil, d.WrapErr(err)
			}
		}
		if d.NextArg() {
			return nil, d.ArgErr()
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
	declared := make(map[string]struct{}, len(realm.Clients))
	for _, client := range realm.Clients {
		declared[client.ClientID] = struct{}{}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch option := d.Val(); option {
		case "trust_pool":
			if realm.TrustPoolRaw != nil {
				return d.Errf("duplicate mtls option '%s'; use 'trust_pool combined' for several sources", option)
			}
			realm.TrustPoolRaw, err = parseTrustPool(d)
		case "trust_pool_refresh":
			err = caddyfileutil.ParseDuration(d, &realm.TrustPoolRefresh, trustpool.CheckRefresh)
		case "shadow_trust_pool":
			if realm.ShadowTrustPoolRaw != nil {
				return d.Errf("duplicate mtls option '%s'; use 'shadow_trust_pool combined' for several sources", option)
			}
			realm.ShadowTrustPoolRaw, err = parseTrustPool(d)
		case "storage":
			if realm.StorageRaw != nil {
				return d.Errf("duplicate mtls option '%s'; a realm has one storage", option)
			}
			realm.StorageRaw, err = caddyfileutil.ParseModule[caddy.StorageConverter](d, "caddy.storage", "module", "storage")
		case "client":
			var record clients.Record
			if record, err = parseClient(d); err != nil {
				return err
			}
			if _, twice := declared[record.ClientID]; twice {
				return d.Errf("client '%s' is declared twice; give each client one block", record.ClientID)
			}
			declared[record.ClientID] = struct{}{}
			realm.Clients = append(realm.Clients, record)
		case "clients_from":
			var raw json.RawMessage
			raw, err = caddyfileutil.ParseModule[ClientSource](d, "mtls.clients", "source", "source of clients")
			realm.ClientsFromRaw = append(realm.ClientsFromRaw, raw)
		case "revocation":
			if realm.Revocation != nil {
				return d.Errf("duplicate mtls option '%s'; name all sources in one block", option)
			}
			realm.Revocation = new(Revocation)
			err = realm.Revocation.UnmarshalCaddyfile(d)
		case "forwarded_certificate":
			if realm.ForwardedCertificate != nil {
				return d.Errf("duplicate mtls option '%s'; a realm takes certificates from one kind of proxy", option)
			}
			realm.ForwardedCertificate = new(ForwardedCertificate)
			err = realm.ForwardedCertificate.UnmarshalCaddyfile(d)
		case "issuer":
			if realm.Issuer != nil {
				return d.Errf("duplicate mtls option '%s'; declare another realm for another issuer", option)
			}
			realm.Issuer = new(IssuerConfig)
			err = realm.Issuer.UnmarshalCaddyfile(d)
		default:
			err = d.Errf("unrecognized mtls option '%s'", option)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func parseTrustPool(d *caddyfile.Dispenser) (json.RawMessage, error) {
	return caddyfileutil.ParseModule[caddytls.CA](d, "tls.ca_pool.source", "provider", "pool of CA certificates")
}

// UnmarshalCaddyfile reads the sources of certificate revocations. Syntax:
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
		switch option := d.Val(); option {
		case "crl":
			err = caddyfileutil.ParseList(d, &c.CRL, func(place string) error {
				if !strings.Contains(place, "://") {
					return nil
				}
				return source.CheckURL(place)
			})
		case "refresh":
			err = caddyfileutil.ParseDuration(d, &c.Refresh, checkRefresh)
		case "ocsp":
			err = caddyfileutil.ParseList(d, &c.OCSP, source.CheckURL)
		case "on_unavailable":
			err = caddyfileutil.ParseString(d, &c.OnUnavailable, checkOnUnavailable)
		case "deny":
			err = caddyfileutil.ParseString(d, &c.Deny, nil)
		default:
			err = d.Errf("unrecognized revocation option '%s'", option)
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

// UnmarshalCaddyfile reads which proxies may terminate TLS in front of Caddy.
// Syntax:
//
//	forwarded_certificate rfc9440|nginx|haproxy|envoy|aws_alb {
//		from     <cidr>...
//		peer_key <hash>...
//		header   <name>
//	}
func (c *ForwardedCertificate) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	err := caddyfileutil.ParseString(d, &c.Format, func(format string) error {
		_, err := validators.ParseForwardFormat(format)
		return err
	})
	if err != nil {
		return err
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch option := d.Val(); option {
		case "from":
			err = caddyfileutil.ParseList(d, &c.From, func(from string) error {
				_, err := parseFrom(from)
				return err
			})
		case "peer_key":
			err = caddyfileutil.ParseList(d, &c.PeerKeys, clients.CheckIssuedBy)
		case "header":
			err = caddyfileutil.ParseString(d, &c.Header, headerguard.CheckName)
		default:
			err = d.Errf("unrecognized forwarded_certificate option '%s'", option)
		}
		if err != nil {
			return err
		}
	}
	if len(c.From)+len(c.PeerKeys) == 0 {
		return d.WrapErr(fmt.Errorf("forwarded_certificate: %w", errNoTrustedProxies))
	}
	return nil
}

// declaredRealm returns the realm that a directive refers to. It reports an
// unknown realm with file and line.
func declaredRealm(h httpcaddyfile.Helper, name string) (*Realm, error) {
	option, ok := h.Option("mtls").(httpcaddyfile.App)
	if !ok {
		return nil, h.Err("no realm is declared; add 'mtls { … }' to the global options")
	}
	var app App
	if err := json.Unmarshal(option.Value, &app); err != nil {
		return nil, h.WrapErr(err)
	}
	if name == "" {
		name = defaultRealm
	}
	realm, ok := app.Realms[name]
	if !ok {
		return nil, h.Errf("unknown realm '%s'; declare it with 'mtls %s { … }' in the global options", name, name)
	}
	return realm, nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*IssuerHandler)(nil)
	_ caddyfile.Unmarshaler = (*Realm)(nil)
	_ caddyfile.Unmarshaler = (*IssuerConfig)(nil)
)

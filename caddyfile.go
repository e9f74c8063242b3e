package mtlsauth

import (
	"encoding/json"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
)

// parseGlobalOption reads the mtls option. It may be repeated: blocks of one
// realm are merged, blocks of different realms stand side by side. Syntax:
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

// UnmarshalCaddyfile reads the block of a realm, adding to what the realm has.
// The name of the realm has been read.
func (realm *Realm) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	declared := make(map[string]struct{}, len(realm.Clients))
	for _, client := range realm.Clients {
		declared[client.ClientID] = struct{}{}
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch word := d.Val(); word {
		case "trust_pool":
			if realm.TrustPoolRaw != nil {
				return d.Errf("duplicate mtls option '%s'; a realm has one trust pool, use 'trust_pool combined' for several sources", word)
			}
			raw, err := parseTrustPool(d)
			if err != nil {
				return err
			}
			realm.TrustPoolRaw = raw
		case "trust_pool_refresh":
			if err := parseDuration(d, &realm.TrustPoolRefresh, trustpool.CheckRefresh); err != nil {
				return err
			}
		case "shadow_trust_pool":
			if realm.ShadowTrustPoolRaw != nil {
				return d.Errf("duplicate mtls option '%s'; a realm has one, use 'shadow_trust_pool combined' for several sources", word)
			}
			raw, err := parseTrustPool(d)
			if err != nil {
				return err
			}
			realm.ShadowTrustPoolRaw = raw
		case "storage":
			if realm.StorageRaw != nil {
				return d.Errf("duplicate mtls option '%s'; a realm has one storage", word)
			}
			raw, err := parseStorage(d)
			if err != nil {
				return err
			}
			realm.StorageRaw = raw
		case "client":
			record, err := parseClient(d)
			if err != nil {
				return err
			}
			if _, twice := declared[record.ClientID]; twice {
				return d.Errf("client '%s' is declared twice; give each client one block", record.ClientID)
			}
			declared[record.ClientID] = struct{}{}
			realm.Clients = append(realm.Clients, record)
		case "clients_from":
			raw, err := parseClientsFrom(d)
			if err != nil {
				return err
			}
			realm.ClientsFromRaw = append(realm.ClientsFromRaw, raw)
		case "revocation":
			if realm.Revocation != nil {
				return d.Errf("duplicate mtls option '%s'; a realm has one, name all sources in it", word)
			}
			revocation := new(Revocation)
			if err := revocation.UnmarshalCaddyfile(d); err != nil {
				return err
			}
			realm.Revocation = revocation
		case "forwarded_certificate":
			if realm.ForwardedCertificate != nil {
				return d.Errf("duplicate mtls option '%s'; a realm takes certificates from one kind of proxy", word)
			}
			forwarded := new(ForwardedCertificate)
			if err := forwarded.UnmarshalCaddyfile(d); err != nil {
				return err
			}
			realm.ForwardedCertificate = forwarded
		case "issuer":
			if realm.Issuer != nil {
				return d.Errf("duplicate mtls option '%s'; a realm has one issuer, declare another realm for another", word)
			}
			issuer := new(Issuer)
			if err := issuer.UnmarshalCaddyfile(d); err != nil {
				return err
			}
			realm.Issuer = issuer
		default:
			return d.Errf("unrecognized mtls option '%s'", word)
		}
	}
	return nil
}

func parseTrustPool(d *caddyfile.Dispenser) (json.RawMessage, error) {
	word := d.Val()
	if !d.NextArg() {
		return nil, d.ArgErr()
	}
	name := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "tls.ca_pool.source."+name)
	if err != nil {
		return nil, err
	}
	if _, ok := module.(caddytls.CA); !ok {
		return nil, d.Errf("%s module '%s' is no pool of CA certificates", word, name)
	}
	return caddyconfig.JSONModuleObject(module, "provider", name, nil), nil
}

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

// declaredRealm returns the realm that a directive refers to, so that an
// unknown one is reported with file and line.
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
	_ caddyfile.Unmarshaler = (*Issuer)(nil)
)

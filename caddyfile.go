package mtlsauth

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
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
			if err := parseDuration(d, &realm.TrustPoolRefresh, checkPoolRefresh); err != nil {
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
			err = parseList(d, &h.KeepHeader, func(name string) error { return checkKeptName(name, nil) })
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
	if err := checkHeaderName(name); err != nil {
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

// parseOnce reads the one argument of a word that may stand once.
func parseOnce(d *caddyfile.Dispenser, field *string, check func(string) error) error {
	word := d.Val()
	if *field != "" {
		return d.Errf("duplicate option '%s'", word)
	}
	if !d.AllArgs(field) {
		return d.ArgErr()
	}
	if *field == "" {
		return d.Errf("%s is empty; give it a value or remove the line", word)
	}
	return checkValue(d, word, *field, check)
}

// parseList reads the arguments of a word that may stand several times.
func parseList[S ~[]string](d *caddyfile.Dispenser, list *S, check func(string) error) error {
	word := d.Val()
	values := d.RemainingArgs()
	if len(values) == 0 {
		return d.ArgErr()
	}
	for _, value := range values {
		if err := appendValue(d, list, word, value, check); err != nil {
			return err
		}
	}
	return nil
}

func appendValue[S ~[]string](d *caddyfile.Dispenser, list *S, word, value string, check func(string) error) error {
	if value == "" {
		return d.Errf("%s is empty; give it a value or remove it", word)
	}
	if slices.Contains(*list, value) {
		return d.Errf("duplicate %s '%s'", word, value)
	}
	*list = append(*list, value)
	return checkValue(d, word, value, check)
}

// parseFlag reads a word without arguments.
func parseFlag(d *caddyfile.Dispenser, flag *bool) error {
	if *flag {
		return d.Errf("duplicate option '%s'", d.Val())
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*flag = true
	return nil
}

// parseDuration reads the one argument of a word that may stand once.
func parseDuration(d *caddyfile.Dispenser, field *caddy.Duration, check func(caddy.Duration) error) error {
	word, text := d.Val(), ""
	if *field != 0 {
		return d.Errf("duplicate option '%s'", word)
	}
	if !d.AllArgs(&text) {
		return d.ArgErr()
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil {
		return d.Errf("parsing %s '%s': %v", word, text, err)
	}
	*field = caddy.Duration(duration)
	return checkValue(d, word, text, func(string) error { return check(*field) })
}

// checkValue applies check to a value that is written out; one that holds a
// placeholder is checked at provisioning, when it is known.
func checkValue(d *caddyfile.Dispenser, word, value string, check func(string) error) error {
	if check == nil || strings.Contains(value, "{") {
		return nil
	}
	if err := check(value); err != nil {
		return d.WrapErr(fmt.Errorf("%s '%s': %w", word, value, err))
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Handler)(nil)
	_ caddyfile.Unmarshaler = (*IssuerHandler)(nil)
	_ caddyfile.Unmarshaler = (*Realm)(nil)
	_ caddyfile.Unmarshaler = (*Issuer)(nil)
)

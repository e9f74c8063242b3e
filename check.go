package mtlsauth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/check"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// checking is set while a configuration is only checked. Then storage is empty, and
// warnings go elsewhere.
type checking struct{ logger *zap.Logger }

// checkingKey is the key of *checking in a context.
type checkingKey struct{}

// maxTries bounds how many errors of a realm are found.
const maxTries = 100

// checker finds what is wrong in a configuration. It provisions the realms and the
// directives of this plugin, and nothing else, so it starts nothing and needs neither the
// network nor storage.
type checker struct {
	ctx      caddy.Context
	findings *check.Findings
	// broken are realms that were left out, partial those without some of their
	// clients, and tokenless those without the issuer that they should have.
	broken, partial, tokenless map[string]bool
	app                        *App
	uses                       []use
}

// checkConfig returns what is wrong in the apps of a configuration and its admin
// endpoint. loadable are the apps that Caddy may load in the context.
func checkConfig(ctx caddy.Context, loadable, apps caddy.ModuleMap, admin json.RawMessage) []check.Finding {
	c := &checker{
		ctx: ctx, findings: new(check.Findings),
		broken: make(map[string]bool), partial: make(map[string]bool), tokenless: make(map[string]bool),
	}
	var app struct {
		Realms map[string]json.RawMessage `json:"realms"`
	}
	if raw := apps[appID]; raw != nil {
		if err := caddy.StrictUnmarshalJSON(raw, &app); err != nil {
			c.findings.AddError("", fmt.Errorf("app %s: %w", appID, err))
			return c.findings.Sorted()
		}
	}
	if len(app.Realms) == 0 {
		c.findings.AddError("", errors.New("the configuration has no realm; add 'mtls { … }' to the global options"))
		return c.findings.Sorted()
	}
	clean := make(map[string]json.RawMessage)
	for _, name := range slices.Sorted(maps.Keys(app.Realms)) {
		if realm := c.cleanRealm(name, app.Realms[name]); realm != nil {
			clean[name] = realm
		} else {
			c.broken[name] = true
		}
	}
	c.findings.Skip = c.follows
	loadable[appID], _ = json.Marshal(map[string]any{"realms": clean})
	c.ctx = ctx.WithValue(checkingKey{}, &checking{c.findings.Logger()})
	module, err := c.ctx.App(appID)
	if err != nil { // two realms that do not go together
		c.findings.AddError("", err)
		return c.findings.Sorted()
	}
	c.app = module.(*App)
	defer func() { _ = c.app.Cleanup() }()
	c.checkServers(apps["http"])
	c.checkUses()
	c.checkTimes()
	c.checkAdmin(admin)
	return c.findings.Sorted()
}

// follows reports whether a warning may only follow from clients that are not known.
func (c *checker) follows(code, realm string) bool {
	return c.partial[realm] && slices.Contains([]string{"no_clients", "allow_unmatched", "scope_unmatched", "claim_unmatched", check.CodeNowhere}, code)
}

// cleanRealm returns a realm without what is wrong with it or cannot be known here, or
// nil if it is wrong as a whole.
func (c *checker) cleanRealm(name string, raw json.RawMessage) json.RawMessage {
	place := "realm " + name
	var realm map[string]json.RawMessage
	if json.Unmarshal(raw, &realm) != nil || realm == nil {
		c.findings.AddError(place, c.tryRealm(name, raw))
		return nil
	}
	delete(realm, "storage")
	for _, word := range []string{observed.TrustPool, observed.ShadowPool} {
		if realm[word] != nil {
			realm[word] = c.localPool(place+", "+word, realm[word])
		}
	}
	c.leaveOutSources(name, realm)
	c.noteURLs(name, realm)
	for range maxTries {
		text, _ := json.Marshal(realm)
		err := c.tryRealm(name, text)
		if err == nil {
			return text
		}
		at := place
		client := removeClient(realm, err.Error())
		switch {
		case client != "":
			at, c.partial[name] = place+", client "+client, true
		case !c.removePart(name, realm, err.Error()):
			c.findings.AddError(place, err)
			return nil
		}
		c.findings.AddError(at, err)
	}
	return nil
}

// tryRealm returns why a realm does not load.
func (c *checker) tryRealm(name string, raw json.RawMessage) error {
	ctx, cancel := caddy.NewContext(c.ctx)
	defer cancel()
	app := new(App)
	text, err := json.Marshal(map[string]any{"realms": map[string]json.RawMessage{name: raw}})
	if err == nil {
		err = caddy.StrictUnmarshalJSON(text, app)
	}
	if err != nil {
		return err
	}
	err = app.Provision(ctx.WithValue(checkingKey{}, &checking{zap.NewNop()}))
	_ = app.Cleanup()
	if err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "realm '"+name+"': "))
	}
	return nil
}

// removeClient removes the client that an error is about, the last one if it names two,
// and returns its ID.
func removeClient(realm map[string]json.RawMessage, text string) string {
	var list []json.RawMessage
	_ = json.Unmarshal(realm["clients"], &list)
	for i, raw := range slices.Backward(list) {
		var client struct {
			ID string `json:"client_id"`
		}
		if json.Unmarshal(raw, &client) == nil && strings.Contains(text, "client '"+client.ID+"'") {
			realm["clients"], _ = json.Marshal(slices.Delete(list, i, i+1))
			return client.ID
		}
	}
	return ""
}

// removePart removes the part of a realm that an error is about.
func (c *checker) removePart(name string, realm map[string]json.RawMessage, text string) bool {
	for _, part := range slices.Sorted(maps.Keys(realm)) {
		if part == "clients" || !strings.HasPrefix(text, part+":") && !strings.HasPrefix(text, part+" ") {
			continue
		}
		switch part {
		case observed.TrustPool:
			if string(realm[part]) == string(anyPool()) {
				return false
			}
			realm[part] = anyPool()
			return true
		case "issuer":
			c.tokenless[name] = true
		case "clients_from":
			c.partial[name] = true
		}
		delete(realm, part)
		return true
	}
	return false
}

// leaveOutSources removes the sources of clients that are not files.
func (c *checker) leaveOutSources(name string, realm map[string]json.RawMessage) {
	var list, local []json.RawMessage
	_ = json.Unmarshal(realm["clients_from"], &list)
	for _, raw := range list {
		var from struct {
			Source string `json:"source"`
		}
		if _ = json.Unmarshal(raw, &from); from.Source == "file" || from.Source == "" {
			local = append(local, raw)
			continue
		}
		c.partial[name] = true
		c.findings.Add(check.CodeUnread, "realm "+name, "the clients of clients_from %s are not read, so nothing is said about them", from.Source)
	}
	if len(local) < len(list) {
		delete(realm, "clients_from")
		if local != nil {
			realm["clients_from"], _ = json.Marshal(local)
		}
	}
}

// noteURLs notes what is behind URLs, which are not fetched.
func (c *checker) noteURLs(name string, realm map[string]json.RawMessage) {
	var revocation struct {
		CRL []string `json:"crl"`
	}
	var records []struct {
		ClientID string `json:"client_id"`
		JWKSURI  string `json:"jwks_uri"`
	}
	_ = json.Unmarshal(realm["revocation"], &revocation)
	_ = json.Unmarshal(realm["clients"], &records)
	for _, crl := range revocation.CRL {
		if strings.Contains(crl, "://") {
			c.findings.Add(check.CodeUnread, "realm "+name+", revocation", "the CRL at '%s' is not read, so nothing is said about it", source.ShownURL(crl))
		}
	}
	for _, record := range records {
		if record.JWKSURI != "" {
			c.findings.Add(check.CodeUnread, "realm "+name+", client "+record.ClientID, "the JWKS at '%s' is not read, so nothing is said about it", source.ShownURL(record.JWKSURI))
		}
	}
}

// localPool returns a trust pool, or any other in place of one that is not in files or in
// the configuration.
func (c *checker) localPool(place string, raw json.RawMessage) json.RawMessage {
	var pool struct {
		Provider string            `json:"provider"`
		Sources  []json.RawMessage `json:"sources"`
	}
	if json.Unmarshal(raw, &pool) != nil {
		return raw
	}
	local := []string{"", "file", "inline", "system", "combined"}
	if _, err := caddy.GetModule("tls.ca_pool.source." + pool.Provider); err == nil && !slices.Contains(local, pool.Provider) {
		c.findings.Add(check.CodeUnread, place, "the CAs of '%s' are not read, so nothing is said about them", pool.Provider)
		return anyPool()
	}
	for _, source := range pool.Sources {
		if replaced := c.localPool(place, source); string(replaced) != string(source) {
			return replaced
		}
	}
	return raw
}

// emptyStorage has nothing, and stays so.
type emptyStorage struct{}

var errOnlyChecked = errors.New("the configuration is only checked")

func (emptyStorage) Lock(context.Context, string) error           { return errOnlyChecked }
func (emptyStorage) Unlock(context.Context, string) error         { return nil }
func (emptyStorage) Store(context.Context, string, []byte) error  { return errOnlyChecked }
func (emptyStorage) Delete(context.Context, string) error         { return errOnlyChecked }
func (emptyStorage) Exists(context.Context, string) bool          { return false }
func (emptyStorage) Load(context.Context, string) ([]byte, error) { return nil, fs.ErrNotExist }
func (emptyStorage) List(context.Context, string, bool) ([]string, error) {
	return nil, fs.ErrNotExist
}

func (emptyStorage) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	return certmagic.KeyInfo{}, fs.ErrNotExist
}

// Interface guard
var _ certmagic.Storage = emptyStorage{}

// placeOfSite returns where a directive is.
func placeOfSite(hosts []string) string {
	if len(hosts) == 0 {
		return "sites without a host"
	}
	return fmt.Sprintf("site %s", strings.Join(hosts, ", "))
}

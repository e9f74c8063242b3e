package check

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/allowlist"
	"github.com/caddymtls/caddy-mtls-auth/internal/sites"
)

// maxNowhere bounds the clients that no directive admits.
const maxNowhere = 20

// A use is a directive or a verifier that uses a realm.
type use struct {
	realm, name string
	allow       allowlist.List
	scopes      []string
}

// checkServers provisions the directives and verifiers of the HTTP servers.
func (c *checker) checkServers(raw json.RawMessage) {
	var app struct {
		HTTPPort int                        `json:"http_port"`
		Servers  map[string]json.RawMessage `json:"servers"`
	}
	if raw == nil || json.Unmarshal(raw, &app) != nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(app.Servers)) {
		server := new(caddyhttp.Server)
		if err := json.Unmarshal(app.Servers[name], server); err != nil {
			c.findings.AddError("server "+name, err)
			continue
		}
		ctx := c.ctx.WithValue(caddyhttp.ServerCtxKey, server)
		if err := server.Routes.ProvisionMatchers(ctx); err != nil {
			c.findings.AddError("server "+name, err)
		}
		c.addPolicy(server, cmp.Or(app.HTTPPort, caddyhttp.DefaultHTTPPort))
		var tree any
		_ = json.Unmarshal(app.Servers[name], &tree)
		c.walk(ctx, tree, nil)
	}
}

// addPolicy does for TLS what automatic HTTPS does: a server with hosts gets a policy,
// unless it is of plain HTTP.
func (c *checker) addPolicy(server *caddyhttp.Server, httpPort int) {
	if server.TLSConnPolicies != nil || server.AutoHTTPS != nil && server.AutoHTTPS.Disabled {
		return
	}
	var plain []string
	if server.AutoHTTPS != nil {
		plain = server.AutoHTTPS.Skip
	}
	otherPort := slices.ContainsFunc(server.Listen, func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		return err == nil && !address.IsUnixNetwork() && int(address.StartPort) != httpPort
	})
	for _, site := range sites.Of(server, c.plugin.DefaultRealm) {
		if otherPort && slices.ContainsFunc(site.Hosts, func(host string) bool { return !slices.Contains(plain, host) }) {
			server.TLSConnPolicies = caddytls.ConnectionPolicies{new(caddytls.ConnectionPolicy)}
			return
		}
	}
}

// walk finds the directives and verifiers within JSON, in its order, and the hosts of
// their routes.
func (c *checker) walk(ctx caddy.Context, tree any, hosts []string) {
	switch tree := tree.(type) {
	case []any:
		for _, one := range tree {
			c.walk(ctx, one, hosts)
		}
	case map[string]any:
		if named := hostsOf(tree["match"]); named != nil {
			hosts = named
		}
		handler, _ := tree["handler"].(string)
		verifier, _ := tree["verifier"].(string)
		switch {
		case strings.HasPrefix(handler, "mtls_"):
			c.load(ctx, "http.handlers."+handler, "handler", tree, hosts)
			return
		case verifier == "mtls":
			c.load(ctx, "tls.client_auth.verifier.mtls", "verifier", tree, hosts)
			return
		}
		for _, name := range slices.Sorted(maps.Keys(tree)) {
			c.walk(ctx, tree[name], hosts)
		}
	}
}

// placeOfSite returns where a directive is.
func placeOfSite(hosts []string) string {
	if len(hosts) == 0 {
		return "sites without a host"
	}
	return fmt.Sprintf("site %s", strings.Join(hosts, ", "))
}

// hostsOf returns the hosts that matchers name.
func hostsOf(match any) (hosts []string) {
	sets, _ := match.([]any)
	for _, set := range sets {
		matchers, _ := set.(map[string]any)
		names, _ := matchers["host"].([]any)
		for _, name := range names {
			hosts = append(hosts, fmt.Sprint(name))
		}
	}
	return hosts
}

// load provisions a directive or verifier.
func (c *checker) load(ctx caddy.Context, id, key string, module map[string]any, hosts []string) {
	name, _ := module[key].(string)
	config := maps.Clone(module)
	delete(config, key)
	raw, _ := json.Marshal(config)
	place := placeOfSite(hosts) + ", " + name
	if key == "verifier" {
		place = "the verifier of a site"
	}
	var common struct {
		Realm        string            `json:"realm"`
		TrustIssuers []json.RawMessage `json:"trust_issuers"`
		ForwardToken json.RawMessage   `json:"forward_token"`
		ReportOnly   bool              `json:"report_only"`
		Allow        []string          `json:"allow"`
		RequireScope []string          `json:"require_scope"`
	}
	_ = json.Unmarshal(raw, &common)
	realm := common.Realm
	if name != "mtls_status" { // which is of no realm
		if realm == "" && len(common.TrustIssuers) == 0 {
			realm = c.plugin.DefaultRealm
		}
		c.uses = append(c.uses, use{realm, name, allowlist.New(common.Allow), common.RequireScope})
	}
	if common.ReportOnly {
		c.findings.Add(CodeReportOnly, place, "%s refuses nobody, because it has report_only", name)
	}
	needsIssuer := name == "mtls_issuer" || name == "mtls_bearer" && realm != "" || common.ForwardToken != nil
	if c.broken[realm] || c.tokenless[realm] && needsIssuer {
		return // it has been said why
	}
	if _, err := ctx.LoadModuleByID(id, raw); err != nil {
		if inner := errors.Unwrap(err); inner != nil {
			err = inner
		}
		_, text, found := strings.Cut(err.Error(), "provision "+id+": ")
		if !found {
			text = err.Error()
		}
		c.findings.AddError(place, errors.New(text))
	}
}

// placeholderID is the client ID in the block that registers a stranger.
const placeholderID = "CHANGE-ME"

// checkUses reports realms that nothing uses, clients that nothing admits, and a client
// that was registered without a name.
func (c *checker) checkUses() {
	for _, name := range c.app.Names() {
		var uses []use
		for _, one := range c.uses {
			if one.realm == name {
				uses = append(uses, one)
			}
		}
		if c.app.Realms[name]().Registry.Client(placeholderID) != nil {
			c.findings.Add(CodePlaceholder, "realm "+name+", client "+placeholderID, "the client ID '%s' is a placeholder", placeholderID)
		}
		switch {
		case len(uses) == 0:
			c.findings.Add(CodeUnused, "realm "+name, "no directive uses the realm")
		case !slices.ContainsFunc(uses, func(u use) bool { return u.name == "mtls_issuer" || u.name == "mtls_bearer" }) && !c.follows(CodeNowhere, name):
			c.checkNowhere(name, uses)
		}
	}
}

// checkNowhere reports clients that none of the directives admits.
func (c *checker) checkNowhere(name string, uses []use) {
	more := 0
	for client := range c.app.Realms[name]().Registry.All() {
		if client.Disabled || slices.ContainsFunc(uses, func(u use) bool { return u.admits(client) }) {
			continue
		}
		if more++; more <= maxNowhere {
			c.findings.Add(CodeNowhere, "realm "+name+", client "+client.ID, "no directive of the realm admits the client")
		}
	}
	if more > maxNowhere {
		c.findings.Add(CodeNowhere, "realm "+name, "no directive of the realm admits %d more clients", more-maxNowhere)
	}
}

// admits reports whether a use can admit a client.
func (u *use) admits(client *clients.Client) bool {
	return u.name == "mtls_auth" && u.allow.Admits(client.ID) && !slices.ContainsFunc(u.scopes, func(scope string) bool { return !client.HasScope(scope) })
}

package mtlsauth

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/allowlist"
	"github.com/caddymtls/caddy-mtls-auth/internal/check"
	"github.com/caddymtls/caddy-mtls-auth/internal/sites"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// soonExpires is how long before its end a certificate is reported, and soonEnds a
	// pin.
	soonExpires = 90 * 24 * time.Hour
	soonEnds    = 30 * 24 * time.Hour
	// maxExpiring bounds the certificate files that are reported, and maxNowhere the
	// clients that no directive admits.
	maxExpiring = 100
	maxNowhere  = 20
)

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
		addPolicy(server, cmp.Or(app.HTTPPort, caddyhttp.DefaultHTTPPort))
		var tree any
		_ = json.Unmarshal(app.Servers[name], &tree)
		c.walk(ctx, tree, nil)
	}
}

// addPolicy does for TLS what automatic HTTPS does: a server with hosts gets a policy,
// unless it is of plain HTTP.
func addPolicy(server *caddyhttp.Server, httpPort int) {
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
	for _, site := range sites.Of(server, defaultRealm) {
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
			realm = defaultRealm
		}
		c.uses = append(c.uses, use{realm, name, allowlist.New(common.Allow), common.RequireScope})
	}
	if common.ReportOnly {
		c.findings.Add(check.CodeReportOnly, place, "%s refuses nobody, because it has report_only", name)
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
	for _, name := range slices.Sorted(maps.Keys(c.app.Realms)) {
		var uses []use
		for _, one := range c.uses {
			if one.realm == name {
				uses = append(uses, one)
			}
		}
		if c.app.Realms[name].current.Load().registry.Client(placeholderID) != nil {
			c.findings.Add(check.CodePlaceholder, "realm "+name+", client "+placeholderID, "the client ID '%s' is a placeholder", placeholderID)
		}
		switch {
		case len(uses) == 0:
			c.findings.Add(check.CodeUnused, "realm "+name, "no directive uses the realm")
		case !slices.ContainsFunc(uses, func(u use) bool { return u.name == "mtls_issuer" || u.name == "mtls_bearer" }) && !c.follows(check.CodeNowhere, name):
			c.checkNowhere(name, uses)
		}
	}
}

// checkNowhere reports clients that none of the directives admits.
func (c *checker) checkNowhere(name string, uses []use) {
	more := 0
	for client := range c.app.Realms[name].current.Load().registry.All() {
		if client.Disabled || slices.ContainsFunc(uses, func(u use) bool { return u.admits(client) }) {
			continue
		}
		if more++; more <= maxNowhere {
			c.findings.Add(check.CodeNowhere, "realm "+name+", client "+client.ID, "no directive of the realm admits the client")
		}
	}
	if more > maxNowhere {
		c.findings.Add(check.CodeNowhere, "realm "+name, "no directive of the realm admits %d more clients", more-maxNowhere)
	}
}

// admits reports whether a use can admit a client.
func (u *use) admits(client *clients.Client) bool {
	return u.name == "mtls_auth" && u.allow.Admits(client.ID) && !slices.ContainsFunc(u.scopes, func(scope string) bool { return !client.HasScope(scope) })
}

// checkTimes reports what has ended or ends soon.
func (c *checker) checkTimes() {
	now := c.app.Now()
	for _, name := range slices.Sorted(maps.Keys(c.app.Realms)) {
		realm := c.app.Realms[name]
		for _, pool := range realm.trust.pools {
			for _, ca := range pool.Trust().Certificates {
				c.checkCertificate("realm "+name+", "+pool.Word(), ca, now)
			}
		}
		files, more := realm.directory.CertificateFiles(time.Time{}, now.Add(soonExpires), maxExpiring)
		for _, file := range files {
			c.checkCertificate("realm "+name+", client "+file.ClientID, file.Certificate, now)
		}
		if more > 0 {
			c.findings.Add(check.CodeExpires, "realm "+name, "%d more certificates in files have expired or expire within 90 days", more)
		}
		for client := range realm.directory.Registry().All() {
			for i := range client.Credentials {
				cred := &client.Credentials[i]
				if end := cred.Until(); end.After(now) && end.Before(now.Add(soonEnds)) {
					c.findings.Add(check.CodePinEnds, "realm "+name+", client "+client.ID, "%s '%s' counts until %s", cred.Kind, cred.Value, end.UTC().Format(time.RFC3339))
				}
			}
		}
	}
}

func (c *checker) checkCertificate(place string, cert *x509.Certificate, now time.Time) {
	end, subject := cert.NotAfter.UTC().Format(time.RFC3339), dn.Format(cert.RawSubject)
	switch {
	case string(cert.RawSubject) == string(anyCA().RawSubject):
	case cert.NotAfter.Before(now):
		c.findings.Add(check.CodeExpired, place, "the certificate of %s has expired at %s", subject, end)
	case cert.NotAfter.Before(now.Add(soonExpires)):
		c.findings.Add(check.CodeExpires, place, "the certificate of %s expires at %s", subject, end)
	}
}

// checkAdmin reports an admin endpoint on more than the loopback interface, because
// it can change clients and keys.
func (c *checker) checkAdmin(raw json.RawMessage) {
	var admin struct {
		Disabled bool   `json:"disabled"`
		Listen   string `json:"listen"`
	}
	_ = json.Unmarshal(raw, &admin)
	address, err := caddy.ParseNetworkAddress(cmp.Or(admin.Listen, caddy.DefaultAdminListen))
	if err != nil || admin.Disabled || address.IsUnixNetwork() || address.Host == "localhost" {
		return
	}
	if ip := net.ParseIP(address.Host); ip == nil || !ip.IsLoopback() {
		c.findings.Add(check.CodeAdmin, "admin "+admin.Listen, "the admin endpoint listens on more than the loopback interface")
	}
}

// anyCA is in place of CAs that are not read here. Nobody has its key.
var anyCA = sync.OnceValue(func() *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err) // never (crypto/rand)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "caddy mtls check: a CA that is not read"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return cert
})

// anyPool is a trust pool with that CA.
var anyPool = sync.OnceValue(func() json.RawMessage {
	raw, _ := json.Marshal(map[string]any{"provider": "inline", "trusted_ca_certs": [][]byte{anyCA().Raw}})
	return raw
})

package mtlsauth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/sites"
)

// warnAboutSites logs warnings about the sites of the server that a directive of this
// plugin is on, once for each server.
func (a *App) warnAboutSites(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || !a.declared.first(server) {
		return
	}
	errorRoutes := sites.ErrorRoutes(server, defaultRealm)
	errorRoutes.WarnAboutStatus(a.logger)
	all := sites.Of(server, defaultRealm)
	for i := range all {
		site := &all[i]
		site.WarnAboutOrder(a.logger)
		site.WarnAboutStatus(a.logger)
		asked := make(map[string]bool) // once for each directive and realm
		for _, directive := range site.Directives() {
			realm := a.Realms[directive.Realm]
			if realm == nil && directive.NeedsCertificate() { // tokens of other servers
				realm = &Realm{logger: a.logger.With(zap.String("realm", ""))}
			}
			key := directive.Name + " " + directive.Realm
			if realm == nil || asked[key] {
				continue
			}
			asked[key] = true
			realm.warnAboutClientAuth(server, site, directive)
			if directive.Name == "mtls_issuer" && realm.issuer != nil {
				warnAboutIssuerHost(all, realm)
			}
		}
	}
}

// warnAboutClientAuth logs a warning if a directive gets no certificates on its site,
// or none that Caddy has not judged before.
func (realm *Realm) warnAboutClientAuth(server *caddyhttp.Server, site *sites.Site, directive sites.Directive) {
	hosts := site.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	if directive.Name == "mtls_issuer" && realm.issuer != nil {
		hosts = realm.tokenHosts(server, site)
	}
	var silent, verifying []string
	for _, host := range hosts {
		switch auth := site.ClientAuth(host); {
		case auth == nil:
			silent = append(silent, host)
		case sites.Verifies(auth) && directive.IsGuard():
			verifying = append(verifying, host)
		}
	}
	logger := realm.logger.With(zap.String("directive", directive.Name), zap.Strings("listen", server.Listen))
	switch {
	case len(silent) == 0 || realm.proxyCertificates != nil:
	case len(server.TLSConnPolicies) == 0:
		logger.Warn("plain HTTP has no client certificates; serve the site over HTTPS", zap.Strings("hosts", silent))
	default:
		logger.Warn("site requests no client certificates; add 'tls { client_auth { mode request } }'", zap.Strings("hosts", silent))
	}
	if len(verifying) > 0 {
		logger.Warn("site verifies certificates in the handshake, where callers learn no reason; use 'mode request'", zap.Strings("hosts", verifying))
	}
}

// tokenHosts returns the hosts of the site where callers of the issuer send their
// certificates: the alias's if there is one.
func (realm *Realm) tokenHosts(server *caddyhttp.Server, site *sites.Site) []string {
	issuer := sites.HostOf(realm.issuer.url)
	if alias := realm.issuer.config.MTLSAlias; alias != "" {
		// where both have one host, the port tells them apart
		if host := sites.HostOf(alias); site.Serves(host) && (host != issuer || sites.ListensAt(server, alias)) {
			return []string{host}
		}
		return nil
	}
	if site.Serves(issuer) {
		return []string{issuer}
	}
	return site.Hosts
}

// warnAboutIssuerHost logs a warning if no site serves the host of the issuer or of
// its alias, or if the issuer's host refuses callers without a certificate, who may
// read metadata and keys.
func warnAboutIssuerHost(all []sites.Site, realm *Realm) {
	find := func(host string) int {
		return slices.IndexFunc(all, func(site sites.Site) bool { return site.Serves(host) })
	}
	url, alias := realm.issuer.url, realm.issuer.config.MTLSAlias
	host := sites.HostOf(url)
	served := find(host)
	if served < 0 {
		if alias == "" || find(sites.HostOf(alias)) < 0 {
			realm.logger.Warn("no site of this server serves the issuer's host", zap.String("issuer", url))
		}
		return
	}
	// without a mode, Caddy requires a certificate
	if auth := all[served].ClientAuth(host); auth != nil && (auth.Mode == "" || strings.HasPrefix(auth.Mode, "require")) {
		realm.logger.Warn("issuer's site requires a certificate for metadata and keys; use 'mode request' or mtls_alias",
			zap.String("issuer", url), zap.String("mode", auth.Mode))
	}
}

// checkProfileTLS refuses TLS 1.2 cipher suites on the issuer's sites that the
// FAPI 2.0 profile does not allow (§5.2.2, BCP 195). By default, Caddy offers none
// of them.
func checkProfileTLS(ctx caddy.Context, realm *Realm) error {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || !realm.Issuer.isFAPI2() {
		return nil
	}
	for _, place := range []string{realm.issuer.url, realm.issuer.config.MTLSAlias} {
		if place == "" {
			continue
		}
		for _, policy := range sites.PoliciesFor(server, sites.HostOf(place)) {
			for _, suite := range policy.CipherSuites {
				if !strings.Contains(suite, "_GCM_") && !strings.Contains(suite, "_CHACHA20_") {
					return fmt.Errorf("profile %s: cipher suite '%s' of the site of '%s' is not allowed; remove it from 'ciphers' in the site's tls", profileFAPI2, suite, place)
				}
			}
		}
	}
	return nil
}

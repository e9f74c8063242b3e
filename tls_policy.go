package mtlsauth

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// hostOf returns the host of a URL as it is in a handshake, which never has the dot at
// its end (RFC 6066 §3), or an empty string.
func hostOf(place string) string {
	parsed, err := url.Parse(place)
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(parsed.Hostname(), ".")
}

// listensAt reports whether a server listens at the port of a URL.
func listensAt(server *caddyhttp.Server, place string) bool {
	parsed, err := url.Parse(place)
	if err != nil {
		return false
	}
	port, err := strconv.ParseUint(cmp.Or(parsed.Port(), "443"), 10, 16)
	return err == nil && slices.ContainsFunc(server.Listen, func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		return err == nil && !address.IsUnixNetwork() && uint64(address.StartPort) <= port && port <= uint64(address.EndPort)
	})
}

// tlsPoliciesFor returns the TLS connection policies that a server may use for a host.
// There are several if one also looks at something else than the name.
func tlsPoliciesFor(server *caddyhttp.Server, host string) (policies []*caddytls.ConnectionPolicy) {
	hello := &tls.ClientHelloInfo{ServerName: host}
	for _, policy := range server.TLSConnPolicies {
		conditions := len(policy.MatchersRaw)
		if raw, ok := policy.MatchersRaw["sni"]; ok {
			var names caddytls.MatchServerName
			if json.Unmarshal(raw, &names) == nil && !names.Match(hello) {
				continue
			}
			conditions--
		}
		policies = append(policies, policy)
		if conditions == 0 {
			break
		}
	}
	return policies
}

// serves reports whether a host is one of the site's.
func (s *site) serves(host string) bool {
	return len(s.hosts) == 0 || slices.ContainsFunc(s.hosts, func(name string) bool {
		return certmagic.MatchWildcard(host, name)
	})
}

// clientAuthOf returns the client authentication that a host of the site gets. It is
// nil if callers are asked for no certificate.
func (s *site) clientAuthOf(host string) *caddytls.ClientAuthentication {
	for _, policy := range tlsPoliciesFor(s.server, host) {
		if policy.ClientAuthentication != nil && policy.ClientAuthentication.Active() {
			return policy.ClientAuthentication
		}
	}
	return nil
}

// warnAboutSites logs warnings about the sites of the server that a directive of this
// plugin is on, once for each server.
func (a *App) warnAboutSites(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || !a.declared.first(server) {
		return
	}
	sites := sitesOf(server)
	for _, s := range sites {
		a.warnAboutOrder(s)
		asked := make(map[string]bool) // once for each directive and realm
		for _, stop := range stopsOf(s) {
			if !stop.isOurs() {
				continue
			}
			config := stop.guard()
			realm := a.Realms[config.Realm]
			if realm == nil && config.needsCertificate() { // tokens of other servers
				realm = &Realm{logger: a.logger.With(zap.String("realm", ""))}
			}
			key := stop.name + " " + config.Realm
			if realm == nil || asked[key] {
				continue
			}
			asked[key] = true
			s.warnAboutClientAuth(stop.siteHandler, realm)
			if stop.name == "mtls_issuer" && realm.issuer != nil {
				warnAboutIssuerHost(sites, realm)
			}
		}
	}
}

// warnAboutClientAuth logs a warning if a directive gets no certificates on its site,
// or none that Caddy has not judged before.
func (s *site) warnAboutClientAuth(handler *siteHandler, realm *Realm) {
	hosts := s.hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	if handler.name == "mtls_issuer" && realm.issuer != nil {
		hosts = s.tokenHosts(realm)
	}
	var silent, verifying []string
	for _, host := range hosts {
		switch auth := s.clientAuthOf(host); {
		case auth == nil:
			silent = append(silent, host)
		case verifies(auth) && handler.isGuard():
			verifying = append(verifying, host)
		}
	}
	logger := realm.logger.With(zap.String("directive", handler.name), zap.Strings("listen", s.server.Listen))
	switch {
	case len(silent) == 0 || realm.proxyCertificates != nil:
	case len(s.server.TLSConnPolicies) == 0:
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
func (s *site) tokenHosts(realm *Realm) []string {
	if alias := realm.issuer.config.MTLSAlias; alias != "" {
		// where both have one host, the port tells them apart
		if host := hostOf(alias); s.serves(host) && (host != hostOf(realm.issuer.url) || listensAt(s.server, alias)) {
			return []string{host}
		}
		return nil
	}
	if host := hostOf(realm.issuer.url); s.serves(host) {
		return []string{host}
	}
	return s.hosts
}

// verifies reports whether Caddy refuses certificates that do not chain to the site's
// own trust pool.
func verifies(auth *caddytls.ClientAuthentication) bool {
	switch auth.Mode {
	case "verify_if_given", "require_and_verify":
		return true
	case "":
		return auth.CARaw != nil || len(auth.TrustedCACerts)+len(auth.TrustedCACertPEMFiles)+len(auth.TrustedLeafCerts) > 0 //nolint:staticcheck // old configurations
	}
	return false
}

// warnAboutIssuerHost logs a warning if no site serves the host of the issuer or of
// its alias, or if the issuer's host refuses callers without a certificate, who may
// read metadata and keys.
func warnAboutIssuerHost(sites []site, realm *Realm) {
	find := func(host string) int {
		return slices.IndexFunc(sites, func(s site) bool { return len(s.routes) > 0 && s.serves(host) })
	}
	url, alias := realm.issuer.url, realm.issuer.config.MTLSAlias
	host := hostOf(url)
	served := find(host)
	if served < 0 {
		if alias == "" || find(hostOf(alias)) < 0 {
			realm.logger.Warn("no site of this server serves the issuer's host", zap.String("issuer", url))
		}
		return
	}
	// without a mode, Caddy requires a certificate
	if auth := sites[served].clientAuthOf(host); auth != nil && (auth.Mode == "" || strings.HasPrefix(auth.Mode, "require")) {
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
		for _, policy := range tlsPoliciesFor(server, hostOf(place)) {
			for _, suite := range policy.CipherSuites {
				if !strings.Contains(suite, "_GCM_") && !strings.Contains(suite, "_CHACHA20_") {
					return fmt.Errorf("profile %s: cipher suite '%s' of the site of '%s' is not allowed; remove it from 'ciphers' in the site's tls", profileFAPI2, suite, place)
				}
			}
		}
	}
	return nil
}

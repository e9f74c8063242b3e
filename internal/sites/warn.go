package sites

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Realm is a realm, as far as warnings look at it.
type Realm struct {
	Logger *zap.Logger
	// Proxies is set if proxies may forward certificates.
	Proxies bool
	// Issuer is the URL of its issuer, and Alias that of the issuer's endpoints for
	// clients with a certificate. They are "" for none.
	Issuer, Alias string
}

// Warn logs warnings about the sites of a server. A directive without a realm has the
// default one. realms returns a realm, or nil if it is not declared.
func Warn(server *caddyhttp.Server, logger *zap.Logger, defaultRealm string, realms func(name string) *Realm) {
	errorRoutes := errorRoutesOf(server, defaultRealm)
	errorRoutes.warnAboutStatus(logger)
	all := Of(server, defaultRealm)
	for i := range all {
		site := &all[i]
		site.warnAboutOrder(logger)
		site.warnAboutStatus(logger)
		asked := make(map[string]bool) // once for each directive and realm
		for _, directive := range site.directives() {
			realm := realms(directive.Realm)
			if realm == nil && directive.needsCertificate() { // tokens of other servers
				realm = &Realm{Logger: logger.With(zap.String("realm", ""))}
			}
			key := directive.Name + " " + directive.Realm
			if realm == nil || asked[key] {
				continue
			}
			asked[key] = true
			site.warnAboutClientAuth(directive, realm)
			if directive.Name == "mtls_issuer" && realm.Issuer != "" {
				realm.warnAboutIssuerHost(all)
			}
		}
	}
}

// warnAboutClientAuth logs a warning if a directive gets no certificates on its site,
// or none that Caddy has not judged before.
func (s *Site) warnAboutClientAuth(directive directive, realm *Realm) {
	hosts := s.Hosts
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	if directive.Name == "mtls_issuer" && realm.Issuer != "" {
		hosts = s.tokenHosts(realm)
	}
	var silent, verifying []string
	for _, host := range hosts {
		switch auth := s.clientAuth(host); {
		case auth == nil:
			silent = append(silent, host)
		case verifies(auth) && isGuard(directive.Name):
			verifying = append(verifying, host)
		}
	}
	logger := realm.Logger.With(zap.String("directive", directive.Name), zap.Strings("listen", s.server.Listen))
	switch {
	case len(silent) == 0 || realm.Proxies:
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
func (s *Site) tokenHosts(realm *Realm) []string {
	issuer := hostOf(realm.Issuer)
	if realm.Alias != "" {
		// where both have one host, the port tells them apart
		if host := hostOf(realm.Alias); s.serves(host) && (host != issuer || listensAt(s.server, realm.Alias)) {
			return []string{host}
		}
		return nil
	}
	if s.serves(issuer) {
		return []string{issuer}
	}
	return s.Hosts
}

// warnAboutIssuerHost logs a warning if no site serves the host of the issuer or of
// its alias, or if the issuer's host refuses callers without a certificate, who may
// read metadata and keys.
func (r *Realm) warnAboutIssuerHost(all []Site) {
	find := func(host string) int {
		return slices.IndexFunc(all, func(site Site) bool { return site.serves(host) })
	}
	host := hostOf(r.Issuer)
	served := find(host)
	if served < 0 {
		if r.Alias == "" || find(hostOf(r.Alias)) < 0 {
			r.Logger.Warn("no site of this server serves the issuer's host", zap.String("issuer", r.Issuer))
		}
		return
	}
	// without a mode, Caddy requires a certificate
	if auth := all[served].clientAuth(host); auth != nil && (auth.Mode == "" || strings.HasPrefix(auth.Mode, "require")) {
		r.Logger.Warn("issuer's site requires a certificate for metadata and keys; use 'mode request' or mtls_alias",
			zap.String("issuer", r.Issuer), zap.String("mode", auth.Mode))
	}
}

// CheckSuites refuses TLS 1.2 cipher suites on the sites of these URLs that BCP 195 does
// not recommend. By default, Caddy offers none of them.
func CheckSuites(server *caddyhttp.Server, urls ...string) error {
	for _, place := range urls {
		if place == "" {
			continue
		}
		for _, policy := range policiesFor(server, hostOf(place)) {
			for _, suite := range policy.CipherSuites {
				if !strings.Contains(suite, "_GCM_") && !strings.Contains(suite, "_CHACHA20_") {
					return fmt.Errorf("cipher suite '%s' of the site of '%s' is not allowed; remove it from 'ciphers' in the site's tls", suite, place)
				}
			}
		}
	}
	return nil
}

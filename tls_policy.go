package mtlsauth

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"go.uber.org/zap"
)

// listensAt reports whether the server of a handler listens at the port of a URL.
func listensAt(ctx caddy.Context, place string) bool {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	parsed, err := url.Parse(place)
	if !ok || err != nil {
		return false
	}
	port, err := strconv.ParseUint(cmp.Or(parsed.Port(), "443"), 10, 16)
	return err == nil && slices.ContainsFunc(server.Listen, func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		return err == nil && !address.IsUnixNetwork() && uint64(address.StartPort) <= port && port <= uint64(address.EndPort)
	})
}

// tlsPolicyFor returns the TLS connection policy that the server of a handler uses for
// the host of a URL: the first one that fits. It is nil if there is none.
func tlsPolicyFor(ctx caddy.Context, place string) *caddytls.ConnectionPolicy {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	parsed, err := url.Parse(place)
	if !ok || err != nil || place == "" {
		return nil
	}
	for _, policy := range server.TLSConnPolicies {
		var names []string
		if raw, ok := policy.MatchersRaw["sni"]; ok && json.Unmarshal(raw, &names) == nil && !slices.Contains(names, parsed.Hostname()) {
			continue
		}
		return policy
	}
	return nil
}

// warnWithoutClientAuth logs a warning if no site of the server requests client
// certificates, and none are forwarded by proxies.
func warnWithoutClientAuth(ctx caddy.Context, realm *Realm, directive string) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || realm.proxyCertificates != nil {
		return
	}
	for _, policy := range server.TLSConnPolicies {
		if policy.ClientAuthentication != nil && policy.ClientAuthentication.Active() {
			return
		}
	}
	realm.logger.Warn("no site requests client certificates; add 'tls { client_auth { mode request } }'",
		zap.String("directive", directive), zap.Strings("listen", server.Listen))
}

// warnCertificateRequired logs a warning if the issuer's host refuses callers
// without a certificate, which may read its metadata and keys.
func warnCertificateRequired(ctx caddy.Context, logger *zap.Logger, issuer string) {
	policy := tlsPolicyFor(ctx, issuer)
	if policy == nil || policy.ClientAuthentication == nil {
		return
	}
	// without a mode, Caddy requires a certificate
	if auth := policy.ClientAuthentication; auth.Active() && (auth.Mode == "" || strings.HasPrefix(auth.Mode, "require")) {
		logger.Warn("issuer's site requires a certificate for metadata and keys; use 'mode request' or mtls_alias",
			zap.String("issuer", issuer), zap.String("mode", auth.Mode))
	}
}

// checkProfileTLS refuses TLS 1.2 cipher suites on the issuer's sites that the
// FAPI 2.0 profile does not allow (§5.2.2, BCP 195). By default, Caddy offers none
// of them.
func checkProfileTLS(ctx caddy.Context, realm *Realm) error {
	if !realm.Issuer.isFAPI2() {
		return nil
	}
	for _, place := range []string{realm.issuer.url, realm.issuer.config.MTLSAlias} {
		policy := tlsPolicyFor(ctx, place)
		if policy == nil {
			continue
		}
		for _, suite := range policy.CipherSuites {
			if !strings.Contains(suite, "_GCM_") && !strings.Contains(suite, "_CHACHA20_") {
				return fmt.Errorf("profile %s: cipher suite '%s' of the site of '%s' is not allowed; remove it from 'ciphers' in the site's tls", profileFAPI2, suite, place)
			}
		}
	}
	return nil
}

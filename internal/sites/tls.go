package sites

import (
	"cmp"
	"crypto/tls"
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
	"github.com/caddyserver/certmagic"
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

// policiesFor returns the TLS connection policies that a server may use for a host.
// There are several if one also looks at something else than the name.
func policiesFor(server *caddyhttp.Server, host string) (policies []*caddytls.ConnectionPolicy) {
	hello := &tls.ClientHelloInfo{ServerName: host}
	for _, policy := range server.TLSConnPolicies {
		if policy == nil {
			continue
		}
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
func (s *Site) serves(host string) bool {
	return len(s.Hosts) == 0 || slices.ContainsFunc(s.Hosts, func(name string) bool {
		return certmagic.MatchWildcard(host, name)
	})
}

// clientAuth returns the client authentication that a host of the site gets. It is
// nil if callers are asked for no certificate.
func (s *Site) clientAuth(host string) *caddytls.ClientAuthentication {
	for _, policy := range policiesFor(s.server, host) {
		if policy.ClientAuthentication != nil && policy.ClientAuthentication.Active() {
			return policy.ClientAuthentication
		}
	}
	return nil
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

package sites

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
)

// statusPage is the name of the handler that serves the status page.
const statusPage = "mtls_status"

// WarnAboutStatus logs a warning if everybody can read the status page on the site.
func (s *Site) WarnAboutStatus(logger *zap.Logger) {
	if s.isLocal() {
		return
	}
	var paths []string
	open := false
	stops := stopsOf(s)
	for i := range stops {
		if page := &stops[i]; page.name == statusPage && findBefore(stops, page, page.isAuthenticatedBy) == nil {
			open = true
			paths = append(paths, page.paths()...)
		}
	}
	if open {
		logger.Warn("status page is open to everyone", zap.Strings("hosts", s.Hosts),
			zap.Strings("paths", paths[:min(len(paths), maxShownPaths)]), zap.Strings("listen", s.server.Listen))
	}
}

// isAuthenticatedBy reports whether everybody who reaches s has been authenticated by an
// earlier handler.
func (s *stop) isAuthenticatedBy(earlier *stop) bool {
	return earlier.authenticates && s.meets(earlier)
}

// meets reports whether everything that reaches s has met the conditions of other, as far
// as paths show it.
func (s *stop) meets(other *stop) bool {
	return !slices.ContainsFunc(other.conditions, func(needed condition) bool {
		return !slices.ContainsFunc(s.conditions, func(c condition) bool {
			return c.text == needed.text || needed.onlyPaths && c.paths != nil && covers(needed.paths, c.paths)
		})
	})
}

// onlyPaths reports whether a matcher is nothing but a list of paths.
func onlyPaths(match []map[string]json.RawMessage) bool {
	return !slices.ContainsFunc(match, func(set map[string]json.RawMessage) bool { return len(set) != 1 || set["path"] == nil })
}

// covers reports whether a path that one of the inner matchers matches is certainly
// matched by one of the outer.
func covers(outer, inner []string) bool {
	return !slices.ContainsFunc(inner, func(path string) bool {
		return !slices.ContainsFunc(outer, func(pattern string) bool {
			prefix, isPrefix := strings.CutSuffix(strings.ToLower(pattern), "*")
			if strings.ContainsAny(prefix, "*?[\\%") {
				return strings.EqualFold(pattern, path)
			}
			return strings.EqualFold(pattern, path) || isPrefix && strings.HasPrefix(strings.ToLower(path), prefix)
		})
	})
}

// isLocal reports whether only this machine can connect to the server.
func (s *Site) isLocal() bool {
	return len(s.server.Listen) > 0 && !slices.ContainsFunc(s.server.Listen, func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil {
			return true
		}
		if address.IsUnixNetwork() || address.IsFdNetwork() || strings.EqualFold(address.Host, "localhost") {
			return false
		}
		ip, err := netip.ParseAddr(address.Host)
		return err != nil || !ip.IsLoopback()
	})
}

// authenticates reports whether a handler refuses everybody whom it does not know.
func (h *handler) authenticates(directive Directive) bool {
	var proxy struct {
		HandleResponse []json.RawMessage `json:"handle_response"`
	}
	switch h.name {
	case "mtls_auth", "mtls_bearer":
		return !directive.Optional && !directive.ReportOnly
	case "authentication": // basic_auth
		return true
	case "reverse_proxy": // forward_auth
		return json.Unmarshal(h.config, &proxy) == nil && len(proxy.HandleResponse) > 0
	}
	return false
}

package sites

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// statusPage is the name of the handler that serves the status page.
const statusPage = "mtls_status"

// warnAboutStatus logs a warning if everybody can read the status page on the site.
func (s *Site) warnAboutStatus(logger *zap.Logger) {
	if s.isLocal() {
		return
	}
	var paths []string
	open := false
	stops := stopsOf(s)
	for i := range stops {
		page := &stops[i]
		authenticated := func(earlier *stop) bool { return earlier.authenticates && page.meets(earlier, stops) }
		if page.showsStatus && findBefore(stops, page, authenticated) == nil {
			open = true
			paths = append(paths, page.paths()...)
		}
	}
	if open {
		logger.Warn("status page is open to everyone", zap.Strings("hosts", s.Hosts),
			zap.Strings("paths", paths[:min(len(paths), maxShownPaths)]), zap.Strings("listen", s.server.Listen))
	}
}

// meets reports whether everything that reaches s has met the conditions of other, as far
// as paths show it. A rewrite between the two can have changed the path.
func (s *stop) meets(other *stop, stops []stop) bool {
	return !slices.ContainsFunc(other.conditions, func(needed condition) bool {
		return !slices.ContainsFunc(s.conditions, func(c condition) bool {
			if c.dependsOnPath() && c.at > needed.at && slices.ContainsFunc(stops[needed.at:c.at], func(s stop) bool { return s.name == "rewrite" }) {
				return false
			}
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

// isLocal reports whether only this machine can connect to the server. Where a socket
// listens that the process was given (fd/3), is not known.
func (s *Site) isLocal() bool {
	return len(s.server.Listen) > 0 && !slices.ContainsFunc(s.server.Listen, func(listen string) bool {
		address, err := caddy.ParseNetworkAddress(listen)
		if err != nil {
			return true
		}
		if address.IsUnixNetwork() || strings.EqualFold(address.Host, "localhost") {
			return false
		}
		ip, err := netip.ParseAddr(address.Host)
		return err != nil || !ip.IsLoopback()
	})
}

// errorRoutesOf returns the error routes of a server as a site for every host.
func errorRoutesOf(server *caddyhttp.Server, realm string) Site {
	site := Site{server: server, realm: realm}
	if server.Errors != nil {
		site.routes = readRoutes(server.Errors.Routes)
	}
	return site
}

// showsStatus reports whether a handler serves the status page, or has a route for the
// response of another one that does (handle_response).
func (h *handler) showsStatus() bool {
	var of struct {
		HandleResponse []struct {
			Routes []route `json:"routes"`
		} `json:"handle_response"`
	}
	if h.name == statusPage {
		return true
	}
	_ = json.Unmarshal(h.config, &of)
	for _, response := range of.HandleResponse {
		if haveStatus(response.Routes) {
			return true
		}
	}
	return false
}

func haveStatus(routes []route) bool {
	return slices.ContainsFunc(routes, func(r route) bool {
		return slices.ContainsFunc(r.Handle, func(h handler) bool { return h.showsStatus() || haveStatus(h.routes) })
	})
}

// authenticates reports whether a handler refuses everybody whom it does not know.
func (h *handler) authenticates(directive directive) bool {
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

package mtlsauth

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// A site is the routes of a server for some hosts, as far as warnings look at them.
type site struct {
	server *caddyhttp.Server
	hosts  []string // empty if the site serves every host
	routes []siteRoute
}

type siteRoute struct {
	Match  []map[string]json.RawMessage `json:"match"`
	Handle []siteHandler                `json:"handle"`
	Group  string                       `json:"group"`
}

// A siteHandler has the configuration of a handler, and the routes inside it.
type siteHandler struct {
	name   string
	config json.RawMessage
	routes []siteRoute
}

// UnmarshalJSON reads any handler.
func (h *siteHandler) UnmarshalJSON(raw []byte) error {
	var any struct {
		Handler string `json:"handler"`
	}
	if err := json.Unmarshal(raw, &any); err != nil {
		return err
	}
	h.name, h.config = any.Handler, slices.Clone(raw)
	if h.name != "subroute" {
		return nil
	}
	var subroute struct {
		Routes []siteRoute `json:"routes"`
	}
	err := json.Unmarshal(raw, &subroute)
	h.routes = subroute.Routes
	return err
}

// sitesOf returns the sites of a server. The adapter makes a route of each site, or,
// where a site serves every host, may make several of it.
func sitesOf(server *caddyhttp.Server) []site {
	everyHost := site{server: server}
	var sites []site
	for i, route := range readRoutes(server.Routes) {
		var hosts []string
		for _, matchers := range server.Routes[i].MatcherSets {
			for _, matcher := range matchers {
				switch names := matcher.(type) {
				case caddyhttp.MatchHost:
					hosts = append(hosts, names...)
				case *caddyhttp.MatchHost:
					hosts = append(hosts, *names...)
				}
			}
		}
		if len(hosts) == 0 {
			everyHost.routes = append(everyHost.routes, route)
		} else {
			sites = append(sites, site{server: server, hosts: hosts, routes: []siteRoute{route}})
		}
	}
	return append(sites, everyHost)
}

// readRoutes reads routes while they are provisioned. Caddy has already turned some
// of them into modules, and of others it still has the JSON.
func readRoutes(list caddyhttp.RouteList) []siteRoute {
	routes := make([]siteRoute, 0, len(list))
	for i := range list {
		routes = append(routes, readRoute(&list[i]))
	}
	return routes
}

func readRoute(from *caddyhttp.Route) siteRoute {
	route := siteRoute{Group: from.Group}
	for _, set := range from.MatcherSetsRaw {
		route.Match = append(route.Match, maps.Clone(map[string]json.RawMessage(set)))
	}
	for _, set := range from.MatcherSets {
		matchers := make(map[string]json.RawMessage)
		for _, matcher := range set {
			if module, ok := matcher.(caddy.Module); ok {
				matchers[caddy.GetModuleName(module)], _ = json.Marshal(matcher)
			}
		}
		route.Match = append(route.Match, matchers)
	}
	for _, raw := range from.HandlersRaw {
		var handler siteHandler
		if json.Unmarshal(raw, &handler) == nil {
			route.Handle = append(route.Handle, handler)
		}
	}
	for _, module := range from.Handlers {
		handler := siteHandler{name: caddy.GetModuleName(module)}
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			handler.routes = readRoutes(subroute.Routes)
		} else {
			handler.config, _ = json.Marshal(module)
		}
		route.Handle = append(route.Handle, handler)
	}
	return route
}

// inside returns the routes inside a handler, or the named route that it invokes.
func (h *siteHandler) inside(server *caddyhttp.Server) []siteRoute {
	var invoke struct {
		Name string `json:"name"`
	}
	if h.name == "invoke" && json.Unmarshal(h.config, &invoke) == nil && server.NamedRoutes[invoke.Name] != nil {
		return []siteRoute{readRoute(server.NamedRoutes[invoke.Name])}
	}
	return h.routes
}

// guardConfig is the configuration of mtls_auth, mtls_bearer or mtls_issuer, as far
// as warnings look at it.
type guardConfig struct {
	Realm        string `json:"realm"`
	Optional     bool   `json:"optional"`
	ReportOnly   bool   `json:"report_only"`
	TrustIssuers []struct {
		AllowUnbound bool `json:"allow_unbound"`
	} `json:"trust_issuers"`
}

// needsCertificate reports whether one of the other servers' tokens is bound to a
// certificate.
func (g *guardConfig) needsCertificate() bool {
	for _, trusted := range g.TrustIssuers {
		if !trusted.AllowUnbound {
			return true
		}
	}
	return false
}

// guard returns the configuration of a directive of this plugin.
func (h *siteHandler) guard() (config guardConfig) {
	_ = json.Unmarshal(h.config, &config)
	if config.Realm == "" && len(config.TrustIssuers) == 0 {
		config.Realm = defaultRealm
	}
	return config
}

// isGuard reports whether a handler refuses callers.
func (h *siteHandler) isGuard() bool { return h.name == "mtls_auth" || h.name == "mtls_bearer" }

// isOurs reports whether a handler is of this plugin.
func (h *siteHandler) isOurs() bool { return h.isGuard() || h.name == "mtls_issuer" }

// serves reports whether a handler gives callers what is behind it.
func (h *siteHandler) serves() bool {
	var proxy struct {
		HandleResponse []json.RawMessage `json:"handle_response"`
	}
	switch h.name {
	case "file_server", "php":
		return true
	case "reverse_proxy": // forward_auth only asks another server
		return json.Unmarshal(h.config, &proxy) != nil || len(proxy.HandleResponse) == 0
	}
	return false
}

// answers reports whether a handler answers every request that reaches it.
func (h *siteHandler) answers() bool {
	var files struct {
		PassThru bool `json:"pass_thru"`
	}
	if h.name == "file_server" && json.Unmarshal(h.config, &files) == nil && files.PassThru {
		return false
	}
	return h.serves() || h.name == "static_response" || h.name == "error"
}

// stripsOnly returns the prefix that a rewrite removes from the path, if it does
// nothing else.
func (h *siteHandler) stripsOnly() string {
	var config map[string]json.RawMessage
	var prefix string
	if json.Unmarshal(h.config, &config) != nil {
		return ""
	}
	delete(config, "handler")
	if raw, ok := config["strip_path_prefix"]; ok && len(config) == 1 && json.Unmarshal(raw, &prefix) == nil {
		return prefix
	}
	return ""
}

// conditionsOf returns the matchers of a route as text, and the paths that one of
// them must match. There are none if it also matches by something else.
func conditionsOf(match []map[string]json.RawMessage) (text string, paths []string) {
	raw, _ := json.Marshal(match)
	for _, set := range match {
		var of []string
		switch {
		case set["path"] != nil:
			_ = json.Unmarshal(set["path"], &of)
		case set["path_regexp"] != nil:
			of = []string{"*"}
		default:
			return string(raw), nil
		}
		paths = append(paths, of...)
	}
	return string(raw), paths
}

// disjoint reports whether certainly no path is in both lists of path matchers.
func disjoint(a, b []string) bool {
	for _, one := range a {
		for _, other := range b {
			one, _, _ := strings.Cut(strings.ToLower(one), "*")
			other, _, _ := strings.Cut(strings.ToLower(other), "*")
			if strings.HasPrefix(one, other) || strings.HasPrefix(other, one) {
				return false
			}
		}
	}
	return len(a) > 0 && len(b) > 0
}

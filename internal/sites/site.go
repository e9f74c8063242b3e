// Package sites reads the routes and TLS settings of a Caddy server while Caddy
// provisions it, and finds what leaves a site open although it has a directive of this
// plugin.
package sites

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Site is the routes of a server for some hosts, as far as warnings look at them.
type Site struct {
	Hosts []string // empty if the site serves every host

	server *caddyhttp.Server
	routes []route
	realm  string // of directives that name none
}

// directive is the configuration of mtls_auth, mtls_bearer or mtls_issuer, as far as
// warnings look at it.
type directive struct {
	// Name is the directive's.
	Name string `json:"-"`
	// Realm is empty if only tokens of other servers are admitted.
	Realm      string `json:"realm"`
	Optional   bool   `json:"optional"`
	ReportOnly bool   `json:"report_only"`
	// TrustIssuers are the other servers.
	TrustIssuers []struct {
		AllowUnbound bool `json:"allow_unbound"`
	} `json:"trust_issuers"`
}

// needsCertificate reports whether one of the other servers' tokens is bound to a
// certificate.
func (d directive) needsCertificate() bool {
	for _, trusted := range d.TrustIssuers {
		if !trusted.AllowUnbound {
			return true
		}
	}
	return false
}

func (d *directive) mustAdmit() bool { return d.Realm != "" && !d.Optional && !d.ReportOnly }

// directives returns the directives of this plugin on the site, in the order in which
// they run.
func (s *Site) directives() []directive {
	var directives []directive
	for _, stop := range stopsOf(s) {
		if isOurs(stop.name) {
			directives = append(directives, stop.directive)
		}
	}
	return directives
}

type route struct {
	Match  []map[string]json.RawMessage `json:"match"`
	Handle []handler                    `json:"handle"`
	Group  string                       `json:"group"`
}

// A handler has the configuration of a handler, and the routes inside it.
type handler struct {
	name   string
	config json.RawMessage
	routes []route
}

// UnmarshalJSON reads any handler.
func (h *handler) UnmarshalJSON(raw []byte) error {
	var named struct {
		Handler string `json:"handler"`
	}
	if err := json.Unmarshal(raw, &named); err != nil {
		return err
	}
	h.name, h.config = named.Handler, slices.Clone(raw)
	if h.name != "subroute" {
		return nil
	}
	var subroute struct {
		Routes []route `json:"routes"`
	}
	err := json.Unmarshal(raw, &subroute)
	h.routes = subroute.Routes
	return err
}

// Of returns the sites of a server. A directive without a realm has the given one. The
// adapter makes a route of each site, or, where a site serves every host, may make
// several of it.
func Of(server *caddyhttp.Server, realm string) []Site {
	everyHost := Site{server: server, realm: realm}
	var sites []Site
	for i, read := range readRoutes(server.Routes) {
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
			everyHost.routes = append(everyHost.routes, read)
		} else {
			sites = append(sites, Site{Hosts: hosts, server: server, routes: []route{read}, realm: realm})
		}
	}
	if len(everyHost.routes) > 0 {
		sites = append(sites, everyHost)
	}
	return sites
}

// readRoutes reads routes while they are provisioned. Caddy has already turned some
// of them into modules, and of others it still has the JSON.
func readRoutes(list caddyhttp.RouteList) []route {
	routes := make([]route, 0, len(list))
	for i := range list {
		routes = append(routes, readRoute(&list[i]))
	}
	return routes
}

func readRoute(from *caddyhttp.Route) route {
	into := route{Group: from.Group}
	for _, set := range from.MatcherSetsRaw {
		into.Match = append(into.Match, maps.Clone(map[string]json.RawMessage(set)))
	}
	for _, set := range from.MatcherSets {
		matchers := make(map[string]json.RawMessage)
		for _, matcher := range set {
			if module, ok := matcher.(caddy.Module); ok {
				matchers[caddy.GetModuleName(module)], _ = json.Marshal(matcher)
			}
		}
		into.Match = append(into.Match, matchers)
	}
	for _, raw := range from.HandlersRaw {
		var one handler
		if json.Unmarshal(raw, &one) == nil {
			into.Handle = append(into.Handle, one)
		}
	}
	for _, module := range from.Handlers {
		one := handler{name: caddy.GetModuleName(module)}
		if subroute, ok := module.(*caddyhttp.Subroute); ok {
			one.routes = readRoutes(subroute.Routes)
		} else {
			one.config, _ = json.Marshal(module)
		}
		into.Handle = append(into.Handle, one)
	}
	return into
}

// invokes returns the name of the route that a handler invokes.
func (h *handler) invokes() string {
	var invoke struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(h.config, &invoke)
	return invoke.Name
}

// directive returns the configuration of a directive of this plugin.
func (h *handler) directive(realm string) directive {
	config := directive{Name: h.name}
	_ = json.Unmarshal(h.config, &config)
	if config.Realm == "" && len(config.TrustIssuers) == 0 {
		config.Realm = realm
	}
	return config
}

// isGuard reports whether the handler of this name refuses callers.
func isGuard(name string) bool { return name == "mtls_auth" || name == "mtls_bearer" }

// isOurs reports whether the handler of this name is of this plugin.
func isOurs(name string) bool { return isGuard(name) || name == "mtls_issuer" }

// serves reports whether a handler gives callers what is behind it.
func (h *handler) serves() bool {
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
func (h *handler) answers() bool {
	var files struct {
		PassThru bool `json:"pass_thru"`
	}
	if h.name == "file_server" && json.Unmarshal(h.config, &files) == nil && files.PassThru {
		return false
	}
	return h.serves() || h.name == "static_response" || h.name == "error" || h.name == statusPage
}

// stripsOnly returns the prefix that a rewrite removes from the path, if it does
// nothing else.
func (h *handler) stripsOnly() string {
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

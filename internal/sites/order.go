package sites

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// A condition is the matchers of a route.
type condition struct {
	text  string
	paths []string // of which one must match; none if other requests match too
	at    int      // how many handlers were passed before it is looked at
	// onlyPaths is set if nothing but these paths is asked for
	onlyPaths bool
}

// dependsOnPath reports whether the condition looks at the path in any way.
func (c *condition) dependsOnPath() bool { return strings.Contains(c.text, "path") }

// A branch is a route of which a request takes only one.
type branch struct {
	list  int
	group string
	index int
}

// A stop is a handler on the way of a request. A site may have thousands, so what is
// compared with every other one is read only once.
type stop struct {
	name      string
	directive directive // if the handler is of this plugin
	serves    bool
	answers   bool
	strips    string // see handler.stripsOnly
	guarded   bool   // a guard sees every request that reaches it
	// authenticates is set if it refuses everybody whom it does not know
	authenticates bool
	// showsStatus is set if it may serve the status page
	showsStatus bool
	at          int
	conditions  []condition
	branches    []branch
}

// maxStops bounds a walk: where each of many named routes invokes the next one twice,
// the last is invoked more often than can be counted.
const maxStops = 10_000

// walk collects the handlers of a site, in the order in which they run.
type walk struct {
	site  *Site
	stops []stop
	lists int
	named map[string]*namedRoute
}

// A namedRoute is one that a handler invokes.
type namedRoute struct {
	routes []route
	inside bool // the walk is
}

// stopsOf returns the handlers of a site in the order in which they run.
func stopsOf(s *Site) []stop {
	w := walk{site: s, named: make(map[string]*namedRoute)}
	w.through(s.routes, nil, nil)
	for i := range w.stops {
		w.stops[i].guarded = w.stops[i].serves && w.stops[i].isGuarded(w.stops)
	}
	return w.stops
}

func (w *walk) through(routes []route, conditions []condition, branches []branch) {
	w.lists++
	list := w.lists
	for i := range routes {
		route, within, inside := &routes[i], conditions, branches
		if len(route.Match) > 0 {
			text, paths := conditionsOf(route.Match)
			within = append(slices.Clip(within), condition{text, paths, len(w.stops), onlyPaths(route.Match)})
		}
		if route.Group != "" {
			inside = append(slices.Clip(inside), branch{list, route.Group, i})
		}
		for j := range route.Handle {
			switch handler := &route.Handle[j]; {
			case len(w.stops) == maxStops:
				return
			case handler.routes != nil:
				w.through(handler.routes, within, inside)
			case handler.name == "invoke":
				w.throughNamed(handler.invokes(), within, inside)
			default:
				w.stopAt(handler, within, inside)
			}
		}
	}
}

// throughNamed walks through a named route, but not again while it is inside: JSON may
// have named routes invoke themselves.
func (w *walk) throughNamed(name string, conditions []condition, branches []branch) {
	named := w.named[name]
	if named == nil {
		named = new(namedRoute)
		if route := w.site.server.NamedRoutes[name]; route != nil {
			named.routes = readRoutes(caddyhttp.RouteList{*route})
		}
		w.named[name] = named
	}
	if named.inside {
		return
	}
	named.inside = true
	w.through(named.routes, conditions, branches)
	named.inside = false
}

func (w *walk) stopAt(handler *handler, conditions []condition, branches []branch) {
	at := stop{
		name: handler.name, serves: handler.serves(), answers: handler.answers(),
		at: len(w.stops), conditions: conditions, branches: branches,
	}
	switch {
	case isOurs(handler.name):
		at.directive = handler.directive(w.site.realm)
	case handler.name == "rewrite":
		at.strips = handler.stripsOnly()
	}
	at.authenticates, at.showsStatus = handler.authenticates(at.directive), handler.showsStatus()
	w.stops = append(w.stops, at)
}

// excludes reports whether no request passes both.
func (s *stop) excludes(other *stop) bool {
	for _, one := range s.branches {
		for _, another := range other.branches {
			if one.list == another.list && one.group == another.group && one.index != another.index {
				return true
			}
		}
	}
	return false
}

// within reports whether everything that reaches s has met the conditions of other.
// With onlyPaths, those that do not name paths do not count.
func (s *stop) within(other *stop, onlyPaths bool) bool {
	for _, needed := range other.conditions {
		if onlyPaths && needed.paths == nil {
			continue
		}
		if !slices.ContainsFunc(s.conditions, func(c condition) bool { return c.text == needed.text }) {
			return false
		}
	}
	return true
}

// paths returns the paths of the innermost condition that names some.
func (s *stop) paths() []string {
	for _, c := range slices.Backward(s.conditions) {
		if c.paths != nil {
			return c.paths
		}
	}
	return nil
}

// maxShownPaths bounds the paths in a warning.
const maxShownPaths = 8

// warnAboutOrder logs warnings about directives of this plugin that requests of the
// site can get past, one for each kind, however many directives there are.
func (s *Site) warnAboutOrder(logger *zap.Logger) {
	logger = logger.With(zap.Strings("hosts", s.Hosts))
	stops := stopsOf(s)
	leavesUnguarded := slices.ContainsFunc(stops, func(s stop) bool { return s.serves && !s.guarded })
	rewritten, open, unreached := make(pairs), make(pairs), make(pairs)
	realms := make(map[[2]string]struct{})
	for i := range stops {
		at := &stops[i]
		if !isOurs(at.name) && at.name != statusPage {
			continue
		}
		if isGuard(at.name) && leavesUnguarded {
			rewritten.add(at, findBefore(stops, at, at.seesRewritten))
			open.add(at, at.openIn(stops))
		}
		unreached.add(at, findBefore(stops, at, at.neverReachedAfter))
		if guard := findBefore(stops, at, at.asksAnotherRealm); guard != nil {
			realms[[2]string{guard.directive.Realm, at.directive.Realm}] = struct{}{}
		}
	}
	for pair, paths := range rewritten {
		logger.Warn("path matcher sees the path after a rewrite", pair.fields(paths)...)
	}
	for pair, paths := range open {
		logger.Warn("site is partly open", pair.fields(paths)...)
	}
	for pair, paths := range unreached {
		logger.Warn("directive is never reached", pair.fields(paths)...)
	}
	for both := range realms {
		logger.Warn("two realms must both admit a request", zap.Strings("realms", both[:]))
	}
}

// pair is the names of a directive and of the handler that is in its way.
type pair struct{ directive, handler string }

// pairs are the paths of the directives, by pair.
type pairs map[pair][]string

// add notes a directive, unless nothing is in its way.
func (p pairs) add(directive, handler *stop) {
	if handler != nil {
		key := pair{directive.name, handler.name}
		p[key] = append(p[key], directive.paths()...)
	}
}

func (p pair) fields(paths []string) []zap.Field {
	slices.Sort(paths)
	paths = slices.Compact(paths)
	return []zap.Field{
		zap.String("directive", p.directive), zap.String("handler", p.handler),
		zap.Strings("paths", paths[:min(len(paths), maxShownPaths)]), zap.Int("all_paths", len(paths)),
	}
}

// findBefore returns the first stop that a request can pass before s and that is as
// asked for, or nil.
func findBefore(stops []stop, s *stop, is func(*stop) bool) *stop {
	for i := range stops[:s.at] {
		if earlier := &stops[i]; is(earlier) && !earlier.excludes(s) {
			return earlier
		}
	}
	return nil
}

// neverReachedAfter reports whether another handler answers every request that would
// reach s.
func (s *stop) neverReachedAfter(earlier *stop) bool {
	return earlier.answers && s.within(earlier, false)
}

// asksAnotherRealm reports whether s and an earlier guard both decide about a request,
// each with the clients of its own realm.
func (s *stop) asksAnotherRealm(earlier *stop) bool {
	one, other := &earlier.directive, &s.directive
	return one.Realm != other.Realm && one.mustAdmit() && other.mustAdmit() &&
		isGuard(earlier.name) && isGuard(s.name) && (s.within(earlier, false) || earlier.within(s, false))
}

// isGuarded reports whether a guard sees every request that reaches s.
func (s *stop) isGuarded(stops []stop) bool {
	return findBefore(stops, s, func(guard *stop) bool { return isGuard(guard.name) && s.within(guard, true) }) != nil
}

// openIn returns a handler that the guard s was meant for, but which also serves
// requests that no guard sees, or nil. A handler for other paths, or in another
// handle block, is open on purpose.
func (s *stop) openIn(stops []stop) *stop {
	for i := range stops {
		serving := &stops[i]
		if serving.serves && !serving.guarded && !serving.excludes(s) && !disjoint(s.paths(), serving.paths()) {
			return serving
		}
	}
	return nil
}

// seesRewritten reports whether a path that s is meant for can be another one by the
// time that the matcher of s looks at it.
func (s *stop) seesRewritten(rewrite *stop) bool {
	if rewrite.name != "rewrite" {
		return false
	}
	if rewrite.strips != "" && slices.Contains(rewrite.paths(), rewrite.strips+"/*") {
		return false // handle_path
	}
	for _, c := range s.conditions {
		if c.at > rewrite.at && c.dependsOnPath() && !disjoint(c.paths, rewrite.paths()) {
			return true
		}
	}
	return false
}

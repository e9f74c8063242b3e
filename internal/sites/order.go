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
}

// dependsOnPath reports whether the condition looks at the path in any way.
func (c *condition) dependsOnPath() bool { return strings.Contains(c.text, "path") }

// A branch is a route of which a request takes only one.
type branch struct {
	list  int
	group string
	index int
}

// A stop is a handler on the way of a request.
type stop struct {
	*handler
	at         int
	conditions []condition
	branches   []branch
}

// maxRouteLists bounds a walk, because JSON may have named routes invoke themselves.
const maxRouteLists = 10_000

// walk collects the handlers of a site, in the order in which they run.
type walk struct {
	server *caddyhttp.Server
	stops  []stop
	lists  int
}

// stopsOf returns the handlers of a site in the order in which they run.
func stopsOf(s *Site) []stop {
	w := walk{server: s.server}
	w.through(s.routes, nil, nil)
	return w.stops
}

func (w *walk) through(routes []route, conditions []condition, branches []branch) {
	w.lists++
	list := w.lists
	for i := range routes {
		route, within, inside := &routes[i], conditions, branches
		if len(route.Match) > 0 {
			text, paths := conditionsOf(route.Match)
			within = append(slices.Clip(within), condition{text, paths, len(w.stops)})
		}
		if route.Group != "" {
			inside = append(slices.Clip(inside), branch{list, route.Group, i})
		}
		for j := range route.Handle {
			handler := &route.Handle[j]
			if routes := handler.inside(w.server); routes != nil && w.lists < maxRouteLists {
				w.through(routes, within, inside)
				continue
			}
			w.stops = append(w.stops, stop{handler, len(w.stops), within, inside})
		}
	}
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

// WarnAboutOrder logs warnings about directives of this plugin that requests of the
// site can get past.
func (s *Site) WarnAboutOrder(logger *zap.Logger) {
	stops := stopsOf(s)
	for i := range stops {
		at := &stops[i]
		logger := logger.With(zap.Strings("hosts", s.Hosts), zap.String("directive", at.name))
		if rewrite := findBefore(stops, at, at.seesRewritten); rewrite != nil && isGuard(at.name) && leavesUnguarded(stops) {
			logger.Warn("path matcher sees the path after a rewrite", zap.Strings("paths", at.paths()))
		}
		if open := at.openIn(stops); open != nil && isGuard(at.name) {
			logger.Warn("site is partly open", zap.Strings("paths", at.paths()), zap.String("handler", open.name))
		}
		if answer := findBefore(stops, at, at.neverReachedAfter); answer != nil && at.isOurs() {
			logger.Warn("directive is never reached", zap.String("handler", answer.name))
		}
		if guard := findBefore(stops, at, func(guard *stop) bool { return at.asksAnotherRealm(guard, s.realm) }); guard != nil {
			logger.Warn("two realms must both admit a request", zap.Strings("realms", []string{guard.directive(s.realm).Realm, at.directive(s.realm).Realm}))
		}
	}
}

// findBefore returns the first stop that a request can pass before s and that is as
// asked for, or nil.
func findBefore(stops []stop, s *stop, is func(*stop) bool) *stop {
	for i := range stops[:s.at] {
		if earlier := &stops[i]; !earlier.excludes(s) && is(earlier) {
			return earlier
		}
	}
	return nil
}

// neverReachedAfter reports whether another handler answers every request that would
// reach s.
func (s *stop) neverReachedAfter(earlier *stop) bool {
	return earlier.answers() && s.within(earlier, false)
}

// asksAnotherRealm reports whether s and an earlier guard both decide about a request,
// each with the clients of its own realm.
func (s *stop) asksAnotherRealm(earlier *stop, realm string) bool {
	if !isGuard(s.name) || !isGuard(earlier.name) || !s.within(earlier, false) && !earlier.within(s, false) {
		return false
	}
	one, other := earlier.directive(realm), s.directive(realm)
	return one.Realm != other.Realm && one.mustAdmit() && other.mustAdmit()
}

// isGuarded reports whether a guard sees every request that reaches s.
func (s *stop) isGuarded(stops []stop) bool {
	return findBefore(stops, s, func(guard *stop) bool { return isGuard(guard.name) && s.within(guard, true) }) != nil
}

// leavesUnguarded reports whether a handler serves requests that no guard sees.
func leavesUnguarded(stops []stop) bool {
	return slices.ContainsFunc(stops, func(s stop) bool { return s.serves() && !s.isGuarded(stops) })
}

// openIn returns a handler that the guard s was meant for, but which also serves
// requests that no guard sees, or nil. A handler for other paths, or in another
// handle block, is open on purpose.
func (s *stop) openIn(stops []stop) *stop {
	for i := range stops {
		serving := &stops[i]
		if serving.serves() && !serving.excludes(s) && !disjoint(s.paths(), serving.paths()) && !serving.isGuarded(stops) {
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
	if prefix := rewrite.stripsOnly(); prefix != "" && slices.Contains(rewrite.paths(), prefix+"/*") {
		return false // handle_path
	}
	for _, c := range s.conditions {
		if c.at > rewrite.at && c.dependsOnPath() && !disjoint(c.paths, rewrite.paths()) {
			return true
		}
	}
	return false
}

package mtlsauth

import (
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// allowList is a compiled `allow` option. Without entries it admits every client.
type allowList struct {
	exact     map[string]struct{}
	wildcards []wildcard
}

// wildcard is a pattern, split at its asterisks, each of which stands for any
// run of characters.
type wildcard []string

func newAllowList(patterns []string) allowList {
	list := allowList{exact: make(map[string]struct{})}
	for _, pattern := range patterns {
		if parts := strings.Split(pattern, "*"); len(parts) > 1 {
			list.wildcards = append(list.wildcards, parts)
		} else {
			list.exact[pattern] = struct{}{}
		}
	}
	return list
}

// admits reports whether the list admits the client with this id.
func (l allowList) admits(id string) bool {
	if len(l.exact) == 0 && len(l.wildcards) == 0 {
		return true
	}
	if _, ok := l.exact[id]; ok {
		return true
	}
	return slices.ContainsFunc(l.wildcards, func(w wildcard) bool { return w.matches(id) })
}

// matchesAny reports whether a pattern of `allow` admits a client of the registry. It
// looks only at those that begin as the pattern does.
func matchesAny(pattern string, registry *clients.Registry) bool {
	prefix, _, isWildcard := strings.Cut(pattern, "*")
	if !isWildcard {
		return registry.Client(pattern) != nil
	}
	list := newAllowList([]string{pattern})
	for client := range registry.From(prefix) {
		switch {
		case list.admits(client.ID):
			return true
		case !strings.HasPrefix(client.ID, prefix):
			return false
		}
	}
	return false
}

func (w wildcard) matches(id string) bool {
	first, last := w[0], w[len(w)-1]
	if len(id) < len(first)+len(last) || !strings.HasPrefix(id, first) || !strings.HasSuffix(id, last) {
		return false
	}
	id = id[len(first) : len(id)-len(last)]
	for _, part := range w[1 : len(w)-1] {
		i := strings.Index(id, part)
		if i < 0 {
			return false
		}
		id = id[i+len(part):]
	}
	return true
}

// checkAllow returns why the pattern can match no client id, or nil.
func checkAllow(pattern string) error {
	plain := strings.ReplaceAll(pattern, "*", "")
	if plain == "" && pattern != "" {
		return nil
	}
	return clients.CheckID(plain)
}

// Package allowlist decides which clients a directive admits, by patterns of their names.
package allowlist

import (
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// List is a compiled `allow` option. Without entries it admits every client.
type List struct {
	exact     map[string]struct{}
	wildcards []wildcard
}

// wildcard is a pattern, split at its asterisks, each of which stands for any
// run of characters.
type wildcard []string

// New compiles patterns. In each, an asterisk stands for any run of characters.
func New(patterns []string) List {
	list := List{exact: make(map[string]struct{})}
	for _, pattern := range patterns {
		if parts := strings.Split(pattern, "*"); len(parts) > 1 {
			list.wildcards = append(list.wildcards, parts)
		} else {
			list.exact[pattern] = struct{}{}
		}
	}
	return list
}

// Admits reports whether the list admits the client with this id.
func (l List) Admits(id string) bool {
	if len(l.exact) == 0 && len(l.wildcards) == 0 {
		return true
	}
	if _, ok := l.exact[id]; ok {
		return true
	}
	return slices.ContainsFunc(l.wildcards, func(w wildcard) bool { return w.matches(id) })
}

// MatchesAny reports whether a pattern admits a client of the registry. It
// looks only at those that begin as the pattern does.
func MatchesAny(pattern string, registry *clients.Registry) bool {
	prefix, _, isWildcard := strings.Cut(pattern, "*")
	if !isWildcard {
		return registry.Client(pattern) != nil
	}
	list := New([]string{pattern})
	for client := range registry.From(prefix) {
		switch {
		case list.Admits(client.ID):
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

// Check returns why a pattern can match no client id, or nil.
func Check(pattern string) error {
	plain := strings.ReplaceAll(pattern, "*", "")
	if plain == "" && pattern != "" {
		return nil
	}
	return clients.CheckID(plain)
}

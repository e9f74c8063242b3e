package mtlsauth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// allowList is a compiled `allow` option; without entries it admits every client.
type allowList struct {
	exact     map[string]struct{}
	wildcards []wildcard
}

// wildcard is a pattern cut at its asterisks, each of which stands for any run
// of characters.
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

func (l allowList) admits(id string) bool {
	if len(l.exact) == 0 && len(l.wildcards) == 0 {
		return true
	}
	if _, ok := l.exact[id]; ok {
		return true
	}
	return slices.ContainsFunc(l.wildcards, func(w wildcard) bool { return w.matches(id) })
}

func (l allowList) admitsAny(registry *clients.Registry) bool {
	for id := range l.exact {
		if registry.Client(id) != nil {
			return true
		}
	}
	if len(l.wildcards) == 0 {
		return false
	}
	for client := range registry.All() {
		if l.admits(client.ID) {
			return true
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

func checkAllow(pattern string) error {
	plain := strings.ReplaceAll(pattern, "*", "")
	if plain == "" && pattern != "" {
		return nil
	}
	if err := clients.CheckID(plain); err != nil {
		return fmt.Errorf("allow '%s': %w", pattern, err)
	}
	return nil
}

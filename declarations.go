package mtlsauth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// usedByForwardToken is the one use of an audience that several directives may
// share.
const usedByForwardToken = "forward_token"

// declarations collects what directives add to the app while they are
// provisioned. Caddy serves the metrics of a configuration from before that, so
// everything here is guarded, and readers get copies.
type declarations struct {
	mu        sync.Mutex
	audiences map[string]string
	keys      map[trustedKeysID]*tokens.TrustedKeys
	headers   []string
	servers   []*caddyhttp.Server
	// pools are those of trust_issuer
	pools  []*trustpool.Pool
	caches map[cacheName][]cacheSize
}

// cacheName is what metrics call the caches that directives of a realm have.
type cacheName struct{ realm, cache string }

// cacheSize returns the number of entries.
type cacheSize func() int

// addCache adds a cache to those of the same name.
func (d *declarations) addCache(realm, cache string, entries cacheSize) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.caches == nil {
		d.caches = make(map[cacheName][]cacheSize)
	}
	name := cacheName{realm, cache}
	d.caches[name] = append(d.caches[name], entries)
}

// cacheEntries returns the number of entries of the caches.
func (d *declarations) cacheEntries() map[cacheName]int {
	d.mu.Lock()
	defer d.mu.Unlock()
	entries := make(map[cacheName]int, len(d.caches))
	for name, caches := range d.caches {
		for _, size := range caches {
			entries[name] += size()
		}
	}
	return entries
}

// first reports whether it is called for the first time for a server.
func (d *declarations) first(server *caddyhttp.Server) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if slices.Contains(d.servers, server) {
		return false
	}
	d.servers = append(d.servers, server)
	return true
}

// reserveAudience records the use of an audience: "forward_token", or the
// directive that accepts access tokens for it. An audience has one use only, so
// that a gateway token cannot be mistaken for an access token, or the reverse.
func (d *declarations) reserveAudience(audience, use string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	other, used := d.audiences[audience]
	if used && other != use && (other == usedByForwardToken || use == usedByForwardToken) {
		return fmt.Errorf("audience '%s' is used by %s and by %s, so their tokens could be mistaken for each other; choose another audience", audience, other, use)
	}
	if !used {
		d.audiences[audience] = use
	}
	return nil
}

// trustedKeys returns the keys that were added under this ID, or nil.
func (d *declarations) trustedKeys(id trustedKeysID) *tokens.TrustedKeys {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.keys[id]
}

func (d *declarations) addTrustedKeys(id trustedKeysID, keys *tokens.TrustedKeys) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.keys[id] = keys
}

// allTrustedKeys returns a copy of the keys of all trusted servers.
func (d *declarations) allTrustedKeys() map[trustedKeysID]*tokens.TrustedKeys {
	d.mu.Lock()
	defer d.mu.Unlock()
	return maps.Clone(d.keys)
}

func (d *declarations) addPool(pool *trustpool.Pool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pools = append(d.pools, pool)
}

// allPools returns a copy of the trust pools of all trusted servers.
func (d *declarations) allPools() []*trustpool.Pool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.pools)
}

// addHeaders notes headers that a directive sets. It leaves out Authorization:
// where a directive does not set it, it is the caller's own, such as the token
// that mtls_bearer passes on.
func (d *declarations) addHeaders(names []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range names {
		if !strings.EqualFold(name, "Authorization") && !slices.Contains(d.headers, name) {
			d.headers = append(d.headers, name)
		}
	}
}

// allHeaders returns a copy of the names of headers that directives set.
func (d *declarations) allHeaders() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.headers)
}

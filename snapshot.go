package mtlsauth

import (
	"fmt"
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// maxWarnedClients is how many clients a warning names.
const maxWarnedClients = 20

// components are what a realm decides by. Each can change while the realm is in
// use.
type components struct {
	registry *clients.Registry
	trust    *trustpool.Trust // the zero Trust without a trust pool
	shadow   *trustpool.Trust // nil without a shadow trust pool
}

// snapshot is everything that a realm decides by at one moment. It is immutable:
// when a component changes, a new snapshot with empty caches replaces it, and
// decides the next request on every connection.
type snapshot struct {
	*authn.Authenticator
	components
	// issuer is nil if none is configured
	issuer *tokens.Issuer
	grants map[*clients.Client]tokens.Grant
}

// change replaces components of the current snapshot. If the new ones do not fit
// together, the snapshot stays and the error says why.
func (realm *Realm) change(update func(*components)) error {
	realm.changing.Lock()
	defer realm.changing.Unlock()
	next := realm.current.Load().components
	update(&next)
	built, err := realm.build(next)
	if err != nil {
		return err
	}
	if realm.shadow != nil {
		realm.shadow.Use(next.shadow.Pool)
	}
	realm.current.Store(built)
	return nil
}

// build returns a snapshot of components, or why they do not fit together.
func (realm *Realm) build(c components) (*snapshot, error) {
	before := realm.current.Load()
	// in the order of their IDs, so that the same error comes first every time
	sorted := slices.SortedFunc(c.registry.All(), func(a, b *clients.Client) int { return strings.Compare(a.ID, b.ID) })
	if err := realm.checkTrust(sorted, c.trust, wordTrustPool, before != nil && before.trust == c.trust); err != nil {
		return nil, err
	}
	if c.shadow != nil {
		if err := realm.checkTrust(sorted, c.shadow, wordShadowPool, true); err != nil {
			return nil, err
		}
	}
	if realm.Issuer.isFAPI2() {
		if err := checkProfileClients(sorted); err != nil {
			return nil, fmt.Errorf("issuer: %w", err)
		}
	}
	config := authn.Config{
		Registry: c.registry, Trust: c.trust.Pool, Shadow: realm.shadow, Forwards: &realm.forwards,
		StrongKeys: realm.Issuer.isFAPI2(), Now: realm.app.Now,
	}
	if c.shadow != nil {
		config.ShadowTrust = c.shadow.Pool
	}
	if realm.revocation != nil {
		config.Revocation = realm.revocation.checker
	}
	s := &snapshot{Authenticator: authn.New(config), components: c}
	switch {
	case realm.app.withoutIssuers:
		return s, nil
	case realm.issuer == nil:
		return s, checkResources(sorted, nil)
	}
	var prepared map[*clients.Client]tokens.Grant
	if before != nil {
		prepared = before.grants
	}
	if before != nil && before.registry == c.registry {
		s.issuer, s.grants = before.issuer, before.grants
		return s, nil
	}
	var err error
	if s.issuer, err = realm.issuer.serverFor(c.registry); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	if err = checkResources(sorted, s.issuer); err != nil {
		return nil, err
	}
	if s.grants, err = prepareGrants(c.registry, prepared); err != nil {
		return nil, fmt.Errorf("issuer: %w", err)
	}
	return s, nil
}

// checkTrust checks the clients against a trust pool. warned is set if the warning
// about the pool has been logged already.
func (realm *Realm) checkTrust(sorted []*clients.Client, anchors *trustpool.Trust, word string, warned bool) error {
	var loose []string // clients whose names any CA of the pool can issue
	for _, client := range sorted {
		switch {
		case anchors.Pool == nil && client.HasPKI():
			i := slices.IndexFunc(client.Credentials, func(cred *clients.Credential) bool { return !cred.Kind.Pinned() })
			cred := client.Credentials[i]
			return fmt.Errorf("client '%s': %s '%s': the realm has no trust_pool, so any CA could issue this name; add one", client.ID, cred.Kind, cred.Value)
		case anchors.Pool == nil && (client.RequireChain || len(client.IssuedBy) > 0):
			return fmt.Errorf("client '%s': require_chain and issued_by need a trust_pool in the realm; add one or remove them", client.ID)
		case anchors.System && client.HasPKI() && len(client.IssuedBy) == 0:
			return fmt.Errorf("client '%s': under %s system any public CA could issue its name; add issued_by with the SHA-256 hash of the right CA", client.ID, word)
		case len(anchors.Certificates) > 1 && client.HasPKI() && len(client.IssuedBy) == 0:
			loose = append(loose, client.ID)
		}
	}
	if len(loose) > 0 && !warned {
		realm.logger.Warn("trust pool has several CAs that can each issue the clients' names; add issued_by",
			zap.Int("cas", len(anchors.Certificates)), zap.Int("clients", len(loose)),
			zap.Strings("client_ids", loose[:min(len(loose), maxWarnedClients)]))
	}
	return nil
}

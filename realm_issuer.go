package mtlsauth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// realmIssuer is the part of a realm's issuer that stays the same while clients
// change.
type realmIssuer struct {
	url    string
	config tokens.IssuerConfig
	keys   *keyring.Source
	// fixed is the ID of the key in signing_key, or "" with managed keys
	fixed string
	// revokedTokens are the tokens that have been revoked
	revokedTokens *tokens.RevokedTokens
}

// newRealmIssuer reads the signing keys and the revoked tokens of a realm's issuer.
func newRealmIssuer(realm *Realm, registry *clients.Registry) (*realmIssuer, error) {
	config, err := realm.Issuer.expand()
	if err != nil {
		return nil, err
	}
	if err := tokens.CheckIssuerURL(config.URL); err != nil {
		return nil, fmt.Errorf("issuer '%s': %w", config.URL, err)
	}
	i := &realmIssuer{url: config.URL}
	if i.keys, i.fixed, err = signingKeys(realm, config, registry); err != nil {
		return nil, err
	}
	if err := config.checkProfile(i.keys); err != nil {
		return nil, err
	}
	if i.revokedTokens, err = loadRevokedTokens(realm, config.URL); err != nil {
		return nil, err
	}
	i.config = tokens.IssuerConfig{
		URL:           config.URL,
		Lifetime:      time.Duration(config.TokenLifetime),
		MTLSAlias:     config.MTLSAlias,
		Audience:      config.Audience,
		ScopeClaim:    config.ScopeClaim,
		Resources:     config.Resources,
		RevokedTokens: i.revokedTokens,
		Now:           realm.app.Now,
	}
	return i, nil
}

// serverFor returns the authorization server for these clients. Its metadata says
// which scopes they can have and how they can authenticate.
func (i *realmIssuer) serverFor(registry *clients.Registry) (*tokens.Issuer, error) {
	config := i.config
	config.Scopes = registry.Scopes()
	config.Registered = func(id string) bool {
		client := registry.Client(id)
		return client != nil && !client.Disabled
	}
	if registry.HasPKI() {
		config.AuthMethods = append(config.AuthMethods, tokens.TLSClientAuth)
	}
	if registry.HasPins() {
		config.AuthMethods = append(config.AuthMethods, tokens.SelfSignedTLSClientAuth)
	}
	return tokens.NewIssuer(config, i.keys)
}

// prepareGrants prepares what a token says about each client, so that a request
// has little left to encode. before has the grants of the previous snapshot, which
// are used again.
func prepareGrants(registry *clients.Registry, before map[*clients.Client]tokens.Grant) (map[*clients.Client]tokens.Grant, error) {
	grants := make(map[*clients.Client]tokens.Grant, registry.Len())
	for client := range registry.All() {
		if grant, known := before[client]; known {
			grants[client] = grant
			continue
		}
		claims := make(map[string]any, len(client.Claims))
		for name, value := range client.Claims {
			claims[name] = value
		}
		prepared, err := tokens.PrepareClaims(claims)
		if err != nil {
			return nil, fmt.Errorf("client '%s': %w", client.ID, err)
		}
		grants[client] = tokens.Grant{
			ClientID:      client.ID,
			Scopes:        client.Scopes,
			DefaultScopes: client.DefaultScopes,
			Resources:     client.Resources,
			Claims:        prepared,
			Lifetime:      client.TokenLifetime,
		}
	}
	return grants, nil
}

// checkIssuers refuses issuer URLs and signing keys that two realms share, because
// tokens of one would be accepted as tokens of the other.
func (a *App) checkIssuers() error {
	urls, keys := make(map[string]string), make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(a.Realms)) {
		issuer := a.Realms[name].issuer
		if issuer == nil {
			continue
		}
		// libraries and people confuse URLs that differ in this only
		url := strings.TrimSuffix(strings.ToLower(issuer.url), "/")
		if other, twice := urls[url]; twice {
			return fmt.Errorf("realm '%s': issuer '%s' is also that of realm '%s'; give each realm its own URL", name, issuer.url, other)
		}
		urls[url] = name
		if other, twice := keys[issuer.fixed]; twice && issuer.fixed != "" {
			return fmt.Errorf("realm '%s': issuer: the key in signing_key is also that of realm '%s'; give each realm its own key", name, other)
		}
		keys[issuer.fixed] = name
	}
	return nil
}

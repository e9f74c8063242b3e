package mtlsauth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// Issuer is a realm's token authority: an OAuth 2.0 authorization server
// (RFC 6749) whose clients authenticate by certificate (RFC 8705).
type Issuer struct {
	// The issuer identifier: an https URL without query and fragment
	// (RFC 8414 §2). All endpoints lie below it.
	URL string `json:"url"`

	// How long an access token lasts; never past the end of the certificate
	// it is bound to. Default: `1h`.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// The signing algorithm: `ES256`, `ES384`, `ES512`, `RS256`, `RS384`,
	// `RS512`, `PS256`, `PS384`, `PS512` or `EdDSA`. Default: `ES256`, or what
	// fits the `signing_key`.
	SigningAlgorithm string `json:"signing_algorithm,omitempty"`

	// A PEM file with the private key that signs. Default: keys that are made
	// and rotated by themselves and kept in storage, so that a cluster shares
	// them.
	SigningKey string `json:"signing_key,omitempty"`

	// Files with public keys that are published and accepted, but never sign:
	// those of a server that is being replaced. Each is a PEM file with one
	// public key or certificate, a JWK or a JWK Set.
	VerifyKeys []string `json:"verify_keys,omitempty"`

	// How long a key signs before the next one does. Default: `90d`, at least
	// `1h`. Not with `signing_key`.
	RotateEvery caddy.Duration `json:"rotate_every,omitempty"`

	// How long a key is published before it signs, so that those who cache the
	// keys have it by then. Default: `24h`, at least `5s` and less than
	// `rotate_every`. Not with `signing_key`.
	AnnounceFor caddy.Duration `json:"announce_for,omitempty"`

	// The base URL of the token endpoint for clients with a certificate, where
	// that is another host than the issuer's (RFC 8705 §5).
	MTLSAlias string `json:"mtls_alias,omitempty"`

	// The audience of tokens that are for no resource. Default: the issuer
	// URL, where no resource is declared.
	Audience []string `json:"audience,omitempty"`

	// The APIs that tokens are for (RFC 8707).
	Resources []Resource `json:"resources,omitempty"`

	// Refuse a configuration that a security profile does not allow. The only
	// one is `fapi2`, the FAPI 2.0 Security Profile: tokens are signed with
	// `ES256`, `PS256` or `EdDSA`, no client is known by a SHA-1 thumbprint, the
	// issuer's sites offer no CBC cipher suites, and certificates with RSA keys
	// of less than 2048 bits are refused. Default: none.
	Profile string `json:"profile,omitempty"`

	// How `scope` is written in tokens: `string`, scopes separated by spaces
	// (RFC 9068 §2.2.3), or `array`, an array of strings, which IdentityServer
	// emits. In the token response it is always a string. Default: `string`.
	ScopeClaim string `json:"scope_claim,omitempty"`
}

// Resource is an API and the scopes that belong to it.
type Resource struct {
	// The name of the API in the `aud` claim. Clients ask for it with the
	// `resource` parameter if it is an absolute URL.
	Name string `json:"name"`

	// The scopes that belong to the API; a scope belongs to one resource.
	Scopes []string `json:"scopes,omitempty"`
}

// authority is a realm's issuer at work: what stays the same while clients come
// and go.
type authority struct {
	url    string
	config tokens.IssuerConfig
	keys   *keyring.Source
	// fixed is the id of the key in signing_key, "" for managed keys.
	fixed string
	// revocations are the tokens that were revoked
	revocations *tokens.Revocations
}

func (realm *Realm) provisionIssuer(registry *clients.Registry) error {
	config, err := realm.Issuer.expand()
	if err != nil {
		return err
	}
	if err := tokens.CheckIssuerURL(config.URL); err != nil {
		return fmt.Errorf("issuer '%s': %w", config.URL, err)
	}
	a := &authority{url: config.URL}
	if a.keys, a.fixed, err = realm.signingKeys(config, registry); err != nil {
		return err
	}
	if err := config.checkProfile(a.keys); err != nil {
		return err
	}
	if a.revocations, err = realm.loadRevocations(config.URL); err != nil {
		return err
	}
	a.config = tokens.IssuerConfig{
		URL:         config.URL,
		Lifetime:    time.Duration(config.TokenLifetime),
		MTLSAlias:   config.MTLSAlias,
		Audience:    config.Audience,
		ScopeClaim:  config.ScopeClaim,
		Revocations: a.revocations,
		Now:         realm.app.Now,
	}
	for _, resource := range config.Resources {
		a.config.Resources = append(a.config.Resources, tokens.Resource(resource))
	}
	realm.authority = a
	return nil
}

// issuer returns the authorization server of these clients: what they can have,
// and how they can authenticate, is in its metadata.
func (a *authority) issuer(registry *clients.Registry) (*tokens.Issuer, error) {
	config := a.config
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
	return tokens.NewIssuer(config, a.keys)
}

// expand resolves the placeholders of the issuer's own values.
func (i Issuer) expand() (Issuer, error) {
	i.Audience = slices.Clone(i.Audience)
	i.Resources = slices.Clone(i.Resources)
	i.VerifyKeys = slices.Clone(i.VerifyKeys)
	values := map[string]*string{"url": &i.URL, "signing_key": &i.SigningKey, "mtls_alias": &i.MTLSAlias}
	for n := range i.Audience {
		values[fmt.Sprintf("audience %d", n+1)] = &i.Audience[n]
	}
	for n := range i.VerifyKeys {
		values[fmt.Sprintf("verify_key %d", n+1)] = &i.VerifyKeys[n]
	}
	for n := range i.Resources {
		values[fmt.Sprintf("resource %d", n+1)] = &i.Resources[n].Name
	}
	for _, word := range slices.Sorted(maps.Keys(values)) {
		expanded, err := expand(*values[word])
		if err != nil {
			return i, fmt.Errorf("%s '%s': %w", word, *values[word], err)
		}
		*values[word] = expanded
	}
	return i, nil
}

// prepareGrants makes of each client what a token can say of it, so that a
// request has little left to encode. before is what has been prepared already.
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

// checkIssuers refuses what two realms may not share: tokens of one would pass
// for tokens of the other.
func (a *App) checkIssuers() error {
	urls, keys := make(map[string]string), make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(a.Realms)) {
		authority := a.Realms[name].authority
		if authority == nil {
			continue
		}
		// libraries and people take one for the other
		url := strings.TrimSuffix(strings.ToLower(authority.url), "/")
		if other, twice := urls[url]; twice {
			return fmt.Errorf("realm '%s': issuer '%s' is that of realm '%s' too; give each realm its own URL", name, authority.url, other)
		}
		urls[url] = name
		if other, twice := keys[authority.fixed]; twice && authority.fixed != "" {
			return fmt.Errorf("realm '%s': issuer: the key in signing_key is that of realm '%s' too; give each realm its own key", name, other)
		}
		keys[authority.fixed] = name
	}
	return nil
}

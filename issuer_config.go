package mtlsauth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// IssuerConfig configures a realm's issuer: an OAuth 2.0 authorization server
// (RFC 6749) whose clients authenticate by certificate (RFC 8705).
type IssuerConfig struct {
	// The issuer identifier: an https URL without query and fragment
	// (RFC 8414 §2). All endpoints lie below it.
	URL string `json:"url"`

	// The lifetime of access tokens. A token never outlives the certificate that
	// it is bound to. Default: `1h`.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// The signing algorithm: `ES256`, `ES384`, `ES512`, `RS256`, `RS384`,
	// `RS512`, `PS256`, `PS384`, `PS512` or `EdDSA`. Default: `ES256`, or one
	// that fits the `signing_key`.
	SigningAlgorithm string `json:"signing_algorithm,omitempty"`

	// A PEM file with the private signing key. Default: managed keys, which are
	// created and rotated automatically and kept in storage, where a cluster
	// shares them.
	SigningKey string `json:"signing_key,omitempty"`

	// Files with public keys that are published and accepted but never sign, such
	// as those of a server that is being replaced. Each is a PEM file with one
	// public key or certificate, a JWK or a JWK Set.
	VerifyKeys []string `json:"verify_keys,omitempty"`

	// How long a managed key signs before the next one replaces it. Default: `90d`,
	// at least `1h`. Not allowed with `signing_key`.
	RotateEvery caddy.Duration `json:"rotate_every,omitempty"`

	// How long a managed key is published before it signs, so that servers that
	// cache the keys have it by then. Default: `24h`, at least `5s` and less than
	// `rotate_every`. Not allowed with `signing_key`.
	AnnounceFor caddy.Duration `json:"announce_for,omitempty"`

	// The base URL of the endpoints for clients with a certificate, if it is on
	// another host than the issuer (RFC 8705 §5).
	MTLSAlias string `json:"mtls_alias,omitempty"`

	// The audience of tokens that are for no resource. Default: the issuer URL, if
	// no resource is declared.
	Audience []string `json:"audience,omitempty"`

	// The APIs that tokens are for (RFC 8707).
	Resources []tokens.Resource `json:"resources,omitempty"`

	// A security profile. A configuration that it does not allow is refused. The
	// only one is `fapi2`, the FAPI 2.0 Security Profile: tokens are signed with
	// `ES256`, `PS256` or `EdDSA`, no client has a SHA-1 thumbprint, the issuer's
	// sites offer no CBC cipher suites, and certificates with RSA keys shorter
	// than 2048 bits are refused. Default: none.
	Profile string `json:"profile,omitempty"`

	// The form of the `scope` claim: `string`, scopes separated by spaces
	// (RFC 9068 §2.2.3), or `array`, an array of strings, as IdentityServer emits
	// it. In the token response, `scope` is always a string. Default: `string`.
	ScopeClaim string `json:"scope_claim,omitempty"`
}

// expand resolves the placeholders of the issuer's own values.
func (i IssuerConfig) expand() (IssuerConfig, error) {
	i.Resources = slices.Clone(i.Resources)
	type setting struct {
		option string
		value  *string
	}
	settings := []setting{{"url", &i.URL}, {"signing_key", &i.SigningKey}, {"mtls_alias", &i.MTLSAlias}}
	for n := range i.Resources {
		settings = append(settings, setting{"resource", &i.Resources[n].Name})
	}
	var err error
	for _, s := range settings {
		before := *s.value
		if *s.value, err = caddyfileutil.Expand(before); err != nil {
			return i, fmt.Errorf("%s '%s': %w", s.option, before, err)
		}
	}
	if i.Audience, err = caddyfileutil.ExpandAll("audience", i.Audience); err != nil {
		return i, err
	}
	i.VerifyKeys, err = caddyfileutil.ExpandAll("verify_key", i.VerifyKeys)
	return i, err
}

// profileFAPI2 is the FAPI 2.0 Security Profile. Most of what it requires of a
// server whose clients have certificates holds anyway: clients authenticate by
// certificate, every token is bound to it, metadata is published, no key is weak,
// and Caddy offers no TLS below 1.2. The checks here are the rest.
const profileFAPI2 = "fapi2"

// fapiAlgorithms are the signing algorithms of §5.4.1.
var fapiAlgorithms = []keyring.Algorithm{keyring.ES256, keyring.PS256, keyring.EdDSA}

func checkProfileName(name string) error {
	if name != profileFAPI2 {
		return fmt.Errorf("unknown profile; the only one is %s", profileFAPI2)
	}
	return nil
}

func checkFAPIAlgorithm(algorithm keyring.Algorithm) error {
	if !slices.Contains(fapiAlgorithms, algorithm) {
		return fmt.Errorf("profile %s: signing algorithm '%s' is not allowed; use signing_algorithm ES256, PS256 or EdDSA, with a matching key", profileFAPI2, algorithm)
	}
	return nil
}

// checkProfile checks the issuer's settings and keys against its profile. A past
// key may have any algorithm, because its tokens expire.
func (i *IssuerConfig) checkProfile(keys *keyring.Source) error {
	if i.Profile == "" {
		return nil
	}
	if err := checkProfileName(i.Profile); err != nil {
		return fmt.Errorf("profile '%s': %w", i.Profile, err)
	}
	if err := checkFAPIAlgorithm(keys.Algorithm()); err != nil {
		return err
	}
	for _, info := range keys.Infos() {
		remedy := "add the profile once a key for signing_algorithm has replaced it"
		switch {
		case slices.Contains(fapiAlgorithms, info.Algorithm) || info.State == keyring.StatePast:
			continue
		case info.State == keyring.StateVerify:
			remedy = "remove it from verify_key"
		}
		return fmt.Errorf("profile %s: the %s key '%s' is for %s, which is not allowed; %s", profileFAPI2, info.State, info.ID, info.Algorithm, remedy)
	}
	return nil
}

// isFAPI2 reports whether the issuer has the FAPI 2.0 profile. A nil issuer does not.
func (i *IssuerConfig) isFAPI2() bool { return i != nil && i.Profile == profileFAPI2 }

// checkProfileClients checks that no client has a SHA-1 thumbprint: a token that
// is bound to a certificate which can be forged is not sender-constrained.
func checkProfileClients(sorted []*clients.Client) error {
	for _, client := range sorted {
		if i := slices.IndexFunc(client.Credentials, (*clients.Credential).IsSHA1); i >= 0 {
			return fmt.Errorf("client '%s': thumbprint '%s' is SHA-1, which profile %s does not allow; replace it with the SHA-256 thumbprint", client.ID, client.Credentials[i].Value, profileFAPI2)
		}
	}
	return nil
}

// checkResources checks the clients' resources against the issuer, which is nil
// if the realm has none.
func checkResources(sorted []*clients.Client, issuer *tokens.Issuer) error {
	for _, client := range sorted {
		if err := checkResourcesOf(client, issuer); err != nil {
			return fmt.Errorf("client '%s': %w", client.ID, err)
		}
	}
	return nil
}

func checkResourcesOf(client *clients.Client, issuer *tokens.Issuer) error {
	const noIssuer = "%s '%s': the realm has no issuer, so it issues no tokens; add an issuer, or remove the word"
	switch {
	case issuer == nil && len(client.Introspect) > 0:
		return fmt.Errorf(noIssuer, "introspect", client.Introspect[0])
	case issuer == nil && len(client.Resources) > 0:
		return fmt.Errorf(noIssuer, "resources", client.Resources[0])
	}
	for _, resource := range client.Resources {
		if !issuer.IsResource(resource) {
			return fmt.Errorf("resources '%s': the issuer has no such resource; declare it with 'resource %s { … }', or correct the name", resource, resource)
		}
	}
	for _, audience := range client.Introspect {
		if !issuer.IsAudience(audience) {
			return fmt.Errorf("introspect '%s': no token of the issuer has this audience; declare it as a resource or audience, or correct the name", audience)
		}
	}
	return nil
}

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
	// denied is nil without a deny file
	denied *deniedTokens
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
	if i.revokedTokens, err = loadRevokedTokens(realm, config.URL, longestToken(config, registry)); err != nil {
		return nil, err
	}
	i.denied = newDeniedTokens(realm)
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
	config.HasScope = func(id, scope string) bool {
		client := registry.Client(id)
		return client != nil && client.HasScope(scope)
	}
	if i.denied != nil {
		config.Denied = i.denied.has
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
func checkIssuers(realms map[string]*Realm) error {
	urls, keys := make(map[string]string), make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(realms)) {
		issuer := realms[name].issuer
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

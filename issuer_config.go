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

// realmIssuer is the part of a realm's issuer that stays the same while clients
// change.
type realmIssuer struct {
	url    string
	config tokens.IssuerConfig
	// settings have their placeholders expanded
	settings IssuerConfig
	keys     *keyring.Source
	// fixed is the ID of the key in signing_key, or "" with managed keys
	fixed string
	// revokedTokens are the tokens that have been revoked
	revokedTokens *tokens.RevokedTokens
	// denied is nil without a deny file
	denied *deniedTokens
	// server has no clients; see [snapshot]
	server *tokens.Issuer
}

// newRealmIssuer returns a realm's issuer without its keys.
func newRealmIssuer(realm *Realm) (*realmIssuer, error) {
	settings, err := realm.Issuer.expand()
	if err != nil {
		return nil, err
	}
	if err := tokens.CheckIssuerURL(settings.URL); err != nil {
		return nil, fmt.Errorf("issuer '%s': %w", settings.URL, err)
	}
	return &realmIssuer{url: settings.URL, settings: settings, config: tokens.IssuerConfig{
		URL:        settings.URL,
		Lifetime:   time.Duration(settings.TokenLifetime),
		MTLSAlias:  settings.MTLSAlias,
		Audience:   settings.Audience,
		ScopeClaim: settings.ScopeClaim,
		Resources:  settings.Resources,
		Now:        realm.app.Now,
	}}, nil
}

// load reads the signing keys and the revoked tokens. The registry is that of the first
// snapshot.
func (i *realmIssuer) load(realm *Realm, registry *clients.Registry) (err error) {
	if i.keys, i.fixed, err = signingKeys(realm, i.settings, registry); err != nil {
		return err
	}
	if err := i.settings.checkProfile(i.keys); err != nil {
		return err
	}
	longest := func() time.Duration { return longestToken(i.settings, realm.directory.Registry()) }
	if i.revokedTokens, err = loadRevokedTokens(realm, i.url, longest); err != nil {
		return err
	}
	i.config.RevokedTokens = i.revokedTokens
	if i.denied = newDeniedTokens(realm); i.denied != nil {
		i.config.Denied = i.denied.has
	}
	i.server, err = tokens.NewIssuer(i.config, i.keys)
	return err
}

// withClients returns the server with the clients of a registry.
func (i *realmIssuer) withClients(registry *clients.Registry) *tokens.Issuer {
	return i.server.WithClients(issuerClients{registry, i.config.Now})
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

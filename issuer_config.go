package mtlsauth

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/authserver"
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

// settings returns what the issuer is, with placeholders expanded.
func (i IssuerConfig) settings(now func() time.Time) (settings authserver.Settings, err error) {
	if i, err = i.expand(); err != nil {
		return settings, err
	}
	if err := tokens.CheckIssuerURL(i.URL); err != nil {
		return settings, fmt.Errorf("issuer '%s': %w", i.URL, err)
	}
	if err := i.checkRotation(); err != nil {
		return settings, err
	}
	if i.SigningAlgorithm != "" {
		if settings.Algorithm, err = keyring.ParseAlgorithm(i.SigningAlgorithm); err != nil {
			return settings, err
		}
	}
	settings.SigningKey, settings.VerifyKeys = i.SigningKey, i.VerifyKeys
	settings.RotateEvery, settings.AnnounceFor = time.Duration(i.RotateEvery), time.Duration(i.AnnounceFor)
	settings.Config = tokens.IssuerConfig{
		URL: i.URL, Lifetime: time.Duration(i.TokenLifetime), MTLSAlias: i.MTLSAlias, Audience: i.Audience,
		ScopeClaim: i.ScopeClaim, Resources: i.Resources, Now: now,
	}
	return settings, nil
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

// checkRotation reports what is wrong with the settings of key rotation.
func (i *IssuerConfig) checkRotation() error {
	if i.SigningKey != "" && (i.RotateEvery != 0 || i.AnnounceFor != 0) {
		return errors.New("rotate_every and announce_for apply to managed keys only; remove them, or remove signing_key")
	}
	return keyring.CheckRotation(time.Duration(i.RotateEvery), time.Duration(i.AnnounceFor))
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

// loadIssuer loads the issuer of a realm.
func loadIssuer(realm *Realm, settings authserver.Settings) (*authserver.Server, error) {
	host := authserver.Host{
		Realm: realm.name, Storage: realm.storage, Logger: realm.logger, Events: realm.events,
		Registry: realm.directory.Registry, Ended: realm.app.stopped.Load, Before: realm.running().issuer,
	}
	if realm.revocation != nil && realm.revocation.deny != nil {
		host.Deny = realm.revocation.checker
	}
	issuer, err := authserver.Load(realm.app.ctx, settings, host)
	if err != nil {
		return nil, err
	}
	return issuer, realm.Issuer.checkProfile(issuer.Keys)
}

// issuersOf returns the issuers by the names of their realms.
func issuersOf(realms map[string]*Realm) map[string]*authserver.Server {
	issuers := make(map[string]*authserver.Server)
	for name, realm := range realms {
		if realm.issuer != nil {
			issuers[name] = realm.issuer
		}
	}
	return issuers
}

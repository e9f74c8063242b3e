package tokens

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

// maxTrustedDocument is the size of the largest metadata and JWKS documents,
// in bytes.
const maxTrustedDocument = 256 << 10

// TrustedKeysConfig describes another authorization server.
type TrustedKeysConfig struct {
	// Issuer is its identifier (RFC 8414 §2). Required.
	Issuer string
	// JWKSURI is the https URL of its keys. Default: `jwks_uri` of its metadata.
	JWKSURI string
	// Transport makes the requests. Default: direct connections that trust the
	// CAs of the system.
	Transport http.RoundTripper
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// TrustedKeys is the key set of another authorization server, kept fresh. It
// starts no goroutine: its owner calls Refresh when it is Due. Keys that are
// known stay in use while they cannot be read. It is safe for concurrent use.
type TrustedKeys struct {
	config  TrustedKeysConfig
	fetcher *source.Fetcher
	url     *source.URL
	keys    atomic.Pointer[trustedJWKS] // nil until they have been read

	// faults are those of keys that are left out; told are those of which the owner
	// knows.
	faults, told atomic.Pointer[[]string]
}

// NewTrustedKeys returns a key set that is due. Errors name the value that is
// wrong and the remedy.
func NewTrustedKeys(cfg TrustedKeysConfig) (*TrustedKeys, error) {
	if _, err := parseBaseURL(cfg.Issuer); err != nil {
		return nil, fmt.Errorf("issuer '%s': %w", source.ShownValue(cfg.Issuer), err)
	}
	i := &TrustedKeys{config: cfg, fetcher: source.NewSecureFetcher(cfg.Transport)}
	urlConfig := source.URLConfig{
		Address: cfg.Issuer, MaxBytes: maxTrustedDocument, Accept: i.useJWKS, Fetch: i.fetchJWKS, Now: cfg.Now,
	}
	if cfg.JWKSURI != "" {
		if err := CheckJWKSURI(cfg.JWKSURI); err != nil {
			return nil, fmt.Errorf("jwks_uri '%s': %w", source.ShownURL(cfg.JWKSURI), err)
		}
		urlConfig.Address, urlConfig.Fetch = cfg.JWKSURI, i.fetcher.Get
	}
	var err error
	i.url, err = source.NewURL(urlConfig)
	return i, err
}

// CheckJWKSURI returns why keys cannot be read from an address.
func CheckJWKSURI(address string) error {
	if source.CheckSecureURL(address) != nil {
		return errors.New("not an https URL; use one like https://auth.example.com/keys")
	}
	return nil
}

// PublicKey returns the only key with that `kid` that can verify alg; without
// a `kid`, the only key at all that can. A missing key makes the keys due, at
// most once in 30 seconds.
func (i *TrustedKeys) PublicKey(kid string, alg keyring.Algorithm) (keyring.PublicKey, bool) {
	if keys := i.keys.Load(); keys != nil {
		if key, ok := keys.find(kid, alg); ok {
			return key, true
		}
	}
	i.url.AskSoon()
	return keyring.PublicKey{}, false
}

// Ready reports whether the keys have been read.
func (i *TrustedKeys) Ready() bool { return i.keys.Load() != nil }

// Due returns when the keys should be read, the zero time if at once.
func (i *TrustedKeys) Due() time.Time { return i.url.Due() }

// Refresh reads the keys, whether or not they are due. changed reports whether
// they differ from the previous ones. While it runs, another call does nothing.
func (i *TrustedKeys) Refresh(ctx context.Context) (changed bool, err error) {
	_, changed, err = i.url.Refresh(ctx)
	return changed, err
}

// Interval returns how long the keys are kept before they are fetched again.
func (i *TrustedKeys) Interval() time.Duration { return i.url.Interval() }

// Failure returns why the last fetch failed, or nil.
func (i *TrustedKeys) Failure() error { return i.url.Failure() }

// LastSuccess returns when the keys were last read, the zero time if never.
func (i *TrustedKeys) LastSuccess() time.Time { return i.url.Success() }

// TakeOver continues with the keys of a set with the same configuration, so
// that a new configuration does not start without keys.
func (i *TrustedKeys) TakeOver(old *TrustedKeys) {
	if i.config.Issuer == old.config.Issuer {
		i.url.TakeOver(old.url)
		i.told.Store(old.told.Load())
	}
}

// NewFaults returns what is wrong with keys that are left out, or nil if that is what
// it returned before. It is called by one goroutine at a time.
func (i *TrustedKeys) NewFaults() []string {
	faults, told := i.faults.Load(), i.told.Load()
	if faults == nil || told != nil && slices.Equal(*faults, *told) {
		return nil
	}
	i.told.Store(faults)
	return *faults
}

func (i *TrustedKeys) useJWKS(content []byte) error {
	keys, faults, err := parseTrustedJWKS(content)
	if err == nil {
		i.keys.Store(&keys)
		i.faults.Store(&faults)
	}
	return err
}

// fetchJWKS gets the JWKS from the address in the metadata. It reads both each
// time, because the server may move its keys.
func (i *TrustedKeys) fetchJWKS(ctx context.Context, issuer string, limit int64) (source.Document, error) {
	var errs []error
	for _, address := range MetadataURLs(issuer) {
		document, err := i.fetcher.Get(ctx, address, limit)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", source.ShownURL(address), err))
			continue
		}
		uri, err := jwksURI(document.Content, issuer)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", source.ShownURL(address), err))
			continue
		}
		if document, err = i.fetcher.Get(ctx, uri, limit); err != nil {
			return document, fmt.Errorf("jwks_uri of %s: %w", source.ShownURL(address), err)
		}
		return document, nil
	}
	return source.Document{}, errors.Join(errs...)
}

// MetadataURLs returns the addresses where an issuer's metadata may be: with
// the well-known path between host and path (RFC 8414 §3.1), and after the
// path (OpenID Connect Discovery).
func MetadataURLs(issuer string) []string {
	issuer = strings.TrimSuffix(issuer, "/")
	parsed, err := url.Parse(issuer)
	if err != nil {
		return nil
	}
	base := strings.TrimSuffix(issuer, parsed.Path)
	return []string{
		base + "/.well-known/oauth-authorization-server" + parsed.Path,
		issuer + "/.well-known/openid-configuration",
	}
}

// jwksURI returns the address of the keys. The issuer is compared byte for
// byte (RFC 8414 §3.3): the metadata of another server would lead to the keys
// of another server.
func jwksURI(content []byte, issuer string) (string, error) {
	members, err := jsonObject(content)
	if err != nil {
		return "", err
	}
	said, err := stringMember(members, "issuer")
	if err != nil {
		return "", err
	}
	if said != issuer {
		return "", fmt.Errorf("it is the metadata of issuer %.200q", said)
	}
	uri, err := stringMember(members, "jwks_uri")
	switch {
	case err != nil:
		return "", err
	case uri == "":
		return "", errors.New("the metadata has no jwks_uri; name it in the configuration")
	}
	if err := CheckJWKSURI(uri); err != nil {
		return "", fmt.Errorf("jwks_uri: %w", err)
	}
	return uri, nil
}

func jsonObject(content []byte) (map[string]json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(content, &members); err != nil || members == nil {
		return nil, errors.New("not a JSON object")
	}
	return members, nil
}

// Interface guards
var (
	_ KeySet = (*TrustedKeys)(nil)
	_ KeySet = (*keyring.Source)(nil)
)

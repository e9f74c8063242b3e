package tokens

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

const defaultLifetime = time.Hour

// The forms of the `scope` claim in tokens. In a token response and in an
// introspection response `scope` is always a string.
const (
	ScopeString = "string" // scopes separated by spaces (RFC 9068 §2.2.3)
	ScopeArray  = "array"  // an array of strings, which IdentityServer emits
)

// IssuerConfig describes an authorization server.
type IssuerConfig struct {
	// URL is the issuer identifier (RFC 8414 §2): https, without query,
	// fragment and userinfo. It is used byte for byte as `iss`. Required.
	URL string
	// Lifetime is how long a token lives, at least a second. Default: 1h.
	Lifetime time.Duration
	// Audience is the `aud` of tokens that belong to no resource. Default:
	// the issuer URL if there are no Resources, else nothing.
	Audience []string
	// Resources are the APIs that tokens are for.
	Resources []Resource
	// MTLSAlias is the base URL of `mtls_endpoint_aliases` (RFC 8705 §5) where
	// mutual TLS is on another host. Default: the issuer's own /connect/mtls/
	// paths.
	MTLSAlias string
	// ScopeClaim is how `scope` is written in tokens: [ScopeString] or
	// [ScopeArray]. Default: ScopeString.
	ScopeClaim string
	// Clients are the registered clients. Default: every token is good as long as
	// it lasts, and the metadata names no scopes.
	Clients Clients
	// Denied reports whether the certificate of that `x5t#S256` is denied. Tokens
	// that are bound to it are inactive. Default: none is.
	Denied func(thumbprint string) bool
	// RevokedTokens are the tokens that have been revoked. Default: none, and
	// there is no revocation endpoint.
	RevokedTokens *RevokedTokens
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// Issuer is an authorization server without its HTTP and TLS. It is safe for
// concurrent use.
type Issuer struct {
	*server
	clients  Clients
	metadata atomic.Pointer[ringMetadata]
}

// server is the part of an issuer that does not depend on its clients.
type server struct {
	config    IssuerConfig // with the defaults, except those of the metadata
	audiences audiences
	keys      *keyring.Source
	routes    routes
	verifier  *Verifier
	revocable *Verifier
}

// NewIssuer returns an issuer that signs with keys. Errors name the value that
// is wrong and the remedy.
func NewIssuer(cfg IssuerConfig, keys *keyring.Source) (*Issuer, error) {
	issuer, err := parseBaseURL(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("issuer '%s': %w", cfg.URL, err)
	}
	var alias *url.URL
	if cfg.MTLSAlias != "" {
		if alias, err = parseBaseURL(cfg.MTLSAlias); err != nil {
			return nil, fmt.Errorf("mtls_alias '%s': %w", cfg.MTLSAlias, err)
		}
	}
	if err := cfg.checkSettings(); err != nil {
		return nil, err
	}
	audiences, err := newAudiences(cfg)
	if err != nil {
		return nil, err
	}
	cfg.Lifetime = cmp.Or(cfg.Lifetime, defaultLifetime)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	verifier, err := NewVerifier(VerifierConfig{Issuer: cfg.URL, Keys: keys, Now: cfg.Now})
	if err != nil {
		return nil, err
	}
	revocable, err := NewVerifier(VerifierConfig{Issuer: cfg.URL, Keys: keys, Now: cfg.Now, Slack: expiredKeep})
	if err != nil {
		return nil, err
	}
	routes := newRoutes(issuer, alias, cfg.RevokedTokens != nil)
	i := &Issuer{server: &server{config: cfg, audiences: audiences, keys: keys, routes: routes, verifier: verifier, revocable: revocable}}
	return i.WithClients(cfg.Clients), nil
}

// WithClients returns the issuer as it is when clients have changed. That costs next to
// nothing: the metadata is made when it is asked for.
func (i *Issuer) WithClients(clients Clients) *Issuer {
	if clients == nil {
		clients = anyClients{}
	}
	return &Issuer{server: i.server, clients: clients}
}

// JWKS returns the public keys (RFC 7517 §5). If there are none yet it loads
// or creates them, for as long as ctx allows; the error is then
// temporarily_unavailable.
func (i *Issuer) JWKS(ctx context.Context) (keyring.Document, *Error) {
	ring, err := i.keys.Ensure(ctx)
	if err != nil {
		return keyring.Document{}, unavailable(err)
	}
	return ring.JWKS(), nil
}

// Metadata returns the authorization server metadata (RFC 8414 §3.2), one
// document for both well-known paths.
func (i *Issuer) Metadata() keyring.Document {
	ring := i.keys.Current()
	if last := i.metadata.Load(); last != nil && last.ring == ring {
		return last.document
	}
	document := newMetadata(i.config, i.clients, i.keys.Algorithms())
	i.metadata.Store(&ringMetadata{ring, document})
	return document
}

// Endpoint returns what a host (with or without port) serves at a decoded
// path. Paths match exactly, without case folding and trailing slashes. The
// host of mtls_alias serves only the endpoints that need a certificate; any
// other host is taken for the issuer's.
func (i *Issuer) Endpoint(host, path string) EndpointKind { return i.routes.find(host, path) }

// Owns reports whether a path that is no endpoint is below the issuer's
// /connect/, or below /.well-known/ on the host of mtls_alias. It is a mistake to
// ask for it, and not the concern of anything else that the host serves.
func (i *Issuer) Owns(host, path string) bool { return i.routes.owns(host, path) }

// AliasFor returns the token endpoint of mtls_alias if that is on another host
// than this one, else "".
func (i *Issuer) AliasFor(host string) string {
	if i.routes.aliasHost == "" || i.routes.isAlias(host) {
		return ""
	}
	return strings.TrimSuffix(i.config.MTLSAlias, "/") + pathToken
}

// checkSettings returns what is wrong with the settings that are not URLs.
func (cfg *IssuerConfig) checkSettings() error {
	if cfg.Lifetime != 0 && cfg.Lifetime < time.Second {
		return fmt.Errorf("token lifetime '%v' is too short; use at least 1s", cfg.Lifetime)
	}
	for n, aud := range cfg.Audience {
		switch {
		case aud == "":
			return fmt.Errorf("an audience of issuer '%s' is empty; remove it or give it a value", cfg.URL)
		case slices.Contains(cfg.Audience[:n], aud):
			return fmt.Errorf("audience '%s' is listed twice; remove one", aud)
		}
	}
	if cfg.ScopeClaim != "" {
		if err := CheckScopeClaim(cfg.ScopeClaim); err != nil {
			return fmt.Errorf("scope_claim '%s': %w", cfg.ScopeClaim, err)
		}
	}
	return nil
}

// CheckScopeClaim returns why form is not a form of the `scope` claim.
func CheckScopeClaim(form string) error {
	if form != ScopeString && form != ScopeArray {
		return fmt.Errorf("not a form of the claim; use %s or %s", ScopeString, ScopeArray)
	}
	return nil
}

// CheckIssuerURL returns what is wrong with an issuer identifier (RFC 8414
// §2), without naming it. [NewIssuer] checks the same for URL and MTLSAlias.
func CheckIssuerURL(raw string) error {
	_, err := parseBaseURL(raw)
	return err
}

// parseBaseURL parses an https URL that paths can be joined to. It refuses
// everything that a client, a proxy and this server might spell differently.
func parseBaseURL(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	switch {
	case !strings.HasPrefix(raw, "https://"):
		return nil, errors.New("not an https URL; use one like https://auth.example.com")
	case err != nil:
		return nil, errors.New("not a valid URL; use one like https://auth.example.com")
	case !validHost(u):
		return nil, errors.New("the URL has no valid host; use one like https://auth.example.com")
	case u.User != nil:
		return nil, errors.New("the URL has a user name; remove it")
	case strings.ContainsAny(raw, "?#"):
		return nil, errors.New("the URL has a query or fragment; remove it (RFC 8414 §2)")
	case u.EscapedPath() != u.Path:
		return nil, errors.New("the URL's path has characters that must be encoded; use only A-Z a-z 0-9 - . _ ~ and /")
	}
	segments := strings.Split(u.Path, "/")
	for n, segment := range segments {
		inner := n > 0 && n < len(segments)-1
		if segment == "." || segment == ".." || inner && segment == "" {
			return nil, errors.New("the URL's path has an empty or dot segment; write it without")
		}
	}
	return u, nil
}

var hostName = regexp.MustCompile(`^[A-Za-z0-9.:_-]+$`)

func validHost(u *url.URL) bool {
	port, err := strconv.ParseUint(cmp.Or(u.Port(), defaultPort), 10, 16)
	return hostName.MatchString(u.Hostname()) && !strings.HasSuffix(u.Host, ":") && err == nil && port > 0
}

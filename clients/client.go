package clients

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Client is a registered caller, ready to be looked up. Except for its memo, it
// never changes.
type Client struct {
	ID               string
	Name             string
	Scopes           []string
	DefaultScopes    []string
	Resources        []string // nil for all that have one of its scopes
	Introspect       []string
	Claims           map[string]json.RawMessage
	TokenLifetime    time.Duration // zero for the issuer's
	Disabled         bool
	RequireChain     bool
	SharedCredential bool
	IssuedBy         [][sha256.Size]byte
	Credentials      []*Credential

	// keySet has the certificates in the client's JWKS, nil while it is not known, and
	// listed a credential for each of them
	keySet      []*x509.Certificate
	listed      []*Credential
	keyWarnings []string

	// source is where its record is, for errors. A client of a smaller rank has what
	// others claim, too
	source    string
	rank      int
	scope     string
	claimText map[string]string

	memo atomic.Pointer[any]
}

// Memo is where whoever looks clients up keeps what it prepares for a client when it
// first needs it. It goes with the client.
func (c *Client) Memo() *atomic.Pointer[any] { return &c.memo }

// Scope returns the client's scopes, separated by spaces.
func (c *Client) Scope() string { return c.scope }

// HasScope reports whether the client is registered for scope.
func (c *Client) HasScope(scope string) bool {
	return slices.Contains(c.Scopes, scope)
}

// ClaimText returns the claim as a placeholder shows it: a string as it is, any
// other value as JSON, and "" if there is no such claim.
func (c *Client) ClaimText(name string) string { return c.claimText[name] }

// HasPKI reports whether the client has a credential that needs a chain.
func (c *Client) HasPKI() bool {
	return slices.ContainsFunc(c.Credentials, func(cred *Credential) bool { return !cred.Kind.Pinned() })
}

// trustDomain returns that of the client's spiffe: names, or "".
func (c *Client) trustDomain() string {
	for _, cred := range c.Credentials {
		if domain := cred.name.TrustDomain(); domain != "" {
			return domain
		}
	}
	return ""
}

// newClient makes the client of a record, whose placeholders must have been
// expanded, with the documents that it names. The warnings are for the operator's
// log.
func newClient(r Record, p *plan) (client *Client, warnings []warning, err error) {
	if err := CheckID(r.ClientID); err != nil {
		return nil, nil, err
	}
	c := &Client{
		ID: r.ClientID, Name: r.ClientName, Claims: r.Claims, TokenLifetime: time.Duration(r.TokenLifetime),
		Disabled: r.Disabled, RequireChain: r.RequireChain, SharedCredential: r.SharedCredential,
	}
	credentials := func(r Record) error { return c.setCredentials(r, p) }
	for _, step := range []func(Record) error{c.checkMetadata, c.setScopes, c.setResources, c.setClaims, c.setIssuedBy, credentials} {
		if err := step(r); err != nil {
			return nil, nil, fmt.Errorf("client '%s': %w", c.ID, err)
		}
	}
	for _, text := range c.keyWarnings {
		warnings = append(warnings, warning{client: c.ID, text: fmt.Sprintf("client '%s': jwks: %s", c.ID, text)})
	}
	return c, append(warnings, credentialWarnings(c, p.now)...), nil
}

func (c *Client) checkMetadata(r Record) error {
	if len(r.GrantTypes) > 0 && !slices.Contains(r.GrantTypes, "client_credentials") {
		return fmt.Errorf("grant_types %q lack client_credentials, the only supported grant; add it or remove the member", []string(r.GrantTypes))
	}
	switch r.TokenEndpointAuthMethod {
	case "", "tls_client_auth", "self_signed_tls_client_auth":
	default:
		return fmt.Errorf("token_endpoint_auth_method '%s' is not supported; use tls_client_auth or self_signed_tls_client_auth, or remove the member", r.TokenEndpointAuthMethod)
	}
	if r.CertificateBound != nil && !*r.CertificateBound {
		return errors.New("tls_client_certificate_bound_access_tokens is false, but every token is bound; remove the member")
	}
	if r.TokenLifetime != 0 {
		return CheckTokenLifetime(time.Duration(r.TokenLifetime))
	}
	return nil
}

func (c *Client) setScopes(r Record) error {
	for scope := range strings.FieldsSeq(r.Scope) {
		if err := syntax.CheckDeclaredScope(scope); err != nil {
			return err
		}
		if !c.HasScope(scope) {
			c.Scopes = append(c.Scopes, scope)
		}
	}
	for scope := range strings.FieldsSeq(r.DefaultScope) {
		if !c.HasScope(scope) {
			return fmt.Errorf("default scope '%s' is not one of the client's scopes; add it to them", scope)
		}
		if !slices.Contains(c.DefaultScopes, scope) {
			c.DefaultScopes = append(c.DefaultScopes, scope)
		}
	}
	c.scope = strings.Join(c.Scopes, " ")
	return nil
}

func (c *Client) setResources(r Record) error {
	for _, list := range []struct {
		word   string
		values []string
		into   *[]string
	}{{"resources", r.Resources, &c.Resources}, {"introspect", r.Introspect, &c.Introspect}} {
		for _, resource := range list.values {
			if resource == "" {
				return fmt.Errorf("%s: a resource is empty; remove it or set the variable it comes from", list.word)
			}
			if !slices.Contains(*list.into, resource) {
				*list.into = append(*list.into, resource)
			}
		}
	}
	return nil
}

func (c *Client) setClaims(r Record) error {
	c.claimText = make(map[string]string, len(r.Claims))
	for name, value := range r.Claims {
		text := syntax.ClaimText(value)
		if text == "" {
			return fmt.Errorf("claim %s is empty; remove it or give it a value", name)
		}
		c.claimText[name] = text
	}
	return nil
}

func (c *Client) setIssuedBy(r Record) error {
	for _, text := range r.IssuedBy {
		sum, err := validators.ParseSHA256(text)
		if err != nil {
			return fmt.Errorf("issued_by '%s': %w", text, err)
		}
		c.IssuedBy = append(c.IssuedBy, sum)
	}
	return nil
}

package clients

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Kind is the kind of a credential, as {http.mtls.credential} shows it.
type Kind string

// The kinds of credential. The subject is a PKI credential: it counts only
// when the chain verifies (RFC 8705 §2.1). The others are pins (§2.2).
const (
	KindSubject     Kind = "subject"
	KindThumbprint  Kind = "thumbprint"
	KindCertificate Kind = "certificate"
)

// Pinned reports whether credentials of the kind count without a chain.
func (k Kind) Pinned() bool { return k != KindSubject }

// Credential is one declared way to recognise a client.
type Credential struct {
	Client *Client
	Kind   Kind
	// Value is the declared value in its canonical spelling.
	Value string

	dn         validators.DN
	thumbprint validators.Thumbprint
}

// Client is a registered caller, ready to be looked up. It never changes.
type Client struct {
	ID               string
	Name             string
	Scopes           []string
	DefaultScopes    []string
	Claims           map[string]json.RawMessage
	TokenLifetime    time.Duration // zero: the issuer's
	Disabled         bool
	RequireChain     bool
	SharedCredential bool
	IssuedBy         [][sha256.Size]byte
	Credentials      []*Credential

	scope     string
	scopeSet  map[string]struct{}
	claimText map[string]string
}

// Scope is all the client's scopes, separated by spaces.
func (c *Client) Scope() string { return c.scope }

// HasScope reports whether the client is registered for scope.
func (c *Client) HasScope(scope string) bool {
	_, ok := c.scopeSet[scope]
	return ok
}

// ClaimText is the claim as a placeholder shows it: a string as it is, any
// other value as JSON, "" when there is no such claim.
func (c *Client) ClaimText(name string) string { return c.claimText[name] }

// HasPKI reports whether the client has a credential that needs a chain.
func (c *Client) HasPKI() bool {
	return slices.ContainsFunc(c.Credentials, func(cred *Credential) bool { return !cred.Kind.Pinned() })
}

// HasPins reports whether the client has a credential that needs no chain.
func (c *Client) HasPins() bool {
	return slices.ContainsFunc(c.Credentials, func(cred *Credential) bool { return cred.Kind.Pinned() })
}

// New makes the client of a record and reads the certificate files it names.
// The warnings are for the operator's log. The record's placeholders must have
// been expanded.
func New(r Record) (client *Client, warnings []string, err error) {
	if err := CheckID(r.ClientID); err != nil {
		return nil, nil, err
	}
	c := &Client{
		ID: r.ClientID, Name: r.ClientName, Claims: r.Claims, TokenLifetime: time.Duration(r.TokenLifetime),
		Disabled: r.Disabled, RequireChain: r.RequireChain, SharedCredential: r.SharedCredential,
	}
	for _, step := range []func(Record) error{c.checkMetadata, c.setScopes, c.setClaims, c.setIssuedBy, c.setCredentials} {
		if err := step(r); err != nil {
			return nil, nil, fmt.Errorf("client '%s': %w", c.ID, err)
		}
	}
	for _, cred := range c.Credentials {
		if cred.Kind == KindThumbprint && cred.thumbprint.IsSHA1() {
			warnings = append(warnings, fmt.Sprintf("client '%s': thumbprint '%s' is SHA-1, which can be forged; replace it by the SHA-256 thumbprint", c.ID, cred.Value))
		}
	}
	return c, warnings, nil
}

func (c *Client) checkMetadata(r Record) error {
	if len(r.GrantTypes) > 0 && !slices.Contains(r.GrantTypes, "client_credentials") {
		return fmt.Errorf("grant_types %q lack client_credentials, the only grant there is; add it or remove the member", []string(r.GrantTypes))
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
	c.scopeSet = make(map[string]struct{})
	for _, scope := range strings.Fields(r.Scope) {
		if err := CheckScope(scope); err != nil {
			return err
		}
		if _, twice := c.scopeSet[scope]; twice {
			continue
		}
		c.scopeSet[scope] = struct{}{}
		c.Scopes = append(c.Scopes, scope)
	}
	for _, scope := range strings.Fields(r.DefaultScope) {
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

func (c *Client) setClaims(r Record) error {
	c.claimText = make(map[string]string, len(r.Claims))
	for name, raw := range r.Claims {
		var text string
		if json.Unmarshal(raw, &text) == nil && !bytes.Equal(raw, []byte("null")) {
			if text == "" {
				return fmt.Errorf("claim %s is empty; remove it or give it a value", name)
			}
			c.claimText[name] = text
			continue
		}
		var compact bytes.Buffer
		if err := json.Compact(&compact, raw); err != nil {
			return fmt.Errorf("claim %s: %w", name, err)
		}
		c.claimText[name] = compact.String()
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

func (c *Client) setCredentials(r Record) error {
	for _, text := range r.SubjectDN {
		dn, err := validators.ParseDN(text)
		if err != nil {
			return fmt.Errorf("subject '%s': %w", text, err)
		}
		c.add(&Credential{Kind: KindSubject, Value: dn.String(), dn: dn})
	}
	for _, text := range r.Thumbprints {
		thumbprint, err := validators.ParseThumbprint(text)
		if err != nil {
			return fmt.Errorf("thumbprint '%s': %w", text, err)
		}
		c.add(&Credential{Kind: KindThumbprint, Value: thumbprint.String(), thumbprint: thumbprint})
	}
	for _, file := range r.CertificateFiles {
		cert, err := readCertificate(file)
		if err != nil {
			return fmt.Errorf("certificate '%s': %w", file, err)
		}
		thumbprint := validators.ThumbprintOf(cert.Raw)
		c.add(&Credential{Kind: KindCertificate, Value: thumbprint.String(), thumbprint: thumbprint})
	}
	if len(c.Credentials) == 0 {
		return errors.New("no credential; add a subject, thumbprint or certificate")
	}
	return nil
}

func (c *Client) add(cred *Credential) {
	cred.Client = c
	c.Credentials = append(c.Credentials, cred)
}

// readCertificate reads the one certificate of a PEM file.
func readCertificate(file string) (*x509.Certificate, error) {
	if file == "" {
		return nil, errors.New("the file name is empty; name a PEM file")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found *x509.Certificate
	for {
		var block *pem.Block
		if block, text = pem.Decode(text); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a PEM block %q; keep the certificate only", block.Type)
		}
		if found != nil {
			return nil, errors.New("holds several certificates; keep the client's own, without its chain")
		}
		if found, err = x509.ParseCertificate(block.Bytes); err != nil {
			return nil, err
		}
	}
	if found == nil {
		return nil, errors.New("holds no PEM certificate; convert a DER file with 'openssl x509 -inform der'")
	}
	return found, nil
}

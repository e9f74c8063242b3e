package clients

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// Client is a registered caller, ready to be looked up. Except for what is prepared for
// it when it is first needed, it never changes. There may be a million of them, so it
// has the text of its record only once.
type Client struct {
	*Traits
	*Origin
	ID          string
	Disabled    bool
	Credentials []Credential

	record   string
	prepared atomic.Pointer[prepared]
}

// Origin is where clients come from. Those of one source share one.
type Origin struct {
	source string
	// rank is small if it is high: a client takes what others of lower ranks have
	rank int
}

// NewOrigin returns the origin of the clients of a source.
func NewOrigin(source string, rank int) *Origin { return &Origin{source, rank} }

// Source returns the name of the source.
func (o *Origin) Source() string { return o.source }

// Rank returns the rank of the source. It is small if it is high: a client takes what
// clients of lower ranks have.
func (o *Origin) Rank() int { return o.rank }

// prepared is what is made for a client when it is first needed.
type prepared struct {
	memo   atomic.Pointer[any]
	claims atomic.Pointer[map[string]string]
}

func (c *Client) prepare() *prepared {
	if p := c.prepared.Load(); p != nil {
		return p
	}
	c.prepared.CompareAndSwap(nil, new(prepared))
	return c.prepared.Load()
}

// Memo is where whoever looks clients up keeps what it prepares for a client when it
// first needs it. It goes with the client.
func (c *Client) Memo() *atomic.Pointer[any] { return &c.prepare().memo }

// Record returns the JSON text of the client's record, without white space between
// tokens.
func (c *Client) Record() string { return c.record }

// NameIn returns the client_name in the JSON text of the record of a client, "" if it has
// none.
func NameIn(record string) string {
	if !strings.Contains(record, `"client_name"`) {
		return "" // most clients have none
	}
	var named struct {
		Name string `json:"client_name"`
	}
	_ = json.Unmarshal([]byte(record), &named) // a record in force can be read
	return named.Name
}

// HasRecord reports whether the client has been made of a record with this text, except
// for white space.
func (c *Client) HasRecord(text []byte) bool {
	return string(text) == c.record || strictjson.SameCompact(text, c.record)
}

// Claims returns the client's claims. It reads them from the record.
func (c *Client) Claims() map[string]json.RawMessage {
	if len(c.claimNames) == 0 {
		return nil
	}
	claims, _, _ := readRecord(c.record, new(Record)) // it has been read before
	return claimMap(claims)
}

// ClaimText returns the claim as a placeholder shows it: a string as it is, any
// other value as JSON, and "" if there is no such claim.
func (c *Client) ClaimText(name string) string {
	if !slices.Contains(c.claimNames, name) {
		return ""
	}
	p := c.prepare()
	texts := p.claims.Load()
	if texts == nil {
		texts = &map[string]string{}
		for name, value := range c.Claims() {
			(*texts)[name] = syntax.ClaimText(value)
		}
		p.claims.Store(texts)
	}
	return (*texts)[name]
}

// HasPKI reports whether the client has a credential that needs a chain.
func (c *Client) HasPKI() bool {
	return slices.ContainsFunc(c.Credentials, func(cred Credential) bool { return !cred.Kind.Pinned() })
}

// listed returns the certificates in the client's JWKS, none while it is not known.
func (c *Client) listed() []Credential {
	if cred := &c.Credentials[len(c.Credentials)-1]; cred.Kind == KindJWKS && cred.details != nil {
		return cred.details.listed
	}
	return nil
}

// readRecords are records that clients are made of. A million of them need not all be
// allocated.
var readRecords = sync.Pool{New: func() any { return new(Record) }}

// Documents has the certificate files and JWK Sets that records name. An error says why
// one cannot be used.
type Documents interface {
	// Certificate returns the certificate in a PEM file.
	Certificate(file string) (*x509.Certificate, error)
	// KeySet returns the certificates of a JWK Set in a file.
	KeySet(file string) ([]*x509.Certificate, error)
	// KeySetAt returns the certificates of the JWK Set behind a URL, nil if they are not
	// known yet, and the URL without a password.
	KeySetAt(address string) (name string, certificates []*x509.Certificate, err error)
}

// New makes the client of a record, whose placeholders must have been expanded, with the
// documents that it names. The warnings are for the operator's log, as of now. The text
// is copied.
func New(text []byte, from *Origin, documents Documents, now time.Time) (client *Client, warnings []Warning, err error) {
	record, r := string(text), readRecords.Get().(*Record)
	defer readRecords.Put(r)
	claims, spaces, err := readRecord(record, r)
	if err == nil && spaces > 0 {
		record = strictjson.Compact(record)
		claims, _, err = readRecord(record, r)
	}
	if err != nil {
		return nil, nil, err
	}
	if err := CheckID(r.ClientID); err != nil {
		return nil, nil, err
	}
	var few [4]Credential
	m := clientMaker{
		documents: documents, now: now, credentials: few[:0],
		client: &Client{ID: r.ClientID, Disabled: r.Disabled, record: record, Origin: from},
	}
	if err := m.make(r, claims); err != nil {
		return nil, nil, fmt.Errorf("client '%s': %w", r.ClientID, err)
	}
	return m.client, m.warnings, nil
}

// clientMaker makes a client of its record.
type clientMaker struct {
	documents   Documents
	now         time.Time
	client      *Client
	credentials []Credential
	warnings    []Warning
}

func (m *clientMaker) make(r *Record, claims []claim) (err error) {
	if err = checkMetadata(r); err != nil {
		return err
	}
	if m.client.Traits, err = sharedTraits.of(r, claims); err != nil {
		return err
	}
	for _, c := range claims {
		if c.value == `""` {
			return fmt.Errorf("claim %s is empty; remove it or give it a value", c.name)
		}
	}
	if err = m.addCredentials(r); err != nil {
		return err
	}
	m.finish()
	return nil
}

// finish gives the client its credentials, and its credentials the client.
func (m *clientMaker) finish() {
	m.client.Credentials = slices.Clone(m.credentials)
	for _, list := range [][]Credential{m.client.Credentials, m.client.listed()} {
		for i := range list {
			list[i].Client = m.client
		}
	}
}

func checkMetadata(r *Record) error {
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

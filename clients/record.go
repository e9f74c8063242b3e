package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// MaxRecordBytes is the size of the largest record of a client, in bytes.
const MaxRecordBytes = 64 << 10

// Record is a registered client, as client metadata of RFC 7591 with the members
// of RFC 8705 §2.1.2 where they exist. Member names are case-sensitive. An unknown
// or repeated member is an error, so that a misspelt credential cannot vanish. The
// informational members of RFC 7591 that are listed here are accepted and ignored.
//
// Each credential member takes a string or an array of strings. Any one credential
// authenticates the client.
type Record struct {
	// The client identifier: letters, digits and `._~:@/+-,`, at most 200
	// characters. Compared exactly.
	ClientID string `json:"client_id"`

	// A human-readable name. It has no effect.
	ClientName string `json:"client_name,omitempty"`

	// The scopes the client is registered for, separated by spaces.
	Scope string `json:"scope,omitempty"`

	// The scopes granted when a token request names none. Default: all of `scope`.
	DefaultScope string `json:"default_scope,omitempty"`

	// The only resources of the issuer that the client gets tokens for, whether
	// it requests them or their scopes; one or an array. Default: those that one
	// of its scopes belongs to.
	Resources Strings `json:"resources,omitempty"`

	// The resources that this client is the API of; one or an array. It may
	// introspect the tokens that are for them (RFC 7662). Default: none.
	Introspect Strings `json:"introspect,omitempty"`

	// Subject distinguished names as RFC 4514 strings, e.g.
	// `CN=client,OU=production,O=company`. A certificate with this subject
	// authenticates the client if its chain verifies under the realm's trust pool.
	SubjectDN Strings `json:"tls_client_auth_subject_dn,omitempty"`

	// DNS names. A leading `*.` stands for one label. Like the subject, a name
	// counts if the certificate's chain verifies under the trust pool.
	SANDNS Strings `json:"tls_client_auth_san_dns,omitempty"`

	// URIs. In the path `*` stands for one segment and a final `**` for one or
	// more, as in `spiffe://prod.example/ns/billing/*`.
	SANURI Strings `json:"tls_client_auth_san_uri,omitempty"`

	// IP addresses.
	SANIP Strings `json:"tls_client_auth_san_ip,omitempty"`

	// E-mail addresses.
	SANEmail Strings `json:"tls_client_auth_san_email,omitempty"`

	// Thumbprints of pinned certificates: SHA-256 (or, for migration, SHA-1) of
	// the DER encoding, in hex with or without colons or spaces, or in
	// base64url. If ` until ` and an RFC 3339 time follow, the thumbprint counts
	// until then.
	Thumbprints Strings `json:"x509_thumbprints,omitempty"`

	// SHA-256 hashes of pinned public keys (of the SubjectPublicKeyInfo),
	// optionally with `until`. A renewed certificate with the same key keeps
	// working.
	PublicKeys Strings `json:"x509_public_keys,omitempty"`

	// PEM files of pinned certificates. They are watched. A relative path is
	// relative to the working directory of the process.
	CertificateFiles Strings `json:"x509_certificate_files,omitempty"`

	// The https URL of a JWK Set (RFC 7517) with the client's certificates: the
	// first certificate in the `x5c` of each key authenticates the client (RFC
	// 8705 §2.2.2). It is fetched in the background, every hour or as often as
	// its server says, and counts until a new one replaces it, so that the client
	// can change its certificates itself. A certificate that fits a credential
	// declared for another client is ignored. One in the JWK Sets of several
	// clients is ambiguous.
	JWKSURI string `json:"jwks_uri,omitempty"`

	// A JWK Set, written out. Not together with `jwks_uri`.
	JWKS json.RawMessage `json:"jwks,omitempty"`

	// A file with a JWK Set, instead of `jwks_uri`. It is watched.
	JWKSFile string `json:"jwks_file,omitempty"`

	// SHA-256 hashes of CA certificates or of CA public keys, one of which must
	// be above the leaf in the verified chain. This narrows every credential of
	// the client, including pins.
	IssuedBy Strings `json:"issued_by,omitempty"`

	// Whether pins count only if the certificate's chain verifies as well.
	// Default: false.
	RequireChain bool `json:"require_chain,omitempty"`

	// Whether this client may share a credential with other clients that have
	// this member too. The `client_id` of a request to the issuer, or the client of
	// a token, then decides. Default: false.
	SharedCredential bool `json:"shared_credential,omitempty"`

	// Claims for the client's tokens and for the placeholders
	// `{http.mtls.claim.*}`. Names consist of letters, digits and `_.-`. The
	// claims that every token has are reserved.
	Claims map[string]json.RawMessage `json:"claims,omitempty"`

	// How long the client's tokens last. Default: the issuer's token_lifetime.
	TokenLifetime caddy.Duration `json:"token_lifetime,omitempty"`

	// Whether the client is refused. Default: false.
	Disabled bool `json:"disabled,omitempty"`

	// Accepted if it contains `client_credentials`, the only supported grant.
	GrantTypes Strings `json:"grant_types,omitempty"`

	// Accepted if it is `tls_client_auth` or `self_signed_tls_client_auth`. The
	// credentials decide which of the two the client uses.
	TokenEndpointAuthMethod string `json:"token_endpoint_auth_method,omitempty"`

	// Accepted if true: every token is bound to the certificate (RFC 8705 §3.4).
	CertificateBound *bool `json:"tls_client_certificate_bound_access_tokens,omitempty"`

	// Informational; ignored (RFC 7591 §2).
	ClientURI       string  `json:"client_uri,omitempty"`
	LogoURI         string  `json:"logo_uri,omitempty"`
	Contacts        Strings `json:"contacts,omitempty"`
	TosURI          string  `json:"tos_uri,omitempty"`
	PolicyURI       string  `json:"policy_uri,omitempty"`
	SoftwareID      string  `json:"software_id,omitempty"`
	SoftwareVersion string  `json:"software_version,omitempty"`
}

// recordMembers are the member names of a Record, exactly as they must be written.
var recordMembers = func() (names []string) {
	for field := range reflect.TypeFor[Record]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}()

// UnmarshalJSON reads a record strictly. A member that is unknown, written in another
// case, or given twice is an error that names it. So is a string with NUL, with half of
// a surrogate pair, or that is not UTF-8.
func (r *Record) UnmarshalJSON(raw []byte) error {
	claims, _, err := readRecord(string(raw), r)
	r.Claims = claimMap(claims)
	return err
}

// Strings is a list of strings. In JSON it is a string or an array of strings.
type Strings []string

// MarshalJSON writes a single string as it is and anything else as an array.
func (s Strings) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]string(s))
}

// UnmarshalJSON reads a string or an array of strings. null is an error, because
// it would make a credential vanish.
func (s *Strings) UnmarshalJSON(raw []byte) error {
	switch {
	case bytes.HasPrefix(raw, []byte{'"'}):
		var one string
		if err := json.Unmarshal(raw, &one); err != nil {
			return err
		}
		*s = Strings{one}
		return nil
	case bytes.HasPrefix(raw, []byte{'['}):
		var many []*string
		if err := json.Unmarshal(raw, &many); err != nil {
			return err
		}
		if len(many) == 0 {
			return errors.New("an empty array; name a value or leave the member out")
		}
		*s = make(Strings, len(many))
		for i, one := range many {
			if one == nil {
				return fmt.Errorf("null in an array of strings; remove it")
			}
			(*s)[i] = *one
		}
		return nil
	}
	return fmt.Errorf("%.40s is neither a string nor an array of strings", raw)
}

// credentialList is the values of a configuration word, mostly of a credential.
type credentialList struct {
	word   string
	values *Strings
}

func (r *Record) credentials() []credentialList {
	return []credentialList{
		{string(KindSubject), &r.SubjectDN},
		{string(KindSANDNS), &r.SANDNS},
		{string(KindSANURI), &r.SANURI},
		{string(KindSANIP), &r.SANIP},
		{string(KindSANEmail), &r.SANEmail},
		{string(KindThumbprint), &r.Thumbprints},
		{string(KindPublicKey), &r.PublicKeys},
		{string(KindCertificate), &r.CertificateFiles},
	}
}

// HasCredential reports whether the record declares any credential.
func (r Record) HasCredential() bool {
	return r.hasJWKS() || slices.ContainsFunc(r.credentials(), func(list credentialList) bool { return len(*list.values) > 0 })
}

func (r Record) hasJWKS() bool {
	return r.JWKSURI != "" || r.JWKSFile != "" || r.JWKS != nil
}

// Expand returns the record with replace applied to every value that may hold
// a placeholder: credentials, file names, URLs, resources and claims that are
// strings.
func (r Record) Expand(replace func(string) (string, error)) (Record, error) {
	expand := func(value *string, word string) (err error) {
		declared := *value
		if *value, err = replace(declared); err != nil {
			return fmt.Errorf("client '%s': %s '%s': %w", r.ClientID, word, declared, err)
		}
		return nil
	}
	others := []credentialList{{"issued_by", &r.IssuedBy}, {"resources", &r.Resources}, {"introspect", &r.Introspect}}
	for _, list := range append(r.credentials(), others...) {
		*list.values = slices.Clone(*list.values)
		for i := range *list.values {
			if err := expand(&(*list.values)[i], list.word); err != nil {
				return r, err
			}
		}
	}
	for _, place := range []*string{&r.JWKSURI, &r.JWKSFile} {
		if *place != "" {
			if err := expand(place, "jwks"); err != nil {
				return r, err
			}
		}
	}
	// the adapter cannot tell what a placeholder stands for
	if r.JWKSURI == "" && strings.Contains(r.JWKSFile, "://") {
		r.JWKSURI, r.JWKSFile = r.JWKSFile, ""
	}
	claims := make(map[string]json.RawMessage, len(r.Claims))
	for name, raw := range r.Claims {
		claims[name] = raw
		var text string
		if json.Unmarshal(raw, &text) != nil {
			continue
		}
		err := expand(&text, "claim "+name)
		if err == nil {
			claims[name], err = json.Marshal(text)
		}
		if err != nil {
			return r, err
		}
	}
	r.Claims = claims
	return r, nil
}

package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// recordReader reads the record of a client in one pass. Its strings are parts of the
// text.
type recordReader struct {
	*strictjson.Reader
	record *Record
	claims []claim
}

// claim is a claim as a record has it.
type claim struct{ name, value string }

// readRecord reads a record strictly (see [Record.UnmarshalJSON]). The claims are not in
// the record, but returned. spaces is how much white space there is between tokens.
func readRecord(text string, into *Record) (claims []claim, spaces int, err error) {
	if len(text) > MaxRecordBytes {
		return nil, 0, fmt.Errorf("client record: larger than %d bytes", MaxRecordBytes)
	}
	*into = Record{}
	r := recordReader{Reader: strictjson.NewReader(text), record: into}
	if err = r.Object(r.member); err == nil {
		err = r.End()
	}
	if err != nil {
		err = fmt.Errorf("client record: %w", err)
		if id := GuessID([]byte(text)); CheckID(id) == nil {
			err = fmt.Errorf("client '%s': %w", id, err)
		}
		return nil, 0, err
	}
	return r.claims, r.Spaces(), nil
}

func (r *recordReader) member(name string) (err error) {
	read, known := recordFields[name]
	if !known {
		return fmt.Errorf("unknown member %q; known are %s", name, strings.Join(recordMembers, ", "))
	}
	if err := read(r); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// recordFields reads the value of each member of a [Record].
var recordFields = map[string]func(*recordReader) error{
	"client_id":                  func(r *recordReader) error { return r.text(&r.record.ClientID) },
	"client_name":                func(r *recordReader) error { return r.text(&r.record.ClientName) },
	"scope":                      func(r *recordReader) error { return r.text(&r.record.Scope) },
	"default_scope":              func(r *recordReader) error { return r.text(&r.record.DefaultScope) },
	"resources":                  func(r *recordReader) error { return r.strings(&r.record.Resources) },
	"introspect":                 func(r *recordReader) error { return r.strings(&r.record.Introspect) },
	"tls_client_auth_subject_dn": func(r *recordReader) error { return r.strings(&r.record.SubjectDN) },
	"tls_client_auth_san_dns":    func(r *recordReader) error { return r.strings(&r.record.SANDNS) },
	"tls_client_auth_san_uri":    func(r *recordReader) error { return r.strings(&r.record.SANURI) },
	"tls_client_auth_san_ip":     func(r *recordReader) error { return r.strings(&r.record.SANIP) },
	"tls_client_auth_san_email":  func(r *recordReader) error { return r.strings(&r.record.SANEmail) },
	"x509_thumbprints":           func(r *recordReader) error { return r.strings(&r.record.Thumbprints) },
	"x509_public_keys":           func(r *recordReader) error { return r.strings(&r.record.PublicKeys) },
	"x509_certificate_files":     func(r *recordReader) error { return r.strings(&r.record.CertificateFiles) },
	"jwks_uri":                   func(r *recordReader) error { return r.text(&r.record.JWKSURI) },
	"jwks":                       (*recordReader).jwks,
	"jwks_file":                  func(r *recordReader) error { return r.text(&r.record.JWKSFile) },
	"issued_by":                  func(r *recordReader) error { return r.strings(&r.record.IssuedBy) },
	"require_chain":              func(r *recordReader) error { return r.bool(&r.record.RequireChain) },
	"shared_credential":          func(r *recordReader) error { return r.bool(&r.record.SharedCredential) },
	"claims":                     (*recordReader).readClaims,
	"token_lifetime":             (*recordReader).lifetime,
	"disabled":                   func(r *recordReader) error { return r.bool(&r.record.Disabled) },
	"grant_types":                func(r *recordReader) error { return r.strings(&r.record.GrantTypes) },
	"token_endpoint_auth_method": func(r *recordReader) error { return r.text(&r.record.TokenEndpointAuthMethod) },
	"tls_client_certificate_bound_access_tokens": (*recordReader).bound,
	"client_uri":       func(r *recordReader) error { return r.text(&r.record.ClientURI) },
	"logo_uri":         func(r *recordReader) error { return r.text(&r.record.LogoURI) },
	"contacts":         func(r *recordReader) error { return r.strings(&r.record.Contacts) },
	"tos_uri":          func(r *recordReader) error { return r.text(&r.record.TosURI) },
	"policy_uri":       func(r *recordReader) error { return r.text(&r.record.PolicyURI) },
	"software_id":      func(r *recordReader) error { return r.text(&r.record.SoftwareID) },
	"software_version": func(r *recordReader) error { return r.text(&r.record.SoftwareVersion) },
}

// text reads a string, or null, which is no value.
func (r *recordReader) text(into *string) (err error) {
	switch {
	case r.Next() == '"':
		*into, err = r.String()
	case !r.Literal("null"):
		err = r.isNot("a string")
	}
	return err
}

func (r *recordReader) bool(into *bool) (err error) {
	switch {
	case r.Literal("true"):
		*into = true
	case !r.Literal("false") && !r.Literal("null"):
		err = r.isNot("true or false")
	}
	return err
}

func (r *recordReader) bound() error {
	if r.Literal("null") {
		return nil
	}
	r.record.CertificateBound = new(bool)
	return r.bool(r.record.CertificateBound)
}

// GuessID returns what seems to be the client_id of a record, or "". Nothing depends on
// it but the text of errors, and which client is compared with the record.
func GuessID(record []byte) string {
	_, rest, _ := bytes.Cut(record, []byte(`"client_id"`))
	rest = bytes.TrimLeft(rest, " \t\r\n:")
	if !bytes.HasPrefix(rest, []byte{'"'}) {
		return ""
	}
	id, _, found := bytes.Cut(rest[1:min(len(rest), maxClientIDLength+2)], []byte{'"'})
	if !found {
		return ""
	}
	return string(id)
}

// isNot returns the error about a value that is something else. What is in an array or an
// object may be a secret, such as that of a jwks_uri.
func (r *recordReader) isNot(what string) error {
	value, err := r.Value()
	if err != nil {
		return err
	}
	switch value[0] {
	case '[':
		value = "an array"
	case '{':
		value = "an object"
	}
	return fmt.Errorf("%.40s is not %s", value, what)
}

// strings reads a string or an array of strings. null is an error, because it would make
// a credential vanish.
func (r *recordReader) strings(into *Strings) error {
	switch r.Next() {
	case '"':
		one, err := r.String()
		*into = Strings{one}
		return err
	case '[':
		err := r.Array(func() error {
			if r.Next() != '"' {
				if r.Literal("null") {
					return errors.New("null in an array of strings; remove it")
				}
				return r.isNot("a string")
			}
			one, err := r.String()
			*into = append(*into, one)
			return err
		})
		if err == nil && len(*into) == 0 {
			err = errors.New("an empty array; name a value or leave the member out")
		}
		return err
	}
	value, err := r.Value()
	if err != nil {
		return err
	}
	return fmt.Errorf("%.40s is neither a string nor an array of strings", value)
}

func (r *recordReader) jwks() error {
	value, err := r.Value()
	r.record.JWKS = json.RawMessage(value)
	return err
}

func (r *recordReader) lifetime() error {
	value, err := r.Value()
	if err != nil {
		return err
	}
	return r.record.TokenLifetime.UnmarshalJSON([]byte(value))
}

// readClaims reads the claims.
func (r *recordReader) readClaims() error {
	if r.Literal("null") {
		return nil
	}
	r.claims = []claim{}
	return r.Object(func(name string) error {
		value, err := r.Value()
		r.claims = append(r.claims, claim{name, value})
		return err
	})
}

// claimMap returns claims as [Record.Claims] has them.
func claimMap(claims []claim) map[string]json.RawMessage {
	if claims == nil {
		return nil
	}
	members := make(map[string]json.RawMessage, len(claims))
	for _, c := range claims {
		members[c.name] = json.RawMessage(c.value)
	}
	return members
}

package clients

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // see the registry
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// Kind is the kind of a credential, as {http.mtls.credential} shows it.
type Kind string

// The kinds of credentials. The subject and the alternative names are PKI
// credentials, which count only if the chain verifies (RFC 8705 §2.1). The others
// are pins (§2.2).
const (
	KindSubject     Kind = "subject"
	KindSANDNS      Kind = Kind(validators.NameDNS)
	KindSANURI      Kind = Kind(validators.NameURI)
	KindSANIP       Kind = Kind(validators.NameIP)
	KindSANEmail    Kind = Kind(validators.NameEmail)
	KindThumbprint  Kind = "thumbprint"
	KindPublicKey   Kind = "public_key"
	KindCertificate Kind = "certificate"
	KindJWKS        Kind = "jwks"
)

// Pinned reports whether credentials of the kind count without a chain.
func (k Kind) Pinned() bool {
	return k == KindThumbprint || k == KindPublicKey || k == KindCertificate || k == KindJWKS
}

// Credential is one way to recognise a client.
type Credential struct {
	Client *Client
	Kind   Kind
	// Value is the declared value in its canonical spelling. For a JWKS among the
	// client's credentials, it is the file or URL. For a certificate listed in the
	// JWKS, it is the SHA-256 thumbprint.
	Value string

	details *credentialDetails // nil for most
}

// credentialDetails is what few credentials have.
type credentialDetails struct {
	until time.Time
	// certificate is the one in a file, or listed in a JWKS, and listed are those in
	// a JWKS that is among the client's credentials
	certificate *x509.Certificate
	listed      []Credential
}

// Until returns when a pin ends, zero if it does not end.
func (c *Credential) Until() time.Time {
	if c.details == nil {
		return time.Time{}
	}
	return c.details.until
}

// Ended reports whether the credential is a pin that has ended.
func (c *Credential) Ended(now time.Time) bool {
	return c.details != nil && !c.details.until.IsZero() && !now.Before(c.details.until)
}

// NeedsChain reports whether the credential counts only with a verified chain.
func (c *Credential) NeedsChain() bool {
	return !c.Kind.Pinned() || c.Client.RequireChain || len(c.Client.IssuedBy) > 0
}

// IsSHA1 reports whether the credential is a SHA-1 thumbprint, which can be
// forged.
func (c *Credential) IsSHA1() bool {
	return c.Kind == KindThumbprint && len(c.Value) == hex.EncodedLen(sha1.Size)
}

// isName reports whether the credential is an alternative name.
func (c *Credential) isName() bool { return c.name() != validators.Name{} }

// name returns the declared alternative name, the zero Name for other kinds of
// credentials.
func (c *Credential) name() validators.Name {
	switch c.Kind {
	case KindSANDNS, KindSANURI, KindSANIP, KindSANEmail:
		return validators.CanonicalName(validators.NameKind(c.Kind), c.Value)
	}
	return validators.Name{}
}

// Difference describes how the subject of a certificate differs from the declared
// one, as in ", but the certificate lacks OU=production". It returns "" for other
// kinds of credentials, and if nothing differs.
func (c *Credential) Difference(leaf *x509.Certificate) string {
	if c.Kind != KindSubject {
		return ""
	}
	presented, err := dn.FromRaw(leaf.RawSubject)
	declared := dn.Canonical(c.Value)
	if err != nil || presented.Key() == declared.Key() {
		return ""
	}
	lacks, has := declared.Without(presented), presented.Without(declared)
	switch {
	case lacks != "" && has != "":
		return ", but the certificate lacks " + lacks + ", and has " + has + " instead"
	case lacks != "":
		return ", but the certificate lacks " + lacks
	case has != "":
		return ", but the certificate also has " + has
	}
	return ", but the certificate has the parts in another order"
}

// Match is a credential that a certificate fits.
type Match struct {
	*Credential
	// Matched is the part of the certificate that fits, which differs from the
	// declared value if that is a wildcard. It is ASCII for alternative names and
	// pins.
	Matched string
}

// parsePin parses the hash of a pin, and its end if it has one, as in "<hash> until
// 2027-01-01T00:00:00Z". It also returns the hash as it is declared.
func parsePin[T any](text string, parse func(string) (T, error)) (hash T, declared string, details *credentialDetails, err error) {
	declared, end, found := strings.Cut(text, " until ")
	if found {
		end = strings.TrimSpace(end)
		until, err := time.Parse(time.RFC3339, end)
		if err != nil || until.IsZero() {
			return hash, declared, nil, fmt.Errorf("until '%s' is not a time; write it as 2027-01-31T12:00:00Z", end)
		}
		details = &credentialDetails{until: until}
	}
	hash, err = parse(declared)
	return hash, declared, details, err
}

// addCredentials adds the credentials of a record. A JWKS is the last one.
func (m *clientMaker) addCredentials(r *Record) error {
	if err := m.addSubjects(r); err != nil {
		return err
	}
	if err := m.addNames(r); err != nil {
		return err
	}
	if err := m.addPins(r); err != nil {
		return err
	}
	if err := m.addFiles(r); err != nil {
		return err
	}
	if err := m.addJWKS(r); err != nil {
		return err
	}
	if len(m.credentials) == 0 {
		return errors.New("no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks")
	}
	return nil
}

// add adds a credential. Its value is a part of the record if it is written there in
// its canonical spelling.
func (m *clientMaker) add(kind Kind, declared, value string, details *credentialDetails) {
	if value == declared {
		value = declared
	}
	m.credentials = append(m.credentials, Credential{Kind: kind, Value: value, details: details})
}

func (m *clientMaker) addSubjects(r *Record) error {
	for _, text := range r.SubjectDN {
		subject, err := dn.Parse(text)
		if err != nil {
			return fmt.Errorf("subject '%s': %w", text, err)
		}
		value := subject.String()
		m.add(KindSubject, text, value, nil)
		if subject.LooksReversed() {
			m.warn("", "subject '%s' is in the order in which OpenSSL prints names; if no certificate matches, reverse it as RFC 4514 does: '%s'", value, subject.Reversed())
		}
	}
	return nil
}

func (m *clientMaker) addNames(r *Record) error {
	domain := ""
	for _, list := range []struct {
		kind   validators.NameKind
		values Strings
	}{{validators.NameDNS, r.SANDNS}, {validators.NameURI, r.SANURI}, {validators.NameIP, r.SANIP}, {validators.NameEmail, r.SANEmail}} {
		for _, text := range list.values {
			name, err := validators.ParseName(list.kind, text)
			if err != nil {
				return fmt.Errorf("%s '%s': %w", list.kind, text, err)
			}
			if other := name.TrustDomain(); domain != "" && other != "" && other != domain {
				return fmt.Errorf("%s '%s' has another SPIFFE trust domain than '%s'; a realm has only one, so declare another realm", list.kind, text, domain)
			}
			domain = cmp.Or(domain, name.TrustDomain())
			m.add(Kind(list.kind), text, name.String(), nil)
		}
	}
	return nil
}

func (m *clientMaker) addPins(r *Record) error {
	for _, text := range r.Thumbprints {
		thumbprint, declared, details, err := parsePin(text, validators.ParseThumbprint)
		if err != nil {
			return fmt.Errorf("thumbprint '%s': %w", text, err)
		}
		m.add(KindThumbprint, declared, thumbprint.String(), details)
		if cred := &m.credentials[len(m.credentials)-1]; cred.IsSHA1() {
			m.warn("%d thumbprints are SHA-1, which can be forged; replace them with SHA-256 thumbprints",
				"thumbprint '%s' is SHA-1, which can be forged; replace it with the SHA-256 thumbprint", cred.Value)
		}
		m.warnEnded()
	}
	for _, text := range r.PublicKeys {
		sum, declared, details, err := parsePin(text, validators.ParseSHA256)
		if err != nil {
			return fmt.Errorf("public_key '%s': %w", text, err)
		}
		m.add(KindPublicKey, declared, hex.EncodeToString(sum[:]), details)
		m.warnEnded()
	}
	return nil
}

func (m *clientMaker) addFiles(r *Record) error {
	for _, file := range r.CertificateFiles {
		if file == "" {
			return errors.New("certificate '': the file name is empty; name a file")
		}
		certificate, err := m.documents.Certificate(file)
		if err != nil {
			return fmt.Errorf("certificate '%s': %w", file, err)
		}
		m.credentials = append(m.credentials, certificateCredential(KindCertificate, certificate))
	}
	return nil
}

func certificateCredential(kind Kind, certificate *x509.Certificate) Credential {
	return Credential{Kind: kind, Value: validators.ThumbprintOf(certificate.Raw).String(), details: &credentialDetails{certificate: certificate}}
}

// addJWKS adds the JWKS with the certificates in it. The registry decides which of them
// count, because other clients may have them too.
func (m *clientMaker) addJWKS(r *Record) (err error) {
	if !r.hasJWKS() {
		return nil
	}
	if r.JWKSURI != "" && (r.JWKS != nil || r.JWKSFile != "") || r.JWKS != nil && r.JWKSFile != "" {
		return errors.New("several of jwks, jwks_uri and jwks_file are set; keep one (RFC 7591 §2)")
	}
	var keySet []*x509.Certificate
	var flaws []string
	place := "written out"
	switch {
	case r.JWKSURI != "":
		if err := CheckJWKSURI(r.JWKSURI); err != nil {
			return fmt.Errorf("jwks_uri: %w", err)
		}
		place, keySet, err = m.documents.KeySetAt(r.JWKSURI)
	case r.JWKSFile != "":
		place = r.JWKSFile
		keySet, err = m.documents.KeySet(r.JWKSFile)
	default:
		keySet, flaws, err = ParseKeySet(r.JWKS)
	}
	if err != nil {
		return fmt.Errorf("jwks '%s': %w", place, err)
	}
	for _, flaw := range flaws {
		m.warn("", "jwks: %s", flaw)
	}
	details := &credentialDetails{listed: make([]Credential, len(keySet))}
	for i, certificate := range keySet {
		details.listed[i] = certificateCredential(KindJWKS, certificate)
	}
	m.add(KindJWKS, "", place, details)
	return nil
}

// ParseCertificate parses a PEM file with the client's certificate, which its chain
// may follow. Nothing is needed of the chain, so it may have what cannot be read.
func ParseCertificate(text []byte) (*x509.Certificate, error) {
	var found *x509.Certificate
	for block, err := range source.PEMBlocks(text) {
		switch {
		case err != nil:
			return nil, err
		case block.Type != "CERTIFICATE":
			return nil, fmt.Errorf("line %d: contains PEM block %q; keep only the certificate", block.Line, block.Type)
		}
		certificate, err := validators.ParseCertificate(block.Bytes)
		switch {
		case found == nil && err != nil:
			return nil, fmt.Errorf("line %d: %w", block.Line, err)
		case found == nil:
			found = certificate
		case err == nil && !certificate.IsCA && certificate.Version >= 3:
			return nil, fmt.Errorf("line %d: contains several certificates that are not of CAs; keep the client's own, with or without its chain", block.Line)
		}
	}
	if found == nil {
		remedy := cmp.Or(source.ConversionToPEM(text), "put the client's certificate there, in PEM")
		return nil, errors.New("contains no PEM certificate; " + remedy)
	}
	return found, nil
}

package clients

import (
	"cmp"
	"crypto/sha1" //nolint:gosec // see the registry
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
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
	// Until is when a pin ends, zero if it does not end.
	Until time.Time

	dn         validators.DN
	name       validators.Name
	thumbprint validators.Thumbprint
	// publicKey is the SHA-256 hash of a pinned key, or of the key of a certificate
	// in a file or JWKS; sha1 is the hash of a certificate in a file
	publicKey [sha256.Size]byte
	sha1      [sha1.Size]byte
}

// Ended reports whether the credential is a pin that has ended.
func (c *Credential) Ended(now time.Time) bool {
	return !c.Until.IsZero() && !now.Before(c.Until)
}

// NeedsChain reports whether the credential counts only with a verified chain.
func (c *Credential) NeedsChain() bool {
	return !c.Kind.Pinned() || c.Client.RequireChain || len(c.Client.IssuedBy) > 0
}

// IsSHA1 reports whether the credential is a SHA-1 thumbprint, which can be
// forged.
func (c *Credential) IsSHA1() bool { return c.Kind == KindThumbprint && c.thumbprint.IsSHA1() }

// isListed reports whether the credential is a certificate in a JWKS, which no operator
// has declared.
func (c *Credential) isListed() bool { return c.Kind == KindJWKS }

// isName reports whether the credential is an alternative name.
func (c *Credential) isName() bool { return c.name != validators.Name{} }

// Difference describes how the subject of a certificate differs from the declared
// one, as in ", but the certificate lacks OU=production". It returns "" for other
// kinds of credentials, and if nothing differs.
func (c *Credential) Difference(leaf *x509.Certificate) string {
	if c.Kind != KindSubject {
		return ""
	}
	presented, err := validators.DNFromRaw(leaf.RawSubject)
	if err != nil || presented.Key() == c.dn.Key() {
		return ""
	}
	lacks, has := c.dn.Without(presented), presented.Without(c.dn)
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
// 2027-01-01T00:00:00Z".
func parsePin[T any](text string, parse func(string) (T, error)) (hash T, until time.Time, err error) {
	declared, end, found := strings.Cut(text, " until ")
	if found {
		end = strings.TrimSpace(end)
		if until, err = time.Parse(time.RFC3339, end); err != nil {
			return hash, until, fmt.Errorf("until '%s' is not a time; write it as 2027-01-31T12:00:00Z", end)
		}
	}
	hash, err = parse(declared)
	return hash, until, err
}

func (c *Client) setCredentials(r Record, p *plan) error {
	for _, text := range r.SubjectDN {
		dn, err := validators.ParseDN(text)
		if err != nil {
			return fmt.Errorf("subject '%s': %w", text, err)
		}
		c.addCredential(&Credential{Kind: KindSubject, Value: dn.String(), dn: dn})
	}
	for _, list := range []struct {
		kind   validators.NameKind
		values Strings
	}{{validators.NameDNS, r.SANDNS}, {validators.NameURI, r.SANURI}, {validators.NameIP, r.SANIP}, {validators.NameEmail, r.SANEmail}} {
		for _, text := range list.values {
			name, err := validators.ParseName(list.kind, text)
			if err != nil {
				return fmt.Errorf("%s '%s': %w", list.kind, text, err)
			}
			if domain, other := c.trustDomain(), name.TrustDomain(); domain != "" && other != "" && domain != other {
				return fmt.Errorf("%s '%s' has another SPIFFE trust domain than '%s'; a realm has only one, so declare another realm", list.kind, text, domain)
			}
			c.addCredential(&Credential{Kind: Kind(list.kind), Value: name.String(), name: name})
		}
	}
	for _, text := range r.Thumbprints {
		thumbprint, until, err := parsePin(text, validators.ParseThumbprint)
		if err != nil {
			return fmt.Errorf("thumbprint '%s': %w", text, err)
		}
		c.addCredential(&Credential{Kind: KindThumbprint, Value: thumbprint.String(), Until: until, thumbprint: thumbprint})
	}
	for _, text := range r.PublicKeys {
		sum, until, err := parsePin(text, validators.ParseSHA256)
		if err != nil {
			return fmt.Errorf("public_key '%s': %w", text, err)
		}
		c.addCredential(&Credential{Kind: KindPublicKey, Value: hex.EncodeToString(sum[:]), Until: until, publicKey: sum})
	}
	for _, file := range r.CertificateFiles {
		cert, err := p.certificate(file)
		if err != nil {
			return fmt.Errorf("certificate '%s': %w", file, err)
		}
		cred := certificateCredential(KindCertificate, cert)
		cred.sha1 = sha1.Sum(cert.Raw) //nolint:gosec // see the registry
		c.addCredential(cred)
	}
	if r.hasJWKS() {
		if err := c.setJWKS(r, p); err != nil {
			return err
		}
	}
	if len(c.Credentials) == 0 {
		return errors.New("no credential; add a subject, one of the san_ names, or a thumbprint, public_key, certificate or jwks")
	}
	return nil
}

func certificateCredential(kind Kind, cert *x509.Certificate) *Credential {
	thumbprint := validators.ThumbprintOf(cert.Raw)
	return &Credential{
		Kind: kind, Value: thumbprint.String(), thumbprint: thumbprint,
		publicKey: sha256.Sum256(cert.RawSubjectPublicKeyInfo),
	}
}

// setJWKS notes which certificates the client's JWKS lists. The registry decides
// which of them count, because other clients may have them too.
func (c *Client) setJWKS(r Record, p *plan) (err error) {
	if r.JWKSURI != "" && (r.JWKS != nil || r.JWKSFile != "") || r.JWKS != nil && r.JWKSFile != "" {
		return errors.New("several of jwks, jwks_uri and jwks_file are set; keep one (RFC 7591 §2)")
	}
	place := "written out"
	switch {
	case r.JWKSURI != "":
		if err := CheckJWKSURI(r.JWKSURI); err != nil {
			return fmt.Errorf("jwks_uri: %w", err)
		}
		place, c.keySet, err = p.keySetAt(r.JWKSURI)
	case r.JWKSFile != "":
		place = r.JWKSFile
		c.keySet, err = p.keySet(r.JWKSFile)
	default:
		c.keySet, c.keyWarnings, err = parseKeySet(r.JWKS)
	}
	if err != nil {
		return fmt.Errorf("jwks '%s': %w", place, err)
	}
	c.addCredential(&Credential{Kind: KindJWKS, Value: place})
	for _, certificate := range c.keySet {
		cred := certificateCredential(KindJWKS, certificate)
		cred.Client = c
		c.listed = append(c.listed, cred)
	}
	return nil
}

func (c *Client) addCredential(cred *Credential) {
	cred.Client = c
	c.Credentials = append(c.Credentials, cred)
}

// parseCertificate parses a PEM file with the client's certificate, which its chain
// may follow. Nothing is needed of the chain, so it may have what cannot be read.
func parseCertificate(text []byte) (*x509.Certificate, error) {
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

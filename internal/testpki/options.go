package testpki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"time"
)

// Option changes a certificate before it is signed. Options apply in order.
type Option func(*spec)

type spec struct {
	template x509.Certificate
	key      crypto.Signer
	keyType  KeyType
}

// KeyType is a kind of private key to generate.
type KeyType int

// The kinds of private key. P256 is the default.
const (
	P256 KeyType = iota
	P384
	P521
	RSA2048
	Ed25519
)

// NewKey generates a private key.
func NewKey(kind KeyType) (crypto.Signer, error) {
	switch kind {
	case P256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case P384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case P521:
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case RSA2048:
		return rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	default:
		return nil, fmt.Errorf("testpki: unknown key type %d", kind)
	}
}

// WithKeyType generates a key of this kind.
func WithKeyType(kind KeyType) Option {
	return func(s *spec) { s.keyType = kind }
}

// Key uses an existing key instead of a new one.
func Key(key crypto.Signer) Option {
	return func(s *spec) { s.key = key }
}

// Subject sets the subject.
func Subject(name pkix.Name) Option {
	return func(s *spec) { s.template.Subject, s.template.RawSubject = name, nil }
}

// RawSubject sets the subject as DER, for subjects that no [pkix.Name] can express.
func RawSubject(der []byte) Option {
	return func(s *spec) { s.template.RawSubject = der }
}

// CommonName sets the subject to this common name only.
func CommonName(name string) Option {
	return Subject(pkix.Name{CommonName: name})
}

// Validity sets the validity period, both ends included.
func Validity(notBefore, notAfter time.Time) Option {
	return func(s *spec) { s.template.NotBefore, s.template.NotAfter = notBefore, notAfter }
}

// EKU replaces the extended key usages.
func EKU(usages ...x509.ExtKeyUsage) Option {
	return func(s *spec) { s.template.ExtKeyUsage, s.template.UnknownExtKeyUsage = usages, nil }
}

// NoEKU omits the extended key usage extension.
func NoEKU() Option {
	return EKU()
}

// KeyUsage replaces the key usage; zero omits the extension.
func KeyUsage(usage x509.KeyUsage) Option {
	return func(s *spec) { s.template.KeyUsage = usage }
}

// IsCA sets the CA flag of the basic constraints, and nothing else.
func IsCA(ca bool) Option {
	return func(s *spec) { s.template.IsCA, s.template.BasicConstraintsValid = ca, true }
}

// NoBasicConstraints omits the basic constraints extension.
func NoBasicConstraints() Option {
	return func(s *spec) {
		s.template.IsCA, s.template.BasicConstraintsValid, s.template.MaxPathLen = false, false, 0
	}
}

// MaxPathLen sets the path length constraint.
func MaxPathLen(n int) Option {
	return func(s *spec) { s.template.MaxPathLen, s.template.MaxPathLenZero = n, n == 0 }
}

// DNSNames adds dNSName alternative names.
func DNSNames(names ...string) Option {
	return func(s *spec) { s.template.DNSNames = append(s.template.DNSNames, names...) }
}

// Emails adds rfc822Name alternative names.
func Emails(addresses ...string) Option {
	return func(s *spec) { s.template.EmailAddresses = append(s.template.EmailAddresses, addresses...) }
}

// IPs adds iPAddress alternative names.
func IPs(addresses ...net.IP) Option {
	return func(s *spec) { s.template.IPAddresses = append(s.template.IPAddresses, addresses...) }
}

// URIs adds uniformResourceIdentifier alternative names. It panics if [url.Parse]
// refuses one; use [Extension] for such names.
func URIs(uris ...string) Option {
	parsed := make([]*url.URL, 0, len(uris))
	for _, uri := range uris {
		u, err := url.Parse(uri)
		if err != nil {
			panic(fmt.Sprintf("testpki: URI %q: %v", uri, err))
		}
		parsed = append(parsed, u)
	}
	return func(s *spec) { s.template.URIs = append(s.template.URIs, parsed...) }
}

// GeneralNames sets the alternative names (RFC 5280 §4.2.1.6). They need not be valid.
func GeneralNames(names ...asn1.RawValue) Option {
	der, err := asn1.Marshal(names)
	if err != nil {
		panic(fmt.Sprintf("testpki: alternative names: %v", err))
	}
	return Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der})
}

// Serial sets the serial number.
func Serial(serial *big.Int) Option {
	return func(s *spec) { s.template.SerialNumber = serial }
}

// Extension adds an extension. It replaces one with the same OID that the other
// options would make.
func Extension(ext pkix.Extension) Option {
	return func(s *spec) { s.template.ExtraExtensions = append(s.template.ExtraExtensions, ext) }
}

// Template changes the template in ways that the other options do not.
func Template(change func(*x509.Certificate)) Option {
	return func(s *spec) { change(&s.template) }
}

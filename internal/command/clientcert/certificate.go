// Package clientcert makes the keys and certificates of clients, for `caddy mtls issue`.
package clientcert

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// backdated is how long before now a certificate begins to be valid, because the
	// clocks of servers differ.
	backdated = 5 * time.Minute
	// maxCommonName is the upper bound of a common name (X.520, ub-common-name).
	maxCommonName = 64
	// maxName bounds a name in an error, in bytes.
	maxName = 200
)

// KeyTypes are the types of keys, the default first. Their names are Caddy's.
var KeyTypes = []string{"p256", "p384", "ed25519", "rsa2048", "rsa4096"}

// Request says what a certificate is to have.
type Request struct {
	ClientID string
	Subject  string // RFC 4514; "" is the client ID as common name
	Names    []validators.Name
	KeyType  string
	Lifetime time.Duration
}

// CA signs the certificates of clients.
type CA struct {
	Certificate *x509.Certificate
	Key         crypto.Signer
	// Chain has the certificates that a client presents after its own.
	Chain []*x509.Certificate
	// Lasting is the CA that issues later certificates of the client too: the CA itself,
	// or the one above an intermediate that is replaced often.
	Lasting *x509.Certificate
}

// Issued is a certificate with its private key.
type Issued struct {
	Leaf  *x509.Certificate
	Key   crypto.Signer
	Chain []*x509.Certificate // presented after the leaf
}

// Issue makes a key, and a certificate that the CA signs, or the key itself if ca is nil.
// The result is what mtls_auth admits once it is registered; otherwise, Issue fails.
func Issue(r Request, ca *CA, now time.Time) (*Issued, error) {
	template, err := r.template(now)
	if err != nil {
		return nil, err
	}
	key, err := generateKey(r.KeyType)
	if err != nil {
		return nil, err
	}
	parent, signer, issued := template, key, &Issued{Key: key}
	if ca != nil {
		if err := ca.check(template, now); err != nil {
			return nil, err
		}
		parent, signer, issued.Chain = ca.Certificate, ca.Key, ca.Chain
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, fmt.Errorf("signing the certificate: %w", err)
	}
	if issued.Leaf, err = validators.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("the certificate cannot be read again: %w", err)
	}
	return issued, issued.check(ca, now)
}

func (r *Request) template(now time.Time) (*x509.Certificate, error) {
	subject, err := r.subject()
	if err != nil {
		return nil, err
	}
	serial := make([]byte, 16)
	if _, err := rand.Read(serial); err != nil {
		return nil, err
	}
	serial[0] = serial[0]&0x7f | 0x40 // positive, and never shorter
	template := &x509.Certificate{
		RawSubject: subject, SerialNumber: new(big.Int).SetBytes(serial),
		NotBefore: now.Add(-backdated), NotAfter: now.Add(r.Lifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	for _, name := range r.Names {
		if err := addName(template, name); err != nil {
			return nil, err
		}
	}
	return template, nil
}

// subject returns the DER encoding of the subject.
func (r *Request) subject() ([]byte, error) {
	text := r.Subject
	if text == "" {
		if len(r.ClientID) > maxCommonName {
			return nil, fmt.Errorf("client_id '%s' has %d characters, and a common name at most %d; name the subject with --subject", r.ClientID, len(r.ClientID), maxCommonName)
		}
		text = "CN=" + strings.NewReplacer("+", `\+`, ",", `\,`).Replace(r.ClientID)
	}
	name, err := dn.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("subject '%s': %w", source.Text(text, maxName), err)
	}
	return name.Encode()
}

func addName(template *x509.Certificate, name validators.Name) error {
	text := name.String()
	switch name.Kind() {
	case validators.NameDNS:
		template.DNSNames = append(template.DNSNames, text)
	case validators.NameEmail:
		template.EmailAddresses = append(template.EmailAddresses, text)
	case validators.NameIP:
		template.IPAddresses = append(template.IPAddresses, net.ParseIP(text))
	case validators.NameURI:
		uri, err := url.Parse(text)
		if err != nil || strings.Contains(text, "*") {
			return fmt.Errorf("'%s' is not a URI that a certificate can have; write one without wildcards", source.Text(text, maxName))
		}
		template.URIs = append(template.URIs, uri)
	}
	return nil
}

func generateKey(keyType string) (crypto.Signer, error) {
	switch keyType {
	case "p256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ed25519":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "rsa2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "rsa4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	}
	return nil, fmt.Errorf("unknown key type '%s'; use %s", source.Text(keyType, maxName), strings.Join(KeyTypes, ", "))
}

// check returns why the CA cannot issue the certificate, and keeps the certificate within
// the validity of the CA.
func (ca *CA) check(template *x509.Certificate, now time.Time) error {
	name := source.Text(dn.Format(ca.Certificate.RawSubject), maxName)
	if err := validators.CheckCA(ca.Certificate, now); err != nil {
		return fmt.Errorf("CA '%s': %w", name, err)
	}
	if validators.LacksKeyUsage(ca.Certificate, x509.KeyUsageCertSign) {
		return fmt.Errorf("CA '%s' may not sign certificates (key usage); use another one", name)
	}
	public, ok := ca.Key.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(ca.Certificate.PublicKey) {
		return fmt.Errorf("the private key is not that of CA '%s'; name the key that belongs to the certificate", name)
	}
	if end := ca.Certificate.NotAfter; template.NotAfter.After(end) {
		days := int(end.Sub(now) / (24 * time.Hour))
		if days == 0 {
			return fmt.Errorf("CA '%s' ends on %s, before the certificate would; use another CA", name, end.UTC().Format(time.RFC3339))
		}
		return fmt.Errorf("CA '%s' ends on %s, before the certificate would; use '--days %d' or less", name, end.UTC().Format(time.RFC3339), days)
	}
	if template.NotBefore.Before(ca.Certificate.NotBefore) {
		template.NotBefore = ca.Certificate.NotBefore
	}
	return nil
}

// check returns why a server would refuse the certificate. It asks what mtls_auth asks.
func (i *Issued) check(ca *CA, now time.Time) error {
	for _, refusal := range []*validators.Refusal{validators.CheckValidity(i.Leaf, now), validators.CheckLeaf(i.Leaf), validators.CheckPKILeaf(i.Leaf)} {
		if refusal != nil {
			return errors.New("the certificate would be refused: " + refusal.Detail)
		}
	}
	if _, err := dn.FromRaw(i.Leaf.RawSubject); err != nil {
		return fmt.Errorf("the subject of the certificate would be refused: %w", err)
	}
	if ca == nil {
		return nil
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.Certificate)
	if _, err := validators.NewTrustPool(pool, ca.Certificate).Verify(i.Leaf, nil, now); err != nil {
		return fmt.Errorf("the certificate would be refused: %w", err)
	}
	return nil
}

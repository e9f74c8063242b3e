// Package testpki makes throwaway certificate authorities and certificates for tests
// and demonstrations. It is not fit for production: keys are held in memory and
// written without a passphrase.
package testpki

import (
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// CA is a certificate authority: a self-signed root or an intermediate.
type CA struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// Chain has this CA and the CAs above it, lowest first, without the root. A leaf
	// of this CA presents it. It is empty for a root.
	Chain []*x509.Certificate
}

// Leaf is an end-entity certificate with its private key.
type Leaf struct {
	Cert *x509.Certificate
	Key  crypto.Signer
	// Chain has the issuing intermediates, lowest first, without the root.
	Chain []*x509.Certificate
}

// NewCA makes a self-signed root. Unless options change it, the key is P-256, the
// name is "Test Root CA", and it is valid from an hour ago for ten years.
func NewCA(opts ...Option) (*CA, error) {
	cert, key, err := create(caDefaults("Test Root CA"), nil, opts)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, Key: key}, nil
}

// Intermediate makes a CA below this one, named "Test Intermediate CA". With
// the options [Key] and [RawSubject] of another CA it cross-signs that CA.
func (ca *CA) Intermediate(opts ...Option) (*CA, error) {
	cert, key, err := create(caDefaults("Test Intermediate CA"), ca, opts)
	if err != nil {
		return nil, err
	}
	return &CA{Cert: cert, Key: key, Chain: append([]*x509.Certificate{cert}, ca.Chain...)}, nil
}

// Issue makes a client certificate. Unless options change it, the key is P-256, the
// name is "client", the key usage is digitalSignature, the extended key usage is
// clientAuth, and it is valid from an hour ago until 24 hours from now.
func (ca *CA) Issue(opts ...Option) (*Leaf, error) {
	cert, key, err := create(leafDefaults(), ca, opts)
	if err != nil {
		return nil, err
	}
	return &Leaf{Cert: cert, Key: key, Chain: slices.Clone(ca.Chain)}, nil
}

// SelfSigned makes a client certificate like [CA.Issue], signed with its own
// key. It is not a CA, unless [IsCA] makes it one.
func SelfSigned(opts ...Option) (*Leaf, error) {
	cert, key, err := create(leafDefaults(), nil, opts)
	if err != nil {
		return nil, err
	}
	return &Leaf{Cert: cert, Key: key}, nil
}

// Pool returns a pool with only this CA's certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	return pool
}

// TLS returns the certificate, its chain and its key for a TLS configuration.
func (l *Leaf) TLS() tls.Certificate {
	out := tls.Certificate{
		Certificate: [][]byte{l.Cert.Raw},
		PrivateKey:  l.Key,
		Leaf:        l.Cert,
	}
	for _, cert := range l.Chain {
		out.Certificate = append(out.Certificate, cert.Raw)
	}
	return out
}

// Presented returns the certificates that a TLS server gets: the leaf, then the
// chain.
func (l *Leaf) Presented() []*x509.Certificate {
	return append([]*x509.Certificate{l.Cert}, l.Chain...)
}

func caDefaults(name string) *spec {
	now := time.Now()
	return &spec{template: x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(10, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            -1,
	}}
}

func leafDefaults() *spec {
	now := time.Now()
	return &spec{template: x509.Certificate{
		Subject:               pkix.Name{CommonName: "client"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(24 * time.Hour),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
		MaxPathLen:            -1,
	}}
}

// create applies the options and signs with the issuer's key, or with the
// certificate's own if issuer is nil.
func create(s *spec, issuer *CA, opts []Option) (*x509.Certificate, crypto.Signer, error) {
	for _, opt := range opts {
		opt(s)
	}
	if s.key == nil {
		key, err := NewKey(s.keyType)
		if err != nil {
			return nil, nil, err
		}
		s.key = key
	}
	if s.template.SerialNumber == nil {
		serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
		if err != nil {
			return nil, nil, fmt.Errorf("testpki: making a serial number: %w", err)
		}
		s.template.SerialNumber = serial.Add(serial, big.NewInt(1))
	}
	parent, signer := &s.template, s.key
	if issuer != nil {
		parent, signer = issuer.Cert, issuer.Key
	}
	der, err := x509.CreateCertificate(rand.Reader, &s.template, parent, s.key.Public(), signer)
	if err != nil {
		return nil, nil, fmt.Errorf("testpki: creating certificate %q: %w", s.template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("testpki: reading back certificate %q: %w", s.template.Subject.CommonName, err)
	}
	return cert, s.key, nil
}

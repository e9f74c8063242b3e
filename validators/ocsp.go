package validators

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/ocsp"
)

const (
	// maxOCSPAge is how long an answer without nextUpdate counts.
	maxOCSPAge = time.Hour
	// ocspSkew is how far ahead a responder's clock may be.
	ocspSkew = time.Minute
)

// OCSPStatus is what a responder said of one certificate (RFC 6960 §2.2).
type OCSPStatus struct {
	Revoked bool
	// NextUpdate is until when the answer counts.
	NextUpdate time.Time
}

// OCSPRequest makes the request that asks for one certificate (RFC 6960 §4.1).
func OCSPRequest(cert, issuer *x509.Certificate) ([]byte, error) {
	return ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
}

// ParseOCSP reads the answer of a responder (RFC 6960 §4.2) and checks what
// golang.org/x/crypto/ocsp leaves to its callers: that the answer is for this
// certificate of this issuer, that it is fresh, and that who signed it is the
// issuer, or a certificate the issuer made for signing answers (§4.2.2.2).
// Every answer but good and revoked is an error.
func ParseOCSP(data []byte, cert, issuer *x509.Certificate, now time.Time) (OCSPStatus, error) {
	// without an issuer, so that a delegate's certificate is not taken on
	// trust before it has been looked at
	response, err := ocsp.ParseResponseForCert(data, cert, nil)
	if err != nil {
		return OCSPStatus{}, fmt.Errorf("the answer does not parse: %s", logText(err.Error(), maxChainErrorText))
	}
	if err := checkOCSPSigner(response, issuer, now); err != nil {
		return OCSPStatus{}, err
	}
	if err := checkOCSPCertID(response, cert, issuer); err != nil {
		return OCSPStatus{}, err
	}
	until := response.NextUpdate
	if until.IsZero() {
		until = response.ThisUpdate.Add(maxOCSPAge)
	}
	switch {
	case response.ThisUpdate.After(now.Add(ocspSkew)):
		return OCSPStatus{}, fmt.Errorf("the answer is of the future: %s", response.ThisUpdate.UTC().Format(time.RFC3339))
	case !now.Before(until):
		return OCSPStatus{}, fmt.Errorf("the answer is stale since %s", until.UTC().Format(time.RFC3339))
	}
	switch response.Status {
	case ocsp.Good:
		return OCSPStatus{NextUpdate: until}, nil
	case ocsp.Revoked:
		return OCSPStatus{Revoked: true, NextUpdate: until}, nil
	}
	return OCSPStatus{}, errors.New("the responder does not know the certificate")
}

func checkOCSPSigner(response *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	delegate := response.Certificate
	if delegate == nil || bytes.Equal(delegate.Raw, issuer.Raw) {
		if err := response.CheckSignatureFrom(issuer); err != nil {
			return fmt.Errorf("the answer is not signed by the certificate's issuer: %w", err)
		}
		return nil
	}
	switch {
	case delegate.CheckSignatureFrom(issuer) != nil:
		return errors.New("the answer is signed by a certificate that the issuer did not issue")
	case !bytes.Equal(delegate.RawIssuer, issuer.RawSubject):
		return errors.New("the answer is signed by a certificate of another issuer")
	case !slices.Contains(delegate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("the answer is signed by a certificate without OCSPSigning")
	case CheckValidity(delegate, now) != nil:
		return errors.New("the certificate that signed the answer has expired or is not yet valid")
	}
	if err := response.CheckSignatureFrom(delegate); err != nil {
		return fmt.Errorf("the signature of the answer is wrong: %w", err)
	}
	return nil
}

// ocspResponseData is as much of ResponseData (RFC 6960 §4.2.1) as says which
// certificates it is about; golang.org/x/crypto/ocsp does not tell.
type ocspResponseData struct {
	Raw         asn1.RawContent
	Version     int `asn1:"optional,default:0,explicit,tag:0"`
	ResponderID asn1.RawValue
	ProducedAt  time.Time `asn1:"generalized"`
	Responses   []ocspSingleResponse
}

type ocspSingleResponse struct {
	CertID     ocspCertID
	Status     asn1.RawValue
	ThisUpdate time.Time     `asn1:"generalized"`
	NextUpdate time.Time     `asn1:"generalized,explicit,tag:0,optional"`
	Extensions asn1.RawValue `asn1:"explicit,tag:1,optional"`
}

type ocspCertID struct {
	HashAlgorithm pkix.AlgorithmIdentifier
	NameHash      []byte
	KeyHash       []byte
	SerialNumber  *big.Int
}

func checkOCSPCertID(response *ocsp.Response, cert, issuer *x509.Certificate) error {
	var data ocspResponseData
	if _, err := asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		return errors.New("the answer does not say which certificate it is about")
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return errors.New("the issuer's public key does not parse")
	}
	if !response.IssuerHash.Available() {
		return errors.New("the answer names the issuer by a hash that is not supported")
	}
	sum := func(data []byte) []byte {
		hash := response.IssuerHash.New()
		hash.Write(data)
		return hash.Sum(nil)
	}
	name, keySum := sum(issuer.RawSubject), sum(key.PublicKey.RightAlign())
	for _, single := range data.Responses {
		if single.CertID.SerialNumber.Cmp(cert.SerialNumber) != 0 {
			continue
		}
		// the first one with the serial number is the one that was read
		if bytes.Equal(single.CertID.NameHash, name) && bytes.Equal(single.CertID.KeyHash, keySum) {
			return nil
		}
		break
	}
	return errors.New("the answer is about a certificate of another issuer")
}

package revocation

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

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// MaxOCSPSize is the largest OCSP answer, in bytes.
	MaxOCSPSize = 16 << 10
	// maxOCSPAge is how old an answer without nextUpdate may be. Newer
	// information is then available all the time (RFC 6960 §4.2.2.1), so it
	// counts no longer than undatedOCSP.
	maxOCSPAge  = time.Hour
	undatedOCSP = 5 * time.Minute
)

// ErrOCSPUnknown means that the responder speaks for the issuer and does not
// know the certificate (RFC 6960 §2.2), which is worse than no answer.
var ErrOCSPUnknown = errors.New("the responder does not know the certificate")

// OCSPRequest makes the request that asks for one certificate (RFC 6960 §4.1).
// It names the issuer by SHA-1, which every responder understands (RFC 5019
// §2.1.1) and on which nothing depends.
func OCSPRequest(cert, issuer *x509.Certificate) ([]byte, error) {
	return ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
}

// ParseOCSP reads the answer of a responder (RFC 6960 §4.2) and checks what
// golang.org/x/crypto/ocsp leaves to its callers (§3.2): that the answer is for
// this certificate of this issuer, that it is fresh, and that who signed it is
// the issuer, or a certificate that the issuer made for signing answers
// (§4.2.2.2). Every answer but good and revoked is an error, ErrOCSPUnknown
// among them.
func ParseOCSP(data []byte, cert, issuer *x509.Certificate, now time.Time) (Status, error) {
	var status Status
	if len(data) > MaxOCSPSize {
		return status, fmt.Errorf("the answer is larger than %d bytes", MaxOCSPSize)
	}
	if hasHugeSigner(data) {
		return status, errors.New("the answer has a certificate with a key too large to check a signature with")
	}
	// Without an issuer, for a signature by the right CA does not make a
	// certificate one for signing answers.
	response, err := ocsp.ParseResponseForCert(data, cert, nil)
	if err != nil {
		return status, fmt.Errorf("the answer cannot be used: %s", source.Text(err.Error(), maxErrorText))
	}
	if err := checkOCSPSigner(response, issuer, now); err != nil {
		return status, err
	}
	if err := checkOCSPContent(response, cert, issuer); err != nil {
		return status, err
	}

	status = Status{ThisUpdate: response.ThisUpdate, Until: response.NextUpdate}
	if status.Until.IsZero() {
		status.Until = earliest(response.ThisUpdate.Add(maxOCSPAge), now.Add(undatedOCSP))
	}
	if !signedByIssuer(response, issuer) {
		status.Signer = response.Certificate
		status.Until = earliest(status.Until, status.Signer.NotAfter)
	}
	switch {
	case status.ThisUpdate.After(now.Add(revocationSkew)):
		return Status{}, fmt.Errorf("the answer is of the future: %s", timeText(status.ThisUpdate))
	case !now.Before(status.Until):
		return Status{}, fmt.Errorf("the answer is stale since %s", timeText(status.Until))
	}
	switch response.Status {
	case ocsp.Good:
		return status, nil
	case ocsp.Revoked:
		status.Revoked, status.RevokedAt = true, response.RevokedAt
		return status, nil
	}
	return Status{}, ErrOCSPUnknown
}

// hasHugeSigner reports whether an answer comes with a certificate whose key is
// huge. golang.org/x/crypto/ocsp checks the answer with that key before anybody
// can tell whose it is, and whoever is on the way to the responder can send one.
func hasHugeSigner(data []byte) bool {
	var response struct { // OCSPResponse of RFC 6960 §4.2.1
		Status asn1.Enumerated
		Bytes  struct {
			Type  asn1.ObjectIdentifier
			Basic []byte
		} `asn1:"explicit,tag:0,optional"`
	}
	var basic struct { // BasicOCSPResponse
		Data, Algorithm asn1.RawValue
		Signature       asn1.BitString
		Certificates    []asn1.RawValue `asn1:"explicit,tag:0,optional"`
	}
	if _, err := asn1.Unmarshal(data, &response); err != nil {
		return false // as the reading of the whole will find
	}
	if _, err := asn1.Unmarshal(response.Bytes.Basic, &basic); err != nil {
		return false
	}
	return slices.ContainsFunc(basic.Certificates, func(raw asn1.RawValue) bool {
		cert, err := x509.ParseCertificate(raw.FullBytes)
		return err == nil && validators.HasHugeKey(cert)
	})
}

func earliest(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// signedByIssuer reports whether the answer claims to be signed with the
// issuer's key, of which the responder may send another certificate.
func signedByIssuer(response *ocsp.Response, issuer *x509.Certificate) bool {
	return response.Certificate == nil ||
		bytes.Equal(response.Certificate.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo)
}

func checkOCSPSigner(response *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	if insecureSignature(response.SignatureAlgorithm) {
		return errors.New("the answer is signed with SHA-1 or MD5, with which signatures can be forged")
	}
	if signedByIssuer(response, issuer) {
		if response.CheckSignatureFrom(issuer) != nil {
			return errors.New("the answer is not signed with the issuer's key")
		}
		return nil
	}
	delegate := response.Certificate
	switch {
	case !bytes.Equal(delegate.RawIssuer, issuer.RawSubject), delegate.CheckSignatureFrom(issuer) != nil:
		return errors.New("the answer is signed by a certificate that the issuer did not issue")
	case delegate.IsCA:
		return errors.New("the answer is signed by a CA below the issuer")
	case !slices.Contains(delegate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("the answer is signed by a certificate that is not for OCSPSigning")
	case validators.LacksKeyUsage(delegate, (x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment)):
		return errors.New("the answer is signed by a certificate whose key usage is not for signatures")
	case len(delegate.UnhandledCriticalExtensions) > 0:
		return errors.New("the answer is signed by a certificate with a critical extension that is not understood")
	case validators.CheckValidity(delegate, now) != nil:
		return errors.New("the answer is signed by a certificate that has expired or is not yet valid")
	case response.CheckSignatureFrom(delegate) != nil:
		return errors.New("the signature of the answer is wrong")
	}
	return nil
}

// ocspResponseData is as much of ResponseData (RFC 6960 §4.2.1) as
// golang.org/x/crypto/ocsp does not tell of.
type ocspResponseData struct {
	Raw         asn1.RawContent
	Version     int `asn1:"optional,default:0,explicit,tag:0"`
	ResponderID asn1.RawValue
	ProducedAt  time.Time `asn1:"generalized"`
	Responses   []ocspSingleResponse
	Extensions  []pkix.Extension `asn1:"explicit,tag:1,optional"`
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

// checkOCSPContent checks that the answer is about this certificate, and once.
func checkOCSPContent(response *ocsp.Response, cert, issuer *x509.Certificate) error {
	var data ocspResponseData
	if _, err := asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		return errors.New("the answer does not say which certificate it is about")
	}
	for _, extension := range data.Extensions {
		if extension.Critical {
			return fmt.Errorf("the answer has a critical extension that is not understood: %s", source.Text(extension.Id.String(), maxQuote))
		}
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return errors.New("the issuer's public key does not parse")
	}
	sum := func(data []byte) []byte {
		hash := response.IssuerHash.New()
		hash.Write(data)
		return hash.Sum(nil)
	}
	found := false
	for _, single := range data.Responses {
		id := single.CertID
		if id.SerialNumber.Cmp(cert.SerialNumber) != 0 {
			continue
		}
		if found {
			return errors.New("the answer speaks of the serial number more than once")
		}
		found = true
		if !bytes.Equal(id.NameHash, sum(issuer.RawSubject)) || !bytes.Equal(id.KeyHash, sum(key.PublicKey.RightAlign())) {
			return errors.New("the answer is about a certificate of another issuer")
		}
	}
	if !found {
		return errors.New("the answer is about another certificate")
	}
	return nil
}

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
	// maxOCSPSize is the size of the largest OCSP response, in bytes.
	maxOCSPSize = 16 << 10
	// maxOCSPAge is how old a response without nextUpdate may be. Its responder
	// has newer information all the time (RFC 6960 §4.2.2.1), so the response
	// counts no longer than undatedOCSP.
	maxOCSPAge  = time.Hour
	undatedOCSP = 5 * time.Minute
)

// errOCSPUnknown means that the responder speaks for the issuer and does not
// know the certificate (RFC 6960 §2.2), which is worse than no response.
var errOCSPUnknown = errors.New("the responder does not know the certificate")

// newOCSPRequest returns a request about one certificate (RFC 6960 §4.1). It
// names the issuer by SHA-1, which every responder understands (RFC 5019 §2.1.1)
// and no security depends on.
func newOCSPRequest(cert, issuer *x509.Certificate) ([]byte, error) {
	return ocsp.CreateRequest(cert, issuer, &ocsp.RequestOptions{Hash: crypto.SHA1})
}

// parseOCSP parses the response of a responder (RFC 6960 §4.2) and checks what
// golang.org/x/crypto/ocsp leaves to its callers (§3.2): that the response is
// about this certificate of this issuer, that it is fresh, and that it is signed
// by the issuer or by a certificate that the issuer made for signing responses
// (§4.2.2.2). Every response but good and revoked is an error; unknown is
// errOCSPUnknown.
func parseOCSP(data []byte, cert, issuer *x509.Certificate, now time.Time) (certStatus, error) {
	var status certStatus
	if len(data) > maxOCSPSize {
		return status, fmt.Errorf("the response is larger than %d bytes", maxOCSPSize)
	}
	if hasHugeSigner(data) {
		return status, errors.New("the response has a certificate with an RSA key of more than 16384 bits")
	}
	// No issuer is given, because a certificate of the right CA is not always one
	// for signing responses; checkOCSPSigner looks.
	response, err := ocsp.ParseResponseForCert(data, cert, nil)
	if err != nil {
		return status, fmt.Errorf("the response cannot be used: %s", source.Text(err.Error(), maxErrorText))
	}
	if err := checkOCSPSigner(response, issuer, now); err != nil {
		return status, err
	}
	if err := checkOCSPContent(response, cert, issuer); err != nil {
		return status, err
	}

	status = certStatus{ThisUpdate: response.ThisUpdate, Until: response.NextUpdate}
	if status.Until.IsZero() {
		status.Until = earliest(response.ThisUpdate.Add(maxOCSPAge), now.Add(undatedOCSP))
	}
	if !signedByIssuer(response, issuer) {
		status.Signer = response.Certificate
		status.Until = earliest(status.Until, status.Signer.NotAfter)
	}
	switch {
	case status.ThisUpdate.After(now.Add(clockSkew)):
		return certStatus{}, fmt.Errorf("the response is dated in the future: %s", timeText(status.ThisUpdate))
	case !now.Before(status.Until):
		return certStatus{}, fmt.Errorf("the response is stale since %s", timeText(status.Until))
	}
	switch response.Status {
	case ocsp.Good:
		return status, nil
	case ocsp.Revoked:
		status.Revoked, status.RevokedAt = true, response.RevokedAt
		return status, nil
	}
	return certStatus{}, errOCSPUnknown
}

// hasHugeSigner reports whether a response contains a certificate with a huge
// key. golang.org/x/crypto/ocsp verifies the response with that key before it is
// known whose it is, and anybody on the path to the responder can send one.
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
		return false // parsing the whole fails as well
	}
	if _, err := asn1.Unmarshal(response.Bytes.Basic, &basic); err != nil {
		return false
	}
	return slices.ContainsFunc(basic.Certificates, func(raw asn1.RawValue) bool {
		cert, err := x509.ParseCertificate(raw.FullBytes)
		return err == nil && validators.HasHugeKey(cert)
	})
}

func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// signedByIssuer reports whether the response claims to be signed with the
// issuer's key, for which the responder may send another certificate.
func signedByIssuer(response *ocsp.Response, issuer *x509.Certificate) bool {
	return response.Certificate == nil ||
		bytes.Equal(response.Certificate.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo)
}

func checkOCSPSigner(response *ocsp.Response, issuer *x509.Certificate, now time.Time) error {
	if insecureSignature(response.SignatureAlgorithm) {
		return errors.New("the response is signed with SHA-1 or MD5, which can be forged")
	}
	if signedByIssuer(response, issuer) {
		if response.CheckSignatureFrom(issuer) != nil {
			return errors.New("the response is not signed with the issuer's key")
		}
		return nil
	}
	delegate := response.Certificate
	switch {
	case !bytes.Equal(delegate.RawIssuer, issuer.RawSubject), delegate.CheckSignatureFrom(issuer) != nil:
		return errors.New("the response is signed by a certificate that the issuer did not issue")
	case delegate.IsCA:
		return errors.New("the response is signed by a CA below the issuer")
	case !slices.Contains(delegate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return errors.New("the response is signed by a certificate without the extended key usage OCSPSigning")
	case validators.LacksKeyUsage(delegate, (x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment)):
		return errors.New("the response is signed by a certificate whose key usage lacks digitalSignature")
	case len(delegate.UnhandledCriticalExtensions) > 0:
		return errors.New("the response is signed by a certificate with an unknown critical extension")
	case validators.CheckValidity(delegate, now) != nil:
		return errors.New("the response is signed by a certificate that has expired or is not yet valid")
	case response.CheckSignatureFrom(delegate) != nil:
		return errors.New("the response has an invalid signature")
	}
	return nil
}

// ocspResponseData has the fields of ResponseData (RFC 6960 §4.2.1) that
// golang.org/x/crypto/ocsp does not return.
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

// checkOCSPContent checks that the response is about this certificate, exactly
// once.
func checkOCSPContent(response *ocsp.Response, cert, issuer *x509.Certificate) error {
	var data ocspResponseData
	if _, err := asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		return errors.New("the response does not say which certificate it is about")
	}
	for _, extension := range data.Extensions {
		if extension.Critical {
			return fmt.Errorf("the response has an unknown critical extension: %s", source.Text(extension.Id.String(), maxQuote))
		}
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return errors.New("the issuer has an invalid public key")
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
			return errors.New("the response has the serial number more than once")
		}
		found = true
		if !bytes.Equal(id.NameHash, sum(issuer.RawSubject)) || !bytes.Equal(id.KeyHash, sum(key.PublicKey.RightAlign())) {
			return errors.New("the response is about a certificate of another issuer")
		}
	}
	if !found {
		return errors.New("the response is about another certificate")
	}
	return nil
}

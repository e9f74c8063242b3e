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
	// maxOCSPCertificates is how many of the certificates in it are considered.
	maxOCSPCertificates = 8
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
// errOCSPUnknown. A response that says revoked counts whatever its age and its
// extensions are.
func parseOCSP(data []byte, cert, issuer *x509.Certificate, now time.Time) (certStatus, error) {
	var status certStatus
	if len(data) > maxOCSPSize {
		return status, fmt.Errorf("the response is larger than %d bytes", maxOCSPSize)
	}
	bare, sent := splitOCSP(data)
	if slices.ContainsFunc(sent, validators.HasHugeKey) {
		return status, errors.New("the response has a certificate with an RSA key of more than 16384 bits")
	}
	response, err := ocsp.ParseResponseForCert(bare, cert, nil)
	if err != nil {
		return status, ocspError(err)
	}
	delegate, err := ocspSigner(response, sent, issuer, now)
	if err != nil {
		return status, err
	}
	doubt, err := checkOCSPContent(response, cert, issuer)
	if err != nil {
		return status, err
	}

	status = certStatus{ThisUpdate: response.ThisUpdate, Until: response.NextUpdate, Signer: delegate}
	if status.Until.IsZero() {
		status.Until = earliest(response.ThisUpdate.Add(maxOCSPAge), now.Add(undatedOCSP))
	}
	if delegate != nil {
		status.Until = earliest(status.Until, delegate.NotAfter)
	}
	switch {
	case doubt != nil:
	case status.ThisUpdate.After(now.Add(clockSkew)):
		doubt = fmt.Errorf("the response is dated in the future: %s", timeText(status.ThisUpdate))
	case !now.Before(status.Until):
		doubt = fmt.Errorf("the response is stale since %s", timeText(status.Until))
	}
	switch {
	case response.Status == ocsp.Revoked:
		status.Revoked, status.RevokedAt = true, response.RevokedAt
		if doubt != nil { // a newer answer counts, as soon as there is one
			status.ThisUpdate, status.Until = earliest(status.ThisUpdate, now), now.Add(undatedOCSP)
		}
		return status, nil
	case doubt != nil:
		return certStatus{}, doubt
	case response.Status == ocsp.Good:
		return status, nil
	}
	return certStatus{}, errOCSPUnknown
}

// splitOCSP returns a response without the certificates in it, and those that can be
// parsed. golang.org/x/crypto/ocsp would verify the response with the first of them,
// before it is known whose it is, and anybody on the path to the responder can send
// one. A responder may send the certificates above its own first.
func splitOCSP(data []byte) (bare []byte, sent []*x509.Certificate) {
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
	if rest, err := asn1.Unmarshal(data, &response); err != nil || len(rest) > 0 {
		return data, nil // parsing the whole fails as well
	}
	if rest, err := asn1.Unmarshal(response.Bytes.Basic, &basic); err != nil || len(rest) > 0 {
		return data, nil
	}
	for _, raw := range basic.Certificates[:min(len(basic.Certificates), maxOCSPCertificates)] {
		if cert, err := x509.ParseCertificate(raw.FullBytes); err == nil {
			sent = append(sent, cert)
		}
	}
	basic.Certificates = nil
	var err error
	if response.Bytes.Basic, err = asn1.Marshal(basic); err != nil {
		return data, nil
	}
	if bare, err = asn1.Marshal(response); err != nil {
		return data, nil
	}
	return bare, sent
}

// ocspError translates an error of golang.org/x/crypto/ocsp.
func ocspError(err error) error {
	if answer := new(ocsp.ResponseError); errors.As(err, answer) {
		switch answer.Status {
		case ocsp.Unauthorized:
			return errors.New("the responder is unauthorized to answer about this CA or does not know the certificate; check the URL")
		case ocsp.TryLater:
			return errors.New("the responder says try later")
		case ocsp.InternalError:
			return errors.New("the responder has an internal error")
		case ocsp.Malformed:
			return errors.New("the responder does not understand the request; check the URL")
		case ocsp.SignatureRequired:
			return errors.New("the responder wants signed requests, which are not supported; use another responder, or a CRL")
		}
	}
	if words := ocsp.ParseError(""); errors.As(err, &words) {
		return fmt.Errorf("the response cannot be used: %s", source.Text(err.Error(), maxErrorText))
	}
	return errors.New("the response cannot be used: it is not an OCSP response; check the URL")
}

func earliest(times ...time.Time) time.Time { return slices.MinFunc(times, time.Time.Compare) }

// ocspSigner returns the certificate among those in the response that has signed it on
// behalf of the issuer, nil if the issuer has signed it.
func ocspSigner(response *ocsp.Response, sent []*x509.Certificate, issuer *x509.Certificate, now time.Time) (*x509.Certificate, error) {
	if insecureSignature(response.SignatureAlgorithm) {
		return nil, errors.New("the response is signed with SHA-1 or MD5, which can be forged")
	}
	if response.CheckSignatureFrom(issuer) == nil {
		return nil, nil
	}
	signed := func(cert *x509.Certificate) bool { return response.CheckSignatureFrom(cert) == nil }
	at := slices.IndexFunc(sent, signed)
	if at < 0 {
		return nil, errors.New("the response cannot be used: it is not signed with the issuer's key, nor with that of a certificate in it")
	}
	delegate := sent[at]
	switch {
	case nameKey(delegate.RawIssuer) != nameKey(issuer.RawSubject), delegate.CheckSignatureFrom(issuer) != nil:
		return nil, errors.New("the response is signed by a certificate that the issuer did not issue")
	case delegate.IsCA:
		return nil, errors.New("the response is signed by a CA below the issuer")
	case !slices.Contains(delegate.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning):
		return nil, errors.New("the response is signed by a certificate without the extended key usage OCSPSigning")
	case validators.LacksKeyUsage(delegate, (x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment)):
		return nil, errors.New("the response is signed by a certificate whose key usage lacks digitalSignature")
	case len(delegate.UnhandledCriticalExtensions) > 0:
		return nil, errors.New("the response is signed by a certificate with an unknown critical extension")
	case validators.CheckValidity(delegate, now) != nil:
		return nil, errors.New("the response is signed by a certificate that has expired or is not yet valid")
	}
	return delegate, nil
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
// once. doubt is why the response may not say that the certificate is good.
func checkOCSPContent(response *ocsp.Response, cert, issuer *x509.Certificate) (doubt, err error) {
	var data ocspResponseData
	if _, err := asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		return nil, errors.New("the response does not say which certificate it is about")
	}
	for _, extension := range data.Extensions {
		if extension.Critical {
			doubt = fmt.Errorf("the response has an unknown critical extension: %s", source.Text(extension.Id.String(), maxQuote))
		}
	}
	var key struct {
		Algorithm pkix.AlgorithmIdentifier
		PublicKey asn1.BitString
	}
	if _, err := asn1.Unmarshal(issuer.RawSubjectPublicKeyInfo, &key); err != nil {
		return nil, errors.New("the issuer has an invalid public key")
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
			return nil, errors.New("the response has the serial number more than once")
		}
		found = true
		if !bytes.Equal(id.NameHash, sum(issuer.RawSubject)) || !bytes.Equal(id.KeyHash, sum(key.PublicKey.RightAlign())) {
			return nil, errors.New("the response is about a certificate of another issuer")
		}
	}
	if !found {
		return nil, errors.New("the response is about another certificate")
	}
	return doubt, nil
}

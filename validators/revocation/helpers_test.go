package revocation

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// crlOption changes a CRL before it is signed.
type crlOption func(*x509.RevocationList)

func crlNumber(n int64) crlOption {
	return func(l *x509.RevocationList) { l.Number = big.NewInt(n) }
}

func crlDates(thisUpdate, nextUpdate time.Time) crlOption {
	return func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = thisUpdate, nextUpdate }
}

func crlExtension(oid asn1.ObjectIdentifier, critical bool, value []byte) crlOption {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: oid, Critical: critical, Value: value})
	}
}

// crlRevokes revokes certificates, with a reason (RFC 5280 §5.3.1).
func crlRevokes(reason int, certs ...*x509.Certificate) crlOption {
	return func(l *x509.RevocationList) {
		for _, cert := range certs {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
				SerialNumber: cert.SerialNumber, RevocationTime: l.ThisUpdate, ReasonCode: reason,
			})
		}
	}
}

// makeCRL signs a CRL: number 1, issued a minute before at, fresh for an hour, without
// entries, unless the options say otherwise.
func makeCRL(tb testing.TB, ca *testpki.CA, at time.Time, opts ...crlOption) []byte {
	tb.Helper()
	at = at.Truncate(time.Second)
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: at.Add(-time.Minute), NextUpdate: at.Add(time.Hour)}
	for _, opt := range opts {
		opt(list)
	}
	issuer := *ca.Cert // x509 signs no CRL for a CA that may not
	issuer.KeyUsage |= x509.KeyUsageCRLSign
	if len(issuer.SubjectKeyId) == 0 {
		issuer.SubjectKeyId = []byte{1}
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, ca.Key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func mustCRL(tb testing.TB, ca *testpki.CA, at time.Time, opts ...crlOption) *parsedCRL {
	tb.Helper()
	crl, err := parseCRL(makeCRL(tb, ca, at, opts...))
	if err != nil {
		tb.Fatal(err)
	}
	return crl
}

// crlSetOf returns a set of CRLs, each from a location of its own.
func crlSetOf(lists ...*parsedCRL) *CRLSet {
	locations := make([][]*parsedCRL, len(lists))
	for i, crl := range lists {
		locations[i] = []*parsedCRL{crl}
	}
	return newCRLSet(locations)
}

// rawCRL is a CRL that x509 does not create (RFC 5280 §5.1).
type rawCRL struct {
	Version    int
	Signature  pkix.AlgorithmIdentifier
	Issuer     asn1.RawValue
	ThisUpdate time.Time
	NextUpdate time.Time        `asn1:"optional"`
	Revoked    []rawCRLEntry    `asn1:"optional"`
	Extensions []pkix.Extension `asn1:"tag:0,optional,explicit"`
	Odd        asn1.RawValue    `asn1:"optional"`
}

// signVersion1 signs a CRL of version 1 (RFC 5280 §5.1.2.1), which x509 does not parse.
func (c rawCRL) signVersion1(tb testing.TB, ca *testpki.CA) []byte {
	tb.Helper()
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	tbs := sequence(tb, marshal(tb, algorithm), ca.Cert.RawSubject, marshal(tb, c.ThisUpdate), marshal(tb, c.NextUpdate), marshal(tb, c.Revoked))
	return marshal(tb, signed{asn1.RawValue{FullBytes: tbs}, algorithm, signature(tb, ca.Key, crypto.SHA256, tbs)})
}

type rawCRLEntry struct {
	Serial     any
	Date       any
	Extensions []pkix.Extension `asn1:"optional"`
}

// sign signs with ECDSA and SHA-256 or SHA-1.
func (c rawCRL) sign(tb testing.TB, ca *testpki.CA, sha1 bool) []byte {
	tb.Helper()
	c.Version, c.Issuer = 1, asn1.RawValue{FullBytes: ca.Cert.RawSubject}
	c.Signature.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	hash := crypto.SHA256
	if sha1 {
		c.Signature.Algorithm, hash = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1}, crypto.SHA1
	}
	tbs := marshal(tb, c)
	return marshal(tb, signed{asn1.RawValue{FullBytes: tbs}, c.Signature, signature(tb, ca.Key, hash, tbs)})
}

type signed struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

func signature(tb testing.TB, key crypto.Signer, hash crypto.Hash, content []byte) asn1.BitString {
	tb.Helper()
	h := hash.New()
	h.Write(content)
	sum, err := key.Sign(rand.Reader, h.Sum(nil), hash)
	if err != nil {
		tb.Fatal(err)
	}
	return asn1.BitString{Bytes: sum, BitLength: 8 * len(sum)}
}

func marshal(tb testing.TB, value any) []byte {
	tb.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// contextual returns an element with a context-specific tag.
func contextual(tb testing.TB, tag int, compound bool, content []byte) []byte {
	tb.Helper()
	return marshal(tb, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, IsCompound: compound, Bytes: content})
}

func sequence(tb testing.TB, content ...[]byte) []byte {
	tb.Helper()
	return marshal(tb, asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: bytes.Join(content, nil)})
}

// ocspOption changes an OCSP answer before it is signed.
type ocspOption func(*ocspTemplate)

type ocspTemplate struct {
	ocsp.Response
	// about is the issuer in the response.
	about *x509.Certificate
	// edit changes what is signed.
	edit func(*ocspResponseData)
}

func ocspState(status int) ocspOption {
	return func(t *ocspTemplate) { t.Status = status }
}

func ocspDates(thisUpdate, nextUpdate time.Time) ocspOption {
	return func(t *ocspTemplate) { t.ThisUpdate, t.NextUpdate = thisUpdate, nextUpdate }
}

// makeOCSP signs a response: good, as of a minute before at, fresh for an hour, unless
// the options say otherwise. The signer is the CA, or a leaf that is included.
func makeOCSP(tb testing.TB, ca *testpki.CA, cert *x509.Certificate, signer any, at time.Time, opts ...ocspOption) []byte {
	tb.Helper()
	at = at.Truncate(time.Second)
	template := ocspTemplate{about: ca.Cert}
	template.Response = ocsp.Response{
		Status: ocsp.Good, SerialNumber: cert.SerialNumber, ThisUpdate: at.Add(-time.Minute), NextUpdate: at.Add(time.Hour),
		RevokedAt: at.Add(-time.Minute), RevocationReason: ocsp.KeyCompromise,
	}
	responder, key := ca.Cert, ca.Key
	switch s := signer.(type) {
	case *testpki.CA:
		responder, key = s.Cert, s.Key
		if s != ca {
			template.Certificate = s.Cert
		}
	case *testpki.Leaf:
		responder, key = s.Cert, s.Key
		template.Certificate = s.Cert
	}
	for _, opt := range opts {
		opt(&template)
	}
	der, err := ocsp.CreateResponse(template.about, responder, template.Response, key)
	if err != nil {
		tb.Fatal(err)
	}
	if template.edit == nil {
		return der
	}
	return editOCSP(tb, der, key, template.edit)
}

// editOCSP changes a response and signs it again, without a certificate.
func editOCSP(tb testing.TB, der []byte, key crypto.Signer, edit func(*ocspResponseData)) []byte {
	tb.Helper()
	response, err := ocsp.ParseResponse(der, nil)
	if err != nil {
		tb.Fatal(err)
	}
	var data ocspResponseData
	if _, err := asn1.Unmarshal(response.TBSResponseData, &data); err != nil {
		tb.Fatal(err)
	}
	data.Raw = nil
	edit(&data)
	tbs := marshal(tb, data)
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	basic := marshal(tb, signed{asn1.RawValue{FullBytes: tbs}, algorithm, signature(tb, key, crypto.SHA256, tbs)})
	octets := marshal(tb, basic)
	kind := marshal(tb, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1})
	return sequence(tb, marshal(tb, asn1.Enumerated(0)), contextual(tb, 0, true, sequence(tb, kind, octets)))
}

// unknownExtension is an extension without meaning.
var unknownExtension = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}

// oidKeyUsage is the extension of RFC 5280 §4.2.1.3.
var oidKeyUsage = asn1.ObjectIdentifier{2, 5, 29, 15}

// now is the time of tests without a clock of their own.
var now = time.Now()

// wantRefusal checks the reason and the detail; an empty why wants no refusal.
func wantRefusal(t *testing.T, got *validators.Refusal, reason validators.Reason, why string) {
	t.Helper()
	switch {
	case (got != nil) != (why != ""):
		t.Errorf("refused with %v, want %q", got, why)
	case got != nil && (got.Reason != reason || !strings.Contains(got.Detail, why)):
		t.Errorf("refused with %v, want %s: …%s…", got, reason, why)
	}
}

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case err == nil && want != "":
		t.Errorf("no error, want one that says %q", want)
	case err != nil && (want == "" || !strings.Contains(err.Error(), want)):
		t.Errorf("error %q, want one that says %q", err, want)
	case err != nil && (!testtool.Printable(err.Error()) || len(err.Error()) > 2048):
		t.Errorf("error %q is not fit for a log", err)
	}
}

func digest(data []byte) string {
	return validators.ThumbprintOf(data).String()
}

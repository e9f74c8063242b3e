package revocation

import (
	"crypto"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// An attacker on the path to the responder must not keep the processor busy with a key
// of their own.
func TestOCSPSignerWithHugeKeyIsRefused(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	answer := func(bits int) []byte {
		cert := testpki.MustHugeRSA(t, bits)
		response, err := ocsp.ParseResponse(makeOCSP(t, ca, leaf, ca, now), nil)
		if err != nil {
			t.Fatal(err)
		}
		basic := marshal(t, struct {
			TBS          asn1.RawValue
			Algorithm    pkix.AlgorithmIdentifier
			Signature    asn1.BitString
			Certificates []asn1.RawValue `asn1:"explicit,tag:0"`
		}{
			asn1.RawValue{FullBytes: response.TBSResponseData},
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}, Parameters: asn1.NullRawValue},
			asn1.BitString{Bytes: cert.Signature, BitLength: 8 * len(cert.Signature)},
			[]asn1.RawValue{{FullBytes: cert.Raw}},
		})
		kind := marshal(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1})
		return sequence(t, marshal(t, asn1.Enumerated(0)), contextual(t, 0, true, sequence(t, kind, marshal(t, basic))))
	}
	_, err := parseOCSP(answer(24<<10), leaf, ca.Cert, now)
	wantError(t, err, "RSA key of more than 16384 bits")
	_, err = parseOCSP(answer(4<<10), leaf, ca.Cert, now)
	wantError(t, err, "cannot be used: ")
}

func TestParseOCSP(t *testing.T) {
	ca := testpki.MustCA(t)
	seven := testpki.Serial(big.NewInt(7))
	leaf := testpki.MustIssue(t, ca, seven).Cert
	eku := testpki.EKU(x509.ExtKeyUsageOCSPSigning)
	delegate := testpki.MustIssue(t, ca, eku)
	namesake := testpki.MustCA(t) // same name, another key
	stranger := testpki.MustCA(t, testpki.CommonName("Stranger"))
	crossSigned := testpki.MustIntermediate(t, stranger, testpki.Key(ca.Key), testpki.RawSubject(ca.Cert.RawSubject))
	good := func(signer any, opts ...ocspOption) []byte { return makeOCSP(t, ca, leaf, signer, now, opts...) }
	by := func(opts ...testpki.Option) []byte { return good(testpki.MustIssue(t, ca, opts...)) }
	edited := func(edit func(*ocspResponseData)) []byte {
		return good(ca, func(o *ocspTemplate) { o.edit = edit })
	}
	about := func(other *testpki.CA) ocspOption {
		return func(o *ocspTemplate) { o.about = other.Cert }
	}
	signedWith := func(algorithm x509.SignatureAlgorithm) ocspOption {
		return func(o *ocspTemplate) { o.SignatureAlgorithm = algorithm }
	}
	critical := pkix.Extension{Id: unknownExtension, Critical: true, Value: []byte{5, 0}}
	hash := func(h crypto.Hash) ocspOption { return func(o *ocspTemplate) { o.IssuerHash = h } }
	past, soon := now.Add(-2*time.Hour), now.Add(time.Hour)
	tampered := good(ca)
	tampered[len(tampered)-1] ^= 1

	for title, test := range map[string]struct {
		data []byte
		want string
	}{
		"good, by the issuer":                 {good(ca), ""},
		"good, by a delegate":                 {good(delegate), ""},
		"good, by the issuer's key elsewhere": {good(crossSigned), ""},
		"good, issuer named by SHA-256":       {good(ca, hash(crypto.SHA256)), ""},
		"delegate without key usage":          {by(eku, testpki.KeyUsage(0)), ""},
		"delegate for signatures":             {by(eku, testpki.KeyUsage(x509.KeyUsageContentCommitment)), ""},
		"of a clock that is ahead":            {good(ca, ocspDates(now.Add(30*time.Second), soon)), ""},
		"extension": {edited(func(d *ocspResponseData) {
			d.Extensions = []pkix.Extension{{Id: unknownExtension, Value: []byte{5, 0}}}
		}), ""},
		"others beside": {edited(addSingle(big.NewInt(8), nil)), ""},

		"unknown":                   {good(ca, ocspState(ocsp.Unknown)), "does not know the certificate"},
		"unknown, by a delegate":    {good(delegate, ocspState(ocsp.Unknown)), "does not know the certificate"},
		"error: unauthorized":       {ocsp.UnauthorizedErrorResponse, "unauthorized"},
		"error: try later":          {ocsp.TryLaterErrorResponse, "try later"},
		"B4 empty":                  {nil, "cannot be used"},
		"B4 garbage":                {[]byte("<html>Please log in</html>"), "cannot be used"},
		"trailing garbage":          {append(good(ca), 0), "cannot be used"},
		"too large":                 {append(good(ca), make([]byte, maxOCSPSize)...), "larger than"},
		"signature wrong":           {tampered, "not signed with the issuer's key"},
		"signed with SHA-1":         {good(ca, signedWith(x509.ECDSAWithSHA1)), "SHA-1"},
		"delegate signs with SHA-1": {good(delegate, signedWith(x509.ECDSAWithSHA1)), "SHA-1"},

		"signer: another leaf of the CA":        {by(), "without the extended key usage OCSPSigning"},
		"signer: the certificate in question":   {by(seven), "without the extended key usage OCSPSigning"},
		"signer: any usage":                     {by(testpki.EKU(x509.ExtKeyUsageAny)), "without the extended key usage OCSPSigning"},
		"signer: no usages":                     {by(testpki.NoEKU()), "without the extended key usage OCSPSigning"},
		"signer: a CA below":                    {good(testpki.MustIntermediate(t, ca, eku)), "a CA below"},
		"signer: expired":                       {by(eku, testpki.Validity(past, now.Add(-time.Hour))), "expired or is not yet valid"},
		"signer: not yet valid":                 {by(eku, testpki.Validity(soon, now.Add(2*time.Hour))), "expired or is not yet valid"},
		"signer: not for signatures":            {by(eku, testpki.KeyUsage(x509.KeyUsageKeyEncipherment)), "key usage lacks digitalSignature"},
		"signer: unknown critical extension":    {by(eku, testpki.Extension(critical)), "critical extension"},
		"signer: delegate of a namesake":        {good(testpki.MustIssue(t, namesake, eku)), "the issuer did not issue"},
		"signer: delegate of a stranger":        {good(testpki.MustIssue(t, stranger, eku)), "the issuer did not issue"},
		"signer: delegate of the key elsewhere": {good(testpki.MustIssue(t, testpki.MustCA(t, testpki.Key(ca.Key), testpki.CommonName("x")), eku)), "the issuer did not issue"},
		"signer: self-signed":                   {good(testpki.MustSelfSigned(t, eku, testpki.RawSubject(ca.Cert.RawSubject))), "the issuer did not issue"},
		"signer: a namesake":                    {good(namesake), "the issuer did not issue"},
		"signer: none sent, and not the CA":     {editOCSP(t, good(ca), namesake.Key, func(*ocspResponseData) {}), "not signed with the issuer's key"},
		"signer: delegate not sent":             {editOCSP(t, good(ca), delegate.Key, func(*ocspResponseData) {}), "not signed with the issuer's key"},

		"about another certificate":             {makeOCSP(t, ca, testpki.MustIssue(t, ca).Cert, ca, now), "cannot be used"},
		"about the serial number of a namesake": {good(ca, about(namesake)), "another issuer"},
		"about the serial number of a stranger": {good(ca, about(stranger)), "another issuer"},
		"about the key under another name":      {good(ca, about(testpki.MustCA(t, testpki.Key(ca.Key), testpki.CommonName("x")))), "another issuer"},
		"about it, after a namesake's":          {edited(addSingle(leaf.SerialNumber, make([]byte, sha1.Size))), "another issuer"},
		"about it twice":                        {edited(func(d *ocspResponseData) { d.Responses = append(d.Responses, d.Responses[0]) }), "more than once"},
		"about nothing":                         {edited(func(d *ocspResponseData) { d.Responses = nil }), "cannot be used"},
		"neither good nor revoked nor unknown": {edited(func(d *ocspResponseData) {
			d.Responses[0].Status = asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3}
		}), "cannot be used"},
		"critical extension":                      {edited(func(d *ocspResponseData) { d.Extensions = []pkix.Extension{critical} }), "critical extension"},
		"critical extension of the certificate's": {good(ca, func(o *ocspTemplate) { o.ExtraExtensions = []pkix.Extension{critical} }), "critical extension"},

		"stale":                      {good(ca, ocspDates(past, now)), "stale since"},
		"C4 stale, years ago":        {good(ca, ocspDates(now.AddDate(-3, 0, 0), now.AddDate(-2, 0, 0))), "stale since"},
		"stale, undated":             {good(ca, ocspDates(past, time.Time{})), "stale since"},
		"of the future":              {good(ca, ocspDates(now.Add(2*time.Minute), soon)), "dated in the future"},
		"nextUpdate before it is":    {good(ca, ocspDates(now, past)), "stale since"},
		"of the future, by delegate": {good(delegate, ocspDates(now.Add(2*time.Minute), soon)), "dated in the future"},
	} {
		t.Run(title, func(t *testing.T) {
			status, err := parseOCSP(test.data, leaf, ca.Cert, now)
			wantError(t, err, test.want)
			if status.Revoked || status.Until.IsZero() != (test.want != "") {
				t.Errorf("%+v", status)
			}
			if errors.Is(err, errOCSPUnknown) != (len(title) >= 7 && title[:7] == "unknown") {
				t.Errorf("taken for an answer of a responder that does not know the certificate: %v", err)
			}
		})
	}

	// golang.org/x/crypto/ocsp accepts these.
	lie := good(testpki.MustIssue(t, ca), ocspDates(past, now.Add(-time.Hour)))
	if _, err := ocsp.ParseResponseForCert(lie, leaf, ca.Cert); err != nil {
		t.Errorf("x/crypto/ocsp has become stricter: %v", err)
	}
}

// addSingle puts the status of another serial number first, or of the same number of
// an issuer with another name.
func addSingle(serial *big.Int, nameHash []byte) func(*ocspResponseData) {
	return func(d *ocspResponseData) {
		single := d.Responses[0]
		single.CertID.SerialNumber = serial
		if nameHash != nil {
			single.CertID.NameHash = nameHash
		}
		d.Responses = slices.Insert(d.Responses, 0, single)
	}
}

func TestParseOCSPRevoked(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	for _, reason := range []int{ocsp.Unspecified, ocsp.KeyCompromise, ocsp.CertificateHold} {
		data := makeOCSP(t, ca, leaf, ca, now, ocspState(ocsp.Revoked), func(o *ocspTemplate) { o.RevocationReason = reason })
		status, err := parseOCSP(data, leaf, ca.Cert, now)
		if err != nil || !status.Revoked || status.RevokedAt.IsZero() || !status.Until.After(now) {
			t.Errorf("reason %d: %+v, %v", reason, status, err)
		}
	}
}

// A response that says revoked counts whatever keeps one from saying good, so that it is
// not lost, but not longer than it takes to ask again.
func TestRevokedByOCSPIsNotLost(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	delegate := testpki.MustIssue(t, ca, testpki.EKU(x509.ExtKeyUsageOCSPSigning))
	critical := pkix.Extension{Id: unknownExtension, Critical: true, Value: []byte{5, 0}}
	for title, opt := range map[string]ocspOption{
		"stale":           ocspDates(now.Add(-2*time.Hour), now.Add(-time.Hour)),
		"stale, undated":  ocspDates(now.Add(-2*time.Hour), time.Time{}),
		"from the future": ocspDates(now.Add(time.Hour), now.Add(2*time.Hour)),
		"extension": func(o *ocspTemplate) {
			o.edit = func(d *ocspResponseData) { d.Extensions = []pkix.Extension{critical} }
		},
	} {
		for _, signer := range []any{ca, delegate} {
			if signer == any(delegate) && title == "extension" {
				continue // editOCSP sends no certificate
			}
			status, err := parseOCSP(makeOCSP(t, ca, leaf, signer, now, ocspState(ocsp.Revoked), opt), leaf, ca.Cert, now)
			if err != nil || !status.Revoked || !status.Until.Equal(now.Add(undatedOCSP)) || status.ThisUpdate.After(now) {
				t.Errorf("%s: %+v, %v", title, status, err)
			}
			status, err = parseOCSP(makeOCSP(t, ca, leaf, signer, now, opt), leaf, ca.Cert, now)
			if err == nil || status != (certStatus{}) {
				t.Errorf("%s: good counts: %+v", title, status)
			}
		}
	}
	stranger := testpki.MustIssue(t, ca)
	if status, err := parseOCSP(makeOCSP(t, ca, leaf, stranger, now, ocspState(ocsp.Revoked)), leaf, ca.Cert, now); err == nil {
		t.Errorf("another client revokes: %+v", status)
	}
}

// A responder may send the certificates above its own too, in any order.
func TestOCSPResponseWithSeveralCertificates(t *testing.T) {
	root := testpki.MustCA(t, testpki.CommonName("Root"))
	ca := testpki.MustIntermediate(t, root)
	leaf := testpki.MustIssue(t, ca).Cert
	delegate := testpki.MustIssue(t, ca, testpki.EKU(x509.ExtKeyUsageOCSPSigning))
	for title, test := range map[string]struct {
		signer any
		sent   []*x509.Certificate
		want   string
	}{
		"delegate first":         {delegate, []*x509.Certificate{delegate.Cert, ca.Cert, root.Cert}, ""},
		"delegate last":          {delegate, []*x509.Certificate{root.Cert, ca.Cert, delegate.Cert}, ""},
		"the issuer, and others": {ca, []*x509.Certificate{root.Cert, delegate.Cert}, ""},
		"none":                   {ca, nil, ""},
		"without the signer":     {delegate, []*x509.Certificate{root.Cert, ca.Cert}, "not signed with the issuer's key"},
		"after too many":         {delegate, append(slices.Repeat([]*x509.Certificate{root.Cert}, maxOCSPCertificates), delegate.Cert), "not signed with"},
	} {
		response, err := ocsp.ParseResponse(makeOCSP(t, ca, leaf, test.signer, now), nil)
		if err != nil {
			t.Fatal(err)
		}
		var certs []asn1.RawValue
		for _, cert := range test.sent {
			certs = append(certs, asn1.RawValue{FullBytes: cert.Raw})
		}
		basic := marshal(t, struct {
			TBS          asn1.RawValue
			Algorithm    pkix.AlgorithmIdentifier
			Signature    asn1.BitString
			Certificates []asn1.RawValue `asn1:"explicit,tag:0,optional"`
		}{
			asn1.RawValue{FullBytes: response.TBSResponseData},
			pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}},
			asn1.BitString{Bytes: response.Signature, BitLength: 8 * len(response.Signature)}, certs,
		})
		kind := marshal(t, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 48, 1, 1})
		data := sequence(t, marshal(t, asn1.Enumerated(0)), contextual(t, 0, true, sequence(t, kind, marshal(t, basic))))
		status, err := parseOCSP(data, leaf, ca.Cert, now)
		wantError(t, err, test.want)
		if wantSigner := test.want == "" && test.signer == any(delegate); (status.Signer != nil) != wantSigner {
			t.Errorf("%s: signer %v", title, status.Signer)
		}
	}
}

func TestParseOCSPUntil(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	at := now.Truncate(time.Second)
	delegate := testpki.MustIssue(t, ca, testpki.EKU(x509.ExtKeyUsageOCSPSigning), testpki.Validity(at.Add(-time.Hour), at.Add(10*time.Minute)))
	for title, test := range map[string]struct {
		data  []byte
		until time.Time
	}{
		"nextUpdate":                  {makeOCSP(t, ca, leaf, ca, now), at.Add(time.Hour)},
		"nextUpdate in a year":        {makeOCSP(t, ca, leaf, ca, now, ocspDates(at, at.AddDate(1, 0, 0))), at.AddDate(1, 0, 0)},
		"the signer's notAfter":       {makeOCSP(t, ca, leaf, delegate, now), at.Add(10 * time.Minute)},
		"without nextUpdate":          {makeOCSP(t, ca, leaf, ca, now, ocspDates(at, time.Time{})), now.Add(undatedOCSP)},
		"without nextUpdate, and old": {makeOCSP(t, ca, leaf, ca, now, ocspDates(at.Add(-58*time.Minute), time.Time{})), at.Add(2 * time.Minute)},
	} {
		status, err := parseOCSP(test.data, leaf, ca.Cert, now)
		if err != nil || !status.Until.Equal(test.until) {
			t.Errorf("%s: until %s, want %s: %v", title, status.Until, test.until, err)
		}
		if wantSigner := title == "the signer's notAfter"; (status.Signer != nil) != wantSigner {
			t.Errorf("%s: signer %v", title, status.Signer)
		}
	}
}

func TestOCSPRequest(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	data, err := newOCSPRequest(leaf, ca.Cert)
	if err != nil {
		t.Fatal(err)
	}
	request, err := ocsp.ParseRequest(data)
	if err != nil || request.SerialNumber.Cmp(leaf.SerialNumber) != 0 || request.HashAlgorithm != crypto.SHA1 {
		t.Errorf("%+v, %v", request, err)
	}
}

package revocation

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func TestParseCRL(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca).Cert
	der := makeCRL(t, ca, now, crlRevokes(1, leaf))
	block := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
	for title, test := range map[string]struct {
		data []byte
		want string
	}{
		"DER":                    {der, ""},
		"PEM":                    {block, ""},
		"PEM after text":         {append([]byte("Certificate Revocation List (CRL):\n"), block...), ""},
		"B4 empty":               {nil, "empty"},
		"B4 garbage":             {[]byte("garbage"), "not a CRL in DER or PEM"},
		"B4 half of DER":         {der[:len(der)/2], "invalid CRL"},
		"B4 half of PEM":         {block[:len(block)/2], "line 1: a PEM block is damaged"},
		"B4 PEM of another kind": {ca.PEM(), `line 1: PEM block 'CERTIFICATE' is not a CRL`},
		"B4 no PEM":              {[]byte("-- no CRL --\n"), "not a CRL in DER or PEM"},
		"several":                {append(bytes.Clone(block), block...), ""},
		"with a certificate":     {append(bytes.Clone(block), ca.PEM()...), ""},
		"with a key":             {append(bytes.Clone(block), "-----BEGIN PRIVATE KEY-----\nZm9v\n-----END PRIVATE KEY-----\n"...), "PEM block 'PRIVATE KEY' is not a CRL; remove it"},
		"several, one broken":    {append(bytes.Clone(block), "-----BEGIN X509 CRL-----\nZm9v\n-----END X509 CRL-----\n"...), "invalid CRL: malformed CRL"},
		"too many":               {bytes.Repeat(block, maxCRLs+1), "more than 1024 CRLs"},
		"B4 damaged before":      {append(bytes.Replace(block, []byte("-----END"), []byte("----END"), 1), block...), "line 1: a PEM block is damaged"},
		"B4 damaged behind":      {append(bytes.Clone(block), block[:len(block)/2]...), "a PEM block is damaged"},
		"B4 without a begin":     {append(bytes.Clone(block), "Zm9v\n-----END X509 CRL-----\n"...), "a PEM block is damaged"},

		"octets behind":                {append(bytes.Clone(der), 5, 0), "invalid CRL: malformed CRL"},
		"octets behind the signature":  {trailing(t, der), "invalid CRL: malformed CRL"},
		"octets behind the extensions": {trailingTBS(t, ca, now), "invalid CRL: malformed CRL"},
		"too large":                    {make([]byte, maxCRLSize+1), "larger than"},
	} {
		t.Run(title, func(t *testing.T) {
			crls, err := parseCRLs(test.data)
			wantError(t, err, test.want)
			if wantNone := test.want != "" && !bytes.HasPrefix(test.data, block); wantNone != (len(crls) == 0) {
				t.Errorf("%d CRLs with error %v", len(crls), err)
			}
		})
	}
	if crl := mustCRL(t, ca, now, crlRevokes(1, leaf)); len(crl.revoked) != 1 || crl.list.NextUpdate.Before(now) {
		t.Errorf("%d entries until %s", len(crl.revoked), crl.list.NextUpdate)
	}
}

// An entry counts whatever the scope and the form of the CRL that has it. Only what the
// CRL does not list depends on them (RFC 5280 §6.3.3 (b)(2)).
func TestListedIsRevokedWhateverTheScope(t *testing.T) {
	ca := testpki.MustCA(t)
	address := testpki.Template(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://ca.example/crl"} })
	leaf, good := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca, address).Cert
	subCA := testpki.MustIntermediate(t, ca).Cert
	revoke := crlRevokes(1, leaf)
	huge := new(big.Int).Lsh(big.NewInt(1), 8*maxCRLNumber)
	yes, no := []byte{0xff}, []byte{0}
	name := func(tag int, content []byte) []byte {
		return contextual(t, 0, true, contextual(t, 0, true, contextual(t, tag, tag == 4, content)))
	}
	with := func(oid asn1.ObjectIdentifier, critical bool, value []byte) []byte {
		return makeCRL(t, ca, now, revoke, crlExtension(oid, critical, value))
	}
	point := func(fields ...[]byte) []byte {
		return with(oidIssuingDistributionPoint, true, sequence(t, fields...))
	}
	entry := func(reason int, extensions ...pkix.Extension) []byte {
		return makeCRL(t, ca, now, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{
				SerialNumber: leaf.SerialNumber, RevocationTime: now, ReasonCode: reason, ExtraExtensions: extensions,
			}}
		})
	}
	raw := rawCRL{ThisUpdate: now.UTC(), NextUpdate: now.UTC().Add(time.Hour), Revoked: []rawCRLEntry{{Serial: leaf.SerialNumber, Date: now.UTC()}}}
	endless, badDate, oddReason, longNumber, badExtension := raw, raw, raw, raw, raw
	endless.NextUpdate = time.Time{}
	badDate.Revoked = []rawCRLEntry{{Serial: leaf.SerialNumber, Date: asn1.RawValue{Tag: asn1.TagGeneralizedTime, Bytes: []byte("20260601120000.5Z")}}}
	oddReason.Revoked = []rawCRLEntry{{leaf.SerialNumber, now.UTC(), []pkix.Extension{{Id: oidReasonCode, Value: []byte{5, 0}}}}}
	longNumber.Revoked = []rawCRLEntry{
		{asn1.RawValue{Tag: asn1.TagInteger, Bytes: []byte{0xff, 0xff}}, now.UTC(), nil}, // negative
		{asn1.RawValue{Tag: asn1.TagInteger, Bytes: append([]byte{0, 0, 0}, leaf.SerialNumber.Bytes()...)}, now.UTC(), nil},
	}
	badExtension.Odd = asn1.RawValue{FullBytes: contextual(t, 0, true, sequence(t, sequence(t, []byte{5, 0})))}
	directory := name(4, ca.Cert.RawSubject)
	for title, test := range map[string]struct {
		data []byte
		// forLeaf and forCA are why the CRL does not vouch for a certificate that it does
		// not list.
		forLeaf, forCA string
	}{
		"complete":                         {makeCRL(t, ca, now, revoke), "", ""},
		"version 1":                        {raw.signVersion1(t, ca), "", ""},
		"without number":                   {raw.sign(t, ca, false), "", ""},
		"without nextUpdate":               {endless.sign(t, ca, false), "no nextUpdate", "no nextUpdate"},
		"signed with SHA-1":                {raw.sign(t, ca, true), "SHA-1", "SHA-1"},
		"number of an entry is too long":   {longNumber.sign(t, ca, false), "", ""},
		"malformed extension":              {badExtension.sign(t, ca, false), "an extension is malformed", "malformed"},
		"date of an entry is malformed":    {badDate.sign(t, ca, false), "malformed date", "malformed date"},
		"number too long":                  {with(oidCRLNumber, false, marshal(t, huge)), "longer than 20 octets", "longer than 20 octets"},
		"negative number":                  {with(oidCRLNumber, false, marshal(t, big.NewInt(-1))), "negative", "negative"},
		"delta":                            {with(oidDeltaCRLIndicator, true, []byte{2, 1, 1}), "delta", "delta"},
		"delta that hides it":              {with(oidDeltaCRLIndicator, false, []byte{2, 1, 1}), "delta", "delta"},
		"unknown critical extension":       {with(unknownExtension, true, []byte{5, 0}), "unknown critical extension: " + unknownExtension.String(), "unknown critical"},
		"unknown extension":                {with(unknownExtension, false, []byte{5, 0}), "", ""},
		"unknown critical entry extension": {entry(1, pkix.Extension{Id: unknownExtension, Critical: true, Value: []byte{5, 0}}), "an entry has an unknown critical extension", "an entry has"},
		"unknown entry extension":          {entry(1, pkix.Extension{Id: unknownExtension, Value: []byte{5, 0}}), "", ""},
		"unknown reason":                   {oddReason.sign(t, ca, false), "", ""},
		"on hold":                          {entry(6), "", ""},
		"entry that names no issuer":       {entry(1, pkix.Extension{Id: oidCertificateIssuer, Critical: true, Value: sequence(t)}), "", ""},
		"entry that names the issuer":      {entry(1, pkix.Extension{Id: oidCertificateIssuer, Critical: true, Value: sequence(t, contextual(t, 4, true, ca.Cert.RawSubject))}), "", ""},
		"full scope":                       {point(), "", ""},
		"full scope, said at length":       {point(contextual(t, 1, false, no), contextual(t, 2, false, no), contextual(t, 4, false, no), contextual(t, 5, false, no)), "", ""},
		"distribution point":               {point(name(6, []byte("http://ca.example/crl"))), "", "distribution point"},
		"other distribution point":         {point(name(6, []byte("http://ca.example/2.crl"))), "distribution point", "distribution point"},
		"distribution point, no address":   {point(name(2, []byte("ca.example"))), "distribution point", "distribution point"},
		"distribution point, directory":    {point(directory), "distribution point", "distribution point"},
		"distribution point, relative":     {point(contextual(t, 0, true, contextual(t, 1, true, nil))), "distribution point", "distribution point"},
		"only user certificates":           {point(contextual(t, 1, false, yes)), "", "not of CAs"},
		"only CA certificates":             {point(contextual(t, 2, false, yes)), "only certificates of CAs", ""},
		"only some reasons":                {point(contextual(t, 3, false, []byte{6, 0x40})), "only some reasons", "only some reasons"},
		"only some reasons, none":          {point(contextual(t, 3, false, []byte{0})), "only some reasons", "only some reasons"},
		"all reasons":                      {point(contextual(t, 3, false, []byte{7, 0x7f, 0x80})), "", ""},
		"indirect":                         {point(contextual(t, 4, false, yes)), "", ""},
		"only attribute certificates":      {point(contextual(t, 5, false, yes)), "only attribute certificates", "attribute"},
		"out of order":                     {point(contextual(t, 4, false, no), contextual(t, 1, false, yes)), "", "not of CAs"},
		"unknown scope":                    {point(contextual(t, 6, false, yes)), "distribution point is malformed", "malformed"},
		"unreadable scope":                 {with(oidIssuingDistributionPoint, true, []byte{5, 0}), "distribution point is malformed", "malformed"},
		"unreadable scope, not critical":   {with(oidIssuingDistributionPoint, false, []byte("x")), "distribution point is malformed", "malformed"},
	} {
		t.Run(title, func(t *testing.T) {
			crl, err := parseCRL(test.data)
			if err != nil {
				t.Fatal(err)
			}
			set := crlSetOf(crl)
			if status, err := set.statusOf(leaf, ca.Cert, now); !status.Revoked || err != nil {
				t.Errorf("listed: %+v, %v", status, err)
			}
			for cert, want := range map[*x509.Certificate]string{good: test.forLeaf, subCA: test.forCA} {
				status, err := set.statusOf(cert, ca.Cert, now)
				wantError(t, err, want)
				if status.Revoked || status.Until.IsZero() != (want != "") {
					t.Errorf("not listed: %+v", status)
				}
			}
		})
	}
}

// trailing returns a CRL with trailing data after its signature, inside the outer
// SEQUENCE, which is not signed.
func trailing(t *testing.T, der []byte) []byte {
	t.Helper()
	var crl asn1.RawValue
	if _, err := asn1.Unmarshal(der, &crl); err != nil {
		t.Fatal(err)
	}
	return sequence(t, crl.Bytes, []byte{5, 0})
}

// trailingTBS returns a CRL with trailing data after its extensions, signed.
func trailingTBS(t *testing.T, ca *testpki.CA, at time.Time) []byte {
	t.Helper()
	list, err := x509.ParseRevocationList(makeCRL(t, ca, at))
	if err != nil {
		t.Fatal(err)
	}
	var tbs asn1.RawValue
	if _, err := asn1.Unmarshal(list.RawTBSRevocationList, &tbs); err != nil {
		t.Fatal(err)
	}
	longer := sequence(t, tbs.Bytes, []byte{5, 0})
	algorithm := pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}
	return marshal(t, signed{asn1.RawValue{FullBytes: longer}, algorithm, signature(t, ca.Key, crypto.SHA256, longer)})
}

func TestCRLStatus_C4(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf, other := testpki.MustIssue(t, ca).Cert, testpki.MustIssue(t, ca).Cert
	namesake := testpki.MustCA(t) // same name, another key
	stranger := testpki.MustCA(t, testpki.CommonName("Stranger"))
	past, future := now.Add(-2*time.Hour), now.Add(2*time.Hour)
	pointed := func(address string) crlOption {
		general := contextual(t, 6, false, []byte(address))
		return crlExtension(oidIssuingDistributionPoint, true, sequence(t, contextual(t, 0, true, contextual(t, 0, true, general))))
	}
	pointing := testpki.MustIssue(t, ca, testpki.Template(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://a", "http://b"} })).Cert

	for title, test := range map[string]struct {
		lists   []*parsedCRL
		cert    *x509.Certificate
		revoked bool
		problem string
	}{
		"good":                             {[]*parsedCRL{mustCRL(t, ca, now)}, leaf, false, ""},
		"others are revoked":               {[]*parsedCRL{mustCRL(t, ca, now, crlRevokes(1, other))}, leaf, false, ""},
		"revoked":                          {[]*parsedCRL{mustCRL(t, ca, now, crlRevokes(1, leaf))}, leaf, true, ""},
		"revoked without a reason":         {[]*parsedCRL{mustCRL(t, ca, now, crlRevokes(0, leaf))}, leaf, true, ""},
		"on hold":                          {[]*parsedCRL{mustCRL(t, ca, now, crlRevokes(6, leaf))}, leaf, true, ""},
		"revoked by a stale list":          {[]*parsedCRL{mustCRL(t, ca, past, crlRevokes(1, leaf))}, leaf, true, ""},
		"revoked by one of several":        {[]*parsedCRL{mustCRL(t, ca, now), mustCRL(t, ca, now, crlRevokes(1, leaf))}, leaf, true, ""},
		"revoked by the first of several":  {[]*parsedCRL{mustCRL(t, ca, now, crlRevokes(1, leaf)), mustCRL(t, ca, now)}, leaf, true, ""},
		"none":                             {nil, leaf, false, "no CRL of the issuer"},
		"missing for this CA":              {[]*parsedCRL{mustCRL(t, stranger, now, crlRevokes(1, leaf))}, leaf, false, "no CRL of the issuer"},
		"wrong signer":                     {[]*parsedCRL{mustCRL(t, namesake, now)}, leaf, false, "not signed with the key"},
		"wrong signer revokes nobody":      {[]*parsedCRL{mustCRL(t, namesake, now, crlRevokes(1, leaf))}, leaf, false, "not signed with the key"},
		"wrong signer beside the right":    {[]*parsedCRL{mustCRL(t, namesake, now), mustCRL(t, ca, now)}, leaf, false, ""},
		"stale":                            {[]*parsedCRL{mustCRL(t, ca, past)}, leaf, false, "stale since"},
		"stale beside a fresh one":         {[]*parsedCRL{mustCRL(t, ca, past), mustCRL(t, ca, now)}, leaf, false, ""},
		"of the future":                    {[]*parsedCRL{mustCRL(t, ca, future)}, leaf, false, "dated in the future"},
		"of a clock that is ahead":         {[]*parsedCRL{mustCRL(t, ca, now.Add(90*time.Second))}, leaf, false, ""},
		"of no distribution point of it":   {[]*parsedCRL{mustCRL(t, ca, now, pointed("http://a"))}, leaf, false, "distribution point"},
		"of another distribution point":    {[]*parsedCRL{mustCRL(t, ca, now, pointed("http://c"))}, pointing, false, "distribution point"},
		"of its distribution point":        {[]*parsedCRL{mustCRL(t, ca, now, pointed("http://b"))}, pointing, false, ""},
		"revoked at a distribution point":  {[]*parsedCRL{mustCRL(t, ca, now, pointed("http://c"), crlRevokes(1, leaf))}, leaf, true, ""},
		"shards, of which one speaks":      {[]*parsedCRL{mustCRL(t, ca, now, pointed("http://c")), mustCRL(t, ca, now, pointed("http://a"))}, pointing, false, ""},
		"several fresh ones, different":    {[]*parsedCRL{mustCRL(t, ca, now, crlDates(now, now.Add(3*time.Hour))), mustCRL(t, ca, now)}, leaf, false, ""},
		"the same number of another CA":    {[]*parsedCRL{mustCRL(t, stranger, now, crlRevokes(1, leaf)), mustCRL(t, ca, now)}, leaf, false, ""},
		"revoked on a date in the future":  {[]*parsedCRL{mustCRL(t, ca, now, crlDates(now.Add(time.Minute/2), future), crlRevokes(1, leaf))}, leaf, true, ""},
		"revoked by a list of the future":  {[]*parsedCRL{mustCRL(t, ca, future, crlRevokes(1, leaf))}, leaf, true, ""},
		"revoked with every known reason":  {[]*parsedCRL{mustCRL(t, ca, now, crlRevokes(10, leaf))}, leaf, true, ""},
		"revoked on hold, and the problem": {[]*parsedCRL{mustCRL(t, namesake, now), mustCRL(t, ca, now, crlRevokes(6, leaf))}, leaf, true, ""},
	} {
		t.Run(title, func(t *testing.T) {
			status, err := crlSetOf(test.lists...).statusOf(test.cert, ca.Cert, now)
			wantError(t, err, test.problem)
			if status.Revoked != test.revoked || status.Until.IsZero() != (test.problem != "") {
				t.Errorf("%+v", status)
			}
			if !test.revoked && test.problem == "" && !status.Until.Equal(now.Truncate(time.Second).Add(time.Hour)) && title != "of a clock that is ahead" {
				t.Errorf("counts until %s, want the earliest nextUpdate", status.Until)
			}
		})
	}
	var none *CRLSet
	if status, err := none.statusOf(leaf, ca.Cert, now); err == nil || status != (certStatus{}) {
		t.Errorf("no set says %+v", status)
	}
}

func TestCRLNeedsCRLSign_C4(t *testing.T) {
	for title, test := range map[string]struct {
		usage x509.KeyUsage
		opt   testpki.Option
		want  string
	}{
		"cRLSign":                      {x509.KeyUsageCertSign | x509.KeyUsageCRLSign, nil, ""},
		"no key usage":                 {0, nil, ""},
		"keyCertSign alone":            {x509.KeyUsageCertSign, nil, "cRLSign"},
		"key usage with nothing in it": {0, testpki.Extension(pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{3, 1, 0}}), "cRLSign"},
	} {
		t.Run(title, func(t *testing.T) {
			opts := []testpki.Option{testpki.KeyUsage(test.usage)}
			if test.opt != nil {
				opts = append(opts, test.opt)
			}
			ca := testpki.MustCA(t, opts...)
			leaf := testpki.MustIssue(t, ca).Cert
			status, err := crlSetOf(mustCRL(t, ca, now, crlRevokes(1, leaf))).statusOf(leaf, ca.Cert, now)
			wantError(t, err, test.want)
			if status.Revoked != (test.want == "") {
				t.Errorf("revoked %v", status.Revoked)
			}
		})
	}
}

// Two CAs with one name may issue certificates with one serial number.
func TestCRLOfTheKeyThatVerifiedTheChain_C4(t *testing.T) {
	one, two := testpki.MustCA(t), testpki.MustCA(t)
	ofOne := testpki.MustIssue(t, one, testpki.Serial(big.NewInt(7))).Cert
	ofTwo := testpki.MustIssue(t, two, testpki.Serial(big.NewInt(7))).Cert
	set := crlSetOf(mustCRL(t, one, now, crlRevokes(1, ofOne)), mustCRL(t, two, now))
	if status, _ := set.statusOf(ofOne, one.Cert, now); !status.Revoked {
		t.Error("not revoked by the list of its CA")
	}
	if status, err := set.statusOf(ofTwo, two.Cert, now); status.Revoked || err != nil {
		t.Errorf("revoked by the list of another key: %+v, %v", status, err)
	}
}

// Anybody can re-encode the signature of a CA certificate many times; the CRL must be
// verified with it once.
func TestCRLSignatureIsCheckedOnce(t *testing.T) {
	root := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, root)
	leaf := testpki.MustIssue(t, sub).Cert
	crl := mustCRL(t, sub, now)
	set := crlSetOf(crl)
	for _, variant := range testpki.Reencoded(t, sub.Cert) {
		if _, err := set.statusOf(leaf, variant, now); err != nil {
			t.Error(err)
		}
	}
	if n := len(crl.outcomes); n != 1 {
		t.Errorf("%d outcomes remembered", n)
	}
}

func TestCRLCheckReplaces(t *testing.T) {
	ca := testpki.MustCA(t)
	numberless := func(at time.Time) *parsedCRL {
		crl, err := parseCRL(rawCRL{ThisUpdate: at.UTC(), NextUpdate: at.UTC().Add(time.Hour)}.sign(t, ca, false))
		if err != nil {
			t.Fatal(err)
		}
		return crl
	}
	earlier := now.Add(-time.Hour)
	for title, test := range map[string]struct {
		next, old *parsedCRL
		want      string
	}{
		"higher":               {mustCRL(t, ca, now, crlNumber(3)), mustCRL(t, ca, now, crlNumber(2)), ""},
		"higher, earlier date": {mustCRL(t, ca, earlier, crlNumber(3)), mustCRL(t, ca, now, crlNumber(2)), ""},
		"the same":             {mustCRL(t, ca, now), mustCRL(t, ca, now), ""},
		"the same, later":      {mustCRL(t, ca, now), mustCRL(t, ca, earlier), ""},
		"the same, earlier":    {mustCRL(t, ca, earlier), mustCRL(t, ca, now), "its date goes back"},
		"lower":                {mustCRL(t, ca, now, crlNumber(2)), mustCRL(t, ca, earlier, crlNumber(3)), "goes back from 3 to 2"},
		"no numbers, later":    {numberless(now), numberless(earlier), ""},
		"no numbers, earlier":  {numberless(earlier), numberless(now), "its date goes back"},
		"number lost, later":   {numberless(now), mustCRL(t, ca, earlier), ""},
		"number lost, earlier": {numberless(earlier), mustCRL(t, ca, now), "its date goes back"},
	} {
		t.Run(title, func(t *testing.T) { wantError(t, test.next.checkReplaces(test.old), test.want) })
	}
}

// BenchmarkCRLStatus shows that the cost of a look-up does not depend on the length of
// the CRL.
func BenchmarkCRLStatus(b *testing.B) {
	ca := testpki.MustCA(b)
	leaf := testpki.MustIssue(b, ca).Cert
	for _, n := range []int{1, 100, 100_000} {
		set := crlSetOf(mustCRL(b, ca, now, func(l *x509.RevocationList) {
			for i := range n {
				l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{
					SerialNumber: big.NewInt(int64(i + 1)), RevocationTime: now,
				})
			}
		}))
		if _, err := set.statusOf(leaf, ca.Cert, now); err != nil { // checks the signature
			b.Fatal(err)
		}
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if status, _ := set.statusOf(leaf, ca.Cert, now); status.Revoked {
					b.Fatal("revoked")
				}
			}
		})
	}
}

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
	huge := new(big.Int).Lsh(big.NewInt(1), 8*maxCRLNumber)
	yes, no := []byte{0xff}, []byte{0}
	name := func(tag int, content string) []byte {
		return contextual(t, 0, true, contextual(t, 0, true, contextual(t, tag, false, []byte(content))))
	}
	point := func(fields ...[]byte) []byte {
		return makeCRL(t, ca, now, crlExtension(oidIssuingDistributionPoint, true, sequence(t, fields...)))
	}
	unsorted := point(contextual(t, 4, false, no), contextual(t, 1, false, yes))
	entry := func(ext pkix.Extension) []byte {
		return makeCRL(t, ca, now, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{
				SerialNumber: big.NewInt(7), RevocationTime: now, ExtraExtensions: []pkix.Extension{ext},
			}}
		})
	}
	raw := rawCRL{ThisUpdate: now.UTC(), NextUpdate: now.UTC().Add(time.Hour)}
	endless := rawCRL{ThisUpdate: now.UTC()}

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
		"several":                {append(bytes.Clone(block), block...), "several"},
		"with a certificate":     {append(bytes.Clone(block), ca.PEM()...), `PEM block 'CERTIFICATE' is not a CRL; give the CRL a file of its own`},
		"B4 damaged before":      {append(bytes.Replace(block, []byte("-----END"), []byte("----END"), 1), block...), "line 1: a PEM block is damaged"},
		"B4 damaged behind":      {append(bytes.Clone(block), block[:len(block)/2]...), "a PEM block is damaged"},
		"B4 without a begin":     {append(bytes.Clone(block), "Zm9v\n-----END X509 CRL-----\n"...), "a PEM block is damaged"},

		"octets behind":                {append(bytes.Clone(der), 5, 0), "invalid CRL: malformed CRL"},
		"octets behind the signature":  {trailing(t, der), "invalid CRL: malformed CRL"},
		"octets behind the extensions": {trailingTBS(t, ca, now), "invalid CRL: malformed CRL"},
		"too large":                    {make([]byte, maxCRLSize+1), "larger than"},

		"C4 delta":                         {makeCRL(t, ca, now, crlExtension(oidDeltaCRLIndicator, true, []byte{2, 1, 1})), "delta"},
		"C4 delta that hides it":           {makeCRL(t, ca, now, crlExtension(oidDeltaCRLIndicator, false, []byte{2, 1, 1})), "delta"},
		"C4 entry of a delta":              {makeCRL(t, ca, now, crlRevokes(removeFromCRL, leaf)), "delta"},
		"unknown critical extension":       {makeCRL(t, ca, now, crlExtension(unknownExtension, true, []byte{5, 0})), "unknown critical extension: " + unknownExtension.String()},
		"unknown extension":                {makeCRL(t, ca, now, crlExtension(unknownExtension, false, []byte{5, 0})), ""},
		"unknown critical entry extension": {entry(pkix.Extension{Id: unknownExtension, Critical: true, Value: []byte{5, 0}}), "entry of the CRL has an unknown critical extension"},
		"unknown entry extension":          {entry(pkix.Extension{Id: unknownExtension, Value: []byte{5, 0}}), ""},
		"entry of another issuer":          {entry(pkix.Extension{Id: oidCertificateIssuer, Critical: true, Value: sequence(t)}), "indirect"},
		"entry of another issuer, hidden":  {entry(pkix.Extension{Id: oidCertificateIssuer, Value: sequence(t)}), "indirect"},
		"full scope":                       {point(), ""},
		"full scope, said at length":       {point(contextual(t, 1, false, no), contextual(t, 2, false, no), contextual(t, 4, false, no), contextual(t, 5, false, no)), ""},
		"distribution point":               {point(name(6, "http://ca.example/crl")), ""},
		"distribution point, no address":   {point(name(2, "ca.example")), "does not name its distribution point by a URI"},
		"distribution point, relative":     {point(contextual(t, 0, true, contextual(t, 1, true, nil))), "does not name its distribution point by a URI"},
		"only user certificates":           {point(contextual(t, 1, false, yes)), "only some kinds"},
		"only CA certificates":             {point(contextual(t, 2, false, yes)), "only some kinds"},
		"only some reasons":                {point(contextual(t, 3, false, []byte{6, 0x40})), "only some reasons"},
		"only some reasons, none":          {point(contextual(t, 3, false, []byte{0})), "only some reasons"},
		"indirect":                         {point(contextual(t, 4, false, yes)), "indirect"},
		"only attribute certificates":      {point(contextual(t, 5, false, yes)), "only some kinds"},
		"out of order":                     {unsorted, "only some kinds"},
		"unknown scope":                    {point(contextual(t, 6, false, yes)), "invalid issuing distribution point"},
		"unreadable scope":                 {makeCRL(t, ca, now, crlExtension(oidIssuingDistributionPoint, true, []byte{5, 0})), "invalid issuing distribution point"},
		"unreadable scope, not critical":   {makeCRL(t, ca, now, crlExtension(oidIssuingDistributionPoint, false, []byte("x"))), "invalid issuing distribution point"},
		"number too long":                  {makeCRL(t, ca, now, crlExtension(oidCRLNumber, false, marshal(t, huge))), "longer than 20 octets"},
		"negative number":                  {makeCRL(t, ca, now, crlExtension(oidCRLNumber, false, marshal(t, big.NewInt(-1)))), "negative"},
		"without number":                   {raw.sign(t, ca, false), ""},
		"without nextUpdate":               {endless.sign(t, ca, false), "nextUpdate"},
		"signed with SHA-1":                {raw.sign(t, ca, true), "SHA-1"},
	} {
		t.Run(title, func(t *testing.T) {
			crl, err := parseCRL(test.data)
			wantError(t, err, test.want)
			if (crl == nil) != (test.want != "") {
				t.Errorf("CRL %v with error %v", crl, err)
			}
		})
	}
	if crl := mustCRL(t, ca, now, crlRevokes(1, leaf)); len(crl.revoked) != 1 || crl.list.NextUpdate.Before(now) {
		t.Errorf("%d entries until %s", len(crl.revoked), crl.list.NextUpdate)
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

package validators

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// san returns a name with the given octets.
func san(kind NameKind, octets string) asn1.RawValue {
	tag := map[NameKind]int{NameEmail: 1, NameDNS: 2, NameURI: 6, NameIP: 7}[kind]
	return general(tag, false, []byte(octets))
}

// sanLeaf returns an unparsed certificate with only names.
func sanLeaf(t testing.TB, names ...asn1.RawValue) *x509.Certificate {
	t.Helper()
	der, err := asn1.Marshal(names)
	if err != nil {
		t.Fatal(err)
	}
	return leafOfExtension(der)
}

func leafOfExtension(der []byte) *x509.Certificate {
	return &x509.Certificate{Extensions: []pkix.Extension{{Id: oidSubjectAltName, Value: der}}}
}

// indexOf returns an index with the position in the arguments as value.
func indexOf(t testing.TB, kind NameKind, declared ...string) *nameIndex[int] {
	t.Helper()
	var ix nameIndex[int]
	for i, s := range declared {
		ix.Add(mustName(t, kind, s), i)
	}
	return &ix
}

// lookup returns "value matched" for every match, sorted.
func lookup[V any](t testing.TB, ix *nameIndex[V], leaf *x509.Certificate) []string {
	t.Helper()
	p, err := NamesOf(leaf)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for matched, v := range ix.Lookup(p) {
		found = append(found, fmt.Sprint(v, " ", matched))
	}
	slices.Sort(found)
	return found
}

func wantLookup[V any](t testing.TB, ix *nameIndex[V], leaf *x509.Certificate, want ...string) {
	t.Helper()
	if got := lookup(t, ix, leaf); !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
}

func TestLookupOfARealCertificate(t *testing.T) {
	var ix nameIndex[string]
	ix.Add(mustName(t, NameDNS, "a.example.com"), "host")
	ix.Add(mustName(t, NameDNS, "*.example.com"), "hosts")
	ix.Add(mustName(t, NameURI, "spiffe://prod.example/ns/*/sa/pay"), "workload")
	ix.Add(mustName(t, NameIP, "2001:db8::1"), "address")
	ix.Add(mustName(t, NameEmail, "Ops@Example.com"), "mail")
	leaf := testpki.MustIssue(t, testpki.MustCA(t), testpki.DNSNames("A.example.COM", "b.c.example.com"),
		testpki.URIs("spiffe://PROD.example/ns/x/sa/pay"), testpki.IPs(net.ParseIP("2001:db8::1")), testpki.Emails("Ops@EXAMPLE.com")).Cert
	wantLookup(t, &ix, leaf, "address 2001:db8::1", "host a.example.com", "hosts a.example.com",
		"mail Ops@example.com", "workload spiffe://prod.example/ns/x/sa/pay")

	wantLookup(t, &ix, testpki.MustIssue(t, testpki.MustCA(t)).Cert)
	var none nameIndex[string]
	wantLookup(t, &none, leaf)
}

func TestNamesMatchOnlyTheirOwnKind_B7_R5(t *testing.T) {
	kinds := []NameKind{NameDNS, NameURI, NameIP, NameEmail}
	declared := map[NameKind]string{NameDNS: "*.example.com", NameURI: "a.example.com:x", NameIP: "65.46.98.99", NameEmail: "a@b.example.com"}
	octets := map[NameKind]string{NameDNS: "a.example.com", NameURI: "a.example.com:x", NameIP: "A.bc", NameEmail: "a@b.example.com"}
	for _, kind := range kinds {
		ix := indexOf(t, kind, declared[kind])
		for _, presented := range kinds {
			got := lookup(t, ix, sanLeaf(t, san(presented, octets[kind])))
			if (len(got) == 1) != (kind == presented) {
				t.Errorf("%s %s presented as %s is found as %v", kind, declared[kind], presented, got)
			}
		}
		// Kinds that cannot be declared.
		for _, tag := range []int{0, 3, 4, 5, 8} {
			wantLookup(t, ix, sanLeaf(t, general(tag, false, []byte(octets[kind]))))
			wantLookup(t, ix, sanLeaf(t, general(tag, true, []byte(octets[kind]))))
		}
	}
}

func TestWildcardsOfACertificateMatchNothing_B7_R24(t *testing.T) {
	dns := indexOf(t, NameDNS, "a.example.com", "*.example.com")
	uri := indexOf(t, NameURI, "spiffe://prod.example/ns/a", "spiffe://prod.example/ns/*", "spiffe://prod.example/**", "https://example.com/*")
	for _, s := range []string{"*.example.com", "*", "*.com", "**.example.com", "a*.example.com", "*a.example.com"} {
		wantLookup(t, dns, sanLeaf(t, san(NameDNS, s)))
	}
	for _, s := range []string{"spiffe://prod.example/ns/*", "spiffe://prod.example/**", "spiffe://*/ns/a", "spiffe://prod.example/*/a", "https://example.com/a*"} {
		wantLookup(t, uri, sanLeaf(t, san(NameURI, s)))
	}
	wantLookup(t, indexOf(t, NameEmail, "a@example.com"), sanLeaf(t, san(NameEmail, "*@example.com")))
}

func TestIPAddressesAreComparedInBinary_R6(t *testing.T) {
	v4, v6 := string([]byte{192, 0, 2, 1}), "\x20\x01\x0d\xb8"+strings.Repeat("\x00", 11)+"\x01"
	mapped := strings.Repeat("\x00", 10) + "\xff\xff" + v4
	ix := indexOf(t, NameIP, "192.0.2.1", "2001:0DB8::0:1", "::c000:201", "0:0:0:0:0:0:0:1")
	wantLookup(t, ix, sanLeaf(t, san(NameIP, v4)), "0 192.0.2.1")
	wantLookup(t, ix, sanLeaf(t, san(NameIP, v6)), "1 2001:db8::1")
	wantLookup(t, ix, sanLeaf(t, san(NameIP, strings.Repeat("\x00", 12)+v4)), "2 ::c000:201")
	wantLookup(t, ix, sanLeaf(t, san(NameIP, strings.Repeat("\x00", 15)+"\x01")), "3 ::1")
	for _, octets := range []string{mapped, "", "\x01", v4 + "\xff\xff\xff\x00", v4[:3], v6 + v6, "192.0.2.1", "::1"} {
		wantLookup(t, ix, sanLeaf(t, san(NameIP, octets)))
	}
}

func TestPresentedDNS(t *testing.T) {
	ix := indexOf(t, NameDNS, "a.example.com", "*.example.com", "localhost", "*.a.example.com")
	long := strings.Repeat("b", 63)
	for s, want := range map[string][]string{
		"a.example.com":         {"0 a.example.com", "1 a.example.com"},
		"A.Example.Com":         {"0 a.example.com", "1 a.example.com"},
		"b.example.com":         {"1 b.example.com"},
		"xn--a_-b.example.com":  {"1 xn--a_-b.example.com"},
		long + ".example.com":   {"1 " + long + ".example.com"},
		"localhost":             {"2 localhost"},
		"b.a.example.com":       {"3 b.a.example.com"},
		"c.b.a.example.com":     nil,
		long + "b.example.com":  nil,
		"example.com":           nil,
		".example.com":          nil,
		"a.example.com.":        nil,
		"a.example.com\x00":     nil,
		"b\x00.example.com":     nil,
		"a.example.com\x00.b":   nil,
		"b .example.com":        nil,
		" a.example.com":        nil,
		"b\n.example.com":       nil,
		"b\r\nX: y.example.com": nil,
		"b/.example.com":        nil,
		"b\xe4.example.com":     nil,
		"ä.example.com":         nil,
		"\u212a.example.com":    nil,
		"-b.example.com":        nil,
		"a.example.com,b":       nil,
		"":                      nil,
		".":                     nil,
		"0." + strings.Repeat("b.", 126) + "example.com": nil,
	} {
		if got := lookup(t, ix, sanLeaf(t, san(NameDNS, s))); !slices.Equal(got, want) {
			t.Errorf("%q is found as %q, want %q", s, got, want)
		}
	}
}

func TestPresentedEmail(t *testing.T) {
	ix := indexOf(t, NameEmail, "Ops.7@example.com")
	wantLookup(t, ix, sanLeaf(t, san(NameEmail, "Ops.7@EXAMPLE.com")), "0 Ops.7@example.com")
	for _, s := range []string{
		"ops.7@example.com", "example.com", "@example.com", "Ops.7@example.com.", "Ops.7@sub.example.com", "<Ops.7@example.com>",
		"Ops.7@example.com\x00", "Ops.7@example.com\r\n", "x@y@Ops.7@example.com", `"Ops.7"@example.com`, "Ops.7", "", "Ops.7@", "Ops.7@ex\xe4mple.com",
	} {
		wantLookup(t, ix, sanLeaf(t, san(NameEmail, s)))
	}
}

func TestNamesOfUnmatchableExtensions(t *testing.T) {
	encode := func(value any) []byte {
		der, err := asn1.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	good := san(NameDNS, "a.example.com")
	goodDER := encode([]asn1.RawValue{good})
	ix := indexOf(t, NameDNS, "a.example.com")
	wantLookup(t, ix, leafOfExtension(goodDER), "0 a.example.com")

	many := slices.Repeat([]asn1.RawValue{good}, maxSANs+1)
	if got := lookup(t, ix, sanLeaf(t, many[1:]...)); len(got) != maxSANs {
		t.Errorf("%d names found, want %d", len(got), maxSANs)
	}
	for name, der := range map[string][]byte{
		"more than 256":    encode(many),
		"universal names":  encode([]string{"a.example.com"}),
		"names in parts":   encode([]asn1.RawValue{good, general(2, true, []byte("\x16\x0da.example.com"))}),
		"unknown tag":      encode([]asn1.RawValue{good, general(9, false, []byte("a"))}),
		"nothing":          {},
		"not ASN.1":        {0xff},
		"a SET":            append([]byte{0x31}, goodDER[1:]...),
		"trailing bytes":   append(slices.Clone(goodDER), 0),
		"truncated":        goodDER[:len(goodDER)-1],
		"truncated within": append([]byte{0x30, 5}, goodDER[2:7]...),
		"long form length": append([]byte{0x30, 0x81}, goodDER[1:]...),
		"indefinite":       append(append([]byte{0x30, 0x80}, goodDER[2:]...), 0, 0),
	} {
		p, err := NamesOf(leafOfExtension(der))
		if !errors.Is(err, errUnmatchableName) || len(p) != 0 {
			t.Errorf("%s: %d names, error %v", name, len(p), err)
		}
	}
	// An empty extension has no names, and neither has a certificate without it.
	wantLookup(t, ix, leafOfExtension([]byte{0x30, 0}))
	wantLookup(t, ix, &x509.Certificate{})
}

func TestSVID_B12(t *testing.T) {
	const id = "spiffe://prod.example/ns/billing/sa/pay"
	ca := testpki.MustCA(t)
	for name, test := range map[string]struct {
		opts []testpki.Option
		why  string
	}{
		"workload":      {[]testpki.Option{testpki.URIs(id)}, ""},
		"other kinds":   {[]testpki.Option{testpki.URIs(id), testpki.DNSNames("a.example.com", "b.example.com")}, ""},
		"no key usage":  {[]testpki.Option{testpki.URIs(id), testpki.KeyUsage(0)}, ""},
		";":             {nil, "0 URIs"},
		"no URI":        {[]testpki.Option{testpki.DNSNames("a.example.com")}, "0 URIs"},
		"two IDs":       {[]testpki.Option{testpki.URIs(id, "spiffe://prod.example/b")}, "2 URIs"},
		"ID twice":      {[]testpki.Option{testpki.URIs(id, id)}, "2 URIs"},
		"another URI":   {[]testpki.Option{testpki.URIs("https://example.com/a", id)}, "2 URIs"},
		"https":         {[]testpki.Option{testpki.URIs("https://prod.example/a")}, "begins with spiffe://"},
		"CA":            {[]testpki.Option{testpki.URIs(id), testpki.IsCA(true)}, "CA:TRUE"},
		"keyCertSign":   {[]testpki.Option{testpki.URIs(id), testpki.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign)}, "keyCertSign"},
		"cRLSign":       {[]testpki.Option{testpki.URIs(id), testpki.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign)}, "cRLSign"},
		"no path":       {[]testpki.Option{testpki.URIs("spiffe://prod.example")}, "no path"},
		"empty path":    {[]testpki.Option{testpki.URIs("spiffe://prod.example/")}, "no path"},
		"port":          {[]testpki.Option{testpki.URIs("spiffe://prod.example:443/a")}, "trust domain"},
		"user":          {[]testpki.Option{testpki.URIs("spiffe://me@prod.example/a")}, "trust domain"},
		"upper case":    {[]testpki.Option{testpki.URIs("spiffe://Prod.example/a")}, "trust domain"},
		"query":         {[]testpki.Option{testpki.URIs("spiffe://prod.example/a?b")}, "characters"},
		"wildcard":      {[]testpki.Option{testpki.URIs("spiffe://prod.example/*")}, "characters"},
		"dot segment":   {[]testpki.Option{testpki.URIs("spiffe://prod.example/a/../b")}, "segment"},
		"empty segment": {[]testpki.Option{testpki.URIs("spiffe://prod.example/a//b")}, "segment"},
		"final slash":   {[]testpki.Option{testpki.URIs("spiffe://prod.example/a/")}, "segment"},
		"long":          {[]testpki.Option{testpki.URIs("spiffe://prod.example/" + strings.Repeat("a", 2027))}, "2049 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			domain, refusal := IsSVID(testpki.MustIssue(t, ca, test.opts...).Cert)
			wantRefusal(t, refusal, CertificateUnsuitable, test.why)
			if want := map[bool]string{true: "prod.example"}[test.why == ""]; domain != want {
				t.Errorf("trust domain %q, want %q", domain, want)
			}
		})
	}
	// Certificates that x509 does not parse, or parses without the names.
	for _, octets := range []string{id + "\x00", "spiffe://prod.example\x00.evil.example/a", "SPIFFE://prod.example/a", "spiffe://\xff/a", "spiffe://" + strings.Repeat("\x01", 300) + "/a"} {
		domain, refusal := IsSVID(sanLeaf(t, san(NameURI, octets)))
		if domain != "" {
			t.Errorf("%q is in trust domain %q", octets, domain)
		}
		wantRefusal(t, refusal, CertificateUnsuitable, "not an X.509-SVID")
	}
	_, refusal := IsSVID(sanLeaf(t, san(NameURI, id), general(6, true, []byte{})))
	wantRefusal(t, refusal, CertificateUnsuitable, "in parts")
	_, refusal = IsSVID(sanLeaf(t, san(NameURI, id), san(NameURI, "\x00")))
	wantRefusal(t, refusal, CertificateUnsuitable, "2 URIs")
}

// FuzzNamesOf tests that hostile extensions do no harm, and that ParseName returns the
// same name for the text of each name.
func FuzzNamesOf(f *testing.F) {
	for _, names := range [][]asn1.RawValue{
		{san(NameDNS, "A.example.com"), san(NameURI, "SPIFFE://Example.com/a/b"), san(NameIP, "\x7f\x00\x00\x01"), san(NameEmail, "A@B.test")},
		{san(NameDNS, "a\x00.example.com"), san(NameURI, "a:%2f?*#"), general(0, true, []byte{6, 1, 42, 0xa0, 2, 5, 0})},
		{san(NameURI, "https://[::1]:1/x//./y"), san(NameIP, strings.Repeat("\x00", 10)+"\xff\xff\x01\x02\x03\x04"), general(9, false, nil)},
	} {
		der, err := asn1.Marshal(names)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		leaf := leafOfExtension(der)
		if domain, refusal := IsSVID(leaf); (refusal == nil) != (domain != "") || refusal != nil && (!testtool.Printable(refusal.Detail) || len(refusal.Detail) > 1<<10) {
			t.Fatalf("trust domain %q, %v", domain, refusal)
		}
		p, err := NamesOf(leaf)
		if len(p) > maxSANs || err != nil && len(p) > 0 {
			t.Fatalf("%d names, %v", len(p), err)
		}
		for _, n := range p {
			if strings.ContainsFunc(n.text, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == '*' }) {
				t.Fatalf("%s %q", n.kind, n.text)
			}
			declared, err := ParseName(n.kind, n.text)
			if err != nil {
				continue
			}
			if declared != n {
				t.Fatalf("%s %q is declared as %q", n.kind, n, declared)
			}
			var ix nameIndex[int]
			ix.Add(declared, 1)
			if !slices.Contains(lookup(t, &ix, leaf), "1 "+n.text) {
				t.Fatalf("%s %q is declared and not found", n.kind, n)
			}
		}
	})
}

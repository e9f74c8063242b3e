package validators

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func mustName(t testing.TB, kind NameKind, s string) Name {
	t.Helper()
	n, err := ParseName(kind, s)
	if err != nil {
		t.Fatalf("%s %s: %v", kind, s, err)
	}
	return n
}

// testParse parses each name, and wants its canonical spelling.
func testParse(t *testing.T, kind NameKind, want map[string]string) {
	t.Helper()
	for s, canonical := range want {
		n, err := ParseName(kind, s)
		if err != nil {
			t.Errorf("%q: %v", s, err)
			continue
		}
		if n.String() != canonical || n.Kind() != kind {
			t.Errorf("%q is read as %s %q, want %q", s, n.Kind(), n, canonical)
		}
		if again, err := ParseName(kind, canonical); again != n {
			t.Errorf("%q is read back as %q, %v", n, again, err)
		}
	}
}

// testParseError wants an error with this text.
func testParseError(t *testing.T, kind NameKind, want map[string]string) {
	t.Helper()
	for s, why := range want {
		n, err := ParseName(kind, s)
		switch {
		case err == nil:
			t.Errorf("%q is read as %q, want an error", syntax.FirstBytes(s, 100), n)
		case n != (Name{}):
			t.Errorf("%q: an error, and %q", s, n)
		case !strings.Contains(err.Error(), why):
			t.Errorf("%q: error %q does not say %q", syntax.FirstBytes(s, 100), err, why)
		case !testtool.Printable(err.Error()) || len(err.Error()) > 600:
			t.Errorf("%q: error %q is not one short line", syntax.FirstBytes(s, 100), err)
		}
	}
}

func TestParseNameDNS(t *testing.T) {
	label, host := strings.Repeat("a", 63), strings.Repeat("a.", 126)+"b"
	testParse(t, NameDNS, map[string]string{
		"client.example.com":        "client.example.com",
		" Client.EXAMPLE.com\r\n":   "client.example.com",
		"localhost":                 "localhost",
		"12345":                     "12345",
		"1.2.3":                     "1.2.3",
		"sensor_7.example":          "sensor_7.example",
		"_mqtt._tcp.example.com":    "_mqtt._tcp.example.com",
		"a--b.example":              "a--b.example",
		"*.example.com":             "*.example.com",
		"*.A.b.C":                   "*.a.b.c",
		"bücher.example":            "xn--bcher-kva.example",
		"BÜCHER.Example":            "xn--bcher-kva.example",
		"bu\u0308cher.example":      "xn--bcher-kva.example",
		"*.bücher.example":          "*.xn--bcher-kva.example",
		"straße.example":            "xn--strae-oqa.example",
		"例え.テスト":                    "xn--r8jz45g.xn--zckzah",
		"\u05d0\u05d1.example":      "xn--4dbc.example",
		"XN--BCHER-KVA.example":     "xn--bcher-kva.example",
		"xn--anything-we-are-given": "xn--anything-we-are-given",
		label + ".example":          label + ".example",
		host:                        host,
		"*." + host[2:]:             "*." + host[2:],
	})
	testParseError(t, NameDNS, map[string]string{
		"":                              "empty",
		" \t\n":                         "empty",
		"a b.example":                   "U+0020",
		"a\x00.example":                 "U+0000",
		"a\u00ad.example":               "U+00AD",
		"a\u200d.example":               "U+200D",
		"\xff.example":                  "U+FFFD",
		"example.com.":                  "delete the dot",
		".":                             "begins with a dot",
		".example.com":                  "*.example.com",
		"a..b":                          "empty label",
		"*":                             "declare each name",
		"*.":                            "empty label",
		"*.com":                         "at least two labels",
		"*.*.example.com":               "'*' stands for one whole label",
		"a.*.example.com":               "'*' stands for one whole label",
		"a*.example.com":                "'*' stands for one whole label",
		"*a.example.com":                "'*' stands for one whole label",
		"**.example.com":                "'*' stands for one whole label",
		"-a.example":                    "without a hyphen at either end",
		"a-.example":                    "without a hyphen at either end",
		"a!.example":                    "letters, digits",
		"192.0.2.1":                     "san_ip",
		"*.0.2.1":                       "san_ip",
		"2001:db8::1":                   "san_ip",
		"https://example.com":           "without scheme",
		"example.com:443":               "without scheme",
		"example.com/x":                 "without scheme",
		"me@example.com":                "san_email",
		label + "a.example":             "1 to 63",
		host + "b":                      "at most 253",
		"*." + host[2:] + "b":           "more than 253",
		strings.Repeat("a", 2049):       "2049 bytes",
		"\uff41.example":                "xn--", // full width
		"\ufb01.example":                "xn--", // a ligature
		"\u212a.example":                "xn--", // the Kelvin sign
		"\u0130.example":                "xn--", // its lower case is i and a dot
		"a\u3002example":                "xn--", // a full stop to IDNA2003
		"\u05d01a.example":              "xn--", // of two directions
		"bü_cher.example":               "xn--",
		strings.Repeat("ü", 60) + ".de": "xn--",
	})
}

func TestParseNameIP(t *testing.T) {
	testParse(t, NameIP, map[string]string{
		"192.0.2.1":           "192.0.2.1",
		" 2001:DB8:0:0::1\n":  "2001:db8::1",
		"::1":                 "::1",
		"0:0:0:0:0:0:0:1":     "::1",
		"64:ff9b::192.0.2.33": "64:ff9b::c000:221",
	})
	testParseError(t, NameIP, map[string]string{
		"":                         "empty",
		"fe80::1%eth0":             "delete '%'",
		"192.0.2.0/24":             "each address",
		"2001:db8::/32":            "each address",
		"192.0.2.*":                "no wildcards",
		"[2001:db8::1]":            "without brackets",
		"192.0.2.1:443":            "without brackets, port",
		"192.0.02.1":               "leading zeros",
		"192.0.2":                  "is not an IP address",
		"1":                        "is not an IP address",
		"example.com":              "is not an IP address",
		"\uff11\uff19\uff12.0.2.1": "is not an IP address",
		"::ffff:192.0.2.1":         "write 192.0.2.1",
		"::ffff:c000:201":          "write 192.0.2.1",
		"192.0.2.1\x00":            "U+0000",
	})
}

func TestParseNameEmail(t *testing.T) {
	testParse(t, NameEmail, map[string]string{
		"Machine.7@Example.COM":             "Machine.7@example.com",
		"o'hara+x@localhost":                "o'hara+x@localhost",
		"a@BÜCHER.example":                  "a@xn--bcher-kva.example",
		strings.Repeat("a", 64) + "@b.test": strings.Repeat("a", 64) + "@b.test",
	})
	testParseError(t, NameEmail, map[string]string{
		"":                                       "empty",
		"example.com":                            "no '@'",
		"@example.com":                           "local part",
		"a@":                                     "domain",
		"a@b@example.com":                        "local part",
		"a..b@example.com":                       "local part",
		".a@example.com":                         "local part",
		"a.@example.com":                         "local part",
		"a@example.com.":                         "delete the dot",
		"a@[192.0.2.1]":                          "domain",
		"mailto:a@example.com":                   "without mailto:",
		"A B <a@example.com>":                    "U+0020",
		"AB<a@example.com>":                      "display name",
		`"a"@example.com`:                        "quotes",
		"a@example.com,b@example.com":            "a bare email address",
		"ä@example.com":                          "not ASCII",
		"*@example.com":                          "no wildcards",
		"a@*.example.com":                        "no wildcards",
		strings.Repeat("a", 65) + "@b.test":      "1 to 64",
		"aaa@" + strings.Repeat("a.", 125) + "b": "at most 254",
	})
}

func TestParseNameRefusesOtherKinds(t *testing.T) {
	testParseError(t, "", map[string]string{"a.example": "san_dns, san_uri, san_ip or san_email"})
	testParseError(t, "SAN_DNS", map[string]string{"a.example": `"SAN_DNS"`})
}

func TestTrustDomain(t *testing.T) {
	for s, want := range map[string]string{
		"spiffe://prod.example/ns/*":   "prod.example",
		"SPIFFE://Prod.Example/a":      "prod.example",
		"https://prod.example/a":       "",
		"urn:spiffe://prod.example/ns": "",
	} {
		if got := mustName(t, NameURI, s).TrustDomain(); got != want {
			t.Errorf("%s has trust domain %q, want %q", s, got, want)
		}
	}
	if got := (Name{}).TrustDomain(); got != "" {
		t.Errorf("no name has trust domain %q", got)
	}
}

// FuzzParseName tests that a declared name is parsed to the same name again, and that a
// certificate exists that it matches.
func FuzzParseName(f *testing.F) {
	f.Add(uint8(0), "*.Bücher.example")
	f.Add(uint8(1), "spiffe://prod.example/ns/*/sa/**")
	f.Add(uint8(1), "HTTPS://u@Example.com:8443/a/../b?c=%2a#d")
	f.Add(uint8(1), "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6")
	f.Add(uint8(2), "0:0::1")
	f.Add(uint8(3), "A.b+c@EXAMPLE.com")
	f.Fuzz(func(t *testing.T, kind uint8, s string) {
		n, err := ParseName([]NameKind{NameDNS, NameURI, NameIP, NameEmail}[kind%4], s)
		if err != nil {
			if n != (Name{}) || len(err.Error()) > 2<<10 || !testtool.Printable(err.Error()) {
				t.Fatalf("%q: %q and %q", s, n, err)
			}
			return
		}
		for _, c := range []byte(n.String()) {
			if c <= ' ' || c >= 0x7f {
				t.Fatalf("%q is read as %q", s, n)
			}
		}
		if again, err := ParseName(n.Kind(), n.String()); again != n {
			t.Fatalf("%q is read as %q and read back as %q, %v", s, n, again, err)
		}
		var ix nameIndex[int]
		ix.Add(n, 1)
		presented := strings.ReplaceAll(n.String(), "*", "a") // "**" fits "aa" too
		if n.Kind() == NameIP {
			presented = string(netip.MustParseAddr(presented).AsSlice())
		}
		if got := lookup(t, &ix, sanLeaf(t, san(n.Kind(), presented))); len(got) != 1 {
			t.Fatalf("%q, presented as %q, is found as %v", n, presented, got)
		}
		if !overlaps(&ix, n) {
			t.Fatalf("%q does not overlap with itself", n)
		}
	})
}

package dn

import (
	"encoding/asn1"
	"regexp"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

func TestFormatLegacyDN(t *testing.T) {
	long := strings.Repeat("n", 999)
	for _, test := range []struct {
		raw  []byte
		want string
	}{
		{nil, ""},
		{rawName(), ""},
		{threeRDNs(), "/O=company/OU=production/CN=client"},
		{rawName(encodedRDNSET{attr("OU", "b"), attr("CN", "a")}, encodedRDNSET{attr("emailAddress", "a@b")}), "/CN=a+OU=b/emailAddress=a@b"},
		{rawName(encodedRDNSET{attr("STREET", "x")}, encodedRDNSET{attr("GN", "y")}, encodedRDNSET{attr("1.2.3.4", "z")}), "/street=x/GN=y/1.2.3.4=z"},
		// no value can add an attribute
		{rawName(encodedRDNSET{attr("CN", "a/CN=admin+O=b\\/O=c")}), `/CN=a\x2FCN=admin\x2BO=b\x5C\x2FO=c`},
		{rawName(encodedRDNSET{attr("CN", `a\x2FCN=b`)}), `/CN=a\x5Cx2FCN=b`},
		{rawName(encodedRDNSET{attr("CN", "Zoë\r\n\x00\x7f;,\"=#")}), `/CN=Zo\xC3\xAB\x0D\x0A\x00\x7F;,"=#`},
		{rawName(encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\x00a\x00/")}), `/CN=\x00a\x00\x2F`},
		{rawName(encodedRDNSET{attrOf("CN", asn1.TagT61String, "B\xe4r")}), `/CN=B\xE4r`},
		// it is bounded, and no escape is cut in two
		{rawName(encodedRDNSET{attr("CN", strings.Repeat("n", 1020))}), "/CN=" + strings.Repeat("n", 1020)},
		{rawName(encodedRDNSET{attr("CN", strings.Repeat("n", 1021))}), "/CN=" + strings.Repeat("n", 1008) + `\xE2\x80\xA6`},
		{rawName(encodedRDNSET{attr("CN", long+"éééééééé")}), "/CN=" + long + `\xC3\xA9\xE2\x80\xA6`},
		{rawName(encodedRDNSET{attr("CN", long+"12éééééééé")}), "/CN=" + long + `12\xC3\xE2\x80\xA6`},
		{[]byte{1, 0xab}, "#01ab"},
		{make([]byte, maxNameBytes+1), "#" + strings.Repeat("0", 1011) + `\xE2\x80\xA6`},
	} {
		if got := FormatLegacy(test.raw); got != test.want {
			t.Errorf("%x is %s, want %s", test.raw, got, test.want)
		}
	}
}

// TestLegacyDNOfOpenSSL checks that the form with slashes is that of OpenSSL, except for
// what OpenSSL does not escape as \xNN.
func TestLegacyDNOfOpenSSL(t *testing.T) {
	testtool.OpenSSL(t)
	ours := strings.NewReplacer(`\/`, `\x2F`, `\+`, `\x2B`)
	for _, subj := range []string{
		"/O=company/OU=production/CN=client",
		`/C=DE/O=Bär, "Inc."; #=<>/CN=b+OU=a`,
		`/DC=com/UID=u/emailAddress=a@b/SN=s/GN=g/initials=i/title=t/CN=http:\/\/x\/CN=y\+O=z`,
		"/C=US/ST=a  b/L=l/street=s/serialNumber=1/dnQualifier=d/description=e/name=n/pseudonym=p/generationQualifier=g/postalCode=1/telephoneNumber=2",
		"/jurisdictionC=DE/jurisdictionST=x/jurisdictionL=y/businessCategory=x/organizationIdentifier=y/unstructuredName=z/unstructuredAddress=w/CN=熊",
		"/postalAddress=a/postOfficeBox=b/houseIdentifier=h/1.2.3.4.5=x/CN= padded ",
	} {
		raw, printed := opensslSubject(t, subj)
		want := ours.Replace(strings.TrimPrefix(printed["compat"], "subject="))
		if got := FormatLegacy(raw); got != want {
			t.Errorf("%s is %q, want %q", subj, got, want)
		}
	}
}

func FuzzFormatLegacy(f *testing.F) {
	f.Add(threeRDNs())
	f.Add(rawName(encodedRDNSET{attr("CN", "a/CN=admin+O=b\\"), attr("1.2.3", "é\x00")}))
	f.Add(rawName(encodedRDNSET{attrOf("CN", asn1.TagBMPString, "\x00/\x00+")}, encodedRDNSET{}))
	f.Add([]byte("not a name"))
	plain := regexp.MustCompile(`^(?:[^\\]|\\x[0-9A-F]{2})*$`)
	f.Fuzz(func(t *testing.T, raw []byte) {
		text := FormatLegacy(raw)
		if len(text) > maxFormattedBytes || !syntax.IsASCII(text) || !testtool.Printable(text) || !plain.MatchString(text) {
			t.Fatalf("%x is %q", raw, text)
		}
		encoded, err := decodeName(raw)
		if err != nil || strings.HasSuffix(text, `\xE2\x80\xA6`) {
			return
		}
		var want []string
		for _, rdn := range encoded {
			for _, a := range rdn {
				name, _ := opensslName(a.Type)
				want = append(want, name+"=")
			}
		}
		got := strings.FieldsFunc(text, func(r rune) bool { return r == '/' || r == '+' })
		if len(got) != len(want) {
			t.Fatalf("%x has %d attributes, but %q", raw, len(want), got)
		}
		for i := range got {
			if !strings.HasPrefix(got[i], want[i]) {
				t.Fatalf("%x is %q, want attributes %q", raw, text, want)
			}
		}
	})
}

package dn

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

// attr returns an attribute with a UTF8String value.
func attr(name, text string) encodedAttribute {
	return attrOf(name, asn1.TagUTF8String, text)
}

func attrOf(name string, tag int, octets string) encodedAttribute {
	oid, err := parseAttributeType(name)
	if err != nil {
		panic(err)
	}
	return encodedAttribute{Type: oid, Value: asn1.RawValue{Tag: tag, Bytes: []byte(octets)}}
}

// rawName returns the DER of a name; each argument is an RDN, in encoded order.
func rawName(rdns ...encodedRDNSET) []byte {
	raw, err := asn1.Marshal(rdns)
	if err != nil {
		panic(err)
	}
	return raw
}

func mustPresent(t testing.TB, raw []byte) Name {
	t.Helper()
	dn, err := FromRaw(raw)
	if err != nil {
		t.Fatalf("FromRaw(%x): %v", raw, err)
	}
	return dn
}

func mustDeclare(t testing.TB, s string) Name {
	t.Helper()
	dn, err := Parse(s)
	if err != nil {
		t.Fatalf("Parse: %v", err)
	}
	return dn
}

// issuedSubject returns the RawSubject of a real certificate.
func issuedSubject(t testing.TB, template *x509.Certificate) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotAfter = time.Now().Add(time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert.RawSubject
}

// threeRDNs returns O, OU, CN in encoded order.
func threeRDNs() []byte {
	return rawName(encodedRDNSET{attr("O", "company")}, encodedRDNSET{attr("OU", "production")}, encodedRDNSET{attr("CN", "client")})
}

func TestDNOfIdentityServerDocumentation(t *testing.T) {
	declared := mustDeclare(t, "CN=client, OU=production, O=company")
	issued := issuedSubject(t, &x509.Certificate{Subject: pkix.Name{
		Organization: []string{"company"}, OrganizationalUnit: []string{"production"}, CommonName: "client",
	}})
	if !bytes.Contains(issued, []byte("company")) || bytes.Index(issued, []byte("company")) > bytes.Index(issued, []byte("client")) {
		t.Fatal("the certificate does not have O before CN")
	}
	for _, raw := range [][]byte{issued, threeRDNs()} {
		if dn := mustPresent(t, raw); dn.Key() != declared.Key() {
			t.Errorf("%s is not the declared name", dn)
		}
	}
	if got, want := declared.String(), "CN=client,OU=production,O=company"; got != want {
		t.Errorf("String() = %s, want %s", got, want)
	}
}

// Every string declares the name in the first column, which is in the form of String.
func TestDNDeclaredForms(t *testing.T) {
	forms := []struct {
		canonical string
		same      []string
	}{
		{"CN=client,OU=production,O=company", []string{
			"  CN = client ,OU= production,  O =company  ", "cn=CLIENT,ou=Production,o=COMPANY",
			"CN=client;OU=production ; O=company", "2.5.4.3=client,oid.2.5.4.11=production,OID.2.5.4.10=company",
			`CN="client", OU="production" ,O= "company"`, "commonName=client,organizationalUnitName=production,organizationName=company",
			"CN=#0c06636c69656e74,OU=#130a70726f64756374696f6e , O=#1E0E0063006f006d00700061006e0079", `CN=c\6cient,OU=production,O=\63ompany`,
			`CN=\ client\ ,OU=production,O=company`,
		}},
		{`CN=x,O=Company\, Inc.`, []string{
			`CN=x, O="Company, Inc."`, `CN=x,O=Company\2C Inc.`, `CN=x,O=Company\2c   Inc.`, `CN=x,O="Company\, Inc."`,
		}},
		{`CN=\"a\" \+\;\<\>\\=#`, []string{`CN="""a"" +;<>\\=#"`, `CN="\"a\" +;\<>\5C=#"`, `CN=\22a\22 \+\;\<\>\\\=\#`}},
		{`CN=\#a`, []string{`CN="#a"`, `CN=\23a`}},
		{"CN=\u00c4\u03a3", []string{"CN=\u00e4\u03c3", "CN=a\u0308\u03c2", `CN=\C3\84\CE\A3`, `CN="\c3\a4Σ"`}},
		{"CN=a b", []string{"CN=A    B", `CN=a\20\20b`, `CN="  a  b  "`}},
		{"CN=a+OU=b,C=DE", []string{"OU=b+CN=a,C=DE", "OU=b + CN=a , C=de", "2.5.4.11=b+CN=a,C=DE"}},
		{"emailAddress=a@b.example,UID=u,DC=d", []string{"E=a@b.example,uid=u,dc=d", "Email=A@b.example,userId=u,domainComponent=d", "1.2.840.113549.1.9.1=#160b6140622e6578616d706c65,UID=u,DC=d"}},
		{"SN=s,givenName=g,title=t,initials=i", []string{"surname=s,G=g,T=t,I=i", "sn=s,GN=g,Title=t,INITIALS=i"}},
		{"serialNumber=1,ST=s,STREET=r,L=l", []string{"SERIALNUMBER=1,S=s,street=r,l=l", "2.5.4.5=1,stateOrProvinceName=s,streetAddress=r,localityName=l"}},
		{"dnQualifier=d,generationQualifier=g,pseudonym=p,businessCategory=b,postalCode=1,name=n,organizationIdentifier=o", []string{
			"2.5.4.46=d,2.5.4.44=g,2.5.4.65=p,2.5.4.15=b,2.5.4.17=1,2.5.4.41=n,2.5.4.97=o"}},
		{"jurisdictionC=US,jurisdictionST=NY,jurisdictionL=X", []string{"OID.1.3.6.1.4.1.311.60.2.1.3=US,1.3.6.1.4.1.311.60.2.1.2=NY,jurisdictionLocalityName=X", "jurisdictionOfIncorporationCountryName=US,jurisdictionOfIncorporationStateOrProvinceName=NY,jurisdictionOfIncorporationLocalityName=X"}},
		{"1.2.3.4=#0c0161", []string{"1.2.3.4=a", "OID.1.2.3.4=A", `1.2.3.4="a"`, "1.2.3.4=#130141"}},
	}
	keys := make(map[string]string)
	for _, form := range forms {
		want := mustDeclare(t, form.canonical)
		if got := want.String(); got != form.canonical {
			t.Errorf("String() = %s, want %s", got, form.canonical)
		}
		if other, taken := keys[want.Key()]; taken {
			t.Errorf("%s and %s have one key", form.canonical, other)
		}
		keys[want.Key()] = form.canonical
		for _, s := range form.same {
			if mustDeclare(t, s).Key() != want.Key() {
				t.Errorf("%s is not %s", s, form.canonical)
			}
		}
	}
}

// The error for each declared string must contain these words.
func TestDNDeclaredErrors(t *testing.T) {
	for s, want := range map[string][]string{
		"":                                       {"empty", "variable"},
		"   ":                                    {"empty"},
		"client":                                 {`"client"`, `no "="`},
		"CN=":                                    {"value of CN is empty", "variable"},
		"CN= ,O=x":                               {"value of CN is empty"},
		`CN=\ \ ,O=x`:                            {"value of CN is empty"},
		`CN="",O=x`:                              {"value of CN is empty"},
		"CN=#0c00":                               {"value of CN is empty"},
		"CN=x,OU=":                               {"value of OU is empty"},
		"=x":                                     {`unknown attribute ""`},
		"CN=x,":                                  {"missing", "remove the separator"},
		",CN=x":                                  {"missing"},
		"CN=x,,O=y":                              {"missing"},
		"CN=x+,O=y":                              {"missing"},
		"FOO=x":                                  {`unknown attribute "FOO"`, "dotted OID"},
		"U\u0130D=x":                             {`unknown attribute "UİD"`},
		"1.2.x=y":                                {`"1.2.x"`, "object identifier"},
		"OID.3.1=y":                              {`"3.1"`, "object identifier"},
		"1.40=y":                                 {`"1.40"`},
		"2.5.04.3=y":                             {`"2.5.04.3"`},
		"2.5.4.4294967296=y":                     {"object identifier"},
		"2=y":                                    {"object identifier"},
		"O=Company, Inc.":                        {`"Inc."`, `"\,"`, "double quotes"},
		`O=a "b"`:                                {`unescaped '"'`, "backslash"},
		"CN=<client>":                            {`unescaped '<'`},
		`CN="x`:                                  {"not closed"},
		`CN="x" y`:                               {`unexpected "y"`},
		`CN=DOMAIN\user`:                         {`"\\user"`, "backslash"},
		`CN=x\`:                                  {"backslash"},
		`CN=\C3`:                                 {"not UTF-8", "octets"},
		"CN=a\xff":                               {"not UTF-8"},
		"CN=#zz":                                 {`"#zz"`, "hexadecimal"},
		"CN=#":                                   {"DER value"},
		"CN=#0c":                                 {"DER value"},
		"CN=#0c016161":                           {"DER value"},
		"CN=#0c01ff":                             {"CN", "not a valid encoding"},
		"CN=#2c030c0161":                         {"not a valid encoding"},
		"CN=#1e02d800":                           {"not a valid encoding"},
		"CN=a+CN=b":                              {"CN twice"},
		"CN=a+2.5.4.3=a":                         {"CN twice"},
		"CN=a\u200bb":                            {`"a\u200bb"`, "U+200B", "remove it"},
		`CN=a\00`:                                {"U+0000", "remove it"},
		"CN=a\nO=b":                              {"U+000A"},
		"CN=a\tb":                                {"U+0009"},
		"CN=#0c03610062":                         {"U+0000"},
		"CN=" + strings.Repeat("x", 8<<10):       {"too long", "8192"},
		"CN=#040161":                             {"the value of CN is not text", "write the text"},
		"CN=" + strings.Repeat("x", 4090):        {"too long", "in a certificate it has at least 4099 bytes"},
		"CN=" + strings.Repeat("\u4e00", 2044):   {"too long", "in a certificate it has at least 4097 bytes"},
		strings.Repeat("\x18", 4000) + "=x":      {"unknown attribute"},
		"1.2" + strings.Repeat(".1", 4000) + "=": {"is empty"},
		"CN=x" + strings.Repeat(",DC=x", 128): {
			"129 attributes", "128"},
		"subject=C = US, O = x, CN = y":         {"OpenSSL", `"CN=y,O=x,C=US"`},
		`subject=C=US, O="Company, Inc.", CN=y`: {`"CN=y,O=Company\\, Inc.,C=US"`},
		"Subject: C = US, O = x":                {`"O=x,C=US"`},
		"subject= /C=US/O=x/CN=y":               {`"CN=y,O=x,C=US"`},
		"subject=CN=y,O=x,C=US":                 {`"CN=y,O=x,C=US"`},
		"issuer=CN = ca":                        {`"CN=ca"`},
		"/C=US/O=Company, Inc./CN=spiffe/a":     {`"CN=spiffe/a,O=Company\\, Inc.,C=US"`},
		`/O=B\xC3\xA4r/emailAddress=a@b`:        {`"emailAddress=a@b,O=Bär"`},
		"/":                                     {"OpenSSL", "-nameopt RFC2253"},
		"subject=":                              {"OpenSSL", "-nameopt RFC2253"},
		"subject=CN = x, FOO = y":               {"-nameopt RFC2253"},
		"/CN=a\u200bb":                          {"-nameopt RFC2253"},
		"CN=" + strings.Repeat(`\`, 4000) + "\u00e4\u2028": {"U+2028"},
	} {
		dn, err := Parse(s)
		if err == nil {
			t.Errorf("Parse(%q) = %s, want an error", s, dn)
			continue
		}
		if dn.Key() != "" || dn.String() != "" {
			t.Errorf("Parse(%q) returns a name with its error", s)
		}
		for _, words := range want {
			if !strings.Contains(err.Error(), words) {
				t.Errorf("Parse(%.40q): %q lacks %q", s, err, words)
			}
		}
		if first, _ := utf8.DecodeRuneInString(err.Error()); unicode.IsUpper(first) || len(err.Error()) > 2048 {
			t.Errorf("Parse(%.40q): error of %d bytes: %.80s", s, len(err.Error()), err)
		}
	}
}

func TestFormatDNIsOnePrintableLine_A7(t *testing.T) {
	long := rawName(encodedRDNSET{attr("CN", "a"+strings.Repeat("ä", 1500))})
	for name, c := range map[string]struct {
		raw  []byte
		want string
	}{
		"plain":         {threeRDNs(), "CN=client,OU=production,O=company"},
		"specials":      {rawName(encodedRDNSET{attr("CN", ` a,b+c"d\e<f>g;h=i%#`), attr("OU", "#x ")}), `OU=\#x\ +CN=\ a\,b\+c\"d\\e\<f\>g\;h=i%#`},
		"CR LF NUL":     {rawName(encodedRDNSET{attr("CN", "a\r\nX-Client: b\x00")}), `CN=a\0D\0AX-Client: b\00`},
		"non-ASCII":     {rawName(encodedRDNSET{attr("CN", "Bär 熊")}), "CN=Bär 熊"},
		"invisible":     {rawName(encodedRDNSET{attr("CN", "a\u200b\u00a0\u202e\ufe0f\u2028")}), `CN=a\E2\80\8B\C2\A0\E2\80\AE\EF\B8\8F\E2\80\A8`},
		"NEL":           {rawName(encodedRDNSET{attrOf("CN", asn1.TagT61String, "\x85")}), `CN=\C2\85`},
		"bad UTF-8":     {rawName(encodedRDNSET{attr("CN", "a\xff")}), "CN=#0c0261ff"},
		"no string":     {rawName(encodedRDNSET{attrOf("CN", asn1.TagOctetString, "a")}), "CN=#040161"},
		"unknown type":  {rawName(encodedRDNSET{attr("1.2.3.4", "a\n")}), "1.2.3.4=#0c02610a"},
		"empty value":   {rawName(encodedRDNSET{attr("CN", "")}), "CN="},
		"empty RDN":     {rawName(encodedRDNSET{attr("CN", "a")}, encodedRDNSET{}, encodedRDNSET{attr("O", "b")}), "O=b,,CN=a"},
		"twice":         {rawName(encodedRDNSET{attr("CN", "a"), attr("CN", "a")}), "CN=a+CN=a"},
		"no RDN":        {rawName(), ""},
		"nothing":       {nil, ""},
		"garbage":       {[]byte("a\r\n"), "#610d0a"},
		"trailing":      {append(rawName(encodedRDNSET{attr("CN", "a")}), 0), "#300c310a300806035504030c016100"},
		"long":          {long, "CN=a" + strings.Repeat("ä", 508) + "…"},
		"too long":      {append(long, make([]byte, 16<<10)...), "#" + hex.EncodeToString(long)[:1020] + "…"},
		"too many":      {rawName(repeatRDN(encodedRDNSET{attr("CN", "a")}, 300)...), strings.Repeat("CN=a,", 205)[:1021] + "…"},
		"single spaces": {rawName(encodedRDNSET{attr("CN", " "), attr("OU", "  ")}), `CN=\ +OU=\ \ `},
	} {
		if got := Format(c.raw); got != c.want || len(got) > 1024 {
			t.Errorf("%s: Format() = %s, want %s", name, got, c.want)
		}
	}
}

func TestDNFromRawIsCheap(t *testing.T) {
	raw := threeRDNs()
	if allocations := testing.AllocsPerRun(100, func() { _, _ = FromRaw(raw) }); allocations > 30 {
		t.Errorf("%v allocations for a plain name", allocations)
	}
	dn := mustPresent(t, raw)
	if allocations := testing.AllocsPerRun(100, func() { _ = dn.Key() }); allocations > 0 {
		t.Errorf("%v allocations for Key", allocations)
	}
}

func BenchmarkFromRaw(b *testing.B) {
	raw := threeRDNs()
	b.ReportAllocs()
	for b.Loop() {
		dn, _ := FromRaw(raw)
		_ = dn.Key()
	}
}

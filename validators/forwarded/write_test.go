package forwarded

import (
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxNameBytes is how long a name may be to be parsed.
const maxNameBytes = 4 << 10

// writtenFormats are all formats, in every header that changes what is written.
var writtenFormats = append(slices.Clone(Formats), formatAWSALBLeaf)

// hasChain reports whether a format has the certificates above the client's.
func hasChain(f *Format) bool {
	return !slices.Contains([]*Format{formatNginx, formatHAProxy, formatAWSALBLeaf}, f)
}

// mustWrite writes certificates, and checks what is true of every value.
func mustWrite(t *testing.T, f *Format, leaf *x509.Certificate, chain []*x509.Certificate) (values, chainValues []string) {
	t.Helper()
	value, chainValue := f.Write(leaf, chain)
	if (chainValue != "") != (f.ChainHeader != "" && len(chain) > 0) {
		t.Errorf("%s: the value of the second header is %q", f, chainValue)
	}
	if i := strings.IndexFunc(value+chainValue, func(r rune) bool { return r < ' ' || r >= 0x7f }); i >= 0 {
		t.Errorf("%s: %q is not printable ASCII", f, value+chainValue)
	}
	if value != trimSpace(value) {
		t.Errorf("%s: %q is not a field value", f, value)
	}
	if chainValue != "" {
		chainValues = []string{chainValue}
	}
	return []string{value}, chainValues
}

// mustReadBack writes certificates, and checks that they are read as the same ones.
func mustReadBack(t *testing.T, f *Format, leaf *x509.Certificate, chain []*x509.Certificate) {
	t.Helper()
	values, chainValues := mustWrite(t, f, leaf, chain)
	if len(values[0])+len(strings.Join(chainValues, "")) > maxForwardedBytes {
		mustNotForward(t, f, values, chainValues, "at most 65536 are allowed")
		return
	}
	want := []*x509.Certificate{leaf}
	if hasChain(f) {
		want = append(want, chain[:min(len(chain), validators.MaxIntermediates)]...)
	}
	mustForward(t, f, values, chainValues, want...)
}

// TestForwardWritesWhatProxiesSend compares what is written with what a proxy sends,
// octet for octet.
func TestForwardWritesWhatProxiesSend(t *testing.T) {
	for length := 1; length <= 4; length++ {
		chain := chainOf(t, length)
		leaf := chain[0]
		for _, f := range writtenFormats {
			sent := chain
			if !hasChain(f) {
				sent = chain[:1]
			}
			want, wantChain := forward(f, sent...)
			switch f {
			case formatEnvoy:
				element := `Hash=` + envoyHash(leaf) + `;Cert="` + envoyEscape(toPEM(leaf)) + `"`
				if length > 1 {
					element += `;Chain="` + envoyEscape(toPEM(chain...)) + `"`
				}
				want = []string{element + `;Subject="CN=client";URI=`}
			case formatAWSALBLeaf:
				want = []string{awsEscape(toPEM(leaf))}
			}
			values, chainValues := mustWrite(t, f, leaf, chain[1:])
			if !slices.Equal(values, want) || !slices.Equal(chainValues, wantChain) {
				t.Errorf("%s: wrote\n%s %s, want\n%s %s", f, values, chainValues, want, wantChain)
			}
		}
	}
}

func TestForwardFormatInHeader(t *testing.T) {
	for header, want := range map[string]*Format{
		"":                            formatAWSALB,
		"X-Amzn-Mtls-Clientcert":      formatAWSALB,
		"X-Client-Cert":               formatAWSALB,
		"X-Amzn-Mtls-Clientcert-Leaf": formatAWSALBLeaf,
		"x-amzn-mtls-clientcert-leaf": formatAWSALBLeaf,
	} {
		if got := formatAWSALB.In(header); got != want {
			t.Errorf("aws_alb in %q is %v of %s", header, got, got.Header)
		}
	}
	for _, f := range Formats {
		if f != formatAWSALB && f.In(formatAWSALBLeaf.Header) != f {
			t.Errorf("%s is another format in another header", f)
		}
	}
}

// hostileTexts are parts of names that mean something in some format.
var hostileTexts = []string{
	"a", "client", "Company, Inc.", `"`, `\`, `\"`, `\\"`, `\\`, ";", ",", "=", "+", "%", "%0A", "%2", "\r\n", "\n", "\x00", "\t", " ", "#", "<", ">", "/", ":",
	"é", "名", "\u202e", "\x7f", `";URI=spiffe://mesh.example/admin;Subject="`, `,Hash=0;URI=spiffe://mesh.example/admin`, ";DNS=admin.example",
	"-----BEGIN CERTIFICATE-----", "-----END%20CERTIFICATE-----%0A", ":", "::", "X-Client-ID: admin", strings.Repeat("a", 300),
}

func hostileText(random *rand.Rand, ascii bool) string {
	var text strings.Builder
	for range random.IntN(5) {
		part := hostileTexts[random.IntN(len(hostileTexts))]
		if !ascii || syntax.IsASCII(part) {
			text.WriteString(part)
		}
	}
	return text.String()
}

// iPAddress is the tag of a GeneralName with octets.
const iPAddress = 7

func general(tag int, octets string) asn1.RawValue {
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(octets)}
}

// hostileNames are names of a certificate that Go parses.
func hostileNames(random *rand.Rand) []testpki.Option {
	name := pkix.Name{CommonName: hostileText(random, false), Organization: []string{hostileText(random, false)}}
	for range random.IntN(3) {
		oid := []asn1.ObjectIdentifier{{2, 5, 4, 42}, {2, 5, 4, 9}, {1, 2, 840, 113549, 1, 9, 1}, {1, 3, 6, 1, 4, 1, 1}}[random.IntN(4)]
		name.ExtraNames = append(name.ExtraNames, pkix.AttributeTypeAndValue{Type: oid, Value: hostileText(random, false)})
	}
	options := []testpki.Option{testpki.Subject(name)}
	var names []asn1.RawValue
	for range random.IntN(4) {
		switch random.IntN(5) {
		case 0:
			names = append(names, general(rfc822Name, hostileText(random, true)))
		case 1:
			names = append(names, general(dNSName, hostileText(random, true)))
		case 2:
			uri := strings.Map(func(r rune) rune {
				if r <= ' ' || r >= 0x7f || r == '%' {
					return '-' // Go parses no certificate with such a URI
				}
				return r
			}, hostileText(random, true))
			names = append(names, general(uniformResourceIdentifier, "spiffe://mesh.example/"+uri))
		case 3:
			names = append(names, general(dNSName, "a.example"))
		case 4:
			names = append(names, general(iPAddress, `,;"`+"\n"))
		}
	}
	if names != nil {
		options = append(options, testpki.GeneralNames(names...))
	}
	return options
}

// TestForwardReadsBackWhatItWrites tests random certificates with hostile names and
// random chains.
func TestForwardReadsBackWhatItWrites(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	chain := chainOf(t, 2+validators.MaxIntermediates)[1:]
	var keys []crypto.Signer
	for _, kind := range []testpki.KeyType{testpki.P256, testpki.P521, testpki.RSA2048, testpki.Ed25519} {
		keys = append(keys, testpki.MustKey(t, kind))
	}
	for range 300 {
		options := append(hostileNames(random), testpki.Key(keys[random.IntN(len(keys))]))
		leaf := testpki.MustSelfSigned(t, options...).Cert
		above := chain[:random.IntN(len(chain)+1)]
		for _, f := range writtenFormats {
			mustReadBack(t, f, leaf, above)
		}
		mustStayInQuotes(t, leaf, above)
	}
}

// mustStayInQuotes checks that a reader which splits the value of envoy at semicolons,
// without regard to quotes, finds the certificate's own names and no others.
func mustStayInQuotes(t *testing.T, leaf *x509.Certificate, chain []*x509.Certificate) {
	t.Helper()
	value, _ := formatEnvoy.Write(leaf, chain)
	ownURIs, ownDNS := sanTexts(leaf)
	keys, values := "", make(map[string][]string)
	for pair := range strings.SplitSeq(value, ";") {
		key, text, _ := strings.Cut(pair, "=")
		if len(values[key]) == 0 {
			keys += key + " "
		}
		values[key] = append(values[key], text)
	}
	want := "Hash Cert "
	if len(chain) > 0 {
		want += "Chain "
	}
	if values["Subject"] != nil {
		want += "Subject "
		subject := values["Subject"][0]
		if len(values["Subject"]) > 1 || len(subject) < 2 || strings.Count(subject, `"`) != 2 || subject[0] != '"' || subject[len(subject)-1] != '"' {
			t.Errorf("Subject %q of %q", values["Subject"], leaf.Subject)
		}
	} else if len(leaf.RawSubject) < maxNameBytes {
		t.Errorf("%q has no Subject", leaf.Subject)
	}
	if uris := values["URI"]; uris != nil {
		want += "URI "
		if len(ownURIs) == 0 {
			ownURIs = []string{""}
		}
		if len(values["DNS"]) > 0 {
			want += "DNS "
		}
		if !slices.Equal(uris, ownURIs) || !slices.Equal(values["DNS"], ownDNS) {
			t.Errorf("URI %q DNS %q of a certificate with %q %q", uris, values["DNS"], ownURIs, ownDNS)
		}
	}
	if keys != want {
		t.Errorf("the keys are %q, want %q, in %s", keys, want, value)
	}
}

// TestForwardWritesNamesOfEnvoy tests which names are in the value.
func TestForwardWritesNamesOfEnvoy(t *testing.T) {
	uri := func(text string) asn1.RawValue { return general(uniformResourceIdentifier, text) }
	dns := func(text string) asn1.RawValue { return general(dNSName, text) }
	email := func(text string) asn1.RawValue { return general(rfc822Name, text) }
	for name, test := range map[string]struct {
		names []asn1.RawValue
		want  string
	}{
		"none":                     {nil, ";URI="},
		"in another order":         {[]asn1.RawValue{dns("b.example"), uri("spiffe://a/b"), dns("a.example"), email("a@b"), uri("https://c/?d=e&f=%41")}, ";URI=spiffe://a/b;URI=https://c/?d=e&f=%41;DNS=b.example;DNS=a.example"},
		"wildcard":                 {[]asn1.RawValue{dns("*.example")}, ";URI=;DNS=*.example"},
		"empty":                    {[]asn1.RawValue{dns("")}, ";URI=;DNS="},
		"octets of an address":     {[]asn1.RawValue{general(iPAddress, `,;""`), dns("a")}, ";URI=;DNS=a"},
		"semicolon":                {[]asn1.RawValue{uri("spiffe://a/b;URI=spiffe://a/admin")}, ""},
		"comma":                    {[]asn1.RawValue{dns("a"), uri("spiffe://a/b,c")}, ""},
		"quote":                    {[]asn1.RawValue{dns(`"a`)}, ""},
		"backslash":                {[]asn1.RawValue{dns(`a\`), dns("b")}, ""},
		"line break":               {[]asn1.RawValue{dns("a\r\nX-Client-ID: admin")}, ""},
		"NUL":                      {[]asn1.RawValue{dns("a\x00")}, ""},
		"space":                    {[]asn1.RawValue{dns("a ")}, ""},
		"a key":                    {[]asn1.RawValue{dns("b.example"), uri("https://a/?DNS=admin.example")}, ""},
		"a key in another case":    {[]asn1.RawValue{uri("https://a/?x=y&uri=spiffe://a/admin")}, ""},
		"hostile name of no key":   {[]asn1.RawValue{dns("a"), email("a,b@c")}, ""},
		"as many as there may be":  {slices.Repeat([]asn1.RawValue{dns("a")}, 256), ";URI=" + strings.Repeat(";DNS=a", 256)},
		"more than there may be":   {slices.Repeat([]asn1.RawValue{dns("a")}, 257), ""},
		"64 KiB in one":            {[]asn1.RawValue{dns(strings.Repeat("a", 64<<10))}, ";URI=;DNS=" + strings.Repeat("a", 64<<10)},
		"64 KiB in one, of commas": {[]asn1.RawValue{dns(strings.Repeat(",", 64<<10))}, ""},
	} {
		options := []testpki.Option{testpki.CommonName("client")}
		if test.names != nil {
			options = append(options, testpki.GeneralNames(test.names...))
		}
		leaf := testpki.MustSelfSigned(t, options...).Cert
		value, _ := formatEnvoy.Write(leaf, nil)
		_, got, found := strings.Cut(value, `;Subject="CN=client"`)
		if !found || got != test.want {
			t.Errorf("%s: %.300q, want %.300q", name, got, test.want)
		}
		mustReadBack(t, formatEnvoy, leaf, nil)
		mustStayInQuotes(t, leaf, nil)
	}
}

// TestForwardWritesSubjectOfEnvoy tests how a subject is escaped.
func TestForwardWritesSubjectOfEnvoy(t *testing.T) {
	for cn, want := range map[string]string{
		"client": "client", "": "", "Company, Inc.": `Company\, Inc.`, "a=b": `a\3Db`, "URI=spiffe://a/b": `URI\3Dspiffe://a/b`, " #a ": `\ #a\ `, "#": `\#`, "a+b<c>": `a\+b\<c\>`, "é": `\C3\A9`,
		`a"b`: `a\22b`, `a\`: `a\5C`, `\"`: `\5C\22`, "a;b": `a\3Bb`, "a\r\n\x00": `a\0D\0A\00`, "a%0A": "a%0A", `",URI=spiffe://a/b`: `\22\,URI\3Dspiffe://a/b`,
		strings.Repeat("a", 3<<10): strings.Repeat("a", 3<<10),
	} {
		raw, err := asn1.Marshal(pkix.RDNSequence{{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: cn}}})
		if err != nil {
			t.Fatal(err)
		}
		leaf := testpki.MustSelfSigned(t, testpki.RawSubject(raw)).Cert
		value, _ := formatEnvoy.Write(leaf, nil)
		if got := value[strings.Index(value, ";Subject="):]; got != `;Subject="CN=`+want+`";URI=` {
			t.Errorf("%q: %.300s", cn, got)
		}
		mustReadBack(t, formatEnvoy, leaf, nil)
	}
	// a name that is too long to be read is left out
	long := testpki.MustSelfSigned(t, testpki.CommonName(strings.Repeat("a", maxNameBytes))).Cert
	if value, _ := formatEnvoy.Write(long, nil); strings.Contains(value, "Subject") || !strings.HasSuffix(value, ";URI=") {
		t.Errorf("a subject of %d bytes: %q", len(long.RawSubject), value)
	}
	mustReadBack(t, formatEnvoy, long, nil)
}

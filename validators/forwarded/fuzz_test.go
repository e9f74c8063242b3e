package forwarded

import (
	"crypto/x509"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// fuzzForward parses, and checks what is true for every format.
func fuzzForward(t *testing.T, f *Format, values, chainValues []string) []*x509.Certificate {
	t.Helper()
	certs, err := f.Parse(values, chainValues)
	if err != nil {
		if certs != nil {
			t.Fatalf("%s: %d certificates with error %v", f, len(certs), err)
		}
		checkForwardError(t, err)
		return nil
	}
	if len(certs) == 0 || len(certs) > 1+validators.MaxIntermediates || slices.Contains(certs, nil) {
		t.Fatalf("%s: certificates %v", f, certs)
	}
	if again, err := f.Parse(append(values, values...), chainValues); err == nil {
		t.Fatalf("%s: two fields are read as %d certificates", f, len(again))
	}
	return certs
}

func without(s, cutset string) string {
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(cutset, r) {
			return -1
		}
		return r
	}, s)
}

// pemContent returns the base64 of all certificates in PEM text.
func pemContent(text string) string {
	text = strings.NewReplacer(pemCertificateBegin, "", pemCertificateEnd, "").Replace(text)
	return without(text, " \t\r\n")
}

func allBase64(certs []*x509.Certificate) string {
	var out strings.Builder
	for _, cert := range certs {
		out.WriteString(toBase64(cert))
	}
	return out.String()
}

// addForwarded adds what each proxy sends to the corpus.
func addForwarded(f *testing.F, add func(value string)) {
	for _, cert := range []*x509.Certificate{
		testpki.MustSelfSigned(f).Cert,
		testpki.MustSelfSigned(f, testpki.WithKeyType(testpki.Ed25519), testpki.CommonName("")).Cert,
		testpki.MustSelfSigned(f, testpki.DNSNames("a.example", "b.example"), testpki.URIs("spiffe://mesh.example/a")).Cert,
	} {
		for _, format := range Formats {
			for _, certs := range [][]*x509.Certificate{{cert}, {cert, cert}} {
				values, _ := forward(format, certs...)
				add(values[0])
			}
		}
	}
}

func FuzzRFC9440(f *testing.F) {
	addForwarded(f, func(value string) {
		f.Add(value, "", "")
		f.Add(value, value, "")
		f.Add(value, value+", "+value, value)
	})
	f.Fuzz(func(t *testing.T, value, chain, more string) {
		var chainValues []string
		if chain != "" {
			chainValues = append(chainValues, chain)
		}
		if more != "" {
			chainValues = append(chainValues, more)
		}
		certs := fuzzForward(t, formatRFC9440, []string{value}, chainValues)
		if certs == nil {
			return
		}
		if got := ClientCert(certs[0]); got != strings.Trim(value, " \t") {
			t.Fatalf("%q is written as %q", value, got)
		}
		sent := without(strings.Join(chainValues, ","), " \t")
		if got := without(ClientCertChain(certs[1:]), " "); got != sent {
			t.Fatalf("%q is written as %q", sent, got)
		}
	})
}

func FuzzPEM(f *testing.F) {
	addForwarded(f, func(value string) { f.Add(value) })
	f.Fuzz(func(t *testing.T, value string) {
		certs := fuzzForward(t, formatAWSALB, []string{value}, nil)
		one := fuzzForward(t, formatNginx, []string{value}, nil)
		if len(certs) == 1 != (one != nil) || len(one) > 1 || one != nil && !one[0].Equal(certs[0]) {
			t.Fatalf("%q: nginx has %d certificates of %d", value, len(one), len(certs))
		}
		if certs == nil {
			return
		}
		text, err := url.PathUnescape(value)
		if err != nil {
			t.Fatal(err)
		}
		if got := pemContent(text); got != allBase64(certs) {
			t.Fatalf("%q holds %q", value, allBase64(certs))
		}
	})
}

func FuzzHAProxy(f *testing.F) {
	addForwarded(f, func(value string) {
		f.Add(value)
		f.Add(`"` + value + `"`)
	})
	f.Fuzz(func(t *testing.T, value string) {
		certs := fuzzForward(t, formatHAProxy, []string{value}, nil)
		if certs == nil {
			return
		}
		text := strings.Trim(value, " \t")
		if got := toBase64(certs[0]); len(certs) != 1 || text != got && text != `"`+got+`"` {
			t.Fatalf("%q holds %q", value, got)
		}
	})
}

func FuzzTraefik(f *testing.F) {
	addForwarded(f, func(value string) {
		f.Add(value)
		f.Add(url.QueryEscape(value))
	})
	f.Fuzz(func(t *testing.T, value string) {
		certs := fuzzForward(t, formatTraefik, []string{value}, nil)
		if certs == nil {
			return
		}
		text, err := url.PathUnescape(strings.Trim(value, " \t"))
		if err != nil {
			t.Fatal(err)
		}
		if written, _ := forward(formatTraefik, certs...); written[0] != text {
			t.Fatalf("%q is written as %q", value, written[0])
		}
	})
}

var percentEncoded = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)

func FuzzEnvoy(f *testing.F) {
	addForwarded(f, func(value string) {
		f.Add(value)
		f.Add("By=a;Hash=b," + value)
		f.Add(value + "," + value)
		f.Add(value + `;Subject="CN=a\"b\\c"`)
	})
	own := testpki.MustSelfSigned(f).Cert
	f.Fuzz(func(t *testing.T, value string) {
		// The element after what a client sends is the one that counts.
		appended := value + "," + envoyElement(own)
		if certs := fuzzForward(t, formatEnvoy, []string{appended}, nil); certs != nil && !certs[0].Equal(own) {
			t.Fatalf("%q before the proxy's element makes another certificate the client's", value)
		}

		certs := fuzzForward(t, formatEnvoy, []string{value}, nil)
		if certs == nil {
			return
		}
		if len(value) < maxForwardedBytes/2 && strings.Count(value, ",") < maxXFCCElements-1 {
			before, err := formatEnvoy.Parse([]string{`By="a,b";Subject="CN=\"" ,` + value}, nil)
			if err != nil || !slices.EqualFunc(before, certs, (*x509.Certificate).Equal) {
				t.Fatalf("%q after another element: %d certificates, error %v", value, len(before), err)
			}
			if after, err := formatEnvoy.Parse([]string{value + ",By=a"}, nil); err == nil {
				t.Fatalf("%q before an element without Cert: %d certificates", value, len(after))
			}
		}
		// The certificates are in the value.
		text := percentEncoded.ReplaceAllStringFunc(value, func(octet string) string {
			decoded, _ := url.PathUnescape(octet)
			return decoded
		})
		for _, cert := range certs {
			if !strings.Contains(pemContent(text), toBase64(cert)) {
				t.Fatalf("%q holds %q", value, toBase64(cert))
			}
		}
	})
}

// FuzzWrite checks that what is written reads back as the same certificates,
// and that no name leaves its quotes.
func FuzzWrite(f *testing.F) {
	key := testpki.MustKey(f, testpki.Ed25519)
	ca := testpki.MustCA(f, testpki.Key(key))
	chain := slices.Repeat([]*x509.Certificate{ca.Cert}, 9)
	f.Fuzz(func(t *testing.T, cn, dns, uri string, above uint8) {
		leaf, err := ca.Issue(testpki.Key(key), testpki.CommonName(cn), testpki.GeneralNames(general(dNSName, dns), general(uniformResourceIdentifier, uri)))
		if err != nil {
			t.Skip(err) // Go does not parse it
		}
		above %= uint8(len(chain) + 1)
		for _, format := range writtenFormats {
			mustReadBack(t, format, leaf.Cert, chain[:above])
		}
		mustStayInQuotes(t, leaf.Cert, chain[:above])
	})
}

package forwarded

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func toPEM(certs ...*x509.Certificate) string {
	var out strings.Builder
	for _, cert := range certs {
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return out.String()
}

// nginxEscape escapes as nginx does for $ssl_client_escaped_cert: everything except
// letters, digits and - . _ ~.
func nginxEscape(text string) string {
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

// awsEscape escapes as Application Load Balancers do, with + = / as safe
// characters.
func awsEscape(text string) string {
	return strings.NewReplacer("%2B", "+", "%3D", "=", "%2F", "/").Replace(nginxEscape(text))
}

func toBase64(cert *x509.Certificate) string {
	return base64.StdEncoding.EncodeToString(cert.Raw)
}

// forward writes certificates as a proxy does.
func forward(f *Format, certs ...*x509.Certificate) (values, chainValues []string) {
	leaf, chain := certs[0], certs[1:]
	switch f {
	case formatRFC9440:
		if len(chain) > 0 {
			chainValues = []string{ClientCertChain(chain)}
		}
		return []string{ClientCert(leaf)}, chainValues
	case formatNginx:
		return []string{nginxEscape(toPEM(certs...))}, nil
	case formatHAProxy:
		return []string{toBase64(leaf)}, nil
	case formatAWSALB:
		return []string{awsEscape(toPEM(certs...))}, nil
	case formatTraefik:
		var list []string
		for _, cert := range certs {
			list = append(list, toBase64(cert))
		}
		return []string{strings.Join(list, ",")}, nil
	}
	return []string{envoyElement(leaf, certs...)}, nil
}

func mustForward(t *testing.T, f *Format, values, chainValues []string, want ...*x509.Certificate) {
	t.Helper()
	got, err := f.Parse(values, chainValues)
	if err != nil {
		t.Errorf("%s: %v", f, err)
		return
	}
	if !slices.EqualFunc(got, want, (*x509.Certificate).Equal) {
		t.Errorf("%s: read %d certificates, want other ones: %d", f, len(got), len(want))
	}
}

func mustNotForward(t *testing.T, f *Format, values, chainValues []string, why string) {
	t.Helper()
	got, err := f.Parse(values, chainValues)
	if err == nil || got != nil {
		t.Errorf("%s: read as %d certificates, error %v", f, len(got), err)
		return
	}
	if !strings.Contains(err.Error(), why) {
		t.Errorf("%s: error %q, want %q in it", f, err, why)
	}
	checkForwardError(t, err)
}

// checkForwardError checks what is true for every error of Parse.
func checkForwardError(t *testing.T, err error) {
	t.Helper()
	for _, words := range []string{"illegal base64", "x509:", "asn1:"} {
		if strings.Contains(err.Error(), words) {
			t.Errorf("error %q passes on %q of a library", err, words)
		}
	}
	text := err.Error()
	if len(text) > 450 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("error %q", text)
	}
	if first := text[0]; first >= 'A' && first <= 'Z' {
		t.Errorf("error %q begins with a capital", text)
	}
}

func chainOf(t *testing.T, length int) []*x509.Certificate {
	t.Helper()
	ca := testpki.MustCA(t)
	for range length - 1 {
		ca = testpki.MustIntermediate(t, ca)
	}
	return testpki.MustIssue(t, ca).Presented()
}

func TestForwardFormat(t *testing.T) {
	for _, test := range []struct{ name, header, chainHeader string }{
		{"rfc9440", "Client-Cert", "Client-Cert-Chain"},
		{"nginx", "X-SSL-Client-Cert", ""},
		{"haproxy", "X-SSL-Client-Cert", ""},
		{"envoy", "X-Forwarded-Client-Cert", ""},
		{"aws_alb", "X-Amzn-Mtls-Clientcert", ""},
		{"traefik", "X-Forwarded-Tls-Client-Cert", ""},
	} {
		f, err := ParseFormat(test.name)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if f.Name != test.name || f.Header != test.header || f.ChainHeader != test.chainHeader {
			t.Errorf("%s: %q with %q and %q", test.name, f, f.Header, f.ChainHeader)
		}
	}
	for _, name := range []string{"", "RFC9440", "nginx ", "pound", strings.Repeat("x", 500)} {
		f, err := ParseFormat(name)
		if err == nil || f != nil || !strings.Contains(err.Error(), "rfc9440, nginx, haproxy, envoy, aws_alb, traefik") || len(err.Error()) > 200 {
			t.Errorf("%q: %v, error %v", name, f, err)
		}
	}
}

func TestForwardRoundTrip(t *testing.T) {
	for _, kind := range []testpki.KeyType{testpki.P256, testpki.P521, testpki.RSA2048, testpki.Ed25519} {
		leaf := testpki.MustSelfSigned(t, testpki.WithKeyType(kind)).Cert
		for _, f := range Formats {
			values, chainValues := forward(f, leaf)
			mustForward(t, f, values, chainValues, leaf)
			mustForward(t, f, []string{" \t" + values[0] + "\t "}, nil, leaf)
		}
	}
	chain := chainOf(t, 3)
	for _, f := range Formats {
		if hasChain(f) {
			values, chainValues := forward(f, chain...)
			mustForward(t, f, values, chainValues, chain...)
		}
	}
}

func TestNoForwardedCertificate(t *testing.T) {
	for _, f := range Formats {
		for _, none := range [][]string{nil, {}} {
			_, err := f.Parse(none, []string{rfc9440ClientCertChain})
			if !errors.Is(err, ErrNoCertificate) {
				t.Errorf("%s: %v", f, err)
			}
		}
		for _, empty := range []string{"", " ", "\t "} {
			_, err := f.Parse([]string{empty}, nil)
			if !errors.Is(err, ErrNoCertificate) {
				t.Errorf("%s: %q: %v", f, empty, err)
			}
		}
		for _, malformed := range [][]string{{"garbage"}, {"", ""}} {
			if _, err := f.Parse(malformed, nil); err == nil || errors.Is(err, ErrNoCertificate) {
				t.Errorf("%s: %q: %v", f, malformed, err)
			}
		}
	}
	// what is left of the delimiters around a variable that is empty
	for value, f := range map[string]*Format{`""`: formatHAProxy, "::": formatRFC9440, "\t:: ": formatRFC9440} {
		if _, err := f.Parse([]string{value}, []string{"x"}); !errors.Is(err, ErrNoCertificate) {
			t.Errorf("%s: %q: %v", f, value, err)
		}
	}
}

func TestForwardedSizeIsBounded(t *testing.T) {
	leaf := testpki.MustSelfSigned(t).Cert
	for _, f := range Formats {
		values, chainValues := forward(f, leaf)
		mustNotForward(t, f, append(values, values[0]), chainValues, "sent 2 times")
		mustNotForward(t, f, append(values, ""), chainValues, "sent 2 times")
		mustNotForward(t, f, []string{values[0] + strings.Repeat(" ", maxForwardedBytes)}, nil, "at most 65536 are allowed")
		mustNotForward(t, f, []string{strings.Repeat("A", maxForwardedBytes)}, nil, "")
		mustNotForward(t, f, []string{strings.Repeat(",", maxForwardedBytes)}, nil, "")
		for _, more := range []string{"\x00", "é", "\n"} {
			if f == formatEnvoy {
				more = `;Cert="` + more + `"` // Elsewhere it is in a value that is not read.
			} else if more == "\n" && (f == formatNginx || f == formatAWSALB) {
				continue
			}
			mustNotForward(t, f, []string{values[0] + more}, nil, "")
		}
		mustNotForward(t, f, []string{values[0][:len(values[0])/2]}, nil, "")
	}
	mustNotForward(t, formatRFC9440, []string{ClientCert(leaf)}, []string{strings.Repeat(" ", maxForwardedBytes)}, "at most 65536 are allowed")
	// The size of a certificate is not limited here.
	big := testpki.MustSelfSigned(t, testpki.CommonName(strings.Repeat("x", 8_000))).Cert
	for _, f := range Formats {
		values, chainValues := forward(f, big)
		mustForward(t, f, values, chainValues, big)
	}
}

func TestForwardedCertificateIsParsedStrictly(t *testing.T) {
	const notOne = "invalid certificate: its octets are not exactly one certificate in DER; check"
	leaf := testpki.MustSelfSigned(t).Cert
	for name, test := range map[string]struct {
		der []byte
		why string
	}{
		"trailing data":    {append(slices.Clone(leaf.Raw), 0), notOne},
		"two certificates": {append(slices.Clone(leaf.Raw), leaf.Raw...), notOne},
		"truncated":        {leaf.Raw[:len(leaf.Raw)-1], notOne},
		"nothing":          {nil, notOne},
		"a key":            {leaf.RawSubjectPublicKeyInfo, notOne},
		"garbage":          {bytes.Repeat([]byte{0xff}, 300), notOne},
	} {
		t.Run(name, func(t *testing.T) {
			forged := &x509.Certificate{Raw: test.der}
			for _, f := range Formats {
				values, chainValues := forward(f, forged)
				if len(test.der) == 0 && (f == formatHAProxy || f == formatRFC9440 || f == formatTraefik) {
					continue // An empty header.
				}
				mustNotForward(t, f, values, chainValues, test.why)
			}
		})
	}
}

func TestForwardHAProxyMalformed(t *testing.T) {
	cert := testpki.MustSelfSigned(t).Cert
	value := toBase64(cert)
	mustForward(t, formatHAProxy, []string{`"` + value + `"`}, nil, cert) // %{+Q}[ssl_c_der,base64]
	for _, bad := range []string{
		`"` + value, value + `"`, `""` + value + `""`, `"`, ":" + value + ":", value + "," + value, value + " " + value,
		value[:100] + "\n" + value[100:], nginxEscape(value), toPEM(cert), nginxEscape(toPEM(cert)),
		strings.TrimSuffix(rfc9440Leaf, "="), rfc9440Leaf + "=", "-", "1",
	} {
		if bad == value { // Nothing in it to escape.
			continue
		}
		mustNotForward(t, formatHAProxy, []string{bad}, nil, "base64")
	}
}

func TestForwardPEMMalformed(t *testing.T) {
	chain := chainOf(t, 3)
	text := toPEM(chain[0])
	other := toPEM(chain[1])
	for _, test := range []struct{ text, why string }{
		{"x" + text, "expected the line BEGIN"},
		{text + "x", "expected the line BEGIN"},
		{"subject=CN=client\n" + text, "expected the line BEGIN"},
		{strings.TrimSuffix(text, pemCertificateEnd+"\n"), "truncated: "},
		{strings.Replace(text, "-----END CERTIFICATE-----", "-----END CERTIFICATE----", 1), "truncated: "},
		{strings.ReplaceAll(text, "CERTIFICATE", "PRIVATE KEY"), "expected the line BEGIN"},
		{strings.ReplaceAll(text, "CERTIFICATE", "TRUSTED CERTIFICATE"), "expected the line BEGIN"},
		{strings.Replace(text, "E-----\n", "E-----\nProc-Type: 4,ENCRYPTED\n\n", 1), "not base64"},
		{strings.Replace(text, "M", "*", 1), "not base64"},
		{strings.Replace(text, "\n", "\n ", 1), "not base64"},
		{pemCertificateBegin + pemCertificateEnd, "invalid certificate"},
		{" \r\n", "white space"},
		// encoding/pem would skip the first and return the second.
		{pemCertificateBegin + "\n!!!!\n" + pemCertificateEnd + "\n" + text, "not base64"},
		{pemCertificateBegin + "\n" + text, "not base64"},
		{strings.TrimSuffix(other, "-\n") + "\n" + text, "not base64"},
	} {
		for _, f := range []*Format{formatNginx, formatAWSALB} {
			mustNotForward(t, f, []string{nginxEscape(test.text)}, nil, test.why)
		}
	}
	for _, f := range []*Format{formatNginx, formatAWSALB} {
		mustNotForward(t, f, []string{"%"}, nil, "not URL-encoded")
		mustNotForward(t, f, []string{nginxEscape(text) + "%2"}, nil, "not URL-encoded")
		mustNotForward(t, f, []string{nginxEscape(text) + "%zz"}, nil, "not URL-encoded")
		mustNotForward(t, f, []string{nginxEscape(nginxEscape(text))}, nil, "expected the line BEGIN")
		mustNotForward(t, f, []string{url.QueryEscape(text)}, nil, "expected the line BEGIN") // A plus is not a space.
		mustNotForward(t, f, []string{toBase64(chain[0])}, nil, "expected the line BEGIN")
		mustNotForward(t, f, []string{nginxEscape(text) + "," + nginxEscape(text)}, nil, "expected the line BEGIN")
		// Line ends of either kind, and none.
		for _, replaced := range []string{"\r\n", ""} {
			body := strings.ReplaceAll(text, "\n", replaced)
			mustForward(t, f, []string{nginxEscape(" " + body + "\n\t")}, nil, chain[0])
		}
		// A proxy that puts a tab after line breaks, as $ssl_client_cert has it.
		mustNotForward(t, f, []string{strings.ReplaceAll(text, "\n", "\n\t")}, nil, "not base64")
	}
	mustNotForward(t, formatNginx, []string{nginxEscape(text + other)}, nil, "more than 1 certificates")
	mustNotForward(t, formatNginx, []string{nginxEscape(text + text)}, nil, "more than 1 certificates")

	most := append(chain[:1:1], slices.Repeat(chain[1:2], validators.MaxIntermediates)...)
	mustForward(t, formatAWSALB, []string{awsEscape(toPEM(most...))}, nil, most...)
	mustNotForward(t, formatAWSALB, []string{awsEscape(toPEM(append(most, chain[0])...))}, nil, "more than 9 certificates")
}

func TestForwardPEMPlusIsPlus(t *testing.T) {
	// The certificate of RFC 9440's example has + / and = in its base64.
	certs, err := formatRFC9440.Parse([]string{rfc9440ClientCert}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text := toPEM(certs...)
	if !strings.Contains(text, "+") || !strings.Contains(text, "/") || !strings.Contains(text, "=") {
		t.Fatal("the certificate does not serve the test")
	}
	for _, f := range []*Format{formatNginx, formatAWSALB} {
		mustForward(t, f, []string{nginxEscape(text)}, nil, certs...)
		mustForward(t, f, []string{awsEscape(text)}, nil, certs...)
		mustForward(t, f, []string{strings.ReplaceAll(nginxEscape(text), "%2B", "%2b")}, nil, certs...)
	}
}

func TestOnlyTheFirstForwardedCertificateIsTheClients_B5(t *testing.T) {
	own, victim := testpki.MustSelfSigned(t).Cert, testpki.MustSelfSigned(t).Cert
	for _, f := range Formats {
		if hasChain(f) {
			values, chainValues := forward(f, own, victim)
			mustForward(t, f, values, chainValues, own, victim)
		}
	}
	values, _ := forward(formatNginx, own, victim)
	mustNotForward(t, formatNginx, values, nil, "more than 1 certificates")
}

// TestForwardedUnreadableCertificateIsNamed tests that a certificate which Go cannot read
// is refused by name.
func TestForwardedUnreadableCertificateIsNamed(t *testing.T) {
	der := testpki.Unreadable(t, testpki.NegativeSerial, "Old client")
	_, err := decodeCertificate(base64.StdEncoding.EncodeToString(der))
	if want := "invalid certificate 'CN=Old client': its serial number is negative"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
}

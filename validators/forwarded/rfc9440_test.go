package forwarded

import (
	"crypto/x509"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The certificates and field values of RFC 9440's example, in Appendix A. Its
// line breaks are for display.
const (
	rfc9440Leaf         = "MIIBqDCCAU6gAwIBAgIBBzAKBggqhkjOPQQDAjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTAeFw0yMDAxMTQyMjU1MzNaFw0yMTAxMjMyMjU1MzNaMA0xCzAJBgNVBAMMAkJDMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE8YnXXfaUgmnMtOXU/IncWalRhebrXmckC8vdgJ1p5Be5F/3YC8OthxM4+k1M6aEAEFcGzkJiNy6J84y7uzo9M6NyMHAwCQYDVR0TBAIwADAfBgNVHSMEGDAWgBRm3WjLa38lbEYCuiCPct0ZaSED2DAOBgNVHQ8BAf8EBAMCBsAwEwYDVR0lBAwwCgYIKwYBBQUHAwIwHQYDVR0RAQH/BBMwEYEPYmRjQGV4YW1wbGUuY29tMAoGCCqGSM49BAMCA0gAMEUCIBHda/r1vaL6G3VliL4/Di6YK0Q6bMjeSkC3dFCOOB8TAiEAx/kHSB4urmiZ0NX5r5XarmPk0wmuydBVoU4hBVZ1yhk="
	rfc9440Intermediate = "MIIB5jCCAYugAwIBAgIBFjAKBggqhkjOPQQDAjBWMQswCQYDVQQGEwJVUzEbMBkGA1UECgwSTGV0J3MgQXV0aGVudGljYXRlMSowKAYDVQQDDCFMZXQncyBBdXRoZW50aWNhdGUgUm9vdCBBdXRob3JpdHkwHhcNMjAwMTE0MjEzMjMwWhcNMzAwMTExMjEzMjMwWjA6MRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxGzAZBgNVBAMMEkxBIEludGVybWVkaWF0ZSBDQTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJf+aA54RC5pyLAR5yfXVYmNpgd+CGUTDp2KOGhc0gK91zxhHesEYkdXkpS2UN8Kati+yHtWCV3kkhCngGyv7RqjZjBkMB0GA1UdDgQWBBRm3WjLa38lbEYCuiCPct0ZaSED2DAfBgNVHSMEGDAWgBTEA2Q6eecKu9g9yb5glbkhhVINGDASBgNVHRMBAf8ECDAGAQH/AgEAMA4GA1UdDwEB/wQEAwIBhjAKBggqhkjOPQQDAgNJADBGAiEA5pLvaFwRRkxomIAtDIwg9D7gC1xzxBl4r28EzmSO1pcCIQCJUShpSXO9HDIQMUgH69fNDEMHXD3RRX5gP7kuu2KGMg=="
	rfc9440Root         = "MIICBjCCAaygAwIBAgIJAKS0yiqKtlhoMAoGCCqGSM49BAMCMFYxCzAJBgNVBAYTAlVTMRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxKjAoBgNVBAMMIUxldCdzIEF1dGhlbnRpY2F0ZSBSb290IEF1dGhvcml0eTAeFw0yMDAxMTQyMTI1NDVaFw00MDAxMDkyMTI1NDVaMFYxCzAJBgNVBAYTAlVTMRswGQYDVQQKDBJMZXQncyBBdXRoZW50aWNhdGUxKjAoBgNVBAMMIUxldCdzIEF1dGhlbnRpY2F0ZSBSb290IEF1dGhvcml0eTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABFoaHU+Z5bPKmGzlYXtCf+E6HYj62fORaHDOrt+yyh3H/rTcs7ynFfGn+gyFsrSP3Ez88rajv+U2NfD0o0uZ4PmjYzBhMB0GA1UdDgQWBBTEA2Q6eecKu9g9yb5glbkhhVINGDAfBgNVHSMEGDAWgBTEA2Q6eecKu9g9yb5glbkhhVINGDAPBgNVHRMBAf8EBTADAQH/MA4GA1UdDwEB/wQEAwIBhjAKBggqhkjOPQQDAgNIADBFAiEAmAeg1ycKHriqHnaD4M/UDBpQRpkmdcRFYGMg1Qyrkx4CIB4ivz3wQcQkGhcsUZ1SOImd/lq1Q0FLf09rGfLQPWDc"

	rfc9440ClientCert      = ":" + rfc9440Leaf + ":"
	rfc9440ClientCertChain = ":" + rfc9440Intermediate + ":, :" + rfc9440Root + ":"
)

func TestClientCertOfRFC9440(t *testing.T) {
	certs, err := formatRFC9440.Parse([]string{rfc9440ClientCert}, []string{rfc9440ClientCertChain})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, cert := range certs {
		names = append(names, cert.Subject.CommonName)
	}
	if got := strings.Join(names, ", "); got != "BC, LA Intermediate CA, Let's Authenticate Root Authority" {
		t.Errorf("the example's certificates are read as %s", got)
	}
	if got := ClientCert(certs[0]); got != rfc9440ClientCert {
		t.Errorf("Client-Cert: %s", got)
	}
	if got := ClientCertChain(certs[1:]); got != rfc9440ClientCertChain {
		t.Errorf("Client-Cert-Chain: %s", got)
	}
	if got := ClientCertChain(certs[1:2]); got != ":"+rfc9440Intermediate+":" {
		t.Errorf("Client-Cert-Chain of one: %s", got)
	}
	for _, none := range [][]*x509.Certificate{nil, {}} {
		if got := ClientCertChain(none); got != "" {
			t.Errorf("Client-Cert-Chain of none: %q", got)
		}
	}
}

func TestClientCertIsByteSequence(t *testing.T) {
	// Every length modulo three, so every amount of padding.
	for _, name := range []string{"a", "ab", "abc", "abcd", "abcde", "abcdef"} {
		cert := testpki.MustSelfSigned(t, testpki.CommonName(name), testpki.WithKeyType(testpki.Ed25519)).Cert
		value := ClientCert(cert)
		content := strings.TrimSuffix(strings.TrimPrefix(value, ":"), ":")
		if len(content) != len(value)-2 || len(content)%4 != 0 ||
			strings.Trim(content, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=") != "" {
			t.Errorf("%d bytes: %s", len(cert.Raw), value)
		}
	}
}

func TestForwardRFC9440Malformed(t *testing.T) {
	chain := chainOf(t, 3)
	leaf := ClientCert(chain[0])
	for _, test := range []struct{ value, why string }{
		{toBase64(chain[0]), "does not begin with a colon"},
		{strings.TrimSuffix(leaf, ":"), "closing colon is missing"},
		{":", "closing colon is missing"},
		{":::", "after the closing colon"},
		{": :", "not base64"},
		{":=:", "not base64"},
		{leaf + ";a=1", "after the closing colon"},
		{leaf + ", " + leaf, "after the closing colon"},
		{leaf + leaf, "after the closing colon"},
		{`"` + leaf + `"`, "does not begin with a colon"},
		{strings.Replace(leaf, "M", "\nM", 1), "line breaks"},
		{strings.Replace(leaf, "M", " M", 1), "not base64"},
		{strings.ReplaceAll(rfc9440ClientCert, "=", ""), "not base64"},
		{strings.Replace(rfc9440ClientCert, "hk=", "hl=", 1), "not base64"}, // Unused bits.
		{strings.NewReplacer("+", "-", "/", "_").Replace(rfc9440ClientCert), "not base64"},
		{nginxEscape(toPEM(chain[0])), "does not begin with a colon"},
		{nginxEscape(leaf), "does not begin with a colon"},
	} {
		mustNotForward(t, formatRFC9440, []string{test.value}, nil, test.why)
	}
}

func TestForwardRFC9440Chain(t *testing.T) {
	chain := chainOf(t, 4)
	values := []string{ClientCert(chain[0])}
	one, two, three := ClientCert(chain[1]), ClientCert(chain[2]), ClientCert(chain[3])
	for _, lines := range [][]string{
		{one + ", " + two + ", " + three},
		{one + "," + two + " \t,\t" + three},
		{one, two, three},
		{one + ", " + two, three},
	} {
		mustForward(t, formatRFC9440, values, lines, chain...)
	}
	mustForward(t, formatRFC9440, values, nil, chain[0])
	mustForward(t, formatRFC9440, values, []string{""}, chain[0])
	mustForward(t, formatRFC9440, values, []string{" "}, chain[0])

	most := slices.Repeat([]string{one}, validators.MaxIntermediates)
	want := append(chain[:1:1], slices.Repeat(chain[1:2], validators.MaxIntermediates)...)
	mustForward(t, formatRFC9440, values, most, want...)
	mustForward(t, formatRFC9440, values, []string{strings.Join(most, ",")}, want...)

	for _, test := range []struct {
		lines []string
		why   string
	}{
		{[]string{one + ","}, "does not begin with a colon"},
		{[]string{"," + one}, "does not begin with a colon"},
		{[]string{one + ",," + two}, "does not begin with a colon"},
		{[]string{one, ""}, "certificate 2 of the chain"},
		{[]string{"", ""}, "certificate 1 of the chain"},
		{[]string{one + " " + two}, "after the closing colon"},
		{[]string{one + ";q=1, " + two}, "after the closing colon"},
		{[]string{"(" + one + ")"}, "does not begin with a colon"},
		{append(slices.Clone(most), two), "the chain has 9 certificates"},
		{[]string{strings.Join(most, ","), two}, "the chain has 9 certificates"},
		{[]string{strings.Repeat(",", 50_000)}, "the chain has 50001 certificates"},
		{[]string{one + ", ::"}, "certificate 2 of the chain"},
	} {
		mustNotForward(t, formatRFC9440, values, test.lines, test.why)
	}
	// No other format has this header.
	for _, f := range Formats[1:] {
		values, _ := forward(f, chain[0])
		mustForward(t, f, values, []string{one}, chain[0])
	}
}

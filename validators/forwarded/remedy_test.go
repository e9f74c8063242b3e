package forwarded

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestWhatAProxySaysInItsOwnWay checks that the error about a value which is no
// certificate in the expected format says what to change.
func TestWhatAProxySaysInItsOwnWay_A9(t *testing.T) {
	// its base64 has + and /
	leaf := testpki.MustSelfSigned(t).Cert
	for !strings.Contains(toBase64(leaf)[40:], "+") || !strings.Contains(toBase64(leaf)[40:], "/") {
		leaf = testpki.MustSelfSigned(t).Cert
	}
	text, der := toPEM(leaf), toBase64(leaf)
	wrapped := strings.ReplaceAll(strings.TrimSuffix(pemContentLines(text), " "), "\n", " ")
	const (
		all   = "rfc9440 nginx haproxy envoy aws_alb traefik"
		words = "have the proxy send the header empty, or leave it out, if its client has none"
	)
	for name, test := range map[string]struct{ formats, value, remedy string }{
		"a hyphen":                     {all, "-", words},
		"none":                         {all, "None", words},
		"null":                         {all, "null", words},
		"quotes around nothing":        {"rfc9440 nginx envoy aws_alb traefik", `""`, words},
		"Apache, unset":                {all, "(null)", "escape:%{SSL_CLIENT_CERT}"},
		"$ssl_client_verify":           {all, "SUCCESS", "this is the result of a verification"},
		"$ssl_client_verify, failed":   {all, "FAILED:self-signed certificate", "this is the result of a verification"},
		"$ssl_client_s_dn":             {all, "CN=client,O=company", "this is a name"},
		"HAProxy's ssl_c_s_dn":         {all, "/C=DE/O=company/CN=client", "this is a name"},
		"SHA-1":                        {all, strings.Repeat("0a", 20), "this is a fingerprint"},
		"SHA-256":                      {all, strings.Repeat("0A", 32), "this is a fingerprint"},
		"SHA-256 with colons":          {all, strings.TrimSuffix(strings.Repeat("0A:", 32), ":"), "this is a fingerprint"},
		"a variable of Caddy":          {all, "{http.request.tls.client.certificate_der_base64}", "the name of a variable"},
		"the same between colons":      {all, ":{http.request.tls.client.certificate_der_base64}:", "the name of a variable"},
		"a variable of nginx":          {all, "$ssl_client_escaped_cert", "the name of a variable"},
		"a variable of Apache":         {all, "%{SSL_CLIENT_CERT}s", "the name of a variable"},
		"a variable of HAProxy":        {all, "%[ssl_c_der,base64]", "the name of a variable"},
		"a variable of Azure":          {all, "{var_client_certificate}", "the name of a variable"},
		"PEM with spaces":              {all, strings.ReplaceAll(text, "\n", " "), "the line breaks of the PEM are lost; URL-encode it"},
		"PEM with tabs":                {all, strings.ReplaceAll(text, "\n", "\t"), "the line breaks of the PEM are lost; URL-encode it"},
		"PEM, unfolded":                {all, strings.ReplaceAll(text, "\n", " \t"), "$ssl_client_escaped_cert in nginx"},
		"PEM with \\n":                 {all, strings.ReplaceAll(text, "\n", `\n`), `are written as \n`},
		"PEM with \\r\\n":              {all, strings.ReplaceAll(text, "\n", `\r\n`), `are written as \n`},
		"escaped twice":                {all, nginxEscape(nginxEscape(text)), "URL-encoded twice"},
		"a form's plus signs":          {all, url.QueryEscape(text), "have the proxy write %20"},
		"PEM in base64":                {all, base64.StdEncoding.EncodeToString([]byte(text)), "this is PEM in base64"},
		"PEM in base64 between colons": {"rfc9440", ":" + base64.StdEncoding.EncodeToString([]byte(text)) + ":", "this is PEM in base64"},
		"DER in hex":                   {all, hex.EncodeToString(leaf.Raw), "this is DER in hex"},
		"DER in hex, capitals":         {all, strings.ToUpper(hex.EncodeToString(leaf.Raw)), "this is DER in hex"},
		"base64url":                    {all, base64.RawURLEncoding.EncodeToString(leaf.Raw), "this is base64url"},
		"base64url between colons":     {"haproxy", base64.URLEncoding.EncodeToString(leaf.Raw), "this is base64url"},
		"wrapped base64":               {all, wrapped, "the base64 is broken into lines"},
		"base64, tabs":                 {all, strings.ReplaceAll(wrapped, " ", "\t"), "the base64 is broken into lines"},
		"escaped base64":               {"rfc9440 nginx haproxy envoy aws_alb", url.QueryEscape(der), "the base64 is URL-encoded"},
		"rfc9440":                      {"nginx haproxy envoy aws_alb traefik", ":" + der + ":", "this looks like base64 between colons; use format rfc9440"},
		"nginx":                        {"rfc9440 haproxy envoy traefik", nginxEscape(text), "this looks like URL-encoded PEM; use format nginx"},
		"everything escaped":           {"rfc9440 haproxy envoy traefik", strings.ReplaceAll(nginxEscape(text), "-", "%2D"), "use format nginx"},
		"line breaks escaped":          {"rfc9440 haproxy envoy traefik", strings.ReplaceAll(text, "\n", "%0A"), "use format nginx"},
		"haproxy":                      {"rfc9440 nginx envoy aws_alb", der, "this looks like one certificate in base64; use format haproxy"},
		"traefik":                      {"rfc9440 nginx haproxy envoy aws_alb", der + "," + der, "this looks like certificates joined by commas; use format traefik"},
		"envoy":                        {"rfc9440 nginx haproxy aws_alb traefik", envoyElement(leaf), "this looks like a list of keys and values; use format envoy"},
		"a chain for nginx":            {"nginx", nginxEscape(text + text), "use format aws_alb, which reads a chain"},
	} {
		t.Run(name, func(t *testing.T) {
			for word := range strings.FieldsSeq(test.formats) {
				f, err := ParseFormat(word)
				if err != nil {
					t.Fatal(err)
				}
				mustNotForward(t, f, []string{test.value}, nil, test.remedy)
				if _, err := f.Parse([]string{test.value}, nil); errors.Is(err, ErrNoCertificate) {
					t.Errorf("%s: the value counts as no certificate", f)
				}
			}
		})
	}
}

// TestNoRemedyForTheOwnFormat checks that a damaged value of the expected format is not
// taken for another format.
func TestNoRemedyForTheOwnFormat(t *testing.T) {
	leaf := testpki.MustSelfSigned(t).Cert
	for _, f := range Formats {
		values, _ := forward(f, leaf)
		for _, damaged := range []string{values[0][:len(values[0])-9], values[0][:40]} {
			if remedy := f.remedy(damaged); remedy != "" {
				t.Errorf("%s: %q", f, remedy)
			}
		}
	}
}

// pemContentLines returns the base64 of PEM text with its line breaks.
func pemContentLines(text string) string {
	return strings.TrimSpace(strings.NewReplacer(pemCertificateBegin, "", pemCertificateEnd, "").Replace(text))
}

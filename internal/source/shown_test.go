package source

import (
	"errors"
	"strings"
	"testing"
)

// TestShownURLHasNoSecrets_S10 checks that neither user name nor password nor a value
// of the query is in an address that is shown.
func TestShownURLHasNoSecrets_S10(t *testing.T) {
	for address, want := range map[string]string{
		"https://user:SECRET@a.example/jwks":                "https://a.example/jwks",
		"https://SECRET@a.example:8443/jwks":                "https://a.example:8443/jwks",
		"https://a.example/jwks?ca=SECRET&sig=SECRET#x":     "https://a.example/jwks?ca=…&sig=…",
		"https://a.example/jwks?SECRET":                     "https://a.example/jwks?=…",
		"https://a.example/user:SECRET@b":                   "…@b",
		"https://us er:SECRET@a.example":                    "an invalid URL",
		"https://a.example":                                 "https://a.example",
		"https://user:SE%CR@a.example":                      "an invalid URL",
		"https://a.example/" + strings.Repeat("long/", 100): "https://a.example/" + strings.Repeat("long/", 36) + "lo…",
	} {
		if got := ShownURL(address); got != want {
			t.Errorf("%s: got %s, want %s", address, got, want)
		}
	}
}

// TestPlainErrors checks that the text of an error has neither the names of libraries
// nor passwords.
func TestPlainErrors(t *testing.T) {
	for text, want := range map[string]string{
		"x509: malformed certificate":                                       "malformed certificate",
		"asn1: structure error: tags don't match":                           "tags don't match",
		"go-jose/go-jose: invalid EC key":                                   "invalid EC key",
		"tls: failed to verify certificate: x509: certificate is not valid": "failed to verify certificate: certificate is not valid",
		"HTTP 404 fetching https://user:SECRET@a.example/ca.pem\n":          `HTTP 404 fetching https://a.example/ca.pem\n`,
	} {
		if got := Plain(errors.New(text), 200); got != want {
			t.Errorf("%q: got %q", text, got)
		}
	}
}

// FuzzShownURL checks that what is shown is bounded and printable, and never has a
// password.
func FuzzShownURL(f *testing.F) {
	f.Add("https://user:SECRET@a.example/jwks?token=SECRET")
	f.Add("https://a.example/?SECRET")
	f.Add("https:user:SECRET@a.example")
	f.Fuzz(func(t *testing.T, address string) {
		shown := ShownURL(address)
		if len(shown) > 2*maxURLText || strings.ContainsAny(shown, "\n\r\x00") {
			t.Errorf("%q", shown)
		}
	})
}

// TestShownValueHidesTheQuery checks that the values of an address's query are not shown,
// whatever its scheme is.
func TestShownValueHidesTheQuery(t *testing.T) {
	for value, want := range map[string]string{
		"ftp://ca.test/a.crl?token=s3cret&b": "ftp://ca.test/a.crl?token=…&=…",
		"htp://u:s3cret@ca.test/?k=s3cret":   "htp://ca.test/?k=…",
		"spiffe://a/*":                       "spiffe://a/*",
		"what?":                              "what?",
	} {
		if got := ShownValue(value); got != want {
			t.Errorf("%s is shown as %s, want %s", value, got, want)
		}
	}
}

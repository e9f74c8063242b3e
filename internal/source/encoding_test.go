package source

import (
	"strings"
	"testing"
)

func TestConversionToPEM(t *testing.T) {
	for content, want := range map[string]string{
		"":                                 "",
		"garbage":                          "",
		"\xff\xfe-\x00-\x00":               "UTF-16",
		"\xfe\xff\x00-\x00-":               "UTF-16",
		"\x30\x82\x01\x00\x30\x81\x80":     "openssl x509 -inform der",
		"\x30":                             "openssl x509 -inform der",
		"\x30\x82\x09\x00\x02\x01\x03\x30": "openssl pkcs12 -nokeys",
	} {
		if got := ConversionToPEM([]byte(content)); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("%q: %q, want %q", content, got, want)
		}
	}
}

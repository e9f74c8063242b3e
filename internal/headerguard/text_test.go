package headerguard

import (
	"testing"
)

// TestText_A7 checks that text from a certificate or a template cannot end a header
// or begin another one.
func TestText_A7(t *testing.T) {
	for text, want := range map[string]struct{ header, certificate string }{
		"":                        {"", ""},
		"CN=client,O=Company":     {"CN=client,O=Company", "CN=client,O=Company"},
		"a\r\nX-Client-Id: admin": {`a\0D\0AX-Client-Id: admin`, `a\0D\0AX-Client-Id: admin`},
		"a\x00b":                  {`a\00b`, `a\00b`},
		"tab\tand\x7fdelete":      {"tab\tand\\7Fdelete", `tab\09and\7Fdelete`},
		"Zoë":                     {"Zoë", `Zo\C3\AB`},
		"\xff\xfe":                {"\xff\xfe", `\FF\FE`},
		`,;"=%\`:                  {`,;"=%\`, `,;"=%\`},
	} {
		if got := EscapeControl(text); got != want.header {
			t.Errorf("header text of %q is %q, want %q", text, got, want.header)
		}
		if got := EscapeNonASCII(text); got != want.certificate {
			t.Errorf("certificate text of %q is %q, want %q", text, got, want.certificate)
		}
	}
}

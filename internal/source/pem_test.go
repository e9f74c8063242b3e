package source

import (
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
)

func pemText(content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(content)}))
}

func TestPEMBlocks(t *testing.T) {
	one, two := pemText("one"), pemText("two")
	spoil := func(old, with string) string { return strings.Replace(one, old, with, 1) + two }
	for name, test := range map[string]struct{ text, want string }{
		"none":                {"text\n-- \n--- the end ---\n", ""},
		"two":                 {one + two, "one@1 two@4 "},
		"with text":           {"subject: one\n\n" + one + "\n# ----- more -----\n" + two + "\nrest", "one@3 two@8 "},
		"no line end":         {strings.TrimSpace(one), "one@1 "},
		"CRLF":                {strings.ReplaceAll(one+two, "\n", "\r\n"), "one@1 two@4 "},
		"content damaged":     {spoil("\n", "\n!"), "line 1"},
		"begin cut off":       {spoil("-----BEGIN", "----BEGIN"), "line 1"},
		"begin misspelt":      {spoil("BEGIN", "BEGlN"), "line 3"},
		"begin missing":       {spoil("-----BEGIN CERTIFICATE-----\n", ""), "line 2"},
		"begin of other text": {spoil("-----BEGIN", "x-----BEGIN"), "line 3"},
		"begin not closed":    {spoil("CERTIFICATE-----\n", "CERTIFICATE----\n"), "line 1"},
		"begin indented":      {spoil("-----BEGIN", " -----BEGIN"), "line 1"},
		"begin after BOM":     {"\ufeff" + one + "\ufeff" + two, "one@1 two@4 "},
		"BOM in the content":  {spoil("\n", "\n\ufeff!"), "line 1"},
		"end cut off":         {spoil("-----END", "----END"), "line 1"},
		"end misspelt":        {spoil("-----END", "-----EMD"), "line 1"},
		"end missing":         {spoil("-----END CERTIFICATE-----\n", ""), "line 1"},
		"end of another":      {spoil("END CERTIFICATE", "END CRL"), "line 1"},
		"second damaged":      {two + spoil("-----END", "----END"), "two@1 line 4"},
		"last without begin":  {two + "Zm9v\n-----END CERTIFICATE-----\n", "two@1 line 5"},
	} {
		t.Run(name, func(t *testing.T) {
			var got strings.Builder
			for block, err := range PEMBlocks([]byte(test.text)) {
				if err != nil {
					if !strings.Contains(err.Error(), "damaged, cut off or indented") {
						t.Error(err)
					}
					where, _, _ := strings.Cut(err.Error(), ":")
					got.WriteString(where)
					continue
				}
				fmt.Fprintf(&got, "%s@%d ", block.Bytes, block.Line)
			}
			if got.String() != test.want {
				t.Errorf("got %q, want %q", got.String(), test.want)
			}
		})
	}
}

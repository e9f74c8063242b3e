package reasons

import (
	"strings"
	"testing"
)

// maxShort bounds what a log line says in place of a near miss, in bytes.
const maxShort = 160

func TestOfFindsEachReasonOnce(t *testing.T) {
	seen := make(map[string]bool)
	for _, want := range All() {
		if seen[want.Reason] {
			t.Errorf("%s has two texts", want.Reason)
		}
		seen[want.Reason] = true
		if got, ok := Of(want.Reason); !ok || got != want {
			t.Errorf("Of(%q) = %+v, %t", want.Reason, got, ok)
		}
	}
	for _, unknown := range []string{"", "ok", "CERTIFICATE_UNKNOWN", "certificate_unknown "} {
		if text, ok := Of(unknown); ok || text != (Text{}) {
			t.Errorf("Of(%q) = %+v, %t", unknown, text, ok)
		}
	}
}

// TestTextsFitEverywhere checks what the table of the documentation, a terminal and a
// log line need of the texts.
func TestTextsFitEverywhere(t *testing.T) {
	for _, text := range All() {
		for _, part := range []string{text.Sentence, text.Remedy} {
			if !strings.HasSuffix(part, ".") || strings.ContainsAny(part, "|\n") || strings.Contains(part, "  ") {
				t.Errorf("%s: %q", text.Reason, part)
			}
		}
		if strings.Contains(text.Sentence, "](") || strings.Contains(text.Sentence, ". ") {
			t.Errorf("%s: a link or a second sentence in %q", text.Reason, text.Sentence)
		}
		plain := text.Plain()
		if all := plain.Sentence + plain.Remedy; strings.ContainsAny(all, "`[]") || strings.Contains(all, ".md") {
			t.Errorf("%s: Markdown in %q", text.Reason, all)
		}
		if short := text.Short(); short == "" || len(short) > maxShort || strings.HasSuffix(short, ".") || !strings.HasPrefix(plain.Remedy, short) {
			t.Errorf("%s: short remedy %q has %d bytes", text.Reason, short, len(short))
		}
	}
}

func TestRegister(t *testing.T) {
	for realm, option := range map[string]string{"": "'mtls'", "default": "'mtls'", "partners": "'mtls partners'"} {
		if _, paste := Register(realm); !strings.Contains(paste, "the global option "+option+",") {
			t.Errorf("realm %q: %q", realm, paste)
		}
	}
}

func TestPlain(t *testing.T) {
	text := Text{"x", "It is in `allow`.", "Add [`allow`](mtls_auth.md#allow) (RFC 8705 §3), or see [What to do](../a.md). Then go."}
	if got := text.Plain(); got.Sentence != "It is in 'allow'." || got.Remedy != "Add 'allow' (RFC 8705 §3), or see 'What to do' in the documentation. Then go." {
		t.Errorf("%+v", got)
	}
	if got := text.Short(); got != "Add 'allow' (RFC 8705 §3), or see 'What to do' in the documentation" {
		t.Errorf("%q", got)
	}
}

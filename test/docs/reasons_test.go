package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// refusalsPage has the tables of the reasons.
const refusalsPage = reference + "/refusals.md"

// TestEveryReasonHasAText checks that internal/reasons has a text about each refusal
// reason of the code, in the same order where the code has one, and no other.
func TestEveryReasonHasAText(t *testing.T) {
	var certificates, verified, declared, codes []string
	for _, reason := range validators.Reasons {
		certificates = append(certificates, string(reason))
	}
	for _, reason := range tokens.TokenReasons {
		verified = append(verified, string(reason))
	}
	constant := regexp.MustCompile(`validators\.Reason = "([a-z_]+)"`)
	for _, source := range sourcesOf(t) {
		for _, match := range constant.FindAllStringSubmatch(source, -1) {
			declared = append(declared, match[1])
		}
	}
	for _, match := range regexp.MustCompile(`\tCode[A-Za-z]+ += "([a-z_]+)"`).FindAllStringSubmatch(read(t, "tokens/errors.go"), -1) {
		codes = append(codes, match[1])
	}
	if texts := reasonsOf(reasons.Certificates); !slices.Equal(texts, certificates) {
		t.Errorf("texts about %q, reasons %q", texts, certificates)
	}
	same(t, "reasons of mtls_bearer", slices.Concat(verified, declared), reasonsOf(reasons.Tokens))
	same(t, "error codes of token requests", codes, reasonsOf(reasons.TokenRequests))
	same(t, "reasons of requests that nobody may send", []string{string(validators.ConnectRefused), string(validators.TooEarly)}, reasonsOf(reasons.Requests))
	if _, ok := reasons.Of(string(validators.ConfigurationEnded)); !ok {
		t.Errorf("no text about %s", validators.ConfigurationEnded)
	}
}

func reasonsOf(texts []reasons.Text) (list []string) {
	for _, text := range texts {
		list = append(list, text.Reason)
	}
	return list
}

// TestReasonsAreDocumented checks that the tables of refusals.md have every refusal
// reason with the text of internal/reasons, and no other. What the caller gets is in
// the page alone.
func TestReasonsAreDocumented(t *testing.T) {
	text := read(t, refusalsPage)
	written := text
	for _, section := range []struct {
		heading string
		texts   []reasons.Text
	}{{"Certificates", reasons.Certificates}, {"Requests that nobody may send", reasons.Requests}, {"Tokens", reasons.Tokens}, {"Token requests", reasons.TokenRequests}} {
		written = withReasons(t, written, section.heading, section.texts)
	}
	if written == text {
		return
	}
	if *update {
		if err := os.WriteFile(refusalsPage, []byte(written), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	lines := strings.Split(text, "\n")
	for line := range strings.SplitSeq(written, "\n") {
		if !slices.Contains(lines, line) {
			t.Errorf("%s has no row\n%s", refusalsPage, line)
		}
	}
	t.Errorf("%s differs from internal/reasons; run 'go test ./test/docs -run TestReasonsAreDocumented -update'", refusalsPage)
}

var (
	reasonTable = regexp.MustCompile(`(?m)^\| reason in the log \|.*\n\|[-|]+\n((?:\|.*\n)*)`)
	answerCell  = regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| (40[0-9] `[a-z_]+`) \\|")
)

// withReasons returns the page with the texts as the rows of the section's table.
func withReasons(t *testing.T, page, heading string, texts []reasons.Text) string {
	t.Helper()
	start := strings.Index(page, "\n## "+heading+"\n")
	if start < 0 {
		t.Fatalf("no section %s", heading)
	}
	table := reasonTable.FindStringSubmatchIndex(page[start:])
	if table == nil {
		t.Fatalf("section %s has no table of reasons", heading)
	}
	old := page[start+table[2] : start+table[3]]
	answers := make(map[string]string)
	for _, match := range answerCell.FindAllStringSubmatch(old, -1) {
		answers[match[1]] = match[2]
	}
	var rows strings.Builder
	for _, text := range texts {
		fmt.Fprintf(&rows, "| `%s` |", text.Reason)
		if heading == "Certificates" {
			if answers[text.Reason] == "" {
				t.Errorf("no answer for %s; write a row '| `%s` | 401 `certificate_refused` |'", text.Reason, text.Reason)
			}
			fmt.Fprintf(&rows, " %s |", answers[text.Reason])
		}
		fmt.Fprintf(&rows, " %s %s |\n", text.Sentence, text.Remedy)
	}
	return page[:start+table[2]] + rows.String() + page[start+table[3]:]
}

// Package reasons says what each refusal reason means and what to do about it. The
// documentation, the commands, the admin API, the status page and the log all have their
// text from here.
package reasons

import (
	"regexp"
	"slices"
	"strings"
)

// Text explains a refusal reason to an operator. It is Markdown, as in
// docs/reference/refusals.md: code is in backticks, and links are relative to that page.
// `detail`, `hint`, `register` and `names` are fields of the log line and members of a
// refusal on the admin API.
type Text struct {
	// Reason is the word that it explains.
	Reason string
	// Sentence says what the reason means.
	Sentence string
	// Remedy says what to do, the most likely remedy in its first sentence.
	Remedy string
}

// Of returns the text about a reason of a refusal: one of validators.Reasons, of
// tokens.TokenReasons, of mtls_bearer, an OAuth error code or configuration_ended.
func Of(reason string) (Text, bool) {
	all := All()
	if i := slices.IndexFunc(all, func(text Text) bool { return text.Reason == reason }); i >= 0 {
		return all[i], true
	}
	return Text{}, false
}

// All returns the texts about all reasons.
func All() []Text {
	return slices.Concat(Certificates, Requests, Tokens, TokenRequests, []Text{configurationEnded})
}

var (
	// link matches a link of Markdown and its text.
	link = regexp.MustCompile(`\[([^\]]+)\]\([^)]+\)`)
	// pageLink matches a link whose text is the title of a page.
	pageLink = regexp.MustCompile(`\[([A-Z][^\]]+)\]\([^)]+\)`)
)

// Plain returns the text without Markdown, for terminals, HTML, JSON and the log.
func (t Text) Plain() Text {
	t.Sentence, t.Remedy = plain(t.Sentence), plain(t.Remedy)
	return t
}

func plain(markdown string) string {
	markdown = pageLink.ReplaceAllString(markdown, "`$1` in the documentation")
	return strings.ReplaceAll(link.ReplaceAllString(markdown, "$1"), "`", "'")
}

// Short returns the first sentence of the remedy without Markdown and the full stop, for
// a log line.
func (t Text) Short() string {
	first, _, _ := strings.Cut(plain(t.Remedy), ". ")
	return strings.TrimSuffix(first, ".")
}

package caddyfileutil

import (
	"slices"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// synonyms are words that others use for ours.
var synonyms = map[string]string{
	"fingerprint": "thumbprint",
	"spki":        "public_key",
	"dn":          "subject",
	"cn":          "subject",
}

// Suggest returns the remedy for an unknown word: the known word that it is most
// likely to be a misspelling of, or the list of them.
func Suggest(word string, known []string) string {
	if ours := synonyms[strings.ToLower(word)]; slices.Contains(known, ours) {
		return "did you mean '" + ours + "'?"
	}
	if nearest := nearest(word, known); nearest != "" {
		return "did you mean '" + nearest + "'?"
	}
	sorted := slices.Sorted(slices.Values(known))
	if len(sorted) == 1 {
		return "the only one is " + sorted[0]
	}
	return "use one of " + strings.Join(sorted, ", ")
}

// suggestBlock returns the remedy for a word that is not one of the names of a block: a
// near one of them, or else the blocks that have the word, or else [Suggest].
func suggestBlock(word string, names []string, all []Named) string {
	var blocks []string
	for _, named := range all {
		for line := range named.Options {
			if usage(line).name() == word {
				blocks = append(blocks, named.Block)
			}
		}
	}
	if len(blocks) == 0 || nearest(word, names) != "" {
		return Suggest(word, names)
	}
	last := len(blocks) - 1
	if last == 0 {
		return "it belongs in " + blocks[0]
	}
	return "it belongs in " + strings.Join(blocks[:last], ", ") + " or " + blocks[last]
}

// nearest returns the one known word that differs from word in few letters, or else
// the one that has word as a part between underscores, or the reverse, or "". Case, and
// which of - and _ is written, do not count.
func nearest(word string, known []string) string {
	if len(word) > maxNearest {
		return ""
	}
	word = fold(word)
	least, found, parts := 2+len(word)/4, "", []string(nil)
	for _, candidate := range known {
		switch d := syntax.Distance(word, fold(candidate)); {
		case d < least && 2*d < len(candidate):
			least, found = d, candidate
		case d == least:
			found = "" // neither is more likely
		}
		if isPart(word, fold(candidate)) || isPart(fold(candidate), word) {
			parts = append(parts, candidate)
		}
	}
	if found == "" && len(parts) == 1 {
		return parts[0]
	}
	return found
}

func fold(word string) string { return strings.ReplaceAll(strings.ToLower(word), "-", "_") }

// isPart reports whether part stands between underscores of word.
func isPart(part, word string) bool { return strings.Contains("_"+word+"_", "_"+part+"_") }

// maxNearest is how long a word may be that is compared with others, in bytes.
const maxNearest = 64

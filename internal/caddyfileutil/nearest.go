package caddyfileutil

import (
	"slices"
	"strings"
)

// Suggest returns the remedy for an unknown word: the known word that it is most
// likely to be a misspelling of, or the list of them.
func Suggest(word string, known []string) string {
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
		switch d := distance(word, fold(candidate)); {
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

// distance returns how many letters must be inserted, deleted, replaced or swapped
// with their neighbor to make b of a (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			replaced := rows[i-1][j-1]
			if a[i-1] != b[j-1] {
				replaced++
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, replaced)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

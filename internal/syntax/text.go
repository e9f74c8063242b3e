package syntax

import (
	"unicode"
	"unicode/utf8"
)

// IsASCII reports whether text is ASCII.
func IsASCII(text string) bool {
	for i := range len(text) {
		if text[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// IsForbidden reports whether a character must not be in a name: one that is
// invisible or changes how others are displayed, or that RFC 4518 §2.4 prohibits
// (private use, non-characters, the replacement character).
func IsForbidden(r rune) bool {
	if r < utf8.RuneSelf {
		return r < ' ' || r == 0x7f
	}
	return r == utf8.RuneError || unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Co,
		unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector, unicode.Noncharacter_Code_Point)
}

// Excerpt returns as much of a text as fits in an error message.
func Excerpt(text string) string {
	return Truncate(text, 200)
}

// Truncate cuts text to at most limit bytes, including the mark of the cut.
func Truncate(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}

// FirstBytes returns at most the first n bytes of a text.
func FirstBytes(text string, n int) string {
	return text[:min(len(text), n)]
}

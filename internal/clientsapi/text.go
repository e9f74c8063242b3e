package clientsapi

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// checkText returns why JSON text has characters that are not stored as they are
// written: Go's decoder replaces what is not Unicode, and PostgreSQL has no NUL.
func checkText(text []byte) error {
	if !utf8.Valid(text) {
		return errors.New("the body is not UTF-8; encode it so")
	}
	for {
		escape := bytes.IndexByte(text, '\\')
		if escape < 0 || escape+1 == len(text) {
			return nil
		}
		first, ok := codeUnit(text[escape:])
		if !ok {
			text = text[escape+2:] // another escape, as of a backslash
			continue
		}
		text = text[escape+len(`\u0000`):]
		switch {
		case first == 0:
			return errors.New(`the body has a NUL character, \u0000; remove it`)
		case utf16.IsSurrogate(first):
			second, _ := codeUnit(text)
			if utf16.DecodeRune(first, second) == utf8.RuneError {
				return errors.New(`the body has half of a surrogate pair, such as \ud800; write both halves, or remove it`)
			}
			text = text[len(`\u0000`):]
		}
	}
}

// codeUnit returns the value of the \u escape that the text begins with.
func codeUnit(text []byte) (rune, bool) {
	const length = len(`\u0000`)
	if len(text) < length || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	value, err := strconv.ParseUint(string(text[2:length]), 16, 16)
	return rune(value), err == nil
}

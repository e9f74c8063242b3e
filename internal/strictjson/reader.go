package strictjson

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// manyMembers is from how many members of an object on a map finds those that appear
// twice.
const manyMembers = 16

// ErrCharacter is wrapped by the error about a string that contains NUL, half of a
// surrogate pair, or octets that are not UTF-8. encoding/json accepts these, and
// replaces some of them silently.
var ErrCharacter = errors.New("invalid character in a string")

// Reader reads JSON text from the front, in one pass. It returns the errors of [Check],
// and [ErrCharacter]. Its strings are parts of the text where that is possible, so that
// they cost nothing.
type Reader struct {
	text   string
	at     int
	depth  int
	spaces int
}

// NewReader returns a reader of text.
func NewReader(text string) *Reader { return &Reader{text: text} }

// Spaces returns how many octets of white space between tokens have been read.
func (r *Reader) Spaces() int { return r.spaces }

// End returns an error if anything but white space follows.
func (r *Reader) End() error {
	if r.Next() != 0 || r.at < len(r.text) {
		return errors.New("text after the JSON value; write one object")
	}
	return nil
}

// Next skips white space and returns the first octet of what follows, 0 at the end.
func (r *Reader) Next() byte {
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; c {
		case ' ', '\t', '\r', '\n':
			r.spaces++
		default:
			return c
		}
	}
	return 0
}

func (r *Reader) unexpected() error {
	if r.at >= len(r.text) {
		return errors.New("unexpected EOF in JSON")
	}
	return fmt.Errorf("invalid character %q at byte %d of the JSON", r.text[r.at], r.at+1)
}

// expect reads one octet.
func (r *Reader) expect(c byte) error {
	if r.Next() != c || r.at >= len(r.text) {
		return r.unexpected()
	}
	r.at++
	return nil
}

// Object reads an object. It calls read for each member, to read its value.
func (r *Reader) Object(read func(name string) error) error {
	if r.Next() != '{' {
		return errors.New("not a JSON object")
	}
	var names nameSet
	return r.list('{', '}', func() error {
		if r.Next() != '"' {
			return r.unexpected()
		}
		name, err := r.String()
		if err != nil {
			return err
		}
		if !names.add(name) {
			return fmt.Errorf("duplicate member %.100q; keep one of the two", name)
		}
		if err := r.expect(':'); err != nil {
			return err
		}
		return read(name)
	})
}

// Array reads an array. It calls read for each element, to read it.
func (r *Reader) Array(read func() error) error { return r.list('[', ']', read) }

// list reads what is between brackets and separated by commas.
func (r *Reader) list(first, last byte, element func() error) error {
	if r.depth > maxDepth {
		return r.tooDeep()
	}
	if err := r.expect(first); err != nil {
		return err
	}
	r.depth++
	for count := 0; ; count++ {
		switch c := r.Next(); {
		case c == last && count == 0:
			r.at++
			r.depth--
			return nil
		case r.depth > maxDepth && c != 0:
			return r.tooDeep()
		}
		if err := element(); err != nil {
			return err
		}
		switch r.Next() {
		case ',':
			r.at++
		case last:
			r.at++
			r.depth--
			return nil
		default:
			return r.unexpected()
		}
	}
}

func (r *Reader) tooDeep() error { return fmt.Errorf("nested deeper than %d levels", maxDepth) }

// Value reads any value, and returns its text.
func (r *Reader) Value() (text string, err error) {
	c, start := r.Next(), r.at
	switch {
	case c == '{':
		err = r.Object(func(string) error {
			_, err := r.Value()
			return err
		})
	case c == '[':
		err = r.Array(func() error {
			_, err := r.Value()
			return err
		})
	case c == '"':
		_, err = r.String()
	case c == '-' || c >= '0' && c <= '9':
		err = r.number()
	default:
		for _, literal := range []string{"null", "true", "false"} {
			if r.Literal(literal) {
				return literal, nil
			}
		}
		err = r.unexpected()
	}
	return r.text[start:r.at], err
}

// Literal reads null, true or false, and reports whether that is what follows.
func (r *Reader) Literal(literal string) bool {
	r.Next()
	if !strings.HasPrefix(r.text[r.at:], literal) {
		return false
	}
	r.at += len(literal)
	return true
}

func (r *Reader) digits() bool {
	start := r.at
	for r.at < len(r.text) && r.text[r.at] >= '0' && r.text[r.at] <= '9' {
		r.at++
	}
	return r.at > start
}

// skip skips the next octet if it is one of those.
func (r *Reader) skip(octets string) bool {
	if r.at < len(r.text) && strings.IndexByte(octets, r.text[r.at]) >= 0 {
		r.at++
		return true
	}
	return false
}

func (r *Reader) number() error {
	r.skip("-")
	if !r.skip("0") && !r.digits() {
		return r.unexpected()
	}
	if r.skip(".") && !r.digits() {
		return r.unexpected()
	}
	if r.skip("eE") {
		r.skip("+-")
		if !r.digits() {
			return r.unexpected()
		}
	}
	return nil
}

// String reads a string.
func (r *Reader) String() (string, error) {
	if err := r.expect('"'); err != nil {
		return "", err
	}
	start, ascii := r.at, true
	for ; r.at < len(r.text); r.at++ {
		switch c := r.text[r.at]; {
		case c == '"':
			text := r.text[start:r.at]
			r.at++
			if !ascii && !utf8.ValidString(text) {
				return "", errNotUTF8
			}
			return text, nil
		case c == '\\':
			return r.escaped(start)
		case c < ' ':
			return "", r.unexpected()
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", r.unexpected()
}

var errNotUTF8 = fmt.Errorf("%w: it is not UTF-8; write the text in UTF-8", ErrCharacter)

// escaped reads the rest of a string that began at start, from its first escape on.
func (r *Reader) escaped(start int) (string, error) {
	text := []byte(r.text[start:r.at])
	for r.at < len(r.text) {
		c := r.text[r.at]
		switch {
		case c == '"':
			r.at++
			if !utf8.Valid(text) {
				return "", errNotUTF8
			}
			return string(text), nil
		case c < ' ':
			return "", r.unexpected()
		case c != '\\':
			text = append(text, c)
			r.at++
			continue
		}
		r.at++
		char, err := r.escape()
		if err != nil {
			return "", err
		}
		text = utf8.AppendRune(text, char)
	}
	return "", r.unexpected()
}

// escape reads what follows a backslash.
func (r *Reader) escape() (rune, error) {
	if r.at >= len(r.text) {
		return 0, r.unexpected()
	}
	if i := strings.IndexByte(`"\/bfnrt`, r.text[r.at]); i >= 0 {
		r.at++
		return rune("\"\\/\b\f\n\r\t"[i]), nil
	}
	char, err := r.unicode()
	switch {
	case err != nil:
		return 0, err
	case char == 0:
		return 0, fmt.Errorf(`%w: it contains NUL (\u0000); remove it`, ErrCharacter)
	case !utf16.IsSurrogate(char):
		return char, nil
	}
	if strings.HasPrefix(r.text[r.at:], `\u`) {
		r.at++
		second, err := r.unicode()
		if err != nil {
			return 0, err
		}
		if whole := utf16.DecodeRune(char, second); whole != utf8.RuneError {
			return whole, nil
		}
	}
	return 0, fmt.Errorf(`%w: it contains \u%04x, which is half of a surrogate pair; write the character itself`, ErrCharacter, char)
}

// unicode reads uXXXX.
func (r *Reader) unicode() (char rune, err error) {
	if !r.skip("u") {
		return 0, r.unexpected()
	}
	for range 4 {
		if r.at >= len(r.text) {
			return 0, r.unexpected()
		}
		digit := strings.IndexByte("0123456789abcdef", r.text[r.at]|0x20)
		if digit < 0 || r.text[r.at] < '0' {
			return 0, r.unexpected()
		}
		char = char<<4 | rune(digit)
		r.at++
	}
	return char, nil
}

// nameSet is the names of members.
type nameSet struct {
	few  [manyMembers]string
	size int
	many map[string]struct{}
}

// add adds a name, and reports whether it is new.
func (s *nameSet) add(name string) bool {
	if s.many != nil {
		_, known := s.many[name]
		s.many[name] = struct{}{}
		return !known
	}
	if slices.Contains(s.few[:s.size], name) {
		return false
	}
	if s.size < manyMembers {
		s.few[s.size] = name
		s.size++
		return true
	}
	s.many = make(map[string]struct{}, 2*manyMembers)
	for _, other := range s.few {
		s.many[other] = struct{}{}
	}
	s.many[name] = struct{}{}
	return true
}

// Compact returns valid JSON without white space between tokens.
func Compact(text string) string {
	compact := make([]byte, 0, len(text))
	for inString, i := false, 0; i < len(text); i++ {
		c := text[i]
		switch {
		case inString && c == '\\':
			compact = append(compact, c)
			i++
			c = text[i]
		case c == '"':
			inString = !inString
		case !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n'):
			continue
		}
		compact = append(compact, c)
	}
	return string(compact)
}

// SameCompact reports whether compact is what [Compact] returns for a text, which need
// not be valid.
func SameCompact(text []byte, compact string) bool {
	at := 0
	for inString, escaped, i := false, false, 0; i < len(text); i++ {
		c := text[i]
		if !inString && (c == ' ' || c == '\t' || c == '\r' || c == '\n') {
			continue
		}
		if at == len(compact) || compact[at] != c {
			return false
		}
		at++
		switch {
		case escaped:
			escaped = false
		case inString && c == '\\':
			escaped = true
		case c == '"':
			inString = !inString
		}
	}
	return at == len(compact)
}

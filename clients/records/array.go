package records

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// maxDepth is how deep the values in an array may be nested. [clients.Record] has a
// lower bound.
const maxDepth = 64

var errUnclosed = errors.New("the array does not end; close it with ]")

// JSON returns the records of a JSON array. The place of an entry is the number of the
// line in which it begins, and the text of its record is valid until the next one. It
// can be ranged over once. An error in the structure of the array ends it, because
// nobody can tell where the next record begins.
func JSON(r io.Reader) iter.Seq2[clients.Entry, error] {
	t, err := newText(r)
	if err != nil {
		return failed("", err)
	}
	return t.array
}

func (t *text) array(yield func(clients.Entry, error) bool) {
	err := t.readArray(func(e clients.Entry) bool { return yield(e, nil) })
	if err != nil {
		yield(clients.Entry{Place: t.place()}, err)
	}
}

// readArray reads an array, and calls take with each record until it returns false.
func (t *text) readArray(take func(clients.Entry) bool) error {
	first, err := t.skipBlanks()
	if errors.Is(err, io.EOF) || err == nil && first != '[' {
		return errors.New(`it is not a JSON array; write the records as [{"client_id": …}, …], or one in each line of a file named *.jsonl`)
	}
	if err != nil {
		return err
	}
	t.skip([]byte("["))
	var text record
	inLine, last := 0, 0 // records that begin in this line, and where the last one began
	for end := false; !end; {
		first, err := t.skipBlanks()
		if err != nil {
			return unclosed(err)
		}
		if first == ']' && last == 0 {
			t.skip([]byte("]"))
			break
		}
		if t.line != last {
			last, inLine = t.line, 0
		}
		inLine++
		place := t.place()
		if inLine > 1 {
			place += ", record " + strconv.Itoa(inLine)
		}
		text = text[:0]
		if err := t.readElement(&text); err != nil {
			return unclosed(err)
		}
		if !take(text.entry(place)) {
			return nil
		}
		if end, err = t.readSeparator(); err != nil {
			return unclosed(err)
		}
	}
	if next, err := t.skipBlanks(); err == nil {
		return fmt.Errorf("%q after the end of the array; write one array", next)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func unclosed(err error) error {
	if errors.Is(err, io.EOF) {
		return errUnclosed
	}
	return err
}

// readSeparator reads what follows a record. end is set at the end of the array.
func (t *text) readSeparator() (end bool, err error) {
	next, err := t.skipBlanks()
	if err != nil {
		return false, err
	}
	if next != ',' && next != ']' {
		return false, fmt.Errorf("%q after a record; write a comma between records", next)
	}
	t.skip([]byte{next})
	return next == ']', nil
}

// readElement reads one element of an array.
func (t *text) readElement(to *record) error {
	var s structure
	for {
		chunk, err := t.chunk()
		if err != nil {
			return err
		}
		n, done, err := s.scan(chunk)
		to.add(chunk[:n])
		t.skip(chunk[:n])
		if err != nil {
			return err
		}
		if done {
			return nil
		}
		if err := to.check(); err != nil {
			return err
		}
	}
}

// structure finds the end of a JSON value.
type structure struct {
	depth    int
	objects  uint64 // which of the values around are objects: the lowest bit is the innermost
	inString bool
	escaped  bool // the last byte is a backslash
	begun    bool
}

// scan looks at more of the text, and returns how much of it belongs to the value, and
// whether the value ends there.
func (s *structure) scan(chunk []byte) (n int, done bool, err error) {
	for n < len(chunk) {
		if s.inString {
			used, err := s.scanString(chunk[n:])
			n += used
			if err != nil {
				return n, false, err
			}
			if !s.inString && s.depth == 0 {
				return n, true, nil
			}
			continue
		}
		switch c := chunk[n]; c {
		case '"':
			s.inString = true
		case '{', '[':
			if s.depth == maxDepth {
				return n, false, fmt.Errorf("values are nested deeper than %d levels", maxDepth)
			}
			s.depth++
			s.objects <<= 1
			if c == '{' {
				s.objects |= 1
			}
		case '}', ']', ',', ' ', '\t', '\r', '\n':
			if s.depth == 0 {
				return n, true, s.checkBegun(c)
			}
			if c != '}' && c != ']' {
				break
			}
			if s.objects&1 == 1 != (c == '}') {
				return n, false, fmt.Errorf("%q does not close what is open", c)
			}
			s.depth--
			s.objects >>= 1
			if s.depth == 0 {
				return n + 1, true, nil
			}
		}
		s.begun = true
		n++
	}
	return n, false, nil
}

func (s *structure) checkBegun(next byte) error {
	if s.begun {
		return nil
	}
	if next == ']' {
		return fmt.Errorf("%q instead of a record; remove the comma before it", next)
	}
	return fmt.Errorf("%q instead of a record; remove it", next)
}

// scanString looks at more of a string. It returns how much of it belongs to the string.
func (s *structure) scanString(chunk []byte) (n int, err error) {
	for n < len(chunk) {
		if s.escaped {
			s.escaped = false
			n++
			continue
		}
		next := bytes.IndexAny(chunk[n:], "\"\\\n")
		if next < 0 {
			return len(chunk), nil
		}
		n += next
		switch chunk[n] {
		case '\n':
			return n, errors.New("a string does not end in its line")
		case '\\':
			s.escaped = true
		default:
			s.inString = false
			return n + 1, nil
		}
		n++
	}
	return n, nil
}

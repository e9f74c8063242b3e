// Package records reads client records from text as a stream: JSON arrays and JSON
// Lines, of any size, one record in memory at a time. It finds where records begin and
// end. Whoever takes them parses them (see [clients.Record]), so that one that is wrong
// need not be the end of those that follow.
package records

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// MaxBytes is the size of the largest record, in bytes. The entry of a larger one is
// Wrong, and has the start of it.
const MaxBytes = 64 << 10

const (
	// bufferBytes is how much is read at once. A line of MaxBytes fits, with a byte
	// order mark and the end of the line.
	bufferBytes = 2 * MaxBytes
	blanks      = " \t\r\n"
)

var byteOrderMark = []byte("\ufeff")

// text is text that is read once, from its start.
type text struct {
	*bufio.Reader
	line int // the number of the line that is read next
}

// newText returns the text without the byte order mark, with which some editors begin a
// file.
func newText(r io.Reader) (*text, error) {
	t := &text{bufio.NewReaderSize(r, bufferBytes), 1}
	start, err := t.Peek(len(byteOrderMark))
	switch {
	case bytes.Equal(start, byteOrderMark):
		_, err = t.Discard(len(byteOrderMark))
		return t, err
	case bytes.HasPrefix(start, []byte{0xff, 0xfe}), bytes.HasPrefix(start, []byte{0xfe, 0xff}):
		return t, errors.New("the text is UTF-16; save it as UTF-8")
	case errors.Is(err, io.EOF): // shorter than a mark
		return t, nil
	}
	return t, err
}

// place returns where the text is read, at the cost of one allocation.
func (t *text) place() string {
	var text [32]byte
	return string(strconv.AppendInt(append(text[:0], "line "...), int64(t.line), 10))
}

// skipBlanks reads up to the next byte that is not blank, and returns it without reading
// it.
func (t *text) skipBlanks() (byte, error) {
	for {
		chunk, err := t.chunk()
		if err != nil {
			return 0, err
		}
		rest := bytes.TrimLeft(chunk, blanks)
		t.skip(chunk[:len(chunk)-len(rest)])
		if len(rest) > 0 {
			return rest[0], nil
		}
	}
}

// chunk returns what can be read without waiting, at least one byte.
func (t *text) chunk() ([]byte, error) {
	if _, err := t.Peek(1); err != nil {
		return nil, err
	}
	return t.Peek(t.Buffered())
}

// skip reads what chunk has returned, or the start of it.
func (t *text) skip(chunk []byte) {
	t.line += bytes.Count(chunk, []byte("\n"))
	_, _ = t.Discard(len(chunk)) // cannot fail, because it is buffered
}

// record is the text of the record that is being read.
type record []byte

// add adds text, as far as a record that is too large still shows that it is.
func (r *record) add(more []byte) {
	*r = append(*r, more[:min(len(more), MaxBytes+1-len(*r))]...)
}

// errBinary is the error of a record that is too large and has a NUL, as in the hole that
// a crash leaves in a file. What follows may be as large as the disk.
var errBinary = errors.New("it is not text but has bytes that are zero; write the file anew")

var errCut = errors.New("the text ends within a record; write the rest")

// entry returns the entry of the record.
func (r record) entry(place string) clients.Entry {
	e := clients.Entry{Record: r, Place: place}
	if len(r) > MaxBytes {
		e.Wrong = fmt.Errorf("the record has more than %d bytes; make it smaller", MaxBytes)
	}
	return e
}

// lineEntry returns the entry of a record that is a line. It says what is wrong if the file
// is one for people, or an array, which whoever parses the line cannot tell.
func (r record) lineEntry(place string) clients.Entry {
	e := r.entry(place)
	switch {
	case e.Wrong != nil:
	case r[0] == '[':
		e.Wrong = errors.New("an array instead of a record; write one record in each line, or name the file *.json")
	case r[0] == '{' && r[len(r)-1] != '}':
		e.Wrong = errors.New("the record does not end with its line; write each record in one line, and nothing after it")
	}
	return e
}

// check returns why what follows the record cannot be records.
func (r record) check() error {
	if len(r) > MaxBytes && bytes.IndexByte(r, 0) >= 0 {
		return errBinary
	}
	return nil
}

// failed is a sequence that ends with an error.
func failed(place string, err error) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) { yield(clients.Entry{Place: place}, err) }
}

// Lines returns the records of JSON Lines: one record in each line that is not blank.
// The place of an entry is the number of its line, and the text of its record is valid
// until the next one. It can be ranged over once. Text that ends within a record is an
// error, because nobody can tell what else is missing.
func Lines(r io.Reader) iter.Seq2[clients.Entry, error] {
	t, err := newText(r)
	if err != nil {
		return failed("", err)
	}
	return t.lines
}

func (t *text) lines(yield func(clients.Entry, error) bool) {
	for ; ; t.line++ {
		line, err := t.readLine()
		if errors.Is(err, io.EOF) && line.isCut() {
			err = errCut
		} else if len(line) > 0 && !yield(line.lineEntry(t.place()), nil) {
			return
		}
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			yield(clients.Entry{Place: t.place()}, err)
			return
		}
	}
}

// isCut reports whether an object begins and does not end. In the last line, it is what
// an export has left that failed in the middle, so more than this record is missing.
func (r record) isCut() bool {
	if len(r) > MaxBytes || !bytes.HasPrefix(r, []byte("{")) {
		return false
	}
	var s structure
	_, done, err := s.scan(r)
	return !done && err == nil
}

// readLine returns the next line without blanks around it. With [io.EOF] it is the last
// one, and with another error there is none.
func (t *text) readLine() (record, error) {
	line, err := t.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return t.readLongLine(line)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	line = bytes.TrimPrefix(line, byteOrderMark) // of a file that was appended to another
	line = bytes.Trim(line, blanks)
	return line[:min(len(line), MaxBytes+1)], err
}

// readLongLine reads the rest of a line that is larger than the buffer. It keeps blanks,
// because what follows them may not be kept.
func (t *text) readLongLine(start []byte) (record, error) {
	var line record
	line.add(start)
	if err := line.check(); err != nil {
		return nil, err
	}
	for {
		_, err := t.ReadSlice('\n')
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err == nil, errors.Is(err, io.EOF):
			return line, err
		default:
			return nil, err
		}
	}
}

// Detect returns the records of text that is a JSON array or JSON Lines, whichever it
// is. JSON Lines must begin with a record that has a client_id, because the answer of a
// server that is in trouble may be JSON too.
func Detect(r io.Reader) iter.Seq2[clients.Entry, error] {
	t, err := newText(r)
	if err != nil {
		return failed("", err)
	}
	first, err := t.skipBlanks()
	switch {
	case errors.Is(err, io.EOF):
		return failed("", errors.New("it is empty; write [] if there are no clients"))
	case err != nil:
		return failed(t.place(), err)
	case first == '[':
		return t.array
	case first == '{' && t.beginsWithClient():
		return t.lines
	}
	start, _ := t.Peek(min(t.Buffered(), 40))
	return failed(t.place(), fmt.Errorf("it is neither a JSON array of client records nor JSON Lines; it begins with %q", start))
}

// beginsWithClient reports whether the first line looks like the record of a client.
func (t *text) beginsWithClient() bool {
	start, _ := t.Peek(MaxBytes)
	line, _, _ := bytes.Cut(start, []byte("\n"))
	return bytes.Contains(line, []byte(`"client_id"`))
}

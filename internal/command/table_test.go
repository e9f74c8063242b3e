package command

import (
	"errors"
	"io"
	"strings"
	"testing"
	"unicode"
)

// TestTableAlignsByDisplayWidth checks that wide, combining and escaped characters do
// not move the columns.
func TestTableAlignsByDisplayWidth(t *testing.T) {
	var out strings.Builder
	table := newTable(&out, column{title: "ID"}, column{title: "COUNT", right: true}, column{title: "NAME", most: 8})
	table.row("日本", "1", "a")
	table.row("e\u0301te\u0301", "12345678", "b")
	table.row("\x1b[2J", "7", "012345678901")
	table.row("", "", "")
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	want := "" +
		"ID          COUNT  NAME\n" +
		"日本            1  a\n" +
		"e\u0301te\u0301      12345678  b\n" +
		"\\x1b[2J         7  01234567…\n" +
		"\n"
	if out.String() != want {
		t.Errorf("\n%s\nwant\n%s", out.String(), want)
	}
}

// TestTableHasOnlyPrintableText checks that no character that controls a terminal, or
// changes the order of the text on it, is left in a table.
func TestTableHasOnlyPrintableText(t *testing.T) {
	var out strings.Builder
	table := newTable(&out, column{title: "ID", most: 1 << 20})
	var all strings.Builder
	for r := rune(0); r <= 0x2100; r++ {
		all.WriteRune(r)
	}
	table.row(all.String() + "\ufeff\U000e0041\xff\x9b")
	if err := table.flush(); err != nil {
		t.Fatal(err)
	}
	for _, r := range out.String() {
		if r != '\n' && !unicode.IsPrint(r) {
			t.Errorf("%U is in the table", r)
		}
	}
	if strings.Count(out.String(), "\n") != 2 {
		t.Error("a cell ends the line")
	}
}

// TestTableIsWrittenInBlocks checks that a long table is not held in memory, and that
// an error of the output is returned.
func TestTableIsWrittenInBlocks(t *testing.T) {
	var out strings.Builder
	table := newTable(&out, column{title: "ID"})
	for range 3 * tableBlock {
		table.row("x")
		if len(table.rows) > tableBlock {
			t.Fatalf("%d rows are held", len(table.rows))
		}
	}
	if err := table.flush(); err != nil || strings.Count(out.String(), "\n") != 3*tableBlock+1 {
		t.Errorf("%d lines, %v", strings.Count(out.String(), "\n"), err)
	}

	read, write := io.Pipe()
	_ = read.CloseWithError(io.ErrUnexpectedEOF)
	table = newTable(write, column{title: "ID"})
	for range 2 * tableBlock {
		table.row("x")
	}
	if err := table.flush(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the error is %v", err)
	}
}

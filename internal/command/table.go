package command

import (
	"io"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxCell bounds what a table shows of a value, in bytes, unless its column says
	// otherwise.
	maxCell = 60
	// maxClientID bounds a client ID in the output, in bytes.
	maxClientID = 256
	// tableBlock is how many rows are aligned with each other before they are written.
	// A table of a million clients is not held in memory.
	tableBlock = 500
)

// column is a column of a table.
type column struct {
	title string
	most  int  // bound of a cell, in bytes; 0 is maxCell
	right bool // aligned to the right, as numbers are
}

// table prints rows in columns. All commands print their tables with it, so nothing but
// printable text reaches the terminal: a cell is escaped and bounded.
type table struct {
	out     io.Writer
	columns []column
	widths  []int
	rows    [][]string
	err     error
}

// newTable returns a table whose first line has the titles.
func newTable(out io.Writer, columns ...column) *table {
	t := &table{out: out, columns: columns, widths: make([]int, len(columns))}
	titles := make([]string, len(columns))
	for i, c := range columns {
		titles[i] = c.title
	}
	t.row(titles...)
	return t
}

// row adds a row with a cell for each column.
func (t *table) row(cells ...string) {
	row := make([]string, len(t.columns))
	for i, cell := range cells {
		most := t.columns[i].most
		if most == 0 {
			most = maxCell
		}
		row[i] = source.Text(cell, most)
		t.widths[i] = max(t.widths[i], displayWidth(row[i]))
	}
	if t.rows = append(t.rows, row); len(t.rows) == tableBlock {
		_ = t.flush() // which the last call returns the error of
	}
}

// flush writes the rows, and returns the first error of the table.
func (t *table) flush() error {
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row {
			padding := strings.Repeat(" ", t.widths[i]-displayWidth(cell))
			if t.columns[i].right {
				line.WriteString(padding + cell + "  ")
			} else {
				line.WriteString(cell + padding + "  ")
			}
		}
		if t.err == nil {
			_, t.err = io.WriteString(t.out, strings.TrimRight(line.String(), " ")+"\n")
		}
	}
	t.rows = t.rows[:0]
	return t.err
}

// displayWidth returns how many cells of a terminal a printable text takes.
func displayWidth(text string) int {
	total := 0
	for _, r := range text {
		switch kind := width.LookupRune(r).Kind(); {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case kind == width.EastAsianWide, kind == width.EastAsianFullwidth:
			total += 2
		default:
			total++
		}
	}
	return total
}

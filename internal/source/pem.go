package source

import (
	"bytes"
	"encoding/pem"
	"fmt"
	"iter"
	"regexp"
)

// PEMBlock is a block of PEM text (RFC 7468), and the line where it begins.
type PEMBlock struct {
	*pem.Block
	Line int
}

// pemMark matches lines where a PEM block is meant to begin or end, including damaged
// and indented ones.
var pemMark = regexp.MustCompile(`(?m)^[ \t]*--+[ \t]*(?:BEGIN|END)[ -]`)

// PEMBlocks yields the blocks of PEM text. Where [pem.Decode] skips what it cannot
// parse, so that another block would be taken for it, PEMBlocks yields an error that
// names the line, and stops.
func PEMBlocks(text []byte) iter.Seq2[PEMBlock, error] {
	text = WithoutBOM(text)
	return func(yield func(PEMBlock, error) bool) {
		for rest := text; ; {
			block, after := pem.Decode(rest)
			if block == nil {
				after = nil
			}
			marks := pemMark.FindAllIndex(rest[:len(rest)-len(after)], 3)
			if len(marks) == 0 {
				return
			}
			line := 1 + bytes.Count(text[:len(text)-len(rest)+marks[0][0]], []byte("\n"))
			if block == nil || len(marks) != 2 {
				yield(PEMBlock{}, fmt.Errorf("line %d: a PEM block is damaged, cut off or indented; copy it again", line))
				return
			}
			if !yield(PEMBlock{block, line}, nil) {
				return
			}
			rest = after
		}
	}
}

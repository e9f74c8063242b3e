package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// addJSONFlag adds --json, which every command with an output for programs has.
func addJSONFlag(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("json", false, "Print JSON, for programs")
}

// printJSON prints a value as JSON with a member a line, as far as it is one that
// encoding/json can write.
func printJSON(out io.Writer, value any) error {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	return printIndented(out, text.Bytes())
}

// printRecord prints a JSON object of elsewhere with a member a line.
func printRecord(out io.Writer, record []byte) error {
	if !strictjson.Shows(record) {
		return errUnreadable(errors.New("it is not a JSON object of few levels; is Caddy there?"))
	}
	return printIndented(out, record)
}

func printIndented(out io.Writer, record []byte) error {
	var text bytes.Buffer
	if err := json.Indent(&text, bytes.TrimSpace(record), "", "\t"); err != nil {
		return errUnreadable(err)
	}
	_, err := fmt.Fprintln(out, printable(text.String()))
	return err
}

// printLine prints JSON in a line.
func printLine(out io.Writer, value json.RawMessage) error {
	var line bytes.Buffer
	if err := json.Compact(&line, value); err != nil {
		return errUnreadable(err)
	}
	_, err := fmt.Fprintln(out, printable(line.String()))
	return err
}

// errUnreadable returns the error for an answer of the admin API that is not what it
// should be.
func errUnreadable(err error) error {
	return fmt.Errorf("the answer of the admin API cannot be read: %w", err)
}

// printable returns the same JSON for a terminal: characters that control it, or cannot be
// seen, are escaped. They can only be in strings.
func printable(text string) string {
	var out strings.Builder
	for _, r := range text {
		if r < 0x7f || strconv.IsPrint(r) {
			out.WriteRune(r)
			continue
		}
		for _, unit := range utf16.AppendRune(nil, r) {
			fmt.Fprintf(&out, `\u%04x`, unit)
		}
	}
	return out.String()
}

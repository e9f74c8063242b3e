package postgres

import (
	"errors"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// DefaultTable is the name of the table of clients, unless the configuration names one.
const DefaultTable = "mtls_clients"

const (
	// maxIdentifier is how long PostgreSQL lets names be, in bytes, and maxSuffix how
	// long what is appended to the name of the table for others.
	maxIdentifier = 63
	maxSuffix     = len("_deleted_changed")
	tableRemedy   = "write it as SQL does, as in mtls_clients, partners.clients or \"Partners\".\"Clients\""
)

// tableName is the name of the table of clients, with or without a schema.
type tableName pgx.Identifier

// parseTable parses the name of a table. The error names it.
func parseTable(text string) (tableName, error) {
	name, err := parseName(text)
	if err != nil {
		return nil, fmt.Errorf("table '%s': %w", source.Text(text, 2*maxIdentifier), err)
	}
	return name, nil
}

// parseName parses the name of a table as SQL does: names without quotes are folded to
// lower case.
func parseName(text string) (tableName, error) {
	var name tableName
	for rest := text; ; {
		part, after, err := cutIdentifier(rest)
		if err != nil {
			return nil, fmt.Errorf("%w; %s", err, tableRemedy)
		}
		name = append(name, part)
		if after == "" {
			break
		}
		rest = after[1:]
	}
	switch {
	case len(name) > 2:
		return nil, errors.New("it has more than a schema and a name; " + tableRemedy)
	case len(name.base()) > maxIdentifier-maxSuffix:
		return nil, fmt.Errorf("it is longer than %d bytes; choose a shorter name", maxIdentifier-maxSuffix)
	}
	return name, nil
}

// cutIdentifier returns the identifier that a text begins with, and what follows: nothing
// or a dot and more.
func cutIdentifier(text string) (identifier, rest string, err error) {
	if strings.HasPrefix(text, `"`) {
		identifier, rest, err = cutQuoted(text[1:])
	} else {
		end := strings.IndexByte(text+".", '.')
		identifier, rest = strings.ToLower(text[:end]), text[end:]
		for i, c := range identifier {
			if !isLetter(c) && (i == 0 || !isDigit(c) && c != '$') {
				return "", "", fmt.Errorf("%q needs double quotes around the name", c)
			}
		}
	}
	switch {
	case err != nil:
	case identifier == "":
		err = errors.New("a name is empty")
	case strings.IndexByte(identifier, 0) >= 0:
		err = errors.New("a name has a NUL")
	case len(identifier) > maxIdentifier:
		err = fmt.Errorf("a name is longer than %d bytes", maxIdentifier)
	case rest != "" && rest[0] != '.':
		err = errors.New("text after the closing quote")
	}
	return identifier, rest, err
}

// cutQuoted is cutIdentifier after the opening quote. Two quotes are one in the name.
func cutQuoted(text string) (identifier, rest string, err error) {
	for {
		before, after, closed := strings.Cut(text, `"`)
		if !closed {
			return "", "", errors.New("a closing quote is missing")
		}
		identifier += before
		if !strings.HasPrefix(after, `"`) {
			return identifier, after, nil
		}
		identifier, text = identifier+`"`, after[1:]
	}
}

func isLetter(c rune) bool { return c >= 'a' && c <= 'z' || c == '_' }

func isDigit(c rune) bool { return c >= '0' && c <= '9' }

// base returns the name without the schema.
func (t tableName) base() string { return t[len(t)-1] }

// String returns the name as SQL has it, in quotes.
func (t tableName) String() string { return pgx.Identifier(t).Sanitize() }

// with returns the name of what belongs to the table and is in its schema.
func (t tableName) with(suffix string) tableName {
	name := append(tableName{}, t...)
	name[len(name)-1] += suffix
	return name
}

// deleted returns the name of the table that has the clients which were deleted.
func (t tableName) deleted() tableName { return t.with("_deleted") }

// shown returns the name as the configuration has it, without quotes that it does not
// need.
func (t tableName) shown() string {
	parts := make([]string, len(t))
	for i, part := range t {
		parts[i] = part
		if first, rest, err := cutIdentifier(part); err != nil || rest != "" || first != part {
			parts[i] = pgx.Identifier{part}.Sanitize()
		}
	}
	return strings.Join(parts, ".")
}

package refusals

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// errorIDLength and errorIDLetters are those of Caddy's error ids.
	errorIDLength  = 9
	errorIDLetters = "abcdefghijkmnpqrstuvwxyz23456789"
	// maxPasted bounds the text in which an error id is looked for, in bytes.
	maxPasted = 64 << 10
	// maxShownID bounds what an error shows of a text that is not an error id, in bytes.
	maxShownID = 60
)

// markedErrorID matches an error id in a response, a header or a log line.
var markedErrorID = regexp.MustCompile(`err(?:or)?[\s_-]*id[^\pL\pN]*([\pL\pN]+)`)

// ErrorIDIn returns the error id in a text that somebody has pasted: what follows the
// words error id, or else all letters and digits of it.
func ErrorIDIn(text string) (string, error) {
	if len(text) > maxPasted {
		return "", fmt.Errorf("the text has %d bytes; give the error id alone", len(text))
	}
	text = strings.ToLower(text)
	id := strings.Map(func(r rune) rune {
		if unicode.IsLetter(r) || unicode.IsDigit(r) {
			return r
		}
		return -1
	}, text)
	if match := markedErrorID.FindStringSubmatch(text); match != nil {
		id = match[1]
	}
	if id == "" {
		return "", errors.New("no error id; it is in the body of the response, and in the header WWW-Authenticate of a 401")
	}
	if len(id) != errorIDLength || strings.Trim(id, errorIDLetters) != "" {
		return "", fmt.Errorf("'%s' cannot be an error id; it has %d characters of a-z, without l and o, and 2-9, such as 7gsx4nkp2", source.Text(id, maxShownID), errorIDLength)
	}
	return id, nil
}

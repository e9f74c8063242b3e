package source

import (
	"encoding/base64"
	"errors"
	"regexp"
)

// libraryNames match what libraries put before the text of an error.
var libraryNames = regexp.MustCompile(`\b(?:x509|asn1|tls|pkcs12|json|go-jose/go-jose): (?:(?:structure|syntax) error: )?`)

// Plain returns the text of an error without the names of the libraries that it came
// through, fit for a log: bounded, escaped, and without passwords of URLs.
func Plain(err error, most int) string {
	if corrupt := base64.CorruptInputError(0); errors.As(err, &corrupt) {
		return "not base64"
	}
	return Text(WithoutPasswords(libraryNames.ReplaceAllString(err.Error(), "")), most)
}

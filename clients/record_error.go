package clients

import (
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxRecordErrorText bounds what is said about a wrong record, which it may quote, in
// bytes.
const maxRecordErrorText = 1200

// RecordError is what is wrong with a record of a source.
type RecordError struct {
	// Place says where the record is, as in "line 17", or "".
	Place string
	// ClientID is the client_id of the record, or "" if it cannot be told.
	ClientID string
	Err      error
}

// Error names the place and the client, and says what is wrong. It is fit for a log.
func (e *RecordError) Error() string {
	text := source.Text(e.Err.Error(), maxRecordErrorText)
	if name := "client '" + e.ClientID + "'"; e.ClientID != "" && !strings.HasPrefix(text, name) {
		text = fmt.Sprintf("%s: %s", name, text)
	}
	if e.Place != "" {
		text = source.Text(e.Place, maxRecordErrorText) + ": " + text
	}
	return text
}

// Unwrap returns what is wrong.
func (e *RecordError) Unwrap() error { return e.Err }

// Fields returns the fields of a log line.
func (e *RecordError) Fields() (fields []zap.Field) {
	if e.Place != "" {
		fields = append(fields, zap.String("record", source.Text(e.Place, maxRecordErrorText)))
	}
	if e.ClientID != "" {
		fields = append(fields, zap.String("client_id", e.ClientID))
	}
	return fields
}

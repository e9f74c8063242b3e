package tokens

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
)

// The error codes of the endpoints.
const (
	CodeInvalidRequest       = "invalid_request"        // RFC 6749 §5.2
	CodeInvalidClient        = "invalid_client"         // RFC 6749 §5.2
	CodeUnsupportedGrantType = "unsupported_grant_type" // RFC 6749 §5.2
	CodeInvalidScope         = "invalid_scope"          // RFC 6749 §5.2
	CodeInvalidTarget        = "invalid_target"         // RFC 8707 §2
	CodeUnsupportedTokenType = "unsupported_token_type" // RFC 7009 §2.2.1

	// RFC 6749 §4.1.2.1 defines these for the authorization endpoint; client
	// libraries know them.
	CodeServerError            = "server_error"
	CodeTemporarilyUnavailable = "temporarily_unavailable"
)

// retryAfter is how long a caller should wait, in seconds, while there are no
// signing keys.
const retryAfter = "5"

// Error is an OAuth 2.0 error response (RFC 6749 §5.2). Functions of this
// package return it as *Error: compare it with nil before converting it to an
// error.
type Error struct {
	// Status is the HTTP status code.
	Status int
	// Code is the `error` member, one of the Code constants.
	Code string
	// Description is the `error_description` member. It never repeats what
	// the caller sent.
	Description string
	// Header holds further header fields, such as Allow, WWW-Authenticate
	// and Retry-After. It may be nil.
	Header http.Header
	// Cause is why it happened, for the log; it is not written to the
	// response. It may be nil.
	Cause error
}

// NewError returns the error response of a code, with its status: 500 for
// server_error, 503 for temporarily_unavailable, and 400 for all others.
func NewError(code, description string) *Error {
	status := http.StatusBadRequest
	switch code {
	case CodeServerError:
		status = http.StatusInternalServerError
	case CodeTemporarilyUnavailable:
		status = http.StatusServiceUnavailable
	}
	return &Error{Status: status, Code: code, Description: description}
}

// Error returns code, description and cause, for a log.
func (e *Error) Error() string {
	text := e.Code
	if e.Description != "" {
		text += ": " + e.Description
	}
	if e.Cause != nil {
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

func (e *Error) withCause(cause error) *Error {
	e.Cause = cause
	return e
}

func (e *Error) withHeader(name, value string) *Error {
	e.Header = http.Header{}
	e.Header.Set(name, value)
	return e
}

// InvalidClient returns the error response for a client that is not
// authenticated. Its status is 400, because a 401 must have a challenge (RFC
// 9110 §15.5.2), and no scheme stands for a client certificate. challenge makes it
// 401 with a Basic challenge, which clients get that sent an Authorization header
// (RFC 6749 §5.2) or asked for introspection (RFC 7662 §2.3).
func InvalidClient(description string, challenge bool) *Error {
	e := NewError(CodeInvalidClient, description)
	if challenge {
		e.Status = http.StatusUnauthorized
		e = e.withHeader("WWW-Authenticate", `Basic realm="token endpoint"`)
	}
	return e
}

func unavailable(cause error) *Error {
	return NewError(CodeTemporarilyUnavailable, "the signing keys are not available, try again later").
		withCause(cause).withHeader("Retry-After", retryAfter)
}

// WriteError writes e as the response: JSON that must not be stored (RFC 6749
// §5.2). errorID, if any, is appended to the description, so that a caller can
// quote it to the operator, who finds it in the log.
func WriteError(w http.ResponseWriter, e *Error, errorID string) {
	description := e.Description
	if errorID != "" {
		description = strings.TrimSpace(fmt.Sprintf("%s (error id: %s)", description, errorID))
	}
	maps.Copy(w.Header(), e.Header)
	writeJSON(w, e.Status, struct {
		Code        string `json:"error"`
		Description string `json:"error_description,omitempty"`
	}{e.Code, printable(description)})
}

// WriteToken writes t as the response: JSON that must not be stored (RFC 6749
// §5.1).
func WriteToken(w http.ResponseWriter, t *TokenResponse) {
	writeJSON(w, http.StatusOK, t)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	header := w.Header()
	header.Set("Content-Type", "application/json")
	noStore(header)
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

func noStore(header http.Header) {
	header.Set("Cache-Control", "no-store")
	header.Set("Pragma", "no-cache")
}

// printable replaces the characters that RFC 6749 §5.2 does not allow in
// error_description.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e || r == '"' || r == '\\' {
			return '?'
		}
		return r
	}, s)
}

package clientsapi

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/jwks"
	"github.com/caddymtls/caddy-mtls-auth/internal/mergepatch"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// The members of a record in which a secret may be: in the user name, the password or
// the query of the URL, and in a key whose private part somebody has left there.
const (
	memberJWKSURI = "jwks_uri"
	memberJWKS    = "jwks"
)

// view is a record as it is compared and shown.
type view struct {
	record []byte // canonical
	etag   string
	shown  []byte // without secrets
	uri    string // jwks_uri as it is
}

// newView returns the view of a record. One that is not an object, which can only be in
// a source that somebody else writes, is shown as null.
func newView(record []byte) *view {
	text, err := mergepatch.Canonical(record)
	if err != nil {
		text = record
	}
	sum := sha256.Sum256(withPlainNumbers(text))
	v := &view{record: text, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:18]) + `"`, shown: []byte("null")}
	var members map[string]json.RawMessage
	if err != nil || json.Unmarshal(text, &members) != nil || members == nil {
		return v
	}
	v.shown = text
	if json.Unmarshal(members[memberJWKSURI], &v.uri) == nil && v.uri != "" {
		if shown := shownURI(v.uri); shown != v.uri {
			v.shown = withURI(text, shown)
		}
	}
	if public, private := jwks.Public(members[memberJWKS]); private {
		v.shown = withJWKS(v.shown, public)
	}
	return v
}

// withJWKS returns the record with another jwks.
func withJWKS(record []byte, set json.RawMessage) []byte {
	var members map[string]json.RawMessage
	if json.Unmarshal(record, &members) != nil {
		return nil
	}
	members[memberJWKS] = set
	return encoded(members)
}

// withPlainNumbers returns a canonical record with each number in one form, because a
// database may write it in another: PostgreSQL writes 1e2 as 100.
func withPlainNumbers(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for start, end := 0, 0; start < len(text); start = end {
		end++
		switch c := text[start]; {
		case c == '"':
			for ; end < len(text) && text[end] != '"'; end++ {
				if text[end] == '\\' {
					end++
				}
			}
			end = min(end+1, len(text))
		case c == '-' || c >= '0' && c <= '9':
			for end < len(text) && strings.IndexByte("0123456789.eE+-", text[end]) >= 0 {
				end++
			}
			out = append(out, plainNumber(string(text[start:end]))...)
			continue
		}
		out = append(out, text[start:end]...)
	}
	return out
}

// plainNumber returns a number as its digits and the power of ten after "0.".
func plainNumber(number string) string {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(number), "e")
	power, err := strconv.ParseInt(cmp.Or(exponent, "0"), 10, 32)
	if err != nil {
		return number // no database has room for it
	}
	mantissa, isNegative := strings.CutPrefix(mantissa, "-")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	digits := strings.TrimLeft(whole+fraction, "0")
	power += int64(len(digits) - len(fraction))
	if digits = strings.TrimRight(digits, "0"); digits == "" {
		return "0"
	}
	if isNegative {
		digits = "-" + digits
	}
	return digits + "e" + strconv.FormatInt(power, 10)
}

// leftOut stands for what is left out of a URL.
const leftOut = "…"

// shownURI returns a jwks_uri without secrets. It contains leftOut if there were any.
func shownURI(uri string) string {
	shown := source.ShownURL(uri)
	if shown != uri && !strings.Contains(shown, leftOut) {
		shown += leftOut // for the user name and password, or the fragment
	}
	return shown
}

// tag returns the ETag, "" if there is no record.
func (v *view) tag() string {
	if v == nil {
		return ""
	}
	return v.etag
}

// jwks returns the jwks of the record as it is, nil if there is none.
func (v *view) jwks() json.RawMessage {
	var members map[string]json.RawMessage
	if v == nil || json.Unmarshal(v.record, &members) != nil {
		return nil
	}
	return members[memberJWKS]
}

// withURI returns the record with another jwks_uri.
func withURI(record []byte, uri string) []byte {
	patch, err := json.Marshal(map[string]string{memberJWKSURI: uri})
	if err != nil {
		return nil
	}
	changed, err := mergepatch.Apply(record, patch, 2*maxRecord)
	if err != nil {
		return nil
	}
	return changed
}

// keepSecret returns the record that replaces the one of the view, which may be nil,
// with the same jwks_uri if it has the text that is shown instead of that, so that
// what was read can be sent back.
func (v *view) keepSecret(record []byte) ([]byte, error) {
	before := ""
	if v != nil {
		before = v.uri
	}
	var members struct {
		URI string `json:"jwks_uri"`
	}
	if json.Unmarshal(record, &members) != nil || members.URI == "" {
		return record, nil //nolint:nilerr // whoever checks the record says what is wrong with it
	}
	switch {
	case members.URI == before || !strings.Contains(members.URI, leftOut):
		return record, nil
	case members.URI == shownURI(before):
		return withURI(record, before), nil
	}
	return nil, apiError(http.StatusUnprocessableEntity, "jwks_uri has '%s', which answers have instead of secrets, but it is not the one that the client has; write the URL in full", leftOut)
}

package storagesource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/records"
	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// idMember is how the text of a record usually begins.
var idMember = []byte(`{"client_id":"`)

// recordID returns the client_id of a record. If that is its first member, as it is
// unless it has claims, the rest of the text is not looked at.
func recordID(text []byte) (string, error) {
	if rest, found := bytes.CutPrefix(text, idMember); found {
		if id, _, found := bytes.Cut(rest, []byte{'"'}); found && clients.CheckID(string(id)) == nil {
			return string(id), nil
		}
	}
	var record struct {
		ID *string `json:"client_id"`
	}
	if json.Unmarshal(text, &record) != nil || record.ID == nil {
		return "", errors.New("not a JSON object whose client_id is a string")
	}
	return *record.ID, clients.CheckID(*record.ID)
}

// oneLine returns the text of a client's record as it is stored: JSON without spaces
// between its values.
func oneLine(id string, text []byte) ([]byte, error) {
	if len(text) > records.MaxBytes {
		return nil, fmt.Errorf("%w: client '%s' has %d bytes; at most %d are allowed", clients.ErrBadRecord, id, len(text), records.MaxBytes)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, text); err != nil {
		return nil, fmt.Errorf("%w: client '%s' is not JSON: %w", clients.ErrBadRecord, id, err)
	}
	named, err := recordID(compact.Bytes())
	if err == nil {
		err = strictjson.Check(compact.Bytes(), records.MaxBytes)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: client '%s': %w", clients.ErrBadRecord, id, err)
	}
	if named != id {
		return nil, fmt.Errorf("%w: client '%s' has client_id '%s'; make them the same", clients.ErrBadRecord, id, named)
	}
	return compact.Bytes(), nil
}

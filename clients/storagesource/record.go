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

// recordID returns the client_id of a record. If that is its first member, which it
// is if this release wrote the record, the rest of the text is not looked at.
func recordID(text []byte) (string, error) {
	if rest, found := bytes.CutPrefix(text, idMember); found {
		if id, _, found := bytes.Cut(rest, []byte{'"'}); found && clients.CheckID(string(id)) == nil {
			return string(id), nil
		}
	}
	members, err := strictjson.Object(text, records.MaxBytes)
	if err != nil {
		return "", err
	}
	var id *string
	if json.Unmarshal(members["client_id"], &id) != nil || id == nil {
		return "", errors.New("client_id is missing or not a string")
	}
	if err := clients.CheckID(*id); err != nil {
		return "", err
	}
	return *id, nil
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
	if err != nil {
		return nil, fmt.Errorf("%w: client '%s': %w", clients.ErrBadRecord, id, err)
	}
	if named != id {
		return nil, fmt.Errorf("%w: client '%s' has client_id '%s'; make them the same", clients.ErrBadRecord, id, named)
	}
	return compact.Bytes(), nil
}

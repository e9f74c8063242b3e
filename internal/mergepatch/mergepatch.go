// Package mergepatch applies JSON Merge Patches (RFC 7396), strictly: no member may
// appear twice in an object of the patch or of what it changes.
package mergepatch

import (
	"bytes"
	"encoding/json"
	"fmt"

	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
)

// Apply returns the target as the patch changes it, in the form of [Canonical]. Both
// are JSON of at most maxBytes bytes. A nil target is one that does not exist.
func Apply(target, patch []byte, maxBytes int) ([]byte, error) {
	if target != nil {
		if err := strictjson.Check(target, maxBytes); err != nil {
			return nil, fmt.Errorf("what the patch is for: %w", err)
		}
	}
	if err := strictjson.Check(patch, maxBytes); err != nil {
		return nil, err
	}
	merged, err := merge(target, patch)
	if err != nil {
		return nil, err
	}
	return Canonical(merged)
}

// merge is MergePatch of RFC 7396 §2.
func merge(target, patch json.RawMessage) (json.RawMessage, error) {
	changes := object(patch)
	if changes == nil {
		return patch, nil
	}
	members := object(target)
	if members == nil {
		members = make(map[string]json.RawMessage, len(changes))
	}
	for name, change := range changes {
		if string(change) == "null" {
			delete(members, name)
			continue
		}
		var err error
		if members[name], err = merge(members[name], change); err != nil {
			return nil, err
		}
	}
	return encode(members)
}

// object returns the members of an object, and nil for any other value. The text must
// be valid, or empty.
func object(text json.RawMessage) map[string]json.RawMessage {
	var members map[string]json.RawMessage
	if json.Unmarshal(text, &members) != nil {
		return nil
	}
	return members
}

// Canonical returns the one text for all that differ only in white space, in the
// order of members, and in how characters are escaped. Numbers stay as they are
// written.
func Canonical(text []byte) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var value any
	if err := dec.Decode(&value); err != nil {
		return nil, err
	}
	return encode(value) // which sorts members
}

func encode(value any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// Package strictjson refuses JSON that encoding/json accepts silently.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const maxDepth = 32

// Check reports why raw is not one JSON value of at most maxBytes bytes: a
// member that appears twice in one object, nesting deeper than 32 levels, or
// text after the value. Names that differ only in case are different ones.
func Check(raw []byte, maxBytes int) error {
	if len(raw) > maxBytes {
		return fmt.Errorf("larger than %d bytes", maxBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("text after the JSON value; write one object")
	}
	return nil
}

// Object decodes one JSON object of at most maxBytes bytes into its members. It
// returns the errors of [Check], and one for any other JSON value. Unlike the
// fields of a struct, members are told apart by case.
func Object(raw []byte, maxBytes int) (map[string]json.RawMessage, error) {
	if err := Check(raw, maxBytes); err != nil {
		return nil, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil || members == nil {
		return nil, errors.New("not a JSON object")
	}
	return members, nil
}

// Members decodes one JSON object of a bounded number of members. It returns an error
// if a member appears twice in this object, and does not look into the values, so
// that it costs little.
func Members(raw []byte, most int) (map[string]json.RawMessage, error) {
	notAnObject := errors.New("not a JSON object")
	dec := json.NewDecoder(bytes.NewReader(raw))
	if token, err := dec.Token(); err != nil || token != json.Delim('{') {
		return nil, notAnObject
	}
	members := make(map[string]json.RawMessage)
	for dec.More() {
		if len(members) == most {
			return nil, fmt.Errorf("more than %d members", most)
		}
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		member, _ := name.(string)
		if _, twice := members[member]; twice {
			return nil, fmt.Errorf("duplicate member %.100q; keep one of the two", member)
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		members[member] = value
	}
	if token, err := dec.Token(); err != nil || token != json.Delim('}') {
		return nil, notAnObject
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text after the JSON value; write one object")
	}
	return members, nil
}

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("nested deeper than %d levels", maxDepth)
	}
	token, err := dec.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('{'):
		seen := make(map[string]struct{})
		for dec.More() {
			name, err := dec.Token()
			if err != nil {
				return err
			}
			// inside an object the decoder only yields strings here
			member, _ := name.(string)
			if _, twice := seen[member]; twice {
				return fmt.Errorf("duplicate member %.100q; keep one of the two", member)
			}
			seen[member] = struct{}{}
			if err := checkValue(dec, depth+1); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	case json.Delim('['):
		for dec.More() {
			if err := checkValue(dec, depth+1); err != nil {
				return err
			}
		}
		_, err = dec.Token()
	}
	return err
}

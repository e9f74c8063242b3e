package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

const (
	maxRecordBytes = 256 << 10
	maxRecordDepth = 32
)

// checkMembers refuses what encoding/json lets pass in silence: a member that
// appears twice in one object, deep nesting, and anything after the value.
// Two members that differ only in case are caught later, as unknown ones.
func checkMembers(raw []byte, limit int) error {
	if len(raw) > limit {
		return fmt.Errorf("larger than %d bytes", limit)
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

func checkValue(dec *json.Decoder, depth int) error {
	if depth > maxRecordDepth {
		return fmt.Errorf("nested deeper than %d levels", maxRecordDepth)
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
				return fmt.Errorf("duplicate member %q; keep one of the two", member)
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

package syntax

import (
	"bytes"
	"encoding/json"
)

// ClaimText returns the value of a claim as a placeholder shows it: a string as
// it is, any other value as compact JSON, and "" for what is not JSON.
func ClaimText(value json.RawMessage) string {
	var text *string
	if json.Unmarshal(value, &text) == nil && text != nil {
		return *text
	}
	var compact bytes.Buffer
	if json.Compact(&compact, value) != nil {
		return ""
	}
	return compact.String()
}

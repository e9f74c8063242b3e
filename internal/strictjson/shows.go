package strictjson

import (
	"bytes"
	"encoding/json"
)

// Shows reports whether raw is a JSON object that can be shown, indented: a few thousand
// levels would fill a terminal with megabytes. What [Check] refuses for another reason is
// shown, so that a person sees it.
func Shows(raw []byte) bool {
	if !json.Valid(raw) || bytes.TrimLeft(raw, " \t\r\n")[0] != '{' {
		return false
	}
	levels, decoder := 0, json.NewDecoder(bytes.NewReader(raw))
	for levels <= maxDepth {
		token, err := decoder.Token()
		if err != nil { // the end
			return true
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			levels++
		case json.Delim('}'), json.Delim(']'):
			levels--
		}
	}
	return false
}

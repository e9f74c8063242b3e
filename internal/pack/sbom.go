package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// object is a JSON object.
type object = map[string]any

// completeBOM completes an SBOM of cyclonedx-gomod, which is about a binary made of these
// modules: it adds the licenses and the time, and removes what depends on the machine.
func completeBOM(text []byte, modules []*module, at time.Time) ([]byte, error) {
	var bom object
	if err := json.Unmarshal(text, &bom); err != nil {
		return nil, err
	}
	metadata, _ := bom["metadata"].(object)
	program, ok := metadata["component"].(object)
	if !ok {
		return nil, errors.New("it does not say what it is about")
	}
	program["licenses"] = licenseList("Apache-2.0")
	metadata["timestamp"] = at.Format(time.RFC3339)
	tools, _ := metadata["tools"].([]any)
	for _, tool := range tools {
		if tool, ok := tool.(object); ok {
			delete(tool, "hashes") // go run builds the tool anew on each machine
		}
	}

	unused := make(map[string]*module, len(modules))
	for _, m := range modules {
		unused[m.path+"@"+m.version] = m
	}
	components, _ := bom["components"].([]any)
	for _, component := range components {
		component, _ := component.(object)
		name := fmt.Sprintf("%v@%v", component["name"], component["version"])
		m := unused[name]
		if m == nil {
			return nil, fmt.Errorf("it has %s, which is not among the packages that were built", name)
		}
		delete(unused, name)
		component["evidence"] = object{"licenses": licenseList(m.licenses...)}
	}
	for name := range unused {
		return nil, fmt.Errorf("it lacks %s", name)
	}

	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(bom)
	return out.Bytes(), err
}

func licenseList(ids ...string) []object {
	list := make([]object, 0, len(ids))
	for _, id := range ids {
		list = append(list, object{"license": object{"id": id}})
	}
	return list
}

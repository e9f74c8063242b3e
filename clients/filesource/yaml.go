package filesource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxYAML is the size of the largest YAML file, in bytes. Unlike the other formats,
	// YAML is in memory as a whole, in many times its size.
	maxYAML = 8 << 20
	// maxYAMLDepth is how deep values may be nested, as in a JSON record.
	maxYAMLDepth = 32
)

// yamlRecords returns the records of YAML: lists of records, or single ones, in one or
// more documents. What YAML has in addition to JSON, and what it may read as something
// else than its author meant, is wrong. So a record means what it would mean in JSON.
func yamlRecords(r io.Reader) iter.Seq2[clients.Entry, error] {
	return func(yield func(clients.Entry, error) bool) {
		content, err := io.ReadAll(io.LimitReader(r, maxYAML+1))
		if err == nil && len(content) > maxYAML {
			err = fmt.Errorf("a YAML file has at most %d bytes; write many clients as JSON Lines", maxYAML)
		}
		if err != nil {
			yield(clients.Entry{}, err)
			return
		}
		someList := false
		for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
			document, err := decodeYAML(decoder)
			if errors.Is(err, io.EOF) {
				if !someList {
					yield(clients.Entry{}, errNoRecord)
				}
				return
			}
			var records []*yaml.Node
			if err == nil {
				records, err = recordsOf(document)
			}
			someList = someList || records != nil
			if err != nil {
				yield(yamlError(err))
				return
			}
			for _, record := range records {
				if !yield(yamlEntry(record), nil) {
					return
				}
			}
		}
	}
}

// decodeYAML reads the next document.
func decodeYAML(decoder *yaml.Decoder) (document *yaml.Node, err error) {
	defer source.Recover("reading YAML", &err)
	document = new(yaml.Node)
	return document, decoder.Decode(document)
}

// nodeError is an error about a part of a YAML file.
type nodeError struct {
	line int
	text string
}

func (e *nodeError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.text) }

func wrongNode(node *yaml.Node, format string, args ...any) error {
	return &nodeError{node.Line, fmt.Sprintf(format, args...)}
}

// lineOfError matches how errors of the parser begin.
var lineOfError = regexp.MustCompile(`^(?:yaml: )?(line \d+): `)

// yamlError returns an error about the structure, with the place that it names.
func yamlError(err error) (clients.Entry, error) {
	text := err.Error()
	match := lineOfError.FindStringSubmatch(text)
	if match == nil {
		return clients.Entry{}, errors.New(strings.TrimPrefix(text, "yaml: "))
	}
	return clients.Entry{Place: match[1]}, errors.New(strings.TrimPrefix(text, match[0]))
}

// recordsOf returns the records of a document.
func recordsOf(document *yaml.Node) ([]*yaml.Node, error) {
	root := document.Content[0]
	if err := checkPlain(root); err != nil {
		return nil, err
	}
	switch {
	case root.Kind == yaml.SequenceNode:
		return append([]*yaml.Node{}, root.Content...), nil
	case root.Kind == yaml.MappingNode:
		return []*yaml.Node{root}, nil
	case root.ShortTag() == "!!null" && root.Value == "":
		return nil, nil // nothing but comments
	}
	return nil, wrongNode(root, `the document is neither a list of records nor a record; write the records as "- client_id: …"`)
}

// yamlEntry returns the entry of a record.
func yamlEntry(record *yaml.Node) clients.Entry {
	entry := clients.Entry{Place: fmt.Sprintf("line %d", record.Line)}
	text, err := appendJSON(nil, record, 1)
	if err == nil {
		entry.Record = text
		return entry
	}
	if at := new(nodeError); errors.As(err, &at) && at.line == record.Line {
		err = errors.New(at.text)
	}
	entry.ID, entry.Wrong = clientID(record), err
	return entry
}

// clientID returns the client_id of a record that is wrong, "" if it cannot be told.
func clientID(record *yaml.Node) (id string) {
	for i := 0; i+1 < len(record.Content); i += 2 {
		if key, value := record.Content[i], record.Content[i+1]; key.Value == "client_id" && value.Kind == yaml.ScalarNode {
			if id != "" {
				return ""
			}
			id = value.Value
		}
	}
	return id
}

// checkPlain refuses what JSON does not have.
func checkPlain(node *yaml.Node) error {
	switch {
	case node.Kind == yaml.AliasNode || node.Anchor != "":
		return wrongNode(node, "an anchor or alias; write the value itself")
	case node.Style&yaml.TaggedStyle != 0:
		return wrongNode(node, "a tag %s; remove it", source.Text(node.ShortTag(), 100))
	}
	return nil
}

// appendJSON appends the JSON text of a value.
func appendJSON(to []byte, node *yaml.Node, depth int) ([]byte, error) {
	if err := checkPlain(node); err != nil {
		return nil, err
	}
	if depth > maxYAMLDepth {
		return nil, wrongNode(node, "values are nested deeper than %d levels", maxYAMLDepth)
	}
	switch node.Kind {
	case yaml.MappingNode:
		return appendObject(to, node, depth)
	case yaml.SequenceNode:
		to = append(to, '[')
		for i, item := range node.Content {
			if i > 0 {
				to = append(to, ',')
			}
			var err error
			if to, err = appendJSON(to, item, depth+1); err != nil {
				return nil, err
			}
		}
		return append(to, ']'), nil
	}
	return appendScalar(to, node)
}

func appendObject(to []byte, node *yaml.Node, depth int) ([]byte, error) {
	to = append(to, '{')
	known := make(map[string]bool, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if err := checkPlain(key); err != nil {
			return nil, err
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			return nil, wrongNode(key, "member %s is not a string; put it in quotes", shownNode(key))
		}
		if known[key.Value] {
			return nil, wrongNode(key, "duplicate member %s; keep one", shownNode(key))
		}
		known[key.Value] = true
		if i > 0 {
			to = append(to, ',')
		}
		to = append(appendString(to, key.Value), ':')
		var err error
		if to, err = appendJSON(to, value, depth+1); err != nil {
			return nil, err
		}
	}
	return append(to, '}'), nil
}

// appendScalar appends a string, a number, true, false or null. Plain text that some
// reader of YAML takes for something else is refused.
func appendScalar(to []byte, node *yaml.Node) ([]byte, error) {
	switch tag := node.ShortTag(); {
	case tag == "!!str" && node.Style == 0 && isWord(node.Value):
		return nil, wrongNode(node, "%s is a string or a truth value; write true or false, or put it in quotes", shownNode(node))
	case tag == "!!str":
		return appendString(to, node.Value), nil
	case tag == "!!null" && node.Value != "null":
		return nil, wrongNode(node, `a member or item has no value; give it one, such as "", or remove it`)
	case (tag == "!!null" || tag == "!!bool" || tag == "!!int" || tag == "!!float") && json.Valid([]byte(node.Value)):
		return append(to, node.Value...), nil
	}
	return nil, wrongNode(node, "%s is not a value of JSON; put it in quotes if it is a string", shownNode(node))
}

// isWord reports whether text is a truth value for readers of YAML 1.1.
func isWord(text string) bool {
	switch strings.ToLower(text) {
	case "yes", "no", "on", "off":
		return true
	}
	return false
}

func shownNode(node *yaml.Node) string { return fmt.Sprintf("%.40q", node.Value) }

func appendString(to []byte, text string) []byte {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	_ = encoder.Encode(text) // cannot fail for a string
	return append(to, bytes.TrimSuffix(buffer.Bytes(), []byte("\n"))...)
}

// Package check finds what is wrong in a configuration, for `caddy mtls check`. It has the
// table of the warnings of the load, from which its findings and the documentation come.
package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// Severity says how much a finding matters.
type Severity string

// The severities.
const (
	// Error stops the load.
	Error Severity = "error"
	// Warning loads, but is probably not what was meant, or will not last.
	Warning Severity = "warning"
	// Note is good to know.
	Note Severity = "note"
)

const (
	// maxPlace and maxSentence bound the texts of a finding, in bytes.
	maxPlace    = 200
	maxSentence = 1000
	// maxFindings bounds the findings of a severity. Otherwise, a thousand warnings could
	// hide an error.
	maxFindings = 1000
)

// Finding is something that is wrong in a configuration, or will be.
type Finding struct {
	Severity Severity `json:"severity"`
	// Code is one of [Codes].
	Code string `json:"code"`
	// Place is the file and line if the adapter knows, or the realm, client or site.
	Place    string `json:"place"`
	Sentence string `json:"sentence"`
	Remedy   string `json:"remedy,omitempty"`
}

// Findings collects findings. It is also a core of a logger, for the warnings of the
// load.
type Findings struct {
	list []Finding
	seen map[Finding]struct{}
	more map[Severity]int // how many were left out
	// Skip returns whether to leave out a finding, because it would only follow from
	// what is not known here. Unless nil.
	Skip func(code, realm string) bool
}

// Add adds a finding, once.
func (f *Findings) Add(code, place, format string, args ...any) {
	f.add(code, place, fmt.Sprintf(format, args...), "")
}

func (f *Findings) add(code, place, sentence, remedy string) {
	rule := Codes[code]
	finding := Finding{
		Severity: rule.Severity, Code: code, Place: source.Text(place, maxPlace),
		Sentence: source.Text(source.WithoutPasswords(sentence), maxSentence), Remedy: asSentence(cmp.Or(remedy, rule.Remedy)),
	}
	if f.seen == nil {
		f.seen, f.more = make(map[Finding]struct{}), make(map[Severity]int)
	}
	if _, twice := f.seen[finding]; twice {
		return
	}
	f.seen[finding] = struct{}{}
	if Count(f.list, finding.Severity) == maxFindings {
		f.more[finding.Severity]++
		return
	}
	f.list = append(f.list, finding)
}

// asSentence returns a remedy, which a log line and an error have as a part, as a sentence.
func asSentence(remedy string) string {
	if remedy == "" {
		return ""
	}
	if word, _, _ := strings.Cut(remedy, " "); !strings.Contains(word, "_") { // a name stays as it is
		first, size := utf8.DecodeRuneInString(remedy)
		remedy = string(unicode.ToUpper(first)) + remedy[size:]
	}
	if strings.HasSuffix(remedy, ".") || strings.HasSuffix(remedy, "?") {
		return remedy
	}
	return remedy + "."
}

// AddError adds an error of the load, whose remedy follows a semicolon. Its place is
// that which the adapter has found, if it has.
func (f *Findings) AddError(place string, err error) {
	text := err.Error()
	if before, at, ok := cutLast(text, ", at "); ok && strings.Contains(at, ":") && !strings.Contains(at, " ") {
		text, place = before, at
	}
	remedy := ""
	if before, after, ok := cutLast(text, "; "); ok {
		text, remedy = before, source.Text(after, maxSentence)
	}
	f.add(codeLoad, place, text, remedy)
}

func cutLast(text, separator string) (before, after string, found bool) {
	if i := strings.LastIndex(text, separator); i >= 0 {
		return text[:i], text[i+len(separator):], true
	}
	return text, "", false
}

// Len returns how many findings there are.
func (f *Findings) Len() int { return len(f.list) }

// Sorted returns the findings, the gravest first.
func (f *Findings) Sorted() []Finding {
	order := map[Severity]int{Error: 0, Warning: 1, Note: 2}
	list := slices.Clone(f.list)
	for severity, code := range map[Severity]string{Error: codeLoad, Warning: codeWarning, Note: CodeUnread} {
		if more := f.more[severity]; more > 0 {
			list = append(list, Finding{severity, code, "", fmt.Sprintf("there are %d more of this severity", more), "Mend those that are listed, and check again."})
		}
	}
	slices.SortStableFunc(list, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(order[a.Severity], order[b.Severity]), cmp.Compare(a.Place, b.Place))
	})
	return list
}

// Count returns how many findings have a severity.
func Count(list []Finding, severity Severity) (n int) {
	for _, finding := range list {
		if finding.Severity == severity {
			n++
		}
	}
	return n
}

// Logger returns a logger whose warnings and errors become findings.
func (f *Findings) Logger() *zap.Logger { return zap.New(&core{findings: f}) }

// core is a [zapcore.Core].
type core struct {
	findings *Findings
	fields   []zapcore.Field
}

// Enabled implements [zapcore.LevelEnabler].
func (*core) Enabled(level zapcore.Level) bool { return level >= zapcore.WarnLevel }

// With implements [zapcore.Core].
func (c *core) With(fields []zapcore.Field) zapcore.Core {
	return &core{c.findings, slices.Concat(c.fields, fields)}
}

// Check implements [zapcore.Core].
func (c *core) Check(entry zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(entry.Level) {
		return checked.AddCore(entry, c)
	}
	return checked
}

// Sync implements [zapcore.Core].
func (*core) Sync() error { return nil }

// Write implements [zapcore.Core].
func (c *core) Write(entry zapcore.Entry, fields []zapcore.Field) error {
	encoder := zapcore.NewMapObjectEncoder()
	for _, field := range slices.Concat(c.fields, fields) {
		field.AddTo(encoder)
	}
	values := encoder.Fields
	code := codeOf(entry.Message)
	realm, _ := values["realm"].(string)
	if c.findings.Skip != nil && c.findings.Skip(code, realm) {
		return nil
	}
	message, remedy, _ := strings.Cut(entry.Message, "; ")
	if hint, ok := values["hint"].(string); ok {
		remedy = hint
	}
	c.findings.add(code, placeOf(values), message+details(values), cmp.Or(remedy, Codes[code].Remedy))
	return nil
}

// placeFields say where something is.
var placeFields = []string{"realm", "client_id", "hosts", "listen", "directive", "file", "place"}

func placeOf(values map[string]any) string {
	var parts []string
	for _, name := range placeFields {
		text := valueText(values[name])
		if text == "" || name == "listen" && valueText(values["hosts"]) != "" { // hosts say it better
			continue
		}
		parts = append(parts, strings.TrimSuffix(name, "_id")+" "+text)
	}
	return strings.Join(parts, ", ")
}

// details returns the other values of a log line.
func details(values map[string]any) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if text := valueText(values[name]); text != "" && !slices.Contains(placeFields, name) && !slices.Contains([]string{"hint", "all_paths"}, name) {
			parts = append(parts, name+" "+text)
		}
	}
	if len(parts) == 0 {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func valueText(value any) string {
	switch value := value.(type) {
	case nil:
		return ""
	case []any:
		var parts []string
		for _, one := range value {
			parts = append(parts, fmt.Sprint(one))
		}
		return strings.Join(parts, " ")
	}
	return fmt.Sprint(value)
}

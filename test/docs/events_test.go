package docs_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func init() { caddy.RegisterModule(new(execHandler)) }

// execHandler has the syntax of the third-party event handler `exec`, for the snippets.
type execHandler struct {
	Command string   `json:"command,omitempty"`
	Args    []string `json:"args,omitempty"`
}

// CaddyModule returns the module's ID.
func (*execHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.exec", New: func() caddy.Module { return new(execHandler) }}
}

// UnmarshalCaddyfile reads `exec <command> <args...>`.
func (h *execHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	if !d.Args(&h.Command) {
		return d.ArgErr()
	}
	h.Args = d.RemainingArgs()
	return nil
}

// TestEventsAreDocumented checks that events.md lists every event, and has every name of
// its data and no other.
func TestEventsAreDocumented(t *testing.T) {
	code := read(t, "internal/events/emitter.go") + read(t, "internal/events/sources.go") + read(t, "internal/events/expiring.go")
	constants := make(map[string]string)
	var names, data []string
	for _, match := range regexp.MustCompile(`(?m)^\t(event\w+)\s+= "(mtls_\w+)"$`).FindAllStringSubmatch(code, -1) {
		constants[match[1]] = match[2]
		names = append(names, match[2])
	}
	key := regexp.MustCompile(`"([a-z_]+)": `)
	for _, match := range regexp.MustCompile(`(?s)(?:r|e)\.emit\((event\w+), func\(\) map\[string\]any \{\n\t+return map\[string\]any\{\n(.*?)\n\t+\}\n`).FindAllStringSubmatch(code, -1) {
		data = append(data, constants[match[1]]+" realm")
		for _, member := range key.FindAllStringSubmatch(match[2], -1) {
			data = append(data, constants[match[1]]+" "+member[1])
		}
	}

	overview, sections, _ := strings.Cut(page(t, "events.md"), "\n## `mtls_")
	var listed, headings, documented []string
	for _, match := range regexp.MustCompile("(?m)^\\| \\[`(mtls_\\w+)`\\]").FindAllStringSubmatch(overview, -1) {
		listed = append(listed, match[1])
	}
	for section := range strings.SplitSeq(sections, "\n## `mtls_") {
		name, text, _ := strings.Cut(section, "`\n")
		headings = append(headings, "mtls_"+name)
		for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]+`) \\| [^|]+ \\|$").FindAllStringSubmatch(text, -1) {
			for member := range strings.SplitSeq(row[1], ", ") {
				documented = append(documented, "mtls_"+name+" "+strings.Trim(member, "`"))
			}
		}
	}
	same(t, "events", names, listed)
	same(t, "events with a section", names, headings)
	same(t, "data of events", data, documented)
}

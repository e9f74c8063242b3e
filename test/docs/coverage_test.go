package docs_test

import (
	"cmp"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	mtlsauth "github.com/caddymtls/caddy-mtls-auth"
	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// missing returns what is in want and not in got, each once and sorted.
func missing(want, got []string) []string {
	var list []string
	for _, name := range want {
		if !slices.Contains(got, name) {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// same compares what the code has with what a page has.
func same(t *testing.T, what string, code, documented []string) {
	t.Helper()
	if len(code) == 0 {
		t.Errorf("found no %s in the code", what)
	}
	if list := missing(code, documented); len(list) > 0 {
		t.Errorf("%s not documented: %q", what, list)
	}
	if list := missing(documented, code); len(list) > 0 {
		t.Errorf("%s documented that do not exist: %q", what, list)
	}
}

// TestWordsAreDocumented checks that every subdirective has a heading on the
// page of its block, and every such heading a subdirective.
func TestWordsAreDocumented(t *testing.T) {
	heading := regexp.MustCompile("(?m)^###+ `([a-z_]+)`$")
	words := configurationWords(t)
	for _, name := range []string{
		"global-option.md", "client.md", "clients_from.md", "fetch.md", "refusals.md", "revocation.md", "forwarded_certificate.md", "certificate_expiring.md", "issuer.md",
		"mtls_auth.md", "mtls_issuer.md", "mtls_bearer.md",
	} {
		var documented []string
		for _, match := range heading.FindAllStringSubmatch(page(t, name), -1) {
			documented = append(documented, match[1])
		}
		same(t, "subdirectives of "+name, words[name], documented)
		delete(words, name)
	}
	if len(words) > 0 {
		t.Errorf("subdirectives of blocks without a page: %q", words)
	}
}

// TestMetricsAreDocumented checks that the tables have every metric with its
// type and labels, and no other.
func TestMetricsAreDocumented(t *testing.T) {
	row := regexp.MustCompile("(?m)^\\| `(caddy_mtls_[a-z_]+)` \\| ([a-z]+) \\| ([^|]*) \\| .+ \\|$")
	var documented []string
	for _, match := range row.FindAllStringSubmatch(page(t, "metrics.md"), -1) {
		documented = append(documented, match[1]+" "+match[2]+" "+strings.ReplaceAll(match[3], "`", ""))
	}
	same(t, "metrics", metrics(t), documented)
}

// TestForwardFormatsAreDocumented checks that the table of formats has every format
// with its headers and no other, that both pages and both syntaxes list them, and that
// the table of proxies names existing formats and headers which are removed from
// requests.
func TestForwardFormatsAreDocumented(t *testing.T) {
	_, formats, found := strings.Cut(page(t, "mtls_auth.md"), "\n### `forward_certificate`\n")
	if !found {
		t.Fatal("mtls_auth.md has no section forward_certificate")
	}
	formats, another, _ := strings.Cut(formats, "\n#### `header`\n")
	another, _, _ = strings.Cut(another, "\n### ")
	_, reading, _ := strings.Cut(page(t, "forwarded_certificate.md"), "\n## Formats\n")
	reading, proxies, found := strings.Cut(reading, "\n## Proxies\n")
	if !found {
		t.Fatal("forwarded_certificate.md has no sections Formats and Proxies")
	}
	proxies, _, _ = strings.Cut(proxies, "\n## ")
	var code, names, documented []string
	for _, format := range forwarded.Formats {
		row := format.Name + " " + format.Header
		if format.ChainHeader != "" {
			row += " " + format.ChainHeader
		}
		code, names = append(code, row), append(names, format.Name)
	}
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z0-9_]+)` \\| (`[^|]+`) \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(formats, -1) {
		documented = append(documented, match[1]+" "+strings.NewReplacer("`", "", ",", "").Replace(match[2]))
	}
	same(t, "formats of forwarded certificates", code, documented)

	syntax := regexp.MustCompile(`(?m)^//\tforwarded_certificate ([a-z0-9_|]+) \{`).FindStringSubmatch(read(t, "caddyfile.go"))
	if syntax == nil {
		t.Fatal("caddyfile.go has no syntax of forwarded_certificate")
	}
	same(t, "formats in caddyfile.go", names, strings.Split(syntax[1], "|"))
	_, member, _ := strings.Cut(read(t, "forwarded_certificate.go"), "\n\t// How the proxy encodes the certificate: ")
	member, _, _ = strings.Cut(member, "\n\tFormat ")
	_, outgoing, _ := strings.Cut(read(t, "forward_certificate.go"), "\n\t// In which headers, and how they are encoded: ")
	outgoing, _, _ = strings.Cut(outgoing, "\n\tFormats ")
	for _, name := range names {
		for where, text := range map[string]string{"the documentation of Format": member, "the documentation of Formats": outgoing, "forwarded_certificate.md": reading} {
			if !strings.Contains(text, "`"+name+"`") {
				t.Errorf("%s has no %s", where, name)
			}
		}
	}

	removed := headerguard.NewNames(headerguard.OtherGateways...)
	lines := regexp.MustCompile("(?m)^\\| `forward_certificate ([a-z_]+)` with `header ([A-Za-z-]+)` \\|").FindAllStringSubmatch(another, -1)
	if len(lines) != strings.Count(another, "\n| `") {
		t.Errorf("%d of %d lines have a format", len(lines), strings.Count(another, "\n| `"))
	}
	for _, line := range lines {
		if !slices.Contains(names, line[1]) || !removed.Contains(line[2]) {
			t.Errorf("%s is not a format, or %s is not removed from every request", line[1], line[2])
		}
	}
	rows := regexp.MustCompile("(?m)^\\| [^|`]+ \\| `([a-z0-9_]+)`(?: with `header ([A-Za-z0-9-]+)`)? \\| [^|]+ \\| [^|]+ \\|$").FindAllStringSubmatch(proxies, -1)
	if len(rows) != strings.Count(proxies, "\n| ")-1 {
		t.Errorf("%d of %d proxies have a format", len(rows), strings.Count(proxies, "\n| ")-1)
	}
	for _, row := range rows {
		if !slices.Contains(names, row[1]) {
			t.Errorf("no format is called %s", row[1])
		}
		if row[2] != "" && !removed.Contains(row[2]) {
			t.Errorf("%s is not removed from every request", row[2])
		}
	}
}

// TestMistakesBehindAProxy checks that the code has the words by which the guide tells
// mistakes apart.
func TestMistakesBehindAProxy(t *testing.T) {
	_, table, _ := strings.Cut(read(t, "docs/behind-a-proxy.md"), "\n## Common mistakes\n")
	var texts []string
	for _, file := range parse(t) {
		texts = append(texts, literals(file)...)
	}
	rows := regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(table, -1)
	if len(rows) < 8 {
		t.Errorf("found %d mistakes; does the pattern still fit?", len(rows))
	}
	for _, row := range rows {
		if !slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(text, row[1]) }) {
			t.Errorf("no code says %q", row[1])
		}
	}
}

// TestRecordMembersAreDocumented checks that the table of client records has
// every member and no other.
func TestRecordMembersAreDocumented(t *testing.T) {
	_, table, found := strings.Cut(page(t, "client-records.md"), "\n| member |")
	if !found {
		t.Fatal("client-records.md has no table of members")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	var documented, members []string
	for row := range strings.Lines(table) {
		cells := strings.Split(row, "|")
		if len(cells) < 2 {
			continue
		}
		for _, name := range regexp.MustCompile("`([a-z0-9_]+)`").FindAllStringSubmatch(cells[1], -1) {
			documented = append(documented, name[1])
		}
	}
	record := reflect.TypeFor[clients.Record]()
	for field := range record.Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		members = append(members, name)
	}
	same(t, "members of a client record", members, documented)
}

// TestAdminRoutesAreDocumented checks that admin-api.md has every route and no
// other.
func TestAdminRoutesAreDocumented(t *testing.T) {
	var routes, documented []string
	for _, route := range (mtlsauth.AdminAPI{}).Routes() {
		routes = append(routes, route.Pattern)
	}
	for _, match := range regexp.MustCompile("(?m)^\\| `([A-Z]+ /[^`]+)` \\|").FindAllStringSubmatch(page(t, "admin-api.md"), -1) {
		documented = append(documented, match[1])
	}
	same(t, "routes of the admin API", routes, documented)
}

// TestCommandsAreDocumented checks that commands.md has every command with
// every flag, and no other.
func TestCommandsAreDocumented(t *testing.T) {
	registered, ok := caddycmd.Commands()["mtls"]
	if !ok {
		t.Fatal("caddy has no command mtls")
	}
	root := &cobra.Command{Use: "mtls"}
	registered.CobraFunc(root)
	var flags, documented []string
	var add func(commands []*cobra.Command)
	add = func(commands []*cobra.Command) {
		for _, cmd := range commands {
			name := strings.TrimPrefix(cmd.CommandPath(), "mtls ")
			flags = append(flags, name)
			for _, match := range regexp.MustCompile(`(?m)^ +(?:-[a-z], +)?(--[a-z-]+)`).FindAllStringSubmatch(cmd.Flags().FlagUsages(), -1) {
				flags = append(flags, name+" "+match[1])
			}
			add(cmd.Commands())
		}
	}
	add(root.Commands())
	name := ""
	for line := range strings.Lines(page(t, "commands.md")) {
		if match := regexp.MustCompile("^###? `([a-z -]+)`$").FindStringSubmatch(strings.TrimSpace(line)); match != nil {
			name = match[1]
			documented = append(documented, name)
		}
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			for _, match := range regexp.MustCompile("--[a-z-]+").FindAllString(cells[1], -1) {
				if match != "---" {
					documented = append(documented, name+" "+match)
				}
			}
		}
	}
	same(t, "commands and flags", flags, documented)
}

// TestLogLinesExist checks that the log lines which the documents name are
// written by the code.
func TestLogLinesExist(t *testing.T) {
	named := regexp.MustCompile("(?:line|lines|log says|log has|line is)\\s+`([a-z][a-z ,]+ [a-z]+)`")
	sources := sourcesOf(t)
	found := 0
	for _, file := range filesOf(t, ".md") {
		for _, match := range named.FindAllStringSubmatch(read(t, file), -1) {
			found++
			written := false
			for _, source := range sources {
				written = written || strings.Contains(source, `"`+match[1]+`"`)
			}
			if !written {
				t.Errorf("%s: no code writes the line %q", file, match[1])
			}
		}
	}
	if found < 5 {
		t.Errorf("found %d log lines; does the pattern still fit?", found)
	}
}

// TestModulePath checks that what the README gives xcaddy is the path of this
// module, with the version of Caddy that go.mod requires.
func TestModulePath(t *testing.T) {
	module, readme := read(t, "go.mod"), read(t, "README.md")
	path := regexp.MustCompile(`(?m)^module (\S+)$`).FindStringSubmatch(module)[1]
	caddy := regexp.MustCompile(`(?m)^\tgithub\.com/caddyserver/caddy/v2 (\S+)$`).FindStringSubmatch(module)[1]
	if want := "xcaddy build " + caddy + " --with " + path; !strings.Contains(readme, want) {
		t.Errorf("README.md has no command %q", want)
	}
}

// TestPlaceholdersAreDocumented checks that placeholders.md has the placeholders
// of the module documentation, and no other.
func TestPlaceholdersAreDocumented(t *testing.T) {
	row := regexp.MustCompile("(?m)^(?://|\\|) `\\{http\\.mtls\\.([a-z0-9_.]+)[*<]?[^`]*\\}` \\|")
	names := func(text string) (list []string) {
		for _, match := range row.FindAllStringSubmatch(text, -1) {
			list = append(list, match[1])
		}
		return list
	}
	var code []string
	for _, source := range sourcesOf(t) {
		code = append(code, names(source)...)
	}
	same(t, "placeholders", code, names(page(t, "placeholders.md")))
}

// TestJSONMembersAreDocumented checks that every member of the JSON
// configuration has the name of a subdirective, or is on the page about JSON.
func TestJSONMembersAreDocumented(t *testing.T) {
	known := []string{}
	for _, words := range configurationWords(t) {
		known = append(known, words...)
	}
	known = append(known, regexp.MustCompile("[a-z_]+").FindAllString(page(t, "json.md"), -1)...)
	if list := missing(configurationMembers(t), known); len(list) > 0 {
		t.Errorf("members not documented: %q", list)
	}
}

// TestCodeMapIsComplete checks that the code map has every folder with Go
// files, and no other.
func TestCodeMapIsComplete(t *testing.T) {
	var folders, mapped []string
	for _, file := range filesOf(t, ".go") {
		folder := filepath.Dir(file) + "/"
		if strings.HasPrefix(folder, "test/") || strings.HasPrefix(folder, "examples/") {
			folder = strings.SplitAfter(folder, "/")[0] // their folders are subjects and languages
		}
		folders = append(folders, folder)
	}
	_, table, found := strings.Cut(read(t, "CONTRIBUTING.md"), "\n## Code map\n")
	if !found {
		t.Fatal("CONTRIBUTING.md has no code map")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	for _, match := range regexp.MustCompile("(?m)^\\| `([a-z0-9/.]+/)` \\|").FindAllStringSubmatch(table, -1) {
		mapped = append(mapped, match[1])
	}
	same(t, "folders of the code map", folders, mapped)
}

// TestLogMessagesAreDocumented checks that logs.md has every constant log
// message, and no other. One that ends in … goes on with something variable.
func TestLogMessagesAreDocumented(t *testing.T) {
	var documented []string
	for _, match := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [A-Z]+ \\|").FindAllStringSubmatch(page(t, "logs.md"), -1) {
		documented = append(documented, match[1])
	}
	var code []string
	for _, message := range logMessages(t) {
		if strings.HasSuffix(message, " ") {
			message += "…"
		}
		code = append(code, message)
	}
	same(t, "log messages", code, documented)
}

// TestImportsGoDown checks that a package imports only packages further down the
// code map, except for those of the tests.
func TestImportsGoDown(t *testing.T) {
	const module = "github.com/caddymtls/caddy-mtls-auth"
	_, table, _ := strings.Cut(read(t, "CONTRIBUTING.md"), "\n## Code map\n")
	place := make(map[string]int)
	for i, match := range regexp.MustCompile("(?m)^\\| `([a-z0-9/.]+)/` \\|").FindAllStringSubmatch(table, -1) {
		place[match[1]] = i
	}
	for file, source := range sourcesOf(t) {
		from := filepath.Dir(file)
		if strings.HasPrefix(from, "examples/") || place[from] >= place["internal/rig"] {
			continue
		}
		for _, match := range regexp.MustCompile(`(?m)^(?:import\s|\s)\s*(?:\S+ )?"`+module+`(?:/([a-z/]+))?"$`).FindAllStringSubmatch(source, -1) {
			to := cmp.Or(match[1], ".")
			if at, mapped := place[to]; !mapped || at <= place[from] {
				t.Errorf("%s imports %s, which is not further down the code map", file, to)
			}
		}
	}
}

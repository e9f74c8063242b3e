package caddyfileutil

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// ParseModule reads the guest module of an option, whose first argument is the
// module's name in namespace. The module must implement T, which kind describes
// in errors. The name becomes the member inlineKey of the JSON.
func ParseModule[T any](d *caddyfile.Dispenser, namespace, inlineKey, kind string) (json.RawMessage, error) {
	option := d.Val()
	d.NextArg()
	name := d.Val()
	if name == "" {
		return nil, d.Errf("%s is empty; name a module", option)
	}
	if _, err := caddy.GetModule(namespace + "." + name); err != nil {
		return nil, d.Errf("%s: unknown module '%s'; %s", option, shownArg(name), suggestModule(namespace, name))
	}
	for rest := *d; rest.NextArg(); {
		if strings.HasSuffix(rest.Val(), ",") {
			return nil, d.Errf("%s: '%s' ends with a comma; separate values by spaces alone", option, shownArg(rest.Val()))
		}
	}
	if !strings.HasPrefix(namespace, "mtls.") && strings.HasPrefix(name, "file") {
		if err := checkFileArgs(*d, option); err != nil {
			return nil, err
		}
	}
	module, err := caddyfile.UnmarshalModule(d, namespace+"."+name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", option, err)
	}
	if _, ok := module.(T); !ok {
		return nil, d.Errf("%s module '%s' is not a %s", option, name, kind)
	}
	return caddyconfig.JSONModuleObject(module, inlineKey, name, nil), nil
}

// shownArg returns an argument for an error. It may be the DSN of a database, in which
// nobody can tell where the password is unless it is valid.
func shownArg(value string) string {
	if lower := strings.ToLower(value); strings.HasPrefix(lower, "postgres") && strings.Contains(value, "://") || strings.Contains(lower, "password") {
		return "…"
	}
	return source.ShownValue(value)
}

// placeholder matches a placeholder that this plugin expands at provisioning.
var placeholder = regexp.MustCompile(`\{(env|file)\.([^{}]*)\}`)

// checkFileArgs refuses placeholders in the names of files that a module of Caddy
// reads, because it does not expand them.
func checkFileArgs(d caddyfile.Dispenser, option string) error {
	for d.NextArg() {
		if match := placeholder.FindStringSubmatch(d.Val()); match != nil {
			name := "NAME"
			if match[1] == "env" {
				name = match[2]
			}
			return d.Errf("%s: file '%s': placeholders are not expanded here; write {$%s} for an environment variable", option, d.Val(), name)
		}
	}
	return nil
}

// suggestModule returns the remedy for a word that is not the name of a module: the
// modules, or the one that the word may be the argument of.
func suggestModule(namespace, word string) string {
	var names []string
	for _, info := range caddy.GetModules(namespace) {
		names = append(names, info.ID.Name())
	}
	if first, _, several := strings.Cut(word, " "); several && slices.Contains(names, first) {
		return fmt.Sprintf("did you mean '%s' without quotes?", word)
	}
	if strings.HasPrefix(word, "postgres") && strings.Contains(word, "://") && slices.Contains(names, "postgres") {
		return "did you mean 'postgres <dsn>'?"
	}
	file := strings.TrimPrefix(word, "file://")
	isURL := strings.Contains(file, "://")
	for _, name := range names {
		if (name == "http" && isURL) || (strings.HasPrefix(name, "file") && !isURL && strings.ContainsAny(file, `./\`)) {
			return fmt.Sprintf("did you mean '%s %s'?", name, file)
		}
	}
	return Suggest(word, names)
}

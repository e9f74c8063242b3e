package mtlsauth

import (
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// parseOnce reads the one argument of a word that may stand once.
func parseOnce(d *caddyfile.Dispenser, field *string, check func(string) error) error {
	word := d.Val()
	if *field != "" {
		return d.Errf("duplicate option '%s'", word)
	}
	if !d.AllArgs(field) {
		return d.ArgErr()
	}
	if *field == "" {
		return d.Errf("%s is empty; give it a value or remove the line", word)
	}
	return checkValue(d, word, *field, check)
}

// parseList reads the arguments of a word that may stand several times.
func parseList[S ~[]string](d *caddyfile.Dispenser, list *S, check func(string) error) error {
	word := d.Val()
	values := d.RemainingArgs()
	if len(values) == 0 {
		return d.ArgErr()
	}
	for _, value := range values {
		if err := appendValue(d, list, word, value, check); err != nil {
			return err
		}
	}
	return nil
}

func appendValue[S ~[]string](d *caddyfile.Dispenser, list *S, word, value string, check func(string) error) error {
	if value == "" {
		return d.Errf("%s is empty; give it a value or remove it", word)
	}
	if slices.Contains(*list, value) {
		return d.Errf("duplicate %s '%s'", word, value)
	}
	*list = append(*list, value)
	return checkValue(d, word, value, check)
}

// parseFlag reads a word without arguments.
func parseFlag(d *caddyfile.Dispenser, flag *bool) error {
	if *flag {
		return d.Errf("duplicate option '%s'", d.Val())
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	*flag = true
	return nil
}

// parseDuration reads the one argument of a word that may stand once.
func parseDuration(d *caddyfile.Dispenser, field *caddy.Duration, check func(caddy.Duration) error) error {
	word, text := d.Val(), ""
	if *field != 0 {
		return d.Errf("duplicate option '%s'", word)
	}
	if !d.AllArgs(&text) {
		return d.ArgErr()
	}
	duration, err := caddy.ParseDuration(text)
	if err != nil {
		return d.Errf("parsing %s '%s': %v", word, text, err)
	}
	*field = caddy.Duration(duration)
	return checkValue(d, word, text, func(string) error { return check(*field) })
}

// checkValue applies check to a value that is written out; one that holds a
// placeholder is checked at provisioning, when it is known.
func checkValue(d *caddyfile.Dispenser, word, value string, check func(string) error) error {
	if check == nil || strings.Contains(value, "{") {
		return nil
	}
	if err := check(value); err != nil {
		return d.WrapErr(fmt.Errorf("%s '%s': %w", word, value, err))
	}
	return nil
}

// parseScopes reads scopes. A brace is a legal character in them, and no
// placeholder is expanded, so one would silently be taken as it is written.
func parseScopes(d *caddyfile.Dispenser, list *[]string) error {
	first := len(*list)
	if err := parseList(d, list, syntax.CheckScope); err != nil {
		return err
	}
	for _, scope := range (*list)[first:] {
		if strings.ContainsAny(scope, "{}") {
			return d.Errf("scope '%s': placeholders are not expanded in scopes; write {$NAME} for an environment variable", scope)
		}
	}
	return nil
}

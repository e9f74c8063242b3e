// Package caddyfileutil reads blocks of Caddyfile options, whose values are checked,
// not empty, and not given twice.
package caddyfileutil

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// Option is an option of a block.
type Option struct {
	// Parse reads the option. The dispenser is at its name, and the number of its
	// arguments has been checked.
	Parse func(d *caddyfile.Dispenser) error
	// Check returns why an argument is not valid, nil for an option that allows
	// every value.
	Check func(value string) error

	// repeated is set if the option may be given several times
	repeated bool
}

// Options are the options that a block may have, by how they are written, as
// [CheckArgs] has it: "realm <name>", or "resource <name> {" if a block may follow.
type Options map[string]Option

// Named are the options of a block with its name.
type Named struct {
	Block   string
	Options Options
}

// ParseBlock reads a block of options, which kind describes in errors. For a word that
// the block does not have, the error says in which of all blocks it belongs, if all is
// not nil.
func ParseBlock(d *caddyfile.Dispenser, kind string, options Options, all func() []Named) error {
	usages, names := make(map[string]usage, len(options)), make([]string, 0, len(options))
	for line := range options {
		u := usage(line)
		usages[u.name()], names = u, append(names, u.name())
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		u, ok := usages[d.Val()]
		if !ok {
			var others []Named
			if all != nil {
				others = all()
			}
			return d.Errf("unrecognized %s '%s'; %s", kind, d.Val(), suggestBlock(d.Val(), names, others))
		}
		option := options[string(u)]
		if err := u.check(d, option); err != nil {
			return err
		}
		if err := option.Parse(d); err != nil {
			return err
		}
	}
	return nil
}

// String reads the one argument of an option that may be given once. A nil check
// allows every value that is not empty.
func String(field *string, check func(string) error) Option {
	return Option{Check: check, Parse: func(d *caddyfile.Dispenser) error {
		option := d.Val()
		if *field != "" {
			return d.Errf("duplicate option '%s'; keep one", option)
		}
		d.Args(field)
		if *field == "" {
			return d.Errf("%s is empty; give it a value or remove the line", option)
		}
		return CheckValue(d, option, *field, check)
	}}
}

// List reads the arguments of an option that may be given several times. A nil check
// allows every value that is not empty.
func List[S ~[]string](list *S, check func(string) error) Option {
	return Option{Check: check, repeated: true, Parse: func(d *caddyfile.Dispenser) error {
		option := d.Val()
		for _, value := range d.RemainingArgs() {
			if err := AppendValue(d, list, option, value, check); err != nil {
				return err
			}
		}
		return nil
	}}
}

// AppendValue appends a value of an option to the list, unless the list has it.
func AppendValue[S ~[]string](d *caddyfile.Dispenser, list *S, option, value string, check func(string) error) error {
	if value == "" {
		return d.Errf("%s is empty; give it a value or remove it", option)
	}
	if strings.HasSuffix(value, ",") {
		return d.Errf("%s '%s' ends with a comma; separate values by spaces alone", option, source.ShownValue(value))
	}
	if slices.Contains(*list, value) {
		return d.Errf("duplicate %s '%s'; keep one", option, source.ShownValue(value))
	}
	*list = append(*list, value)
	return CheckValue(d, option, value, check)
}

// Scopes reads a list of scopes. A brace is a legal character in a scope, and no
// placeholder is expanded there, so braces are refused: they would be taken
// literally without a word.
func Scopes(list *[]string) Option {
	return Option{Parse: func(d *caddyfile.Dispenser) error {
		first := len(*list)
		if err := List(list, syntax.CheckDeclaredScope).Parse(d); err != nil {
			return err
		}
		for _, scope := range (*list)[first:] {
			if strings.ContainsAny(scope, "{}") {
				return d.Errf("scope '%s': placeholders are not expanded in scopes; write {$NAME} for an environment variable", scope)
			}
		}
		return nil
	}}
}

// Flag reads an option without arguments.
func Flag(flag *bool) Option {
	return Option{Parse: func(d *caddyfile.Dispenser) error {
		if *flag {
			return d.Errf("duplicate option '%s'; keep one", d.Val())
		}
		*flag = true
		return nil
	}}
}

// Duration reads the one argument of an option that may be given once. The error of
// check names the option and the duration.
func Duration(field *caddy.Duration, check func(caddy.Duration) error) Option {
	return Option{Parse: func(d *caddyfile.Dispenser) error {
		option, text := d.Val(), ""
		if *field != 0 {
			return d.Errf("duplicate option '%s'; keep one", option)
		}
		d.Args(&text)
		duration, err := caddy.ParseDuration(text)
		switch {
		case err != nil && strings.Contains(text, "{"):
			return d.Errf("%s '%s': placeholders are not expanded in durations; write {$NAME} for an environment variable", option, text)
		case err != nil:
			return d.Errf("%s '%s' is not a duration; write it as 30s, 90m, 12h or 7d", option, text)
		}
		*field = caddy.Duration(duration)
		if err := check(*field); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}}
}

// Number reads the one argument of an option that may be given once. The error of check
// names the option and the number.
func Number(field **int, check func(int) error) Option {
	return Option{Parse: func(d *caddyfile.Dispenser) error {
		option, text := d.Val(), ""
		if *field != nil {
			return d.Errf("duplicate option '%s'; keep one", option)
		}
		d.Args(&text)
		number, err := strconv.Atoi(text)
		switch {
		case err != nil && strings.Contains(text, "{"):
			return d.Errf("%s '%s': placeholders are not expanded in numbers; write {$NAME} for an environment variable", option, source.ShownValue(text))
		case err != nil:
			return d.Errf("%s '%s' is not a number; write it in digits", option, source.ShownValue(text))
		}
		*field = &number
		if err := check(number); err != nil {
			return d.WrapErr(err)
		}
		return nil
	}}
}

// Block reads an option that has a block of its own and may be given once. The error
// for a second one ends with remedy.
func Block[T any, P interface {
	*T
	caddyfile.Unmarshaler
}](field **T, remedy string) Option {
	return Option{Parse: func(d *caddyfile.Dispenser) error {
		if *field != nil {
			return d.Errf("duplicate option '%s'; %s", d.Val(), remedy)
		}
		*field = new(T)
		return P(*field).UnmarshalCaddyfile(d)
	}}
}

// Module reads the guest module of an option that may be given once, as [ParseModule]
// does. The error for a second one ends with remedy.
func Module[T any](raw *json.RawMessage, namespace, inlineKey, kind, remedy string) Option {
	return Option{Parse: func(d *caddyfile.Dispenser) (err error) {
		if *raw != nil {
			return d.Errf("duplicate option '%s'; %s", d.Val(), remedy)
		}
		*raw, err = ParseModule[T](d, namespace, inlineKey, kind)
		return err
	}}
}

// CheckValue applies check to a literal value. A value with a placeholder is
// checked at provisioning, when the placeholder is expanded.
func CheckValue(d *caddyfile.Dispenser, option, value string, check func(string) error) error {
	if check == nil || strings.Contains(value, "{") {
		return nil
	}
	err := check(value)
	switch {
	case err == nil:
		return nil
	case strings.Contains(err.Error(), "'"+value+"'"), strings.Contains(err.Error(), strconv.Quote(value)):
		return d.WrapErr(fmt.Errorf("%s: %w", option, err)) // which names the value
	}
	return d.WrapErr(fmt.Errorf("%s '%s': %w", option, source.ShownValue(value), err))
}

package caddyfileutil

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// usage is how an option or a directive is written: its name, its arguments and
// " {" if it may have a block, as in "header_up <name> <value>", "scopes <scope>...",
// "thumbprint <hash> [until <time>]" or "resource <name> {".
type usage string

// name is the name of the option.
func (u usage) name() string {
	name, _, _ := strings.Cut(string(u), " ")
	return name
}

// hasBlock reports whether a block may follow the arguments.
func (u usage) hasBlock() bool { return strings.HasSuffix(string(u), " {") }

// line is how the option is written, without its block.
func (u usage) line() string { return strings.TrimSuffix(string(u), " {") }

// bounds returns how many arguments there must and may be at least and at most;
// most is -1 if there is no limit.
func (u usage) bounds() (least, most int) {
	optional := false
	for _, word := range strings.Fields(u.line())[1:] {
		optional = optional || strings.HasPrefix(word, "[")
		inner, last := strings.CutSuffix(word, "]")
		if inner != "..." && !optional {
			least++
		}
		if strings.HasSuffix(inner, "...") {
			return least, -1
		}
		most++
		optional = optional && !last
	}
	return least, most
}

// CheckArgs checks the number of arguments on the rest of the line, and that there is
// no block if there must be none. The line is how the option or directive is written,
// such as "header_up <name> <value>", and ends with " {" if a block may follow.
func CheckArgs(d *caddyfile.Dispenser, line string) error {
	return usage(line).check(d, Option{})
}

// check is [CheckArgs] for an option. A value that it allows only with the spaces
// between the arguments lacks quotes.
func (u usage) check(d *caddyfile.Dispenser, option Option) error {
	rest := *d // the caller's dispenser stays where it is
	args := rest.RemainingArgs()
	least, most := u.bounds()
	surplus := most >= 0 && len(args) > most
	if option.Check != nil && len(args) > 1 && (surplus || option.Check(args[0]) != nil) {
		if value := strings.Join(args, " "); option.Check(value) == nil {
			article := "a"
			if strings.ContainsAny(u.name()[:1], "aeiou") {
				article = "an"
			}
			return d.Errf("%s %s with spaces needs quotes; write %s \"%s\"", article, u.name(), u.name(), value)
		}
	}
	switch {
	case len(args) < least && len(args) == 0:
		return d.Errf("%s: an argument is missing; write '%s', or set the variable it comes from", u.name(), u.line())
	case len(args) < least:
		return d.Errf("%s: an argument is missing after '%s'; write '%s'", u.name(), args[len(args)-1], u.line())
	case surplus && most == 0 && u.hasBlock():
		return d.Errf("%s: unexpected '%s'; it takes a block only", u.name(), args[0])
	case surplus && most == 0:
		return d.Errf("%s: unexpected '%s'; write '%s' alone, or remove the line", u.name(), args[0], u.line())
	case surplus && u.hasBlock():
		return d.Errf("%s: unexpected '%s'; write '%s { … }'", u.name(), args[most], u.line())
	case surplus && option.repeated:
		return d.Errf("%s: unexpected '%s'; write '%s' on a line for each, and put a value with spaces in quotes", u.name(), args[most], u.line())
	case surplus:
		return d.Errf("%s: unexpected '%s'; write '%s', and put a value with spaces in quotes", u.name(), args[most], u.line())
	case !u.hasBlock() && rest.NextBlock(rest.Nesting()), !u.hasBlock() && rest.Val() == "}":
		return d.Errf("%s: it takes no block; remove the braces and write '%s'", u.name(), u.line())
	}
	return nil
}

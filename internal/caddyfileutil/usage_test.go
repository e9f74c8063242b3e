package caddyfileutil

import (
	"errors"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

func TestUsageBounds(t *testing.T) {
	for line, want := range map[usage][2]int{
		"disabled":                        {0, 0},
		"revocation {":                    {0, 0},
		"realm <name>":                    {1, 1},
		"on_unavailable refuse|allow":     {1, 1},
		"header_up <name> <value>":        {2, 2},
		"scopes <scope>...":               {1, -1},
		"trust_pool <module> ... {":       {1, -1},
		"forward_token [<header>] {":      {0, 1},
		"forward_certificate [<name>...]": {0, -1},
		"thumbprint <hash> [until <t>]":   {1, 3},
		"mtls [<realm>] {":                {0, 1},
	} {
		if least, most := line.bounds(); least != want[0] || most != want[1] {
			t.Errorf("%s: %d to %d arguments, want %v", line, least, most, want)
		}
	}
}

// TestCheckArgs checks the errors, and that the dispenser stays where it is.
func TestCheckArgs(t *testing.T) {
	spaced := Option{Check: func(value string) error {
		if !strings.Contains(value, " ") {
			return errors.New("no space")
		}
		return nil
	}}
	for _, test := range []struct {
		text, usage string
		option      Option
		want        string
	}{
		{"a", "a", Option{}, ""},
		{"a {\nx\n}", "a {", Option{}, ""},
		{"a b", "a <x>", Option{}, ""},
		{"a b c", "a <x>...", Option{}, ""},
		{"a b", "a <x> [<y>]", Option{}, ""},
		{"a", "a <x>", Option{}, "a: an argument is missing; write 'a <x>', or set the variable it comes from"},
		{"a b", "a <x> <y>", Option{}, "a: an argument is missing after 'b'; write 'a <x> <y>'"},
		{"a b", "a", Option{}, "a: unexpected 'b'; write 'a' alone, or remove the line"},
		{"a b {\nx\n}", "a {", Option{}, "a: unexpected 'b'; it takes a block only"},
		{"a b c d", "a <x> <y>", Option{}, "a: unexpected 'd'; write 'a <x> <y>', and put a value with spaces in quotes"},
		{"a b c", "a <x> {", Option{}, "a: unexpected 'c'; write 'a <x> { … }'"},
		{"a b c", "a <x>", Option{repeated: true}, "a: unexpected 'c'; write 'a <x>' on a line for each, and put a value with spaces in quotes"},
		{"a {\n}", "a", Option{}, "a: it takes no block; remove the braces and write 'a'"},
		{"a b {\nx\n}", "a <x>", Option{}, "a: it takes no block; remove the braces and write 'a <x>'"},
		{"a b c", "a <x>", spaced, `an a with spaces needs quotes; write a "b c"`},
		{"a b c", "a <x>...", spaced, `an a with spaces needs quotes; write a "b c"`},
		{`a "b c" d`, "a <x>...", spaced, ""},
	} {
		d := caddyfile.NewTestDispenser(test.text)
		d.Next()
		err := usage(test.usage).check(d, test.option)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.HasPrefix(err.Error(), test.want+", at ")) {
			t.Errorf("%q as %q: %v, want %q", test.text, test.usage, err, test.want)
		}
		if d.Val() != "a" || d.Nesting() != 0 {
			t.Errorf("%q: the dispenser has moved to %q", test.text, d.Val())
		}
	}
}

func TestSuggest(t *testing.T) {
	known := []string{"trust_pool", "trust_pool_refresh", "client", "clients_from", "deny", "crl"}
	for word, want := range map[string]string{
		"clint": "did you mean 'client'?", "Client": "did you mean 'client'?", "cleint": "did you mean 'client'?", "trust-pool": "did you mean 'trust_pool'?",
		"refresh": "did you mean 'trust_pool_refresh'?", "crls": "did you mean 'crl'?", "clients": "did you mean 'client'?",
		"trust":                   "use one of client, clients_from, crl, deny, trust_pool, trust_pool_refresh", // a part of two
		"x":                       "use one of client, clients_from, crl, deny, trust_pool, trust_pool_refresh",
		"":                        "use one of client, clients_from, crl, deny, trust_pool, trust_pool_refresh",
		strings.Repeat("crl", 99): "use one of client, clients_from, crl, deny, trust_pool, trust_pool_refresh",
	} {
		if got := Suggest(word, known); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
	if got := Suggest("Fingerprint", []string{"thumbprint", "subject"}); got != "did you mean 'thumbprint'?" {
		t.Error(got)
	}
	if got := Suggest("name", []string{"realm"}); got != "the only one is realm" {
		t.Error(got)
	}
}

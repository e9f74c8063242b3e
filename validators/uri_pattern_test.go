package validators

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestParseNameURI(t *testing.T) {
	long := "https://h/" + strings.Repeat("a/", 63)
	longest := "spiffe://p/" + strings.Repeat("a", maxURIBytes-11)
	testParse(t, NameURI, map[string]string{
		"HTTPS://Example.COM/A":                    "https://example.com/A",
		"https://example.com":                      "https://example.com",
		"https://example.com/":                     "https://example.com/",
		"https://Me:Pw@Example.com:8443/a?B=%2A#C": "https://Me:Pw@example.com:8443/a?B=%2A#C",
		"https://example.com//a/../b/":             "https://example.com//a/../b/",
		"https://[2001:DB8::1]/a/*":                "https://[2001:db8::1]/a/*",
		"URN:Example:A1-B2":                        "urn:Example:A1-B2",
		"urn:uuid:f81d4fae-7dec-11d0":              "urn:uuid:f81d4fae-7dec-11d0",
		"tag:me@Example.com,2024:X":                "tag:me@Example.com,2024:X",
		"https://example.com/*":                    "https://example.com/*",
		"https://example.com/**":                   "https://example.com/**",
		"https://Example.com/a;b=c/*/D/**":         "https://example.com/a;b=c/*/D/**",
		"spiffe://Prod.Example/ns/billing/*":       "spiffe://prod.example/ns/billing/*",
		"spiffe://prod_1.example/A.b-c_d/**":       "spiffe://prod_1.example/A.b-c_d/**",
		"\tspiffe://prod.example/ns/a\n":           "spiffe://prod.example/ns/a",
		long + "*":                                 long + "*",
		long + "b/c/d":                             long + "b/c/d",
		longest:                                    longest,
	})
	testParseError(t, NameURI, map[string]string{
		"":                                            "empty",
		"a.example.com":                               "no scheme",
		"/a/b":                                        "no scheme",
		"//example.com/a":                             "no scheme",
		"1a:b":                                        "no scheme",
		"a_b:c":                                       "no scheme",
		"*:b":                                         "no scheme",
		"urn:":                                        "nothing after its scheme",
		"https://":                                    "no host",
		"https:///a":                                  "no host",
		"https://:443/a":                              "no host",
		"https://example.com./a":                      "none at the end",
		"https://a..example.com/a":                    "one dot between labels",
		"https://bücher.example/":                     "xn--",
		"https://example.com/ü":                       "percent-encode",
		"https://example.com/a b":                     "U+0020",
		"https://example.com/a\\b":                    `'\\'`,
		"https://example.com/{id}":                    "'{'",
		`https://example.com/"`:                       `'"'`,
		"https://example.com/%zz":                     "invalid URI: ",
		"https://[::1/a":                              "invalid URI: ",
		"https://example.com:x/":                      "invalid URI: ",
		"urn:example:*":                               "no host",
		"mailto:*@example.com":                        "no host",
		"https://*/a":                                 "never for a host",
		"https://*.example.com/a":                     "never for a host",
		"https://*@example.com/a":                     "never for a host",
		"https://example.com/a*":                      "whole segment",
		"https://example.com/*a/b":                    "whole segment",
		"https://example.com/a**":                     "whole segment",
		"https://example.com/***":                     "whole segment",
		"https://example.com/**/a":                    "can only be its end",
		"https://example.com/a/**/**":                 "can only be its end",
		"https://example.com/*/":                      "'/' at its end",
		"https://example.com//*":                      "empty, '.' or '..'",
		"https://example.com/./*":                     "empty, '.' or '..'",
		"https://example.com/../*":                    "empty, '.' or '..'",
		"https://example.com/*?a":                     "matches no wildcard",
		"https://example.com/*#a":                     "matches no wildcard",
		"https://example.com/a?b=*":                   "matches no wildcard",
		"https://example.com/%20/*":                   "matches no wildcard",
		"https://me@example.com/*":                    "matches no wildcard",
		"https://example.com:8443/*":                  "matches no wildcard",
		"https://example.com:/*":                      "matches no wildcard",
		"https://[::1]:443/*":                         "matches no wildcard",
		long + "b/*":                                  "65 segments",
		"spiffe://prod.example":                       "no path",
		"spiffe://prod.example/":                      "no path",
		"spiffe:prod.example/a":                       "spiffe://",
		"spiffe:///a":                                 "no host",
		"spiffe://prod.example:443/a":                 "trust domain",
		"spiffe://me@prod.example/a":                  "trust domain",
		"spiffe://prod~1.example/a":                   "trust domain",
		"spiffe://[::1]/a":                            "trust domain",
		"spiffe://prod.example?a":                     "trust domain",
		"spiffe://prod.example/a?b":                   "only the characters",
		"spiffe://prod.example/a#b":                   "only the characters",
		"spiffe://prod.example/a%20b":                 "only the characters",
		"spiffe://prod.example/a~b":                   "only the characters",
		"spiffe://prod.example/a/":                    "'/' at its end",
		"spiffe://prod.example/a//b":                  "empty, '.' or '..'",
		"spiffe://prod.example/./b":                   "empty, '.' or '..'",
		"spiffe://prod.example/../b":                  "empty, '.' or '..'",
		"spiffe://prod.example/*/":                    "'/' at its end",
		"spiffe://prod.example/a*":                    "whole segment",
		"spiffe://*/a":                                "never for a host",
		longest + "a":                                 "2049 bytes",
		"spiffe://" + strings.Repeat("a", 256) + "/b": "1 to 255",
	})
}

func TestURIWildcards(t *testing.T) {
	for pattern, test := range map[string]struct{ match, not []string }{
		"spiffe://prod.example/ns/billing/*": {
			[]string{"spiffe://prod.example/ns/billing/a", "SPIFFE://Prod.Example/ns/billing/a.b-c_d", "spiffe://prod.example/ns/billing/..."},
			[]string{
				"spiffe://prod.example/ns/billing", "spiffe://prod.example/ns/billing/", "spiffe://prod.example/ns/billing/a/b", "spiffe://prod.example/ns/billing/a/",
				"spiffe://prod.example/NS/billing/a", "spiffe://prod.example.evil/ns/billing/a", "spiffe://evil/prod.example/ns/billing/a", "https://prod.example/ns/billing/a",
				"spiffe://prod.example/ns/billing/.", "spiffe://prod.example/ns/billing/..", "spiffe://prod.example/ns//billing/a", "spiffe://prod.example/ns/x/../billing/a",
				"spiffe://me@prod.example/ns/billing/a", "spiffe://@prod.example/ns/billing/a", "spiffe://prod.example:443/ns/billing/a", "spiffe://prod.example:/ns/billing/a",
				"spiffe://prod.example/ns/billing/a?", "spiffe://prod.example/ns/billing/a?b", "spiffe://prod.example/ns/billing/a#", "spiffe://prod.example/ns/billing/%61",
				"spiffe://prod.example/ns/billing/a%2Fb", "spiffe://prod%2Eexample/ns/billing/a", "spiffe:/prod.example/ns/billing/a", "spiffe:prod.example/ns/billing/a",
				"spiffe://prod.example/ns/billing/*", "spiffe://prod.example/ns/billing/a\x00", "spiffe://prod.example/ns/billing/a b", "spiffe://prod.example/ns/billing/\xe4",
				"spiffe://prod.example/ns/billing/ä", "spiffe://prod.example/ns/billing/a\r\nX: y", `spiffe://prod.example/ns/billing/a\b`, " spiffe://prod.example/ns/billing/a",
			},
		},
		"https://[::1]/*/b/**": {
			[]string{"https://[::1]/a/b/c", "https://[::1]/b/b/b", "https://[::1]/a/b/c/d/e"},
			[]string{
				"https://[::1]/a/b", "https://[::1]/b/c", "https://[::1]/a/c/b", "https://[0::1]/a/b/c", "https://[::1]:443/a/b/c",
				"https://::1/a/b/c", "https://[::1/a/b/c", "https://[::1]x/a/b/c",
			},
		},
		"https://example.com/**": {
			[]string{"https://example.com/a", "https://example.com/a/b/c", "https://example.com/" + strings.Repeat("a/", 63) + "a"},
			[]string{
				"https://example.com", "https://example.com/", "https://example.com?a/b", "https://example.com#/a",
				"https://example.com/" + strings.Repeat("a/", 64) + "a", "https://example.com/" + strings.Repeat("a", maxURIBytes),
			},
		},
		// Without a wildcard, only the bytes count.
		"https://Me@example.com:8443/a/../%2f?b#c": {
			[]string{"https://Me@example.com:8443/a/../%2f?b#c", "HTTPS://Me@EXAMPLE.com:8443/a/../%2f?b#c"},
			[]string{
				"https://me@example.com:8443/a/../%2f?b#c", "https://Me@example.com:8443/%2f?b#c", "https://Me@example.com:8443/a/../%2F?b#c",
				"https://example.com:8443/a/../%2f?b#c", "https://Me@example.com:8443/a/../%2f?b",
			},
		},
		"https://example.com": {
			[]string{"https://example.com", "https://Example.com"},
			[]string{"https://example.com/", "https://example.com:443", "https://example.com?", "https://example.com#", "https:example.com"},
		},
		"https://example.com/": {
			[]string{"https://example.com/"},
			[]string{"https://example.com", "https://example.com//"},
		},
		"urn:example:a:b": {
			[]string{"urn:example:a:b", "URN:example:a:b"},
			[]string{"urn:EXAMPLE:a:b", "urn:example:a:b:c", "urn:example:a", "urn://example:a:b"},
		},
	} {
		ix := indexOf(t, NameURI, pattern)
		for _, s := range test.match {
			if len(lookup(t, ix, sanLeaf(t, san(NameURI, s)))) != 1 {
				t.Errorf("%q does not match %q", s, pattern)
			}
		}
		for _, s := range test.not {
			if len(lookup(t, ix, sanLeaf(t, san(NameURI, s)))) != 0 {
				t.Errorf("%q matches %q", s, pattern)
			}
		}
	}
}

// simpleMatch is an independent implementation of the rules.
func simpleMatch(pattern, uri string) bool {
	if !strings.Contains(pattern, "*") {
		return pattern == uri
	}
	parsed, err := url.Parse(uri)
	if err != nil || parsed.User != nil || parsed.Host != parsed.Hostname() ||
		strings.ContainsAny(uri, "*%?#") || strings.Count(uri, "/") > 2+64 || len(uri) > 2048 {
		return false
	}
	for _, segment := range strings.Split(parsed.Path, "/")[1:] {
		if segment == "" || segment == "." || segment == ".." {
			return false
		}
	}
	expression := regexp.QuoteMeta(pattern)
	expression = strings.ReplaceAll(expression, `\*\*`, `[^/]+(/[^/]+)*`)
	expression = strings.ReplaceAll(expression, `\*`, `[^/]+`)
	return regexp.MustCompile(`^` + expression + `$`).MatchString(uri)
}

// witness returns a path that matches both patterns, if there is one.
func witness(p, q []string) string {
	at := func(pattern []string, i int) string {
		if last := len(pattern) - 1; i >= last && pattern[last] == "**" {
			return "*"
		}
		if i >= len(pattern) {
			return ""
		}
		return pattern[i]
	}
	var path []string
	for i := range max(len(p), len(q)) {
		segment := at(p, i)
		if segment == "*" {
			segment = at(q, i)
		}
		path = append(path, strings.ReplaceAll(segment, "*", "w"))
	}
	return strings.Join(path, "/")
}

// FuzzURIPattern compares the index with simpleMatch, and overlaps with the
// URIs that two patterns share.
func FuzzURIPattern(f *testing.F) {
	f.Add("a/*/c", "a/b/*", "a/b/c")
	f.Add("**", "a/**", "a/b/c/d")
	f.Add("*/b", "a/**", "a//b")
	f.Add("a/../b", "*/x/*", "a/../b")
	f.Add("a?b", "*", "a%20?b#c")
	f.Fuzz(func(t *testing.T, p, q, path string) {
		const root = "https://h/"
		var ix nameIndex[string]
		var declared []Name
		for _, s := range []string{p, q} {
			n, err := ParseName(NameURI, root+s)
			if err != nil {
				return
			}
			declared = append(declared, n)
			ix.Add(n, n.String())
		}
		overlap := slices.Contains(overlapping(&ix, declared[0]), declared[1])
		if overlap != slices.Contains(overlapping(&ix, declared[1]), declared[0]) {
			t.Fatalf("overlap of %s and %s is no mutual one", declared[0], declared[1])
		}

		shared := false
		segments := func(s string) []string { return strings.Split(s, "/") }
		first, second := segments(declared[0].String()[len(root):]), segments(declared[1].String()[len(root):])
		for _, presented := range []string{path, witness(first, second), witness(second, first), witness(first, segments(path)), witness(second, segments(path))} {
			var want []string
			name, ok := presentedName(san(NameURI, root+presented))
			for _, n := range declared {
				if ok && simpleMatch(n.String(), name.String()) {
					want = append(want, n.String()+" "+name.String())
				}
			}
			slices.Sort(want)
			if got := lookup(t, &ix, sanLeaf(t, san(NameURI, root+presented))); !slices.Equal(got, want) {
				t.Fatalf("%q is found as %q, want %q", presented, got, want)
			}
			shared = shared || len(want) == 2
		}
		if shared && !overlap {
			t.Fatalf("%s and %s share a URI but do not overlap", declared[0], declared[1])
		}
		// What they share may be longer than a URI can be.
		if overlap && !shared && len(p)+len(q) < 1000 && len(first)+len(second) < maxPathSegments {
			t.Fatalf("%s and %s overlap but share no URI", declared[0], declared[1])
		}
	})
}

package headerguard

import (
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// octets returns the text with each octet as a character, for functions that work
// on characters.
func octets(text string) string {
	runes := make([]rune, 0, len(text))
	for _, octet := range []byte(text) {
		runes = append(runes, rune(octet))
	}
	return string(runes)
}

var (
	notAlphanumeric = regexp.MustCompile(`[^A-Za-z0-9]`)
	// protectedPattern describes the protected names by other means
	protectedPattern = regexp.MustCompile(`(?i:^(` +
		`x-client-id|client-cert|client-cert-chain|x-forwarded-client-cert|x-forwarded-tls-client-cert.*|` +
		`x-ssl-.*|ssl-client-.*|x-client-cert.*|x-client-dn|x-client-[si]-dn|x-client-verify|x-arr-clientcert|x-amzn-mtls-.*|cf-client-cert.*|cf-cert-.*|x-consumer-.*)$)`)
)

func mustBeProtected(name string) bool {
	return protectedPattern.MatchString(notAlphanumeric.ReplaceAllString(octets(name), "-"))
}

// FuzzProtectedNames checks that a name is removed if and only if it equals a
// protected one regardless of case and punctuation.
func FuzzProtectedNames(f *testing.F) {
	f.Fuzz(func(t *testing.T, name string) {
		r := &http.Request{Header: http.Header{name: {"admin"}, "Accept": {"*/*"}}}
		defaultGuard.Strip(r)
		_, left := r.Header[name]
		if left == mustBeProtected(name) && name != "Accept" {
			t.Errorf("%q is left: %t", name, left)
		}
		if _, left := r.Header["Accept"]; !left {
			t.Errorf("%q took another header along", name)
		}
	})
}

// connectionOptions returns the options in Connection as a hop reads them.
func connectionOptions(values []string) []string {
	var options []string
	for _, value := range values {
		for option := range strings.SplitSeq(value, ",") {
			if option = textproto.TrimString(option); option != "" {
				options = append(options, option)
			}
		}
	}
	return options
}

// FuzzConnection checks that exactly the protected names are removed from
// Connection, and that Upgrade stays.
func FuzzConnection(f *testing.F) {
	f.Fuzz(func(t *testing.T, first, second string) {
		values := []string{first, "Upgrade", second}
		r := &http.Request{Header: http.Header{"Connection": slices.Clone(values), "Upgrade": {"websocket"}}}
		defaultGuard.Strip(r)
		want := slices.DeleteFunc(connectionOptions(values), mustBeProtected)
		if len(strings.Join(values, "")) > maxConnection {
			want = nil
		}
		if got := connectionOptions(r.Header["Connection"]); !slices.Equal(got, want) {
			t.Errorf("Connection %q became %q, want the options %q", values, r.Header["Connection"], want)
		}
		if r.Header.Get("Upgrade") != "websocket" {
			t.Error("Upgrade is gone")
		}
	})
}

package headerguard

import (
	"net/http"
	"net/textproto"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// octets makes a character of each octet, so that what works on characters
// works on octets.
func octets(text string) string {
	runes := make([]rune, 0, len(text))
	for _, octet := range []byte(text) {
		runes = append(runes, rune(octet))
	}
	return string(runes)
}

var (
	notAlphanumeric = regexp.MustCompile(`[^A-Za-z0-9]`)
	// the protected names once more, by other means
	protectedPattern = regexp.MustCompile(`(?i:^(` +
		`x-client-id|client-cert|client-cert-chain|x-forwarded-client-cert|x-forwarded-tls-client-cert.*|` +
		`x-ssl-.*|ssl-client-.*|x-client-cert.*|x-arr-clientcert|x-amzn-mtls-.*|cf-client-cert.*|x-consumer-.*)$)`)
)

func mustBeProtected(name string) bool {
	return protectedPattern.MatchString(notAlphanumeric.ReplaceAllString(octets(name), "-"))
}

// FuzzProtectedNames: whatever name equals a protected one, when case and
// punctuation are left aside, is removed, and no other is.
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

// connectionTokens are the tokens of Connection as a hop reads them.
func connectionTokens(values []string) []string {
	var tokens []string
	for _, value := range values {
		for token := range strings.SplitSeq(value, ",") {
			if token = textproto.TrimString(token); token != "" {
				tokens = append(tokens, token)
			}
		}
	}
	return tokens
}

// FuzzConnection: no protected name is left in Connection, and everything else
// is, Upgrade included.
func FuzzConnection(f *testing.F) {
	f.Fuzz(func(t *testing.T, first, second string) {
		values := []string{first, "Upgrade", second}
		r := &http.Request{Header: http.Header{"Connection": slices.Clone(values), "Upgrade": {"websocket"}}}
		defaultGuard.Strip(r)
		want := slices.DeleteFunc(connectionTokens(values), mustBeProtected)
		if got := connectionTokens(r.Header["Connection"]); !slices.Equal(got, want) {
			t.Errorf("Connection %q became %q, want the tokens %q", values, r.Header["Connection"], want)
		}
		if r.Header.Get("Upgrade") != "websocket" {
			t.Error("Upgrade is gone")
		}
	})
}

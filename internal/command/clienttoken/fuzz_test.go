package clienttoken

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"unicode"
)

// FuzzAnswer reads what a server answers. What is shown of it is bounded and printable.
func FuzzAnswer(f *testing.F) {
	f.Add(200, `{"issuer":"https://a","token_endpoint":"https://a/t","mtls_endpoint_aliases":{"token_endpoint":"https://b/t"}}`, "")
	f.Add(200, `{"issuer":"https://a","token_endpoint":"http://\u001b[2J"}`, "")
	f.Add(400, `{"error":"invalid_client\u202e","error_description":"x (error id: k3f9abcde)"}`, "")
	f.Add(302, ``, "https://user:pass@a/\u009b")
	f.Add(421, `<html>`, "%zz")
	f.Add(200, `e30.e30.x`, "")
	f.Fuzz(func(t *testing.T, status int, body, location string) {
		newReply := func() *reply {
			return &reply{&RequestError{URL: "https://a"}, status, http.Header{"Location": {location}}, []byte(body)}
		}
		endpoint, err := newReply().endpoint("https://a")
		if err == nil && !strings.HasPrefix(strings.ToLower(endpoint), "https://") {
			t.Errorf("the endpoint is %q", endpoint)
		}
		for _, err := range []error{err, newReply().refusal()} {
			failure, ok := errors.AsType[*RequestError](err)
			if !ok {
				continue
			}
			for _, text := range []string{failure.Error(), failure.OAuthError, failure.Description, failure.ErrorID} {
				if len(text) > 8*maxText || strings.ContainsFunc(text, func(c rune) bool { return !unicode.IsPrint(c) }) {
					t.Errorf("%q", text)
				}
			}
		}
		if header, claims, ok := Decode(body); ok && (len(header) == 0 || len(claims) == 0) {
			t.Errorf("%q is decoded", body)
		}
	})
}

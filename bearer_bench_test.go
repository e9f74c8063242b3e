//go:build unix

package mtlsauth

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// bearerOperation returns an operation that passes a request through mtls_bearer,
// without network and proxy. Another directive of the plugin has already seen the
// request.
func bearerOperation(b *testing.B, forget bool) func(int) {
	leaf := testpki.MustSelfSigned(b)
	h, token := provisionBearer(b, leaf)
	r, _ := newRequest(leaf)
	r.Header["Authorization"] = []string{"Bearer " + token}
	stateOf(h.realm.app, r)
	w := httptest.NewRecorder()
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	if err := h.ServeHTTP(w, r, next); err != nil {
		b.Fatal(err)
	}
	var hash uint64
	for cached := range h.tokens.cachedTokens().All() {
		hash = cached.hash
	}
	return func(int) {
		if forget {
			h.tokens.cachedTokens().Find(hash, func(*cachedToken) bool { return true }).generation++
		}
		if err := h.ServeHTTP(w, r, next); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkBearer(b *testing.B) {
	b.Run("remembered", func(b *testing.B) { testtool.Measure(b, bearerOperation(b, false)) })
	b.Run("first", func(b *testing.B) { testtool.Measure(b, bearerOperation(b, true)) })
}

// BenchmarkCompareBearer compares a cached token with one whose signature is checked.
func BenchmarkCompareBearer(b *testing.B) {
	testtool.Compare(b, 4, testtool.Repeated(b, "remembered", bearerOperation(b, false)), testtool.Repeated(b, "first", bearerOperation(b, true)))
}

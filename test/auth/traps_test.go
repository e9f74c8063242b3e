package auth_test

import (
	"net/http"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestMatcherForPresenceIsSafe checks that the documented matcher for "has an
// identity" is false if no mtls_auth has run. A mistake in the order or the
// matcher of a directive then admits nobody.
func TestMatcherForPresenceIsSafe(t *testing.T) {
	const recipe = "vars_regexp {http.mtls.client_id} ."
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, `
https://api.test:@HTTPS@ {
	import mtls
	@client `+recipe+`
	header @client X-Before client
	mtls_auth /guarded/* {
		optional
	}
	handle @client {
		respond "client"
	}
	handle {
		respond "nobody"
	}
}
`)
	for _, protocol := range rig.Protocols {
		for path, want := range map[string]string{"/guarded/x": "client", "/x": "nobody"} {
			got := r.Caller(t, protocol, billing).Get("https://api.test"+path).WantStatus(t, http.StatusOK)
			if got.Body != want || got.Header.Get("X-Before") != "" {
				t.Errorf("%s with a certificate: %q, header %q; want %q", path, got.Body, got.Header.Get("X-Before"), want)
			}
			got = r.Caller(t, protocol, nil).Get("https://api.test"+path).WantStatus(t, http.StatusOK)
			if got.Body != "nobody" || got.Header.Get("X-Before") != "" {
				t.Errorf("%s without a certificate: %q", path, got.Body)
			}
		}
	}
}

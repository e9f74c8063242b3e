package mtlsauth

import (
	"net/http"
	"testing"
)

// TestMatcherForPresenceIsSafe: the matcher that the reference gives for "has an
// identity" is false where no mtls_auth has run, so that a mistake in the order
// or the matcher of a directive admits nobody.
func TestMatcherForPresenceIsSafe(t *testing.T) {
	const recipe = "vars_regexp {http.mtls.client_id} ."
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(billingAndSensor, `
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
	for _, protocol := range rigProtocols {
		for path, want := range map[string]string{"/guarded/x": "client", "/x": "nobody"} {
			got := r.caller(t, protocol, billing).get("https://api.test"+path).wantStatus(t, http.StatusOK)
			if got.body != want || got.header.Get("X-Before") != "" {
				t.Errorf("%s with a certificate: %q, header %q; want %q", path, got.body, got.header.Get("X-Before"), want)
			}
			got = r.caller(t, protocol, nil).get("https://api.test"+path).wantStatus(t, http.StatusOK)
			if got.body != "nobody" || got.header.Get("X-Before") != "" {
				t.Errorf("%s without a certificate: %q", path, got.body)
			}
		}
	}
}

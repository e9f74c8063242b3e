package auth_test

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// rawURI adds a URI alternative name of exactly these octets.
func rawURI(t *testing.T, uri string) testpki.Option {
	t.Helper()
	der, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(uri)}})
	if err != nil {
		t.Fatal(err)
	}
	return testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: der})
}

// TestTextOfNamesInHeaders_A7 checks {http.mtls.matched} in headers to the API.
// Under a wildcard the certificate chooses a part of its text. The header must
// still have one value of printable ASCII and name no other client.
func TestTextOfNamesInHeaders_A7(t *testing.T) {
	r := rig.New(t)
	const bots, literal = "https://bots.example/", "https://exact.example/a%2Cb?c=%22d%22;e,f"
	r.Start(`
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client bots {
		san_uri `+bots+`**
	}
	client exact {
		san_uri `+literal+`
	}
}
`, `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		header_up X-Client-ID {http.mtls.client_id}
		header_up X-Matched   {http.mtls.matched}
		header_up X-Subject   {http.mtls.subject}
		header_up X-Several   "{http.mtls.matched} {http.mtls.client_id}"
	}
	reverse_proxy @UP@
}
`)
	for uri, client := range map[string]string{
		// characters valid in a URI arrive unchanged
		bots + "a,b": "bots", bots + "a;id=admin": "bots", bots + "a=b": "bots", bots + "a,X-Client-ID:admin": "bots", bots + "a;b,c=d/e;f": "bots",
		bots + "{http.mtls.realm}": "", bots + "'$(env)'": "bots", literal: "exact",
		// wildcards match no escapes, queries or fragments; invalid URIs match nothing
		bots + "%0d%0aX-Client-ID:%20admin": "", bots + "%2c": "", bots + "a%22": "", bots + "a?b=c": "", bots + "a#b": "",
		bots + `a"b`: "", bots + "a b": "",
		strings.ReplaceAll(literal, "%2C", ","): "", strings.ReplaceAll(literal, "%2C", "%2c"): "", literal + "%00": "",
	} {
		leaf := r.Issue("x", rawURI(t, uri))
		for _, protocol := range rig.Protocols {
			t.Run(uri+"/"+protocol, func(t *testing.T) {
				got := r.Caller(t, protocol, leaf).Get("https://api.test/")
				if client == "" {
					r.WantReason(t, got, "certificate_unknown")
					return
				}
				got.WantStatus(t, http.StatusOK).WantClient(t, client)
				wantHeader(t, got, "X-Matched", uri)
				wantHeader(t, got, "X-Subject", "CN=x")
				wantHeader(t, got, "X-Several", uri+" "+client) // a URI has no space
			})
		}
	}
}

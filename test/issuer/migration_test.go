package issuer_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"reflect"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestFromIdentityServer runs the Caddyfile of the documentation for those who come
// from IdentityServer, and checks that tokens look as they did there.
func TestFromIdentityServer(t *testing.T) {
	r := rig.New(t)
	leaf := r.Issue("mtls.client", testpki.Subject(pkix.Name{CommonName: "client", OrganizationalUnit: []string{"production"}, Organization: []string{"company"}}))
	public, err := x509.MarshalPKIXPublicKey(rig.MustSigner(t).Public())
	if err != nil {
		t.Fatal(err)
	}
	r.Write("old-server.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	const tlsSettings = "\ttls {\n\t\tclient_auth {\n\t\t\tmode request\n\t\t}\n\t}\n"
	global, sites := rig.Snippet(t, "../../docs/from-identityserver.md", 0,
		tlsSettings, "\timport mtls\n",
		"\n}\nauth.example.com {\n", "\n}\nhttps://auth.test:@HTTPS@ {\n\timport tls_without_client_auth\n",
		"mtls.auth.example.com {\n", "https://alias.test:@HTTPS@ {\n",
		"https://mtls.auth.example.com", "https://alias.test:@HTTPS@",
		"https://auth.example.com", "https://auth.test:@HTTPS@",
		"file clients-ca.pem", "file @DIR@/clients-ca.pem", "old-server.pem", "@DIR@/old-server.pem")
	r.Start(global, sites)

	issuer := "https://auth.test:" + r.HTTPS
	metadata := rig.JSON(t, r.Caller(t, "h2", nil).Get(issuer+"/.well-known/openid-configuration").WantStatus(t, 200).Body)
	endpoint := rig.Member(t, metadata, "mtls_endpoint_aliases")["token_endpoint"]
	if endpoint != "https://alias.test:"+r.HTTPS+"/connect/token" {
		t.Fatalf("the token endpoint is %v", endpoint)
	}
	_, header, claims := rig.Token(r, t, r.Caller(t, "h1", leaf), endpoint.(string), rig.Form("mtls.client"))
	for name, want := range map[string]any{"iss": issuer, "aud": "api1", "client_id": "mtls.client", "client_tenant": "acme", "scope": []any{"api1"}} {
		if !reflect.DeepEqual(claims[name], want) {
			t.Errorf("claim %s is %v, want %v", name, claims[name], want)
		}
	}
	if header["alg"] != "RS256" || header["typ"] != "at+jwt" || claims["cnf"] == nil {
		t.Errorf("header %v, claims %v", header, claims)
	}
	keys := rig.JSON(t, r.Caller(t, "h2", nil).Get(metadata["jwks_uri"].(string)).WantStatus(t, 200).Body)["keys"]
	if len(keys.([]any)) != 2 {
		t.Errorf("keys %v, want the own one and that of the old server", keys)
	}
}

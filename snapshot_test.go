package mtlsauth

import (
	"encoding/json"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/internal/trustpool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestChangedTrustPoolDecides checks that the next request is decided by a trust pool
// that has changed.
func TestChangedTrustPoolDecides(t *testing.T) {
	ca, other := testpki.MustCA(t), testpki.MustCA(t)
	realm := shadowedRealm(t, ca)
	realm.current.change(func(c *components) {
		c.trust = &trustpool.Trust{Pool: validators.NewTrustPool(other.Pool())}
	})
	old := testpki.MustIssue(t, ca, testpki.CommonName("a"))
	if _, refusal, _ := realm.current.Load().Decide(t.Context(), old.Presented(), ""); refusal == nil {
		t.Error("a certificate under the previous trust pool is admitted")
	}
	leaf := testpki.MustIssue(t, other, testpki.CommonName("a"))
	if _, refusal, _ := realm.current.Load().Decide(t.Context(), leaf.Presented(), ""); refusal != nil {
		t.Error(refusal)
	}
}

// shadowedRealm returns a realm with this CA as its trust pool and as its shadow. Its
// background work has not started.
func shadowedRealm(t *testing.T, ca *testpki.CA) *Realm {
	t.Helper()
	file, err := json.Marshal(testtool.WriteTemp(t, t.TempDir(), "ca.pem", ca.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	pool := `{"provider":"file","pem_files":[` + string(file) + `]}`
	app := provisionRealm(t, `{"trust_pool":`+pool+`,"shadow_trust_pool":`+pool+`,"clients":[
		{"client_id":"a","tls_client_auth_subject_dn":"CN=a"},{"client_id":"b","tls_client_auth_subject_dn":"CN=b"}]}`)
	return app.Realms[defaultRealm]
}

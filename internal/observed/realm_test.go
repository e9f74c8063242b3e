package observed

import (
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestDeclaredCertificatesAreNoStrangers checks that a stranger leaves the list when a client
// declares its certificate or its key.
func TestDeclaredCertificatesAreNoStrangers(t *testing.T) {
	byThumbprint, byKey, nobody := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	directory, err := directory.New(t.Context(), directory.Config{Records: []clients.Record{
		{ClientID: "a", Thumbprints: clients.Strings{testpki.HashOf(byThumbprint.Cert.Raw)}},
		{ClientID: "b", PublicKeys: clients.Strings{testpki.HashOf(byKey.Cert.RawSubjectPublicKeyInfo)}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	realm := &Realm{Registry: directory.Registry(), Refusals: refusals.NewMemory(refusals.Limits{})}
	refusal := &validators.Refusal{Reason: validators.CertificateUnknown, Detail: "nobody"}
	for _, leaf := range []*testpki.Leaf{byThumbprint, byKey, nobody} {
		certificate, _ := authn.NewNotes(refusal).Describe(nil, leaf.Presented(), refusal)
		realm.Refusals.Add(refusals.Record{At: time.Now(), Reason: string(refusal.Reason), Certificate: certificate})
	}
	list, more := realm.Strangers(10)
	if len(list) != 1 || list[0].Thumbprint != testpki.HashOf(nobody.Cert.Raw) || more != 0 {
		t.Errorf("%d strangers and %d more: %v", len(list), more, list)
	}
	if list, more := realm.Strangers(0); len(list) != 0 || more != 1 {
		t.Errorf("with limit 0, %d strangers and %d more", len(list), more)
	}
}

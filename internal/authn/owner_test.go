package authn

import (
	"context"
	"crypto/x509"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestOwnerOfARefusedCertificate checks that a refusal names the client whose certificate
// it is, also once that has expired, and that a certificate with its name alone does not
// count as its.
func TestOwnerOfARefusedCertificate(t *testing.T) {
	ca, now := testpki.MustCA(t), time.Now()
	over := testpki.Validity(now.Add(-50*time.Minute), now.Add(-time.Minute))
	off := named("off", "CN=off,O=company")
	off.Disabled = true
	auth := newTestAuthenticator(t, testenv.NewClockAt(now), []*testpki.CA{ca}, off, named("on", "CN=on,O=company"))
	for name, test := range map[string]struct {
		leaf     *testpki.Leaf
		clientID string
		want     string
	}{
		"expired":                 {testpki.MustIssue(t, ca, company("on"), over), "", "on"},
		"disabled":                {testpki.MustIssue(t, ca, company("off")), "", "off"},
		"names another client":    {testpki.MustIssue(t, ca, company("on")), "off", "on"},
		"expired, not of this CA": {testpki.MustSelfSigned(t, company("on"), over), "", ""},
		"not of this CA":          {testpki.MustSelfSigned(t, company("on")), "", ""},
		"expired, and of nobody":  {testpki.MustIssue(t, ca, company("nobody"), over), "", ""},
		"of this CA, and unknown": {testpki.MustIssue(t, ca, company("nobody")), "", ""},
	} {
		presented := test.leaf.Presented()
		id, refusal, _ := auth.Decide(context.Background(), presented, test.clientID)
		if refusal == nil {
			t.Fatalf("%s: it is admitted", name)
		}
		for _, given := range [][]*x509.Certificate{presented, nil} { // later, they are gone
			if got := id.Notes.Owner(auth, given, refusal); got != test.want {
				t.Errorf("%s: the owner is %q, want %q", name, got, test.want)
			}
		}
		if got := id.Notes.Owner(nil, presented, refusal); got != "" {
			t.Errorf("%s: without an authenticator, the owner is %q", name, got)
		}
	}
}

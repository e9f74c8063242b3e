package authn

import (
	"context"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// crossSigned returns an intermediate with certificates from two CAs, and a leaf
// that is sent with both.
func crossSigned(t *testing.T) (one, two *testpki.CA, byOne, byTwo *x509.Certificate, leaf *testpki.Leaf) {
	one, two = testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	key := testpki.MustKey(t, testpki.P256)
	sub := testpki.MustIntermediate(t, one, testpki.CommonName("Sub"), testpki.Key(key))
	again := testpki.MustIntermediate(t, two, testpki.CommonName("Sub"), testpki.Key(key))
	leaf = testpki.MustIssue(t, sub, company("client"))
	leaf.Chain = []*x509.Certificate{again.Cert, sub.Cert}
	return one, two, sub.Cert, again.Cert, leaf
}

// TestCertificateHeadersOfEachClient checks that a certificate which identifies
// several clients, each by a different chain, is forwarded with the chain that
// admitted the client.
func TestCertificateHeadersOfEachClient(t *testing.T) {
	one, two, byOne, byTwo, leaf := crossSigned(t)
	a, b := named("a", "CN=client,O=company"), named("b", "CN=client,O=company")
	a.SharedCredential, b.SharedCredential = true, true
	a.IssuedBy, b.IssuedBy = clients.Strings{testpki.HashOf(one.Cert.Raw)}, clients.Strings{testpki.HashOf(two.Cert.Raw)}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{one, two}, a, b)
	auth.config.Forwards = new(atomic.Bool)
	auth.config.Forwards.Store(true)
	var first Identity
	for i := range 2 {
		for id, chain := range map[string][]*x509.Certificate{"a": {byOne, one.Cert}, "b": {byTwo, two.Cert}} {
			got, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), id)
			if refusal != nil {
				t.Fatal(refusal)
			}
			if got.Headers.Cert != validators.ClientCert(leaf.Cert) || got.Headers.Chain != validators.ClientCertChain(chain) {
				t.Errorf("client %s: %s\n%s", id, got.Headers.Cert, got.Headers.Chain)
			}
			if id != "a" {
				continue
			}
			if i == 0 {
				first = got
			} else if unsafe.StringData(first.Headers.Cert) != unsafe.StringData(got.Headers.Cert) || unsafe.StringData(first.Headers.Chain) != unsafe.StringData(got.Headers.Chain) {
				t.Error("a remembered certificate is encoded again")
			}
		}
	}
	for _, v := range auth.accepted.verdicts() {
		for _, m := range v.matches {
			if m.chain != nil {
				t.Error("the parsed chain is kept")
			}
		}
	}

	// another certificate of the same CA shares the text of the chain
	other := testpki.MustIssue(t, &testpki.CA{Cert: one.Cert, Key: one.Key}, company("client"))
	third, refusal, _ := auth.Decide(context.Background(), other.Presented(), "a")
	fourth, _, _ := auth.Decide(context.Background(), testpki.MustIssue(t, one, company("client")).Presented(), "a")
	if refusal != nil || third.Headers.Chain != validators.ClientCertChain([]*x509.Certificate{one.Cert}) {
		t.Fatalf("%v %q", refusal, third.Headers.Chain)
	}
	if unsafe.StringData(third.Headers.Chain) != unsafe.StringData(fourth.Headers.Chain) {
		t.Error("a chain is kept twice")
	}
}

// TestCertificateHeadersOnDemand checks that nothing is encoded unless a handler
// forwards certificates.
func TestCertificateHeadersOnDemand(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
	for _, forwards := range []*atomic.Bool{nil, new(atomic.Bool)} {
		auth.config.Forwards = forwards
		id, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
		if refusal != nil || id.Headers != nil {
			t.Errorf("%v %v", refusal, id.Headers)
		}
		auth.accepted = newAcceptedCache(4, maxAcceptedBytes)
	}
}

func TestCertificateHeadersOfAPin(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	for name, want := range map[string]string{"alone": "", "with require_chain": validators.ClientCertChain([]*x509.Certificate{ca.Cert})} {
		record := pinned("a", leaf)
		record.RequireChain = want != ""
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, record)
		auth.config.Forwards = new(atomic.Bool)
		auth.config.Forwards.Store(true)
		id, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
		if refusal != nil || id.Headers.Chain != want || id.Headers.Cert != validators.ClientCert(leaf.Cert) {
			t.Errorf("a pin %s: %v, chain %q", name, refusal, id.Headers.Chain)
		}
	}
}

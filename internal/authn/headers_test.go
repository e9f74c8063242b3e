package authn

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"
	"time"
	"unsafe"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

var rfc9440 = forwarded.Formats[0]

func forwarding(formats ...*forwarded.Format) *Formats {
	inUse := new(Formats)
	for _, format := range formats {
		inUse.Use(format)
	}
	return inUse
}

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
	formats := forwarded.Formats
	auth.config.Forwards = forwarding(formats...)
	var first Identity
	for i := range 2 {
		for id, chain := range map[string][]*x509.Certificate{"a": {byOne, one.Cert}, "b": {byTwo, two.Cert}} {
			got, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), id)
			if refusal != nil {
				t.Fatal(refusal)
			}
			for _, format := range formats {
				wantCert, wantChain := format.Write(leaf.Cert, chain)
				if gotCert, gotChain := got.Headers.In(format); gotCert != wantCert || gotChain != wantChain {
					t.Errorf("client %s in %s: %s\n%s", id, format, gotCert, gotChain)
				}
			}
			if id != "a" {
				continue
			}
			if i == 0 {
				first = got
			} else if first.Headers != got.Headers {
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
	_, thirdChain := third.Headers.In(rfc9440)
	_, fourthChain := fourth.Headers.In(rfc9440)
	if refusal != nil || thirdChain != forwarded.ClientCertChain([]*x509.Certificate{one.Cert}) {
		t.Fatalf("%v %q", refusal, thirdChain)
	}
	if unsafe.StringData(thirdChain) != unsafe.StringData(fourthChain) {
		t.Error("a chain is kept twice")
	}
}

// TestCertificateHeadersOfOneChain checks that clients that share a certificate and its
// chain share what is encoded.
func TestCertificateHeadersOfOneChain(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	a, b := named("a", "CN=client,O=company"), named("b", "CN=client,O=company")
	a.SharedCredential, b.SharedCredential = true, true
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, a, b)
	auth.config.Forwards = forwarding(rfc9440)
	one, _, _ := auth.Decide(context.Background(), leaf.Presented(), "a")
	two, _, _ := auth.Decide(context.Background(), leaf.Presented(), "b")
	if one.Headers == nil || one.Headers != two.Headers || one.Client() == two.Client() {
		t.Errorf("%p and %p", one.Headers, two.Headers)
	}
}

// TestCertificateHeadersOnDemand checks that nothing is encoded in a format in which no
// handler forwards certificates.
func TestCertificateHeadersOnDemand(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
	for _, forwards := range []*Formats{nil, new(Formats)} {
		auth.config.Forwards = forwards
		id, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
		if refusal != nil || id.Headers != nil {
			t.Errorf("%v %v", refusal, id.Headers)
		}
		if cert, chain := id.Headers.In(rfc9440); cert != "" || chain != "" {
			t.Errorf("%q %q", cert, chain)
		}
		auth.accepted = newAcceptedCache(4, maxAcceptedBytes)
	}
	haproxy, err := forwarded.ParseFormat("haproxy")
	if err != nil {
		t.Fatal(err)
	}
	auth.config.Forwards = forwarding(haproxy, haproxy)
	id, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
	if refusal != nil || len(id.Headers.values) != 1 {
		t.Fatalf("%v, %d formats", refusal, len(id.Headers.values))
	}
	if cert, chain := id.Headers.In(haproxy); cert == "" || chain != "" {
		t.Errorf("haproxy: %q %q", cert, chain)
	}
	if cert, chain := id.Headers.In(rfc9440); cert != "" || chain != "" {
		t.Errorf("rfc9440: %q %q", cert, chain)
	}
}

// TestFloodWithLongHeaders checks that a client with a CA of its own cannot fill the
// memory with certificates whose chain is long, and that it is admitted.
func TestFloodWithLongHeaders_S8(t *testing.T) {
	root := testpki.MustCA(t)
	short := testpki.MustIntermediate(t, root)
	long := testpki.MustIntermediate(t, root, testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, 30<<10)}))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{root}, named("a", "CN=client,O=company"))
	auth.config.Forwards = forwarding(forwarded.Formats...)
	for _, ca := range []*testpki.CA{short, long, long, long} {
		leaf := testpki.MustIssue(t, ca, company("client"))
		for range 2 {
			id, refusal, _ := auth.Decide(t.Context(), leaf.Presented(), "")
			if refusal != nil {
				t.Fatal(refusal)
			}
			for _, format := range forwarded.Formats {
				wantCert, wantChain := format.Write(leaf.Cert, []*x509.Certificate{ca.Cert, root.Cert})
				if cert, chain := id.Headers.In(format); cert != wantCert || chain != wantChain {
					t.Errorf("%s: %d and %d octets, want %d and %d", format, len(cert), len(chain), len(wantCert), len(wantChain))
				}
			}
		}
	}
	size := 0
	for _, v := range auth.accepted.verdicts() {
		for _, m := range v.matches {
			size += m.headers.size()
		}
	}
	if size == 0 || size > maxHeaderBytes {
		t.Errorf("%d octets of headers are remembered, want those of the short chain alone", size)
	}
}

func TestCertificateHeadersOfAPin(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	for name, want := range map[string]string{"alone": "", "with require_chain": forwarded.ClientCertChain([]*x509.Certificate{ca.Cert})} {
		record := pinned("a", leaf)
		record.RequireChain = want != ""
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, record)
		auth.config.Forwards = forwarding(rfc9440)
		id, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
		if cert, chain := id.Headers.In(rfc9440); refusal != nil || chain != want || cert != forwarded.ClientCert(leaf.Cert) {
			t.Errorf("a pin %s: %v, chain %q", name, refusal, chain)
		}
	}
}

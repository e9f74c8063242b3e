package authn

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestEachKindOfNameAdmits checks that each kind of alternative name admits only by
// its own kind, and that the identity has the part of the certificate that matched.
func TestEachKindOfNameAdmits(t *testing.T) {
	ca := testpki.MustCA(t)
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca},
		clients.Record{ClientID: "dns", SANDNS: clients.Strings{"a.example.com", "*.b.example.com"}},
		clients.Record{ClientID: "uri", SANURI: clients.Strings{"https://c.example.com/x"}},
		clients.Record{ClientID: "workload", SANURI: clients.Strings{"spiffe://prod.example/ns/billing/*"}},
		clients.Record{ClientID: "ip", SANIP: clients.Strings{"2001:db8::1", "192.0.2.1"}},
		clients.Record{ClientID: "email", SANEmail: clients.Strings{"billing@example.com"}},
	)
	for name, test := range map[string]struct {
		options []testpki.Option
		want    string
		matched string
	}{
		"dns":                      {[]testpki.Option{testpki.DNSNames("A.example.com")}, "dns", "a.example.com"},
		"dns wildcard":             {[]testpki.Option{testpki.DNSNames("x.b.example.com")}, "dns", "x.b.example.com"},
		"two labels":               {[]testpki.Option{testpki.DNSNames("y.x.b.example.com")}, "[certificate_unknown]", ""},
		"R24 wildcard presented":   {[]testpki.Option{testpki.DNSNames("*.b.example.com")}, "[certificate_unknown]", ""},
		"uri":                      {[]testpki.Option{testpki.URIs("https://C.example.com/x")}, "uri", "https://c.example.com/x"},
		"workload":                 {[]testpki.Option{testpki.URIs("spiffe://prod.example/ns/billing/nightly")}, "workload", "spiffe://prod.example/ns/billing/nightly"},
		"another workload":         {[]testpki.Option{testpki.URIs("spiffe://prod.example/ns/other/nightly")}, "[certificate_unknown]", ""},
		"B12 two URIs":             {[]testpki.Option{testpki.URIs("spiffe://prod.example/ns/billing/a", "https://x.example")}, "[certificate_unsuitable]", ""},
		"B12 another trust domain": {[]testpki.Option{testpki.URIs("spiffe://test.example/ns/billing/a")}, "[certificate_unknown]", ""},
		"R6 ip in another form":    {[]testpki.Option{testpki.IPs(net.ParseIP("2001:db8:0:0::1"))}, "ip", "2001:db8::1"},
		"ip of four octets":        {[]testpki.Option{testpki.IPs(net.IPv4(192, 0, 2, 1).To4())}, "ip", "192.0.2.1"},
		"email":                    {[]testpki.Option{testpki.Emails("billing@EXAMPLE.com")}, "email", "billing@example.com"},
		"email in another case":    {[]testpki.Option{testpki.Emails("Billing@example.com")}, "[certificate_unknown]", ""},
		"B7 dns in a URI":          {[]testpki.Option{testpki.URIs("a.example.com:")}, "[certificate_unknown]", ""},
		"B7 dns in an email":       {[]testpki.Option{testpki.Emails("x@a.example.com")}, "[certificate_unknown]", ""},
		"B7 ip as dns":             {[]testpki.Option{testpki.DNSNames("192.0.2.1")}, "[certificate_unknown]", ""},
		"names of two clients":     {[]testpki.Option{testpki.DNSNames("a.example.com"), testpki.Emails("billing@example.com")}, "[certificate_ambiguous]", ""},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := testpki.MustIssue(t, ca, test.options...)
			if got := auth.ask(leaf.Presented(), ""); got != test.want {
				t.Fatalf("got %s, want %s", got, test.want)
			}
			id, _, _ := auth.Decide(context.Background(), leaf.Presented(), "")
			if id.Matched != test.matched {
				t.Fatalf("matched %q, want %q", id.Matched, test.matched)
			}
			// the same names count for nothing without the chain
			if self := testpki.MustSelfSigned(t, test.options...); auth.ask(self.Presented(), "") != "[certificate_untrusted]" {
				t.Fatal("a self-signed certificate with the name is not untrusted")
			}
		})
	}
}

// TestPublicKeyPinSurvivesRenewal checks that a renewed certificate with the same
// key is admitted, and one with another key is not.
func TestPublicKeyPinSurvivesRenewal(t *testing.T) {
	key := testpki.MustKey(t, testpki.P256)
	first := testpki.MustSelfSigned(t, testpki.Key(key))
	renewed := testpki.MustSelfSigned(t, testpki.Key(key), testpki.CommonName("renewed"))
	other := testpki.MustSelfSigned(t)
	sum := sha256.Sum256(first.Cert.RawSubjectPublicKeyInfo)
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil, clients.Record{ClientID: "a", PublicKeys: clients.Strings{hex.EncodeToString(sum[:])}})
	for _, leaf := range []*testpki.Leaf{first, renewed} {
		if got := auth.ask(leaf.Presented(), ""); got != "a" {
			t.Fatalf("got %s", got)
		}
	}
	if got := auth.ask(other.Presented(), ""); got != "[certificate_unknown]" {
		t.Fatalf("another key: %s", got)
	}
}

// TestPinEndsAtUntil checks that a pin with an `until` counts up to then, even for
// a remembered certificate, and that the next pin counts already.
func TestPinEndsAtUntil(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	old, next := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	end := clock.Now().Add(time.Hour).Truncate(time.Second)
	auth := newTestAuthenticator(t, clock, nil, clients.Record{ClientID: "a", Thumbprints: clients.Strings{
		testpki.HashOf(old.Cert.Raw) + " until " + end.Format(time.RFC3339), testpki.HashOf(next.Cert.Raw),
	}})
	ask := func(wantOld string) {
		t.Helper()
		if got := auth.ask(old.Presented(), ""); got != wantOld {
			t.Fatalf("old certificate: got %s, want %s", got, wantOld)
		}
		if got := auth.ask(next.Presented(), ""); got != "a" {
			t.Fatalf("next certificate: got %s", got)
		}
	}
	ask("a")
	ask("a")
	clock.Advance(2 * time.Hour)
	ask("[certificate_unknown]")
	_, refusal, _ := auth.Decide(context.Background(), old.Presented(), "")
	if !strings.Contains(refusal.Detail, "the thumbprint of client 'a' ended at ") {
		t.Fatal(refusal.Detail)
	}
}

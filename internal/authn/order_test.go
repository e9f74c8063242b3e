package authn

import (
	"context"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestPinsComeFirst checks that a certificate admitted by a pin is not verified,
// and that its names do not count.
func TestPinsComeFirst(t *testing.T) {
	stranger := testpki.MustCA(t, testpki.CommonName("Stranger"))
	ca := testpki.MustCA(t, testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(time.Hour)))
	leaf := testpki.MustIssue(t, ca, company("client"))
	foreign := testpki.MustIssue(t, stranger, company("client"))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, pinned("pinned", leaf, foreign), named("named", "CN=client,O=company"))

	for name, presented := range map[string][]*x509.Certificate{
		"verifiable": leaf.Presented(), "not verifiable": foreign.Presented(),
	} {
		if got := auth.ask(presented, ""); got != "pinned" {
			t.Errorf("%s: %s, want the pinned client", name, got)
		}
		if got := auth.ask(presented, "named"); got != "[client_mismatch]" {
			t.Errorf("%s: %s for the client that has the subject", name, got)
		}
	}
	// had the chain been looked at, the verdict would end with the CA
	if v := auth.examine(context.Background(), leaf.Presented(), auth.config.Now()); !v.until.Equal(leaf.Cert.NotAfter) {
		t.Errorf("the verdict ends at %s, the certificate at %s", v.until, leaf.Cert.NotAfter)
	}
}

// TestDisabledPinHidesNobody checks that a disabled client drops out, so that the
// name of the certificate can identify another one.
func TestDisabledPinHidesNobody(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	foreign := testpki.MustIssue(t, testpki.MustCA(t), company("client"))
	off := pinned("off", leaf, foreign)
	off.Disabled = true
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, off, named("new", "CN=client,O=company"))
	for _, tc := range []struct {
		leaf           *testpki.Leaf
		clientID, want string
	}{
		{leaf, "", "new"}, {leaf, "new", "new"}, {leaf, "off", "[client_disabled]"}, {leaf, "other", "[client_mismatch]"},
		{foreign, "", "[client_disabled]"}, {foreign, "new", "[client_mismatch]"},
	} {
		for range 2 { // remembered, too
			if got := auth.ask(tc.leaf.Presented(), tc.clientID); got != tc.want {
				t.Errorf("client_id %q: %s, want %s", tc.clientID, got, tc.want)
			}
		}
	}
	other := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, off, named("b", "CN=b"))
	if got := other.ask(leaf.Presented(), ""); got != "[client_disabled]" {
		t.Errorf("%s where nobody has the name", got)
	}
}

// TestChainBeforeNames checks that names are looked up, and mentioned, only after
// the chain has verified.
func TestChainBeforeNames(t *testing.T) {
	ca := testpki.MustCA(t)
	forger := testpki.MustCA(t) // of the same name
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("named", "CN=client,O=company"))
	details := make(map[string][]string)
	for _, name := range []string{"client", "nobody"} {
		for _, presented := range [][]*x509.Certificate{
			testpki.MustSelfSigned(t, company(name)).Presented(),
			testpki.MustIssue(t, forger, company(name)).Presented(),
			// what is wrong with the leaf itself is not told either
			testpki.MustIssue(t, forger, company(name), testpki.IsCA(true)).Presented(),
			testpki.MustIssue(t, forger, company(name), testpki.KeyUsage(x509.KeyUsageKeyAgreement)).Presented(),
		} {
			v := auth.examine(context.Background(), presented, auth.config.Now())
			if v.refusal == nil || v.refusal.Reason != validators.CertificateUntrusted || len(v.matches) > 0 {
				t.Fatalf("%s: %+v", name, v)
			}
			details[name] = append(details[name], v.refusal.Detail)
		}
	}
	for i, detail := range details["client"] {
		if detail != details["nobody"][i] {
			t.Errorf("a registered subject makes a difference: %q and %q", detail, details["nobody"][i])
		}
	}
}

// TestLeafChecksComeBeforePins checks that a pin does not excuse an unsuitable or
// expired leaf.
func TestLeafChecksComeBeforePins(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	leaf := testpki.MustSelfSigned(t, testpki.EKU(x509.ExtKeyUsageServerAuth))
	auth := newTestAuthenticator(t, clock, nil, pinned("a", leaf))
	if got := auth.ask(leaf.Presented(), ""); got != "[certificate_unsuitable]" {
		t.Error(got)
	}
	clock.Advance(25 * time.Hour)
	if got := auth.ask(leaf.Presented(), ""); got != "[certificate_expired]" {
		t.Errorf("%s: validity comes before all else", got)
	}
}

// TestClientIDDecidesBetweenClients checks that disabled candidates drop out, and
// that then only the client_id decides.
func TestClientIDDecidesBetweenClients(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	legacy := sha1.Sum(leaf.Cert.Raw)
	client := func(id string, disabled bool) clients.Record {
		record := pinned(id, leaf)
		record.SharedCredential, record.Disabled = true, disabled
		return record
	}
	sha1Client := clients.Record{ClientID: "legacy", Thumbprints: clients.Strings{hex.EncodeToString(legacy[:])}}
	on, off := false, true
	for _, test := range []struct {
		name     string
		clients  []clients.Record
		clientID string
		want     string
	}{
		{"two", []clients.Record{client("a", on), client("b", on)}, "", "[certificate_ambiguous]"},
		{"two, the first named", []clients.Record{client("a", on), client("b", on)}, "a", "a"},
		{"two, the second named", []clients.Record{client("a", on), client("b", on)}, "b", "b"},
		{"two, another named", []clients.Record{client("a", on), client("b", on)}, "c", "[client_mismatch]"},
		{"three", []clients.Record{client("a", on), client("b", on), client("c", on)}, "", "[certificate_ambiguous]"},
		{"first disabled", []clients.Record{client("a", off), client("b", on)}, "", "b"},
		{"second disabled", []clients.Record{client("a", on), client("b", off)}, "", "a"},
		{"disabled one named", []clients.Record{client("a", off), client("b", on)}, "a", "[client_disabled]"},
		{"one of three disabled", []clients.Record{client("a", on), client("b", off), client("c", on)}, "", "[certificate_ambiguous]"},
		{"both disabled", []clients.Record{client("a", off), client("b", off)}, "", "[client_disabled]"},
		{"both disabled, one named", []clients.Record{client("a", off), client("b", off)}, "b", "[client_disabled]"},
		{"both disabled, another named", []clients.Record{client("a", off), client("b", off)}, "c", "[client_mismatch]"},
		// two hashes of one certificate, which loading cannot know of
		{"B10: SHA-1 of one, SHA-256 of another", []clients.Record{sha1Client, pinned("a", leaf)}, "", "[certificate_ambiguous]"},
		{"B10: SHA-1 of one, SHA-256 of another, named", []clients.Record{sha1Client, pinned("a", leaf)}, "legacy", "legacy"},
	} {
		t.Run(test.name, func(t *testing.T) {
			auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil, test.clients...)
			for range 2 { // what is remembered is the candidates, not the choice
				if got := auth.ask(leaf.Presented(), test.clientID); got != test.want {
					t.Errorf("%s, want %s", got, test.want)
				}
			}
		})
	}
	// one client by two of its credentials is one client
	both := pinned("a", leaf)
	both.Thumbprints = append(both.Thumbprints, hex.EncodeToString(legacy[:]))
	if got := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil, both).ask(leaf.Presented(), ""); got != "a" {
		t.Errorf("two credentials of one client: %s", got)
	}
}

// TestRememberedChoice checks that a certificate is verified once, whichever
// client_ids it comes with.
func TestRememberedChoice(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	a, b := pinned("a", leaf), pinned("b", leaf)
	a.SharedCredential, b.SharedCredential = true, true
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil, a, b)
	for i, clientID := range []string{"a", "b", "", "c", "a"} {
		if _, _, remembered := auth.Decide(context.Background(), leaf.Presented(), clientID); remembered != (i > 0) {
			t.Errorf("request %d: remembered is %t", i, remembered)
		}
	}
}

// TestIssuedByNarrows_B9 checks that one chain must satisfy everything, including
// the client's issued_by.
func TestIssuedByNarrows_B9(t *testing.T) {
	one, two := testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	sub := testpki.MustIntermediate(t, one)
	hashes := map[string]string{
		"root one":               testpki.HashOf(one.Cert.Raw),
		"public key of one":      testpki.HashOf(one.Cert.RawSubjectPublicKeyInfo),
		"root two":               testpki.HashOf(two.Cert.Raw),
		"intermediate":           testpki.HashOf(sub.Cert.Raw),
		"key of intermediate":    testpki.HashOf(sub.Cert.RawSubjectPublicKeyInfo),
		"a CA that is unrelated": testpki.SomeSHA256,
	}
	leaves := map[string]*testpki.Leaf{
		"one": testpki.MustIssue(t, one, company("client")),
		"sub": testpki.MustIssue(t, sub, company("client")),
		"two": testpki.MustIssue(t, two, company("client")),
	}
	for _, test := range []struct {
		issuedBy string // names of hashes, joined by +
		admits   string // names of leaves
	}{
		{"", "one sub two"},
		{"root one", "one sub"},
		{"public key of one", "one sub"},
		{"root two", "two"},
		{"intermediate", "sub"},
		{"key of intermediate", "sub"},
		{"intermediate+root two", "sub two"},
		{"a CA that is unrelated", ""},
	} {
		t.Run(test.issuedBy, func(t *testing.T) {
			record := named("a", "CN=client,O=company")
			for name := range strings.SplitSeq(test.issuedBy, "+") {
				if name != "" {
					record.IssuedBy = append(record.IssuedBy, hashes[name])
				}
			}
			auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{one, two}, record)
			for name, leaf := range leaves {
				want := "[certificate_untrusted]"
				if strings.Contains(" "+test.admits+" ", " "+name+" ") {
					want = "a"
				}
				if got := auth.ask(leaf.Presented(), ""); got != want {
					t.Errorf("leaf of %s: %s, want %s", name, got, want)
				}
			}
		})
	}

	// two clients of one subject, told apart by their CA
	a, b := named("a", "CN=client,O=company"), named("b", "CN=client,O=company")
	a.SharedCredential, b.SharedCredential = true, true
	a.IssuedBy, b.IssuedBy = clients.Strings{hashes["root one"]}, clients.Strings{hashes["root two"]}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{one, two}, a, b)
	for leaf, want := range map[string]string{"one": "a", "sub": "a", "two": "b"} {
		if got := auth.ask(leaves[leaf].Presented(), ""); got != want {
			t.Errorf("leaf of %s: %s, want %s", leaf, got, want)
		}
	}
	if got := auth.ask(leaves["one"].Presented(), "b"); got != "[client_mismatch]" {
		t.Errorf("the CA of one, the client_id of the other: %s", got)
	}
}

// TestRequireChain checks that a pin can require a chain as well, and that
// issued_by requires one by itself.
func TestRequireChain(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	ca, other := testpki.MustCA(t), testpki.MustCA(t, testpki.CommonName("Other"))
	good, foreign, selfSigned := testpki.MustIssue(t, ca), testpki.MustIssue(t, other), testpki.MustSelfSigned(t)
	sub := testpki.MustIntermediate(t, ca, testpki.Validity(clock.Now().Add(-time.Hour), clock.Now().Add(time.Hour)))
	short := testpki.MustIssue(t, sub)
	chained, issued := pinned("chained", good, foreign, selfSigned, short), pinned("issued", good, foreign, selfSigned)
	chained.RequireChain = true
	issued.IssuedBy = clients.Strings{testpki.HashOf(ca.Cert.Raw)}

	for name, record := range map[string]clients.Record{"require_chain": chained, "issued_by": issued} {
		auth := newTestAuthenticator(t, clock, []*testpki.CA{ca}, record)
		for leaf, test := range map[string]struct {
			leaf *testpki.Leaf
			want string
		}{
			"good": {good, record.ClientID}, "foreign": {foreign, "[certificate_untrusted]"}, "self-signed": {selfSigned, "[certificate_untrusted]"},
		} {
			if got := auth.ask(test.leaf.Presented(), ""); got != test.want {
				t.Errorf("%s: %s leaf: %s, want %s", name, leaf, got, test.want)
			}
		}
		_, refusal, _ := auth.Decide(context.Background(), foreign.Presented(), "")
		want := "client '" + record.ClientID + "' matches by its thumbprint, but it has " + name + " and the chain does not verify: certificate signed by unknown authority"
		if refusal == nil || !strings.HasPrefix(refusal.Detail, want) { // and then what is missing
			t.Errorf("%s: refusal %v, want %q", name, refusal, want)
		}
	}

	// a pin that is not admitted leaves the names to be looked up
	record := pinned("pin", foreign)
	record.RequireChain = true
	auth := newTestAuthenticator(t, clock, []*testpki.CA{ca, other}, record, named("named", "CN=client"))
	if got := auth.ask(foreign.Presented(), ""); got != "pin" {
		t.Errorf("pin with a chain: %s", got)
	}
	record.IssuedBy = clients.Strings{testpki.HashOf(ca.Cert.Raw)}
	auth = newTestAuthenticator(t, clock, []*testpki.CA{ca, other}, record, named("named", "CN=client"))
	if got := auth.ask(foreign.Presented(), ""); got != "named" {
		t.Errorf("pin of another issuer, name of this one: %s", got)
	}

	// the chain of a pin ends the verdict like any other
	auth = newTestAuthenticator(t, clock, []*testpki.CA{ca}, chained)
	if got := auth.ask(short.Presented(), ""); got != "chained" {
		t.Fatal(got)
	}
	clock.Advance(2 * time.Hour)
	if got := auth.ask(short.Presented(), ""); got != "[certificate_untrusted]" {
		t.Errorf("after the intermediate has expired: %s", got)
	}
}

// TestRenewedCertificateIsAdmitted_R7 checks that a new certificate with the same
// subject needs no new configuration, while a pinned one does.
func TestRenewedCertificateIsAdmitted_R7(t *testing.T) {
	ca := testpki.MustCA(t)
	first, second := testpki.MustIssue(t, ca, company("client")), testpki.MustIssue(t, ca, company("client"))
	byName := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
	byPin := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, pinned("a", first))
	for _, test := range []struct {
		auth *Authenticator
		leaf *testpki.Leaf
		want string
	}{{byName, first, "a"}, {byName, second, "a"}, {byPin, first, "a"}, {byPin, second, "[certificate_unknown]"}} {
		if got := test.auth.ask(test.leaf.Presented(), ""); got != test.want {
			t.Errorf("%s, want %s", got, test.want)
		}
	}
}

package authn

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// explained returns what Explain says, after a line with the reason.
func (a *Authenticator) explained(presented []*x509.Certificate, clientID string) string {
	_, refusal, _ := a.Decide(context.Background(), presented, clientID)
	if refusal == nil {
		return "accepted"
	}
	return strings.Join(append([]string{string(refusal.Reason)}, a.Explain(presented, clientID, refusal)...), "\n")
}

func TestNearMisses(t *testing.T) {
	clock := testenv.NewClockAt(time.Now())
	now := clock.Now()
	ca, otherCA := testpki.MustCA(t), testpki.MustCA(t, testpki.CommonName("Other CA"))
	sub := testpki.MustIntermediate(t, ca)
	key := testpki.MustKey(t, testpki.P256)
	keyLeaf := testpki.MustSelfSigned(t, testpki.Key(key))
	renewed := testpki.MustSelfSigned(t, testpki.Key(key))
	file := testtool.WriteTemp(t, t.TempDir(), "old.pem", keyLeaf.PEM())
	keyHash := testpki.HashOf(keyLeaf.Cert.RawSubjectPublicKeyInfo)
	ended := now.Add(-time.Hour).UTC().Format(time.RFC3339)
	workload := testpki.URIs("spiffe://prod.example/ns/billing/one")
	reversed := testpki.Subject(pkix.Name{ExtraNames: []pkix.AttributeTypeAndValue{
		{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "client"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "company"},
	}})
	past, future := testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour)), testpki.Validity(now.Add(time.Hour), now.Add(2*time.Hour))
	issuedByOther := named("a", "CN=client,O=company")
	issuedByOther.IssuedBy = clients.Strings{testpki.HashOf(otherCA.Cert.Raw)}
	chained := pinned("a", keyLeaf)
	chained.RequireChain = true
	disabled := named("a", "CN=client,O=company")
	disabled.Disabled = true
	untilEnded := clients.Record{ClientID: "p", Thumbprints: clients.Strings{testpki.HashOf(keyLeaf.Cert.Raw) + " until " + ended}}
	caPin := clients.Record{ClientID: "a", Thumbprints: clients.Strings{testpki.HashOf(sub.Cert.Raw)}}
	caKeyPin := clients.Record{ClientID: "a", PublicKeys: clients.Strings{testpki.HashOf(sub.Cert.RawSubjectPublicKeyInfo)}}
	uri := clients.Record{ClientID: "a", SANURI: clients.Strings{"spiffe://prod.example/ns/billing/*"}}
	dns := clients.Record{ClientID: "a", SANDNS: clients.Strings{"one.example.com", "*.wild.example.com"}}
	certificateFile := clients.Record{ClientID: "a", CertificateFiles: clients.Strings{file}}
	client := named("a", "CN=client,O=company")

	issue := func(opts ...testpki.Option) *testpki.Leaf {
		return testpki.MustIssue(t, ca, append([]testpki.Option{company("client")}, opts...)...)
	}
	selfSigned := func(opts ...testpki.Option) *testpki.Leaf {
		return testpki.MustSelfSigned(t, append([]testpki.Option{company("client")}, opts...)...)
	}
	sans := func(opts ...testpki.Option) *testpki.Leaf {
		return testpki.MustSelfSigned(t, append([]testpki.Option{testpki.Subject(pkix.Name{})}, opts...)...)
	}
	alone := func(leaf *testpki.Leaf) *testpki.Leaf {
		leaf.Chain = nil
		return leaf
	}
	const untrusted = "', but it counts only with a verified chain"
	const own = "\nit names itself as its issuer, as self-signed certificates do; register such a client by thumbprint, not by name"
	for _, tc := range []struct {
		name     string
		records  []clients.Record
		leaf     *testpki.Leaf
		clientID string
		want     string // lines: the reason, then every sentence
	}{
		{"subject in reverse", []clients.Record{client}, issue(reversed), "", "certificate_unknown\nclient 'a' declares the subject in reverse order; declare it as 'O=company,CN=client' if this is the client"},
		{"subject of another CA", []clients.Record{client}, testpki.MustIssue(t, otherCA, company("client")), "", "certificate_untrusted\nthe subject is declared by client 'a" + untrusted},
		{"subject, not through issued_by", []clients.Record{issuedByOther}, issue(), "", "certificate_untrusted\nthe subject is declared by client 'a" + untrusted + " that meets issued_by" +
			"\nthe chain verifies, with the CA 'CN=Test Root CA': issued_by \"" + testpki.HashOf(ca.Cert.RawSubjectPublicKeyInfo) + "\""},
		{"subject, no intermediate", []clients.Record{client}, alone(testpki.MustIssue(t, sub, company("client"))), "", "certificate_untrusted\nthe subject is declared by client 'a" + untrusted},
		{"two SPIFFE IDs", []clients.Record{uri}, issue(testpki.URIs("spiffe://prod.example/ns/billing/one", "spiffe://prod.example/ns/billing/two")), "", "certificate_unsuitable\notherwise a client declares its SPIFFE ID"},
		{"unknown subject", []clients.Record{client}, issue(company("stranger")), "", "certificate_unknown\nno client declares the subject 'O=company,CN=stranger', in this order or in reverse"},
		{"client ID as common name", []clients.Record{pinned("client", keyLeaf)}, selfSigned(), "", "certificate_unknown\nits common name is the ID of client 'client', which declares other credentials; if it is the new certificate of this client, add its thumbprint to the client"},
		{"client ID as common name, in another subject", []clients.Record{named("client", "CN=client,O=another organization")}, issue(), "", "certificate_unknown\nno client declares the subject 'CN=client,O=company', in this order or in reverse\nits common name is the ID of client 'client', which declares other credentials; if it is the new certificate of this client, add its thumbprint to the client"},
		{"client ID as common name, subject in reverse", []clients.Record{named("client", "CN=client,O=company")}, issue(reversed), "", "certificate_unknown\nclient 'client' declares the subject in reverse order; declare it as 'O=company,CN=client' if this is the client"},
		{"typo in a subject", []clients.Record{client, named("b", "CN=b,O=company")}, issue(company("cleint")), "", "certificate_unknown\nno client declares the subject 'CN=cleint,O=company', in this order or in reverse; client 'a' declares 'CN=client,O=company', which differs in few letters"},
		{"typo in a subject, of two", []clients.Record{client, named("b", "CN=cliens,O=company")}, issue(company("clien")), "", "certificate_unknown\nno client declares the subject 'CN=clien,O=company', in this order or in reverse"},
		{"typo in a short subject", []clients.Record{named("b", "CN=b1")}, issue(testpki.Subject(pkix.Name{CommonName: "b2"})), "", "certificate_unknown\nno client declares the subject 'CN=b2', in this order or in reverse"},
		{"DNS name of another CA", []clients.Record{dns}, sans(testpki.DNSNames("x.example", "ONE.example.com")), "", "certificate_untrusted\nthe san_dns 'one.example.com' is declared by client 'a" + untrusted + own},
		{"DNS wildcard", []clients.Record{dns}, sans(testpki.DNSNames("n.wild.example.com")), "", "certificate_untrusted\nthe san_dns 'n.wild.example.com' is declared by client 'a" + untrusted + own},
		{"URI pattern", []clients.Record{uri}, sans(workload), "", "certificate_untrusted\nthe san_uri 'spiffe://prod.example/ns/billing/one' fits 'spiffe://prod.example/ns/billing/*' of client 'a" + untrusted + own},
		{"unknown names and subject", []clients.Record{dns}, selfSigned(testpki.DNSNames("x.example")), "", "certificate_untrusted\nno client declares the subject 'O=company,CN=client', in this order or in reverse\nno client declares any of the certificate's alternative names" + own},
		{"subject and name", []clients.Record{dns, named("b", "CN=client,O=company")}, selfSigned(testpki.DNSNames("one.example.com")), "", "certificate_untrusted\nthe subject is declared by client 'b" + untrusted + "\nthe san_dns 'one.example.com' is declared by client 'a" + untrusted + own},
		{"pin that ended, pins only", []clients.Record{untilEnded}, keyLeaf, "", "certificate_unknown"}, // the detail says it
		{"pin that ended, untrusted", []clients.Record{untilEnded, client}, keyLeaf, "", "certificate_untrusted\nthe thumbprint of client 'p' ended at " + ended + "\nno client declares the subject 'CN=client', in this order or in reverse"},
		{"pin whose chain does not verify", []clients.Record{chained, named("b", "CN=b")}, keyLeaf, "", "certificate_untrusted\nclient 'a' matches by its thumbprint, but it has require_chain, which the chain does not meet\nno client declares the subject 'CN=client', in this order or in reverse"},
		{"key declared as thumbprint", []clients.Record{{ClientID: "a", Thumbprints: clients.Strings{keyHash}}}, keyLeaf, "", "certificate_unknown\nthe thumbprint that client 'a' declares is the hash of this certificate's public key; declare it as public_key"},
		{"thumbprint declared as key", []clients.Record{{ClientID: "a", PublicKeys: clients.Strings{testpki.HashOf(keyLeaf.Cert.Raw)}}}, keyLeaf, "", "certificate_unknown\nthe public_key that client 'a' declares is the thumbprint of this certificate; declare it as thumbprint"},
		{"renewed", []clients.Record{certificateFile}, renewed, "", "certificate_unknown\nthe certificate file of client 'a' has the same key but a different certificate, as after a renewal; name the new file, or declare public_key \"" + keyHash + "\""},
		{"pin of a CA", []clients.Record{caPin}, testpki.MustIssue(t, sub), "", "certificate_unknown\nthe thumbprint of client 'a' is that of certificate 2 in the presented chain, but only the first is compared; pin that one, or declare its subject with the CA in trust_pool"},
		{"pin of a CA's key", []clients.Record{caKeyPin}, testpki.MustIssue(t, sub), "", "certificate_unknown\nthe public_key of client 'a' is that of certificate 2 in the presented chain, but only the first is compared; pin that one, or declare its subject with the CA in trust_pool"},
		{"expired", []clients.Record{client}, issue(past), "", "certificate_expired\nwithin its validity period it would be client 'a', by the subject 'CN=client,O=company'"},
		{"not yet valid", []clients.Record{client}, issue(future), "", "certificate_expired\nwithin its validity period it would be client 'a', by the subject 'CN=client,O=company'"},
		{"expired and disabled", []clients.Record{disabled}, issue(past), "", "certificate_expired\nwithin its validity period it would still be refused: client_disabled: client 'a' is disabled"},
		{"expired and in reverse", []clients.Record{client}, issue(past, reversed), "", "certificate_expired\nwithin its validity period it would still be refused: certificate_unknown: no client of the realm has a matching credential\nclient 'a' declares the subject in reverse order; declare it as 'O=company,CN=client' if this is the client"},
		{"never valid", []clients.Record{client}, issue(testpki.Validity(now.Add(-time.Hour), now.Add(-2*time.Hour))), "", "certificate_expired\nits notAfter is before its notBefore, so it is never valid"},
		{"no clientAuth", []clients.Record{client}, issue(testpki.EKU(x509.ExtKeyUsageServerAuth)), "", "certificate_unsuitable\notherwise it would be client 'a', by the subject 'CN=client,O=company', if its chain verifies"},
		{"no clientAuth, unknown", []clients.Record{client}, issue(company("stranger"), testpki.EKU(x509.ExtKeyUsageServerAuth)), "", "certificate_unsuitable\notherwise it would still match no client"},
		{"CA as leaf", []clients.Record{client}, issue(testpki.IsCA(true)), "", "certificate_unsuitable\notherwise it would be client 'a', by the subject 'CN=client,O=company', if its chain verifies"},
		{"another client asked for", []clients.Record{client, named("b", "CN=b")}, issue(), "b", "client_mismatch\nclient 'b' declares the subject 'CN=b', but the certificate lacks CN=b, and has CN=client,O=company instead"},
		{"part of a subject", []clients.Record{named("b", "CN=client,OU=production,O=company")}, issue(), "b", "certificate_unknown\nno client declares the subject 'O=company,CN=client', in this order or in reverse\nclient 'b' declares the subject 'CN=client,OU=production,O=company', but the certificate lacks OU=production"},
		{"more than a subject", []clients.Record{named("b", "CN=client")}, issue(), "b", "certificate_unknown\nno client declares the subject 'O=company,CN=client', in this order or in reverse\nclient 'b' declares the subject 'CN=client', but the certificate also has O=company"},
		{"another order asked for", []clients.Record{named("b", "O=company,CN=client")}, issue(), "b", "certificate_unknown\nclient 'b' declares the subject in reverse order; declare it as 'CN=client,O=company' if this is the client\nclient 'b' declares the subject 'O=company,CN=client', but the certificate has the parts in another order"},
		{"a client asked for that is none", []clients.Record{client}, issue(), "x\x1b", "client_mismatch\nthe realm has no client \"x\\x1b\""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cas := []*testpki.CA{ca}
			for _, record := range tc.records {
				if !record.RequireChain && record.SubjectDN == nil && record.SANDNS == nil && record.SANURI == nil && len(tc.records) == 1 {
					cas = nil
				}
			}
			auth := newTestAuthenticator(t, clock, cas, tc.records...)
			// the subjects are compared as they are printed
			want := strings.ReplaceAll(tc.want, "'O=company,CN=stranger'", "'"+dn.Format(tc.leaf.Cert.RawSubject)+"'")
			want = strings.ReplaceAll(want, "subject 'O=company,CN=client', in", "subject '"+dn.Format(tc.leaf.Cert.RawSubject)+"', in")
			if got := auth.explained(tc.leaf.Presented(), tc.clientID); got != want {
				t.Errorf("explained:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// TestHintJoinsNearMisses checks that a hint consists of the sentences of the near
// misses.
func TestHintJoinsNearMisses(t *testing.T) {
	ca := testpki.MustCA(t)
	pattern := clients.Record{ClientID: "a", SubjectDN: clients.Strings{"CN=client,O=company"}, SANURI: clients.Strings{"spiffe://prod.example/ns/*"}, SANDNS: clients.Strings{"a.example"}}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, pattern)
	leaf := testpki.MustSelfSigned(t, company("client"), testpki.DNSNames("a.example"), testpki.URIs("spiffe://prod.example/ns/b"))
	_, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
	misses := auth.about(leaf.Presented(), refusal).nearMisses()
	if got, want := auth.about(leaf.Presented(), refusal).hint(), strings.Join(misses, "; "); got != want || len(misses) != 4 {
		t.Errorf("hint %q, want %q", got, want)
	}
	if all := auth.Explain(leaf.Presented(), "", refusal); !slices.Equal(all, misses) {
		t.Errorf("explained %q, want %q", all, misses)
	}
}

// TestSameWorkForEveryPresentedName_E1 checks that the work of a decision does not
// tell a stranger which alternative names are registered, or which certificates of
// others are pinned, if they present them. Only the hint knows.
func TestSameWorkForEveryPresentedName_E1(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	ca, pinnedCA, otherCA := testpki.MustCA(t), testpki.MustCA(t), testpki.MustCA(t)
	record := named("a", "CN=client,O=company")
	record.SANDNS = clients.Strings{"known.example.com", "*.wilds.example.com"}
	record.SANURI = clients.Strings{"spiffe://prod.example/known"}
	record.Thumbprints = clients.Strings{testpki.HashOf(pinnedCA.Cert.Raw)}
	record.PublicKeys = clients.Strings{testpki.SomeSHA256}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, record)
	present := func(name, san, uri string, extra *testpki.CA) []*x509.Certificate {
		leaf := testpki.MustSelfSigned(t, company(name), testpki.DNSNames(san), testpki.URIs("spiffe://prod.example/"+uri))
		return append(leaf.Presented(), extra.Cert)
	}
	work := func(presented []*x509.Certificate) (float64, string) {
		_, refusal, remembered := auth.Decide(context.Background(), presented, "")
		if refusal == nil || refusal.Reason != validators.CertificateUntrusted || remembered {
			t.Fatalf("refusal %v, remembered %t", refusal, remembered)
		}
		return testing.AllocsPerRun(200, func() {
			auth.refused = newRefusedCache(cache.Ways) // so that nothing is remembered
			auth.Decide(context.Background(), presented, "")
		}), auth.about(presented, refusal).hint()
	}
	want, hint := work(present("nobody", "other.example.com", "other", otherCA))
	if strings.Contains(hint, "'a'") {
		t.Fatalf("hint %q", hint)
	}
	for name, presented := range map[string][]*x509.Certificate{
		"subject":    present("client", "other.example.com", "other", otherCA),
		"DNS name":   present("nobody", "known.example.com", "other", otherCA),
		"wildcard":   present("nobody", "q.wilds.example.com", "other", otherCA),
		"URI":        present("nobody", "other.example.com", "known", otherCA),
		"pin of CA":  present("nobody", "other.example.com", "other", pinnedCA),
		"everything": present("client", "known.example.com", "known", pinnedCA),
	} {
		got, hint := work(presented)
		if !strings.Contains(hint, "client 'a'") {
			t.Errorf("%s: hint %q", name, hint)
		}
		if got != want {
			t.Errorf("%s: %v allocations, and of a stranger's %v", name, got, want)
		}
	}
}

// TestHintIsBoundedAndPrintable_E3 checks that text from a stranger's certificate
// neither fills the log nor leaves its line.
func TestHintIsBoundedAndPrintable_E3(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustSelfSigned(t)
	record := pinned("p", leaf)
	record.SubjectDN, record.SANURI = clients.Strings{"CN=client"}, clients.Strings{"spiffe://prod.example/" + strings.Repeat("a/", 900) + "z"}
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, record)
	var names []string
	for i := range 250 {
		names = append(names, fmt.Sprintf("n%d.example", i))
	}
	for name, hostile := range map[string]*testpki.Leaf{
		"controls": testpki.MustSelfSigned(t, company("a\x00b\r\n\x1b[31mc\u202ed\u200be")),
		"long":     testpki.MustSelfSigned(t, company(strings.Repeat("\u00e9", 5000)), testpki.DNSNames(names...)),
		"long URI": testpki.MustSelfSigned(t, company("x"), testpki.URIs(record.SANURI[0])),
		"huge":     testpki.MustSelfSigned(t, company(strings.Repeat("x", 20000))),
	} {
		presented := hostile.Presented()
		for range 20 {
			presented = append(presented, leaf.Cert)
		}
		_, refusal, _ := auth.Decide(context.Background(), presented, "")
		hint := auth.about(presented, refusal).hint()
		if hint == "" || len(hint) > maxHintBytes {
			t.Errorf("%s: a hint of %d bytes", name, len(hint))
		}
		if strings.ContainsAny(hint, "\x00\r\n\x1b\u202e\u200b") {
			t.Errorf("%s: hint %q", name, hint)
		}
	}
}

// TestHintEndsWithAWholeSentence checks that a long hint is cut after a whole
// sentence, and that one that just fits is not cut.
func TestHintEndsWithAWholeSentence(t *testing.T) {
	ca := testpki.MustCA(t)
	key := testpki.MustKey(t, testpki.P256)
	long := func(c string) string { return strings.Repeat(c, 200) } // as long as the name of a client may be
	host := strings.Repeat(strings.Repeat("h", 60)+".", 4) + "example"
	after := testpki.MustSelfSigned(t)
	file := testtool.WriteTemp(t, t.TempDir(), "old.pem", testpki.MustSelfSigned(t, testpki.Key(key)).PEM())
	// joined is the hint of a certificate whose subject is so long, and what
	// there is to say
	joined := func(size int) (hint string, misses []string) {
		organization := strings.Repeat("o", size)
		leaf := testpki.MustSelfSigned(t, testpki.Key(key), testpki.DNSNames(host), testpki.Subject(pkix.Name{Organization: []string{organization}, CommonName: "client"}))
		keyHash, certificate := testpki.HashOf(leaf.Cert.RawSubjectPublicKeyInfo), testpki.HashOf(leaf.Cert.Raw)
		records := []clients.Record{
			{ClientID: long("k"), Thumbprints: clients.Strings{keyHash}},
			{ClientID: long("c"), PublicKeys: clients.Strings{certificate}},
			{ClientID: long("f"), CertificateFiles: clients.Strings{file}, SharedCredential: true},
			{ClientID: long("p"), Thumbprints: clients.Strings{testpki.HashOf(after.Cert.Raw)}},
			{ClientID: long("s"), SubjectDN: clients.Strings{"O=" + organization + ",CN=client"}},
			{ClientID: long("n"), SANDNS: clients.Strings{host}},
		}
		for _, id := range []string{"1", "2", "3", "4", "5"} {
			records = append(records, clients.Record{ClientID: long(id), PublicKeys: clients.Strings{keyHash}, RequireChain: true, SharedCredential: true})
		}
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, records...)
		presented := append(leaf.Presented(), after.Cert)
		_, refusal, _ := auth.Decide(context.Background(), presented, "")
		if refusal == nil {
			t.Fatal("admitted")
		}
		return auth.about(presented, refusal).hint(), auth.about(presented, refusal).nearMisses()
	}
	const some = 300
	_, misses := joined(some)
	fits := some + maxHintBytes - len(strings.Join(misses, "; "))
	for _, test := range []struct{ size, dropped int }{{some, 0}, {fits, 0}, {fits + 1, 1}} {
		hint, misses := joined(test.size)
		if want := strings.Join(misses[:len(misses)-test.dropped], "; "); hint != want {
			t.Errorf("a subject of %d: a hint of %d bytes %.60q, want %d bytes; all would be %d", test.size, len(hint), hint, len(want), len(strings.Join(misses, "; ")))
		}
	}
	if hint, _ := joined(fits); len(hint) != maxHintBytes {
		t.Errorf("a hint of %d bytes", len(hint))
	}
}

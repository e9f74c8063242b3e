package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// newTestAuthenticator returns an authenticator. Without a CA, it has no trust
// pool.
func newTestAuthenticator(t testing.TB, clock *testenv.Clock, cas []*testpki.CA, records ...clients.Record) *Authenticator {
	t.Helper()
	var trust *validators.TrustPool
	if len(cas) > 0 {
		pool := x509.NewCertPool()
		var anchors []*x509.Certificate
		for _, ca := range cas {
			pool.AddCert(ca.Cert)
			anchors = append(anchors, ca.Cert)
		}
		trust = validators.NewTrustPool(pool, anchors...)
	}
	return New(Config{Registry: registryOf(t, records...), Trust: trust, Now: clock.Now})
}

func registryOf(t testing.TB, records ...clients.Record) *clients.Registry {
	t.Helper()
	d, err := directory.New(t.Context(), directory.Config{Records: records})
	if err != nil {
		t.Fatal(err)
	}
	return d.Registry()
}

// pinned returns a client with the thumbprints of these certificates.
func pinned(id string, leaves ...*testpki.Leaf) clients.Record {
	record := clients.Record{ClientID: id}
	for _, leaf := range leaves {
		record.Thumbprints = append(record.Thumbprints, testpki.HashOf(leaf.Cert.Raw))
	}
	return record
}

// named returns a client with a subject.
func named(id, subject string) clients.Record {
	return clients.Record{ClientID: id, SubjectDN: clients.Strings{subject}}
}

func company(name string) testpki.Option {
	return testpki.Subject(pkix.Name{CommonName: name, Organization: []string{"company"}})
}

func thousandNames() []string {
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example", i)
	}
	return names
}

// ask returns the client, or the reason in brackets.
func (a *Authenticator) ask(presented []*x509.Certificate, clientID string) string {
	id, refusal, _ := a.Decide(context.Background(), presented, clientID)
	return answer(id, refusal)
}

// answer returns the client, or the reason in brackets.
func answer(id Identity, refusal *validators.Refusal) string {
	switch {
	case refusal == nil:
		return id.Client().ID
	case id != Identity{Notes: id.Notes}:
		return "an identity beside a refusal"
	}
	return "[" + string(refusal.Reason) + "]"
}

// TestEveryReasonAtFirstSightAndRemembered checks each reason that authentication
// can have, at first sight and from the cache.
func TestEveryReasonAtFirstSightAndRemembered(t *testing.T) {
	ca, stranger := testpki.MustCA(t), testpki.MustCA(t, testpki.CommonName("Stranger"))
	sub := testpki.MustIntermediate(t, ca)
	now := time.Now()
	past := testpki.Validity(now.AddDate(0, 0, -2), now.AddDate(0, 0, -1))
	future := testpki.Validity(now.AddDate(0, 0, 1), now.AddDate(0, 0, 2))
	serversOnly := testpki.EKU(x509.ExtKeyUsageServerAuth)
	manySANs := testpki.DNSNames(thousandNames()...)

	selfSigned := testpki.MustSelfSigned(t, testpki.CommonName("pinned"))
	pinnedCA := testpki.MustSelfSigned(t, testpki.IsCA(true), testpki.NoEKU(), testpki.KeyUsage(x509.KeyUsageCertSign))
	serverPin := testpki.MustSelfSigned(t, serversOnly)
	foreign := testpki.MustIssue(t, stranger)
	old, early := testpki.MustSelfSigned(t, past), testpki.MustSelfSigned(t, future)
	manyNames := testpki.MustSelfSigned(t, manySANs)
	critical := testpki.MustSelfSigned(t, testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}))
	shared, off := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)

	sharedA, sharedB, disabled := pinned("shared-a", shared), pinned("shared-b", shared), pinned("disabled", off)
	sharedA.SharedCredential, sharedB.SharedCredential, disabled.Disabled = true, true, true
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca},
		named("named", "CN=client,O=company"), named("other", "CN=other,O=company"),
		pinned("pinned", selfSigned, pinnedCA, serverPin, foreign, old, early, manyNames, critical), sharedA, sharedB, disabled)

	issue := func(opts ...testpki.Option) []*x509.Certificate { return testpki.MustIssue(t, ca, opts...).Presented() }
	for _, test := range []struct {
		name      string
		presented []*x509.Certificate
		clientID  string
		want      string
	}{
		{"none", nil, "", "[certificate_missing]"},
		{"none but a client_id", []*x509.Certificate{}, "named", "[certificate_missing]"},

		{"subject", issue(company("client")), "", "named"},
		{"subject below an intermediate", testpki.MustIssue(t, sub, company("client")).Presented(), "", "named"},
		{"subject without extended key usage", issue(company("client"), testpki.NoEKU()), "named", "named"},
		{"another subject", issue(company("other")), "", "other"},
		{"thumbprint", selfSigned.Presented(), "", "pinned"},
		{"thumbprint of a CA", pinnedCA.Presented(), "", "pinned"},
		{"thumbprint under a strange CA", foreign.Presented(), "pinned", "pinned"},

		{"expired pin", old.Presented(), "", "[certificate_expired]"},
		{"pin not yet valid", early.Presented(), "", "[certificate_expired]"},
		{"expired subject", issue(company("client"), past), "", "[certificate_expired]"},
		{"expired stranger", testpki.MustSelfSigned(t, past).Presented(), "", "[certificate_expired]"},

		{"unknown subject", issue(company("nobody")), "", "[certificate_unknown]"},
		{"subject with one attribute more", issue(company("client"), testpki.Subject(pkix.Name{CommonName: "client", Organization: []string{"company"}, Country: []string{"DE"}})), "", "[certificate_unknown]"},
		{"empty subject", issue(testpki.Subject(pkix.Name{})), "", "[certificate_unknown]"},
		{"NUL after the name", issue(company("client\x00")), "", "[certificate_unknown]"},
		{"zero width space in the name", issue(company("cli\u200bent")), "", "[certificate_unknown]"},
		{"byte order mark in the name", issue(company("\ufeffclient")), "", "[certificate_unknown]"},

		{"self-signed with the subject", testpki.MustSelfSigned(t, company("client")).Presented(), "", "[certificate_untrusted]"},
		{"strange CA with the subject", testpki.MustIssue(t, stranger, company("client")).Presented(), "", "[certificate_untrusted]"},
		{"missing intermediate", testpki.MustIssue(t, sub, company("client")).Presented()[:1], "", "[certificate_untrusted]"},
		{"the CA itself", []*x509.Certificate{ca.Cert}, "", "[certificate_untrusted]"},

		{"pin for servers only", serverPin.Presented(), "", "[certificate_unsuitable]"},
		{"subject for servers only", issue(company("client"), serversOnly), "", "[certificate_unsuitable]"},
		{"a thousand SANs on a pin", manyNames.Presented(), "", "[certificate_unsuitable]"},
		{"a thousand SANs beside the subject", issue(company("client"), manySANs), "", "[certificate_unsuitable]"},
		{"unknown critical extension", critical.Presented(), "", "[certificate_unsuitable]"},
		{"CA with the subject", issue(company("client"), testpki.IsCA(true)), "", "[certificate_unsuitable]"},
		{"subject without digitalSignature", issue(company("client"), testpki.KeyUsage(x509.KeyUsageKeyEncipherment)), "", "[certificate_unsuitable]"},

		{"shared by two", shared.Presented(), "", "[certificate_ambiguous]"},
		{"shared by two, one named", shared.Presented(), "shared-b", "shared-b"},
		{"client_id of another", selfSigned.Presented(), "named", "[client_mismatch]"},
		{"client_id of nobody", selfSigned.Presented(), "nobody", "[client_mismatch]"},
		{"client_id in another case", selfSigned.Presented(), "Pinned", "[client_mismatch]"},
		{"disabled", off.Presented(), "", "[client_disabled]"},
		{"disabled and named", off.Presented(), "disabled", "[client_disabled]"},
		{"disabled but another named", off.Presented(), "named", "[client_mismatch]"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, when := range []string{"at first sight", "from the cache"} {
				if got := auth.ask(test.presented, test.clientID); got != test.want {
					t.Errorf("%s: %s, want %s", when, got, test.want)
				}
			}
		})
	}
}

// TestRealmOfPinsAlone checks that every other certificate is unknown in a realm of
// pins, whoever issued it.
func TestRealmOfPinsAlone(t *testing.T) {
	ca, leaf := testpki.MustCA(t), testpki.MustSelfSigned(t)
	issued := testpki.MustIssue(t, ca)
	for _, cas := range [][]*testpki.CA{nil, {ca}} {
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), cas, pinned("a", leaf))
		for name, test := range map[string]struct {
			presented []*x509.Certificate
			want      string
		}{
			"the pin":                    {leaf.Presented(), "a"},
			"issued by the CA":           {issued.Presented(), "[certificate_unknown]"},
			"self-signed":                {testpki.MustSelfSigned(t).Presented(), "[certificate_unknown]"},
			"a CA":                       {[]*x509.Certificate{ca.Cert}, "[certificate_unknown]"},
			"B5: a leaf before the pin":  {[]*x509.Certificate{issued.Cert, leaf.Cert}, "[certificate_unknown]"},
			"B5: the pin before another": {[]*x509.Certificate{leaf.Cert, issued.Cert}, "a"},
		} {
			if got := auth.ask(test.presented, ""); got != test.want {
				t.Errorf("%s: %s, want %s", name, got, test.want)
			}
		}
	}
	empty := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil)
	if got := empty.ask(leaf.Presented(), ""); got != "[certificate_unknown]" {
		t.Errorf("without clients: %s", got)
	}
}

// TestIdentityOfAnAdmittedClient checks the fields of an identity.
func TestIdentityOfAnAdmittedClient(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "cn=CLIENT, o=Company"))
	for range 2 {
		id, refusal, _ := auth.Decide(context.Background(), leaf.Presented(), "")
		switch {
		case refusal != nil:
			t.Fatal(refusal)
		case id.Client().ID != "a", id.Leaf != leaf.Cert, id.Thumbprint != validators.X5tS256(sha256.Sum256(leaf.Cert.Raw)):
			t.Errorf("identity %+v", id)
		case id.Credential.Kind != clients.KindSubject, id.Credential.Value != "CN=CLIENT,O=Company":
			t.Errorf("credential %+v", id.Credential)
		}
	}
	if (Identity{}).Client() != nil {
		t.Error("the zero identity is somebody")
	}
}

// TestDetailsNameClientsAndRemedies checks that details name the clients and the
// remedy, and that text from a caller is short and escaped in them.
func TestDetailsNameClientsAndRemedies(t *testing.T) {
	ca, shared := testpki.MustCA(t), testpki.MustSelfSigned(t)
	sharedA, sharedB := pinned("a", shared), pinned("b", shared)
	sharedA.SharedCredential, sharedB.SharedCredential = true, true
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, sharedA, sharedB, named("named", "CN=client,O=company"))
	for _, test := range []struct {
		presented []*x509.Certificate
		clientID  string
		want      string
	}{
		{nil, "", "certificate_missing: no certificate was presented"},
		{shared.Presented(), "", "certificate_ambiguous: the certificate matches client 'a' and client 'b'; the request must name one"},
		{shared.Presented(), "x\ny" + strings.Repeat("z", 500), `client_mismatch: the certificate belongs to client 'a', the request names "x\nyzzz`},
		{testpki.MustIssue(t, ca, company("x")).Presented(), "", "certificate_unknown: no client of the realm has a matching credential"},
		{testpki.MustSelfSigned(t, company("client")).Presented(), "", "certificate_untrusted: certificate signed by unknown authority"},
	} {
		_, refusal, _ := auth.Decide(context.Background(), test.presented, test.clientID)
		if refusal == nil || !strings.HasPrefix(refusal.Error(), test.want) || len(refusal.Detail) > 600 {
			t.Errorf("refusal %v, want %q", refusal, test.want)
		}
		if refusal != nil && !slices.Contains(validators.Reasons, refusal.Reason) {
			t.Errorf("reason %s is not in the list", refusal.Reason)
		}
	}
}

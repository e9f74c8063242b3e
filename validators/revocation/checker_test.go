package revocation

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func TestCheckerCombinesSources(t *testing.T) {
	const a, b = "http://a", "http://b"
	crlRevoked := func(p *pki) *CRLSet { return p.crls(crlRevokes(1, p.leaf.Cert)) }
	crlGood := func(p *pki) *CRLSet { return p.crls() }
	crlStale := func(p *pki) *CRLSet {
		return crlSetOf(mustCRL(p.t, p.root, time.Now()), mustCRL(p.t, p.sub, time.Now().Add(-2*time.Hour)))
	}
	crlNone := func(*pki) *CRLSet { return nil }
	nothing := func(*pki) {}
	good := nothing
	revoked := func(p *pki) { p.says(a, p.leaf.Cert, ocspState(ocsp.Revoked)) }
	unknown := func(p *pki) { p.says(a, p.leaf.Cert, ocspState(ocsp.Unknown)) }
	stale := func(p *pki) { p.says(a, nil, ocspDates(time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))) }
	future := func(p *pki) { p.says(a, nil, ocspDates(time.Now().Add(time.Hour), time.Now().Add(2*time.Hour))) }
	down := func(p *pki) { p.down(a) }
	lies := func(p *pki) {
		p.does(a, func(_ context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
			return makeOCSP(p.t, ca, cert, testpki.MustIssue(p.t, ca), time.Now()), nil
		})
	}

	for name, test := range map[string]struct {
		crls func(*pki) *CRLSet // nil: not a source
		ocsp func(*pki)         // nil: not a source
		// refuse and allow are the outcomes with either value of on_unavailable.
		refuse, allow validators.Reason
		why           string
	}{
		"no source":                  {nil, nil, "", "", ""},
		"CRL good":                   {crlGood, nil, "", "", ""},
		"CRL revoked":                {crlRevoked, nil, validators.CertificateRevoked, validators.CertificateRevoked, "revoked since 1999-12-31T23:59:00Z according to a CRL"},
		"C4 CRL stale":               {crlStale, nil, validators.RevocationUnavailable, "", "CRL: the CRL is stale since 1999-12-31T23:00:00Z"},
		"C4 CRL none yet":            {crlNone, nil, validators.RevocationUnavailable, "", "no CRL of the issuer"},
		"OCSP good":                  {nil, good, "", "", ""},
		"OCSP revoked":               {nil, revoked, validators.CertificateRevoked, validators.CertificateRevoked, "according to an OCSP responder"},
		"OCSP unknown":               {nil, unknown, validators.RevocationUnavailable, validators.RevocationUnavailable, "does not know the certificate"},
		"OCSP down":                  {nil, down, validators.RevocationUnavailable, "", "OCSP: connection refused"},
		"OCSP stale":                 {nil, stale, validators.RevocationUnavailable, "", "the response is stale"},
		"OCSP future":                {nil, future, validators.RevocationUnavailable, "", "the response is dated in the future"},
		"OCSP lies":                  {nil, lies, validators.RevocationUnavailable, "", "without the extended key usage OCSPSigning"},
		"CRL good, OCSP good":        {crlGood, good, "", "", ""},
		"CRL good, OCSP revoked":     {crlGood, revoked, validators.CertificateRevoked, validators.CertificateRevoked, "OCSP"},
		"CRL good, OCSP unknown":     {crlGood, unknown, "", "", ""},
		"CRL good, OCSP down":        {crlGood, down, "", "", ""},
		"CRL good, OCSP lies":        {crlGood, lies, "", "", ""},
		"CRL revoked, OCSP good":     {crlRevoked, good, validators.CertificateRevoked, validators.CertificateRevoked, "a CRL"},
		"CRL stale, OCSP good":       {crlStale, good, "", "", ""},
		"CRL stale, OCSP revoked":    {crlStale, revoked, validators.CertificateRevoked, validators.CertificateRevoked, "OCSP"},
		"CRL stale, OCSP down":       {crlStale, down, validators.RevocationUnavailable, "", "stale since 1999-12-31T23:00:00Z, OCSP: connection refused"},
		"CRL stale, OCSP unknown":    {crlStale, unknown, validators.RevocationUnavailable, validators.RevocationUnavailable, "does not know"},
		"CRL none, OCSP good":        {crlNone, good, "", "", ""},
		"OCSP unknown, another good": {nil, func(p *pki) { unknown(p); p.says(b, nil) }, "", "", ""},
		"OCSP down, another good":    {nil, func(p *pki) { p.down(b) }, "", "", ""},
		"OCSP good, another revoked": {nil, func(p *pki) { p.says(b, p.leaf.Cert, ocspState(ocsp.Revoked)) }, validators.CertificateRevoked, validators.CertificateRevoked, "OCSP"},
		"OCSP down, another revoked": {nil, func(p *pki) { p.down(b); revoked(p) }, validators.CertificateRevoked, validators.CertificateRevoked, "OCSP"},
		"OCSP down, another unknown": {nil, func(p *pki) { p.down(b); unknown(p) }, validators.RevocationUnavailable, validators.RevocationUnavailable, "does not know"},
		"OCSP lies, another good":    {nil, func(p *pki) { lies(p); p.says(b, nil) }, "", "", ""},
		"OCSP lies, another down":    {nil, func(p *pki) { lies(p); p.down(b) }, validators.RevocationUnavailable, "", ""},
		"OCSP on hold": {nil, func(p *pki) {
			p.says(a, p.leaf.Cert, ocspState(ocsp.Revoked), func(o *ocspTemplate) { o.RevocationReason = ocsp.CertificateHold })
		}, validators.CertificateRevoked, validators.CertificateRevoked, ""},
		"C4 CRL good, not the CA's": {func(p *pki) *CRLSet { return crlSetOf(mustCRL(p.t, p.sub, time.Now())) }, nil, validators.RevocationUnavailable, "", "of CN=Root, CRL: there is no CRL of the issuer"},
		"CRL revokes the CA": {func(p *pki) *CRLSet {
			return crlSetOf(mustCRL(p.t, p.root, time.Now(), crlRevokes(2, p.sub.Cert)), mustCRL(p.t, p.sub, time.Now()))
		}, nil, validators.CertificateRevoked, validators.CertificateRevoked, "of CN=Root"},
		"OCSP says the CA is revoked": {nil, func(p *pki) { p.says(a, p.sub.Cert, ocspState(ocsp.Revoked)) }, validators.CertificateRevoked, validators.CertificateRevoked, "of CN=Root"},
		"OCSP does not know the CA":   {nil, func(p *pki) { p.says(a, p.sub.Cert, ocspState(ocsp.Unknown)) }, validators.RevocationUnavailable, validators.RevocationUnavailable, "of CN=Root"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, allow := range []bool{false, true} {
				bubble(t, func(t *testing.T, p *pki) {
					admitted := ""
					config := Config{CRLs: test.crls != nil, AllowUnavailable: allow, ReportAdmitted: func(detail string) { admitted = detail }}
					if test.ocsp != nil {
						config.OCSP = []string{a}
						test.ocsp(p)
						if strings.Contains(name, "another") {
							config.OCSP = []string{a, b}
						}
					}
					c := p.checker(config)
					if test.crls != nil {
						c.SetCRLs(test.crls(p))
					}
					want := test.refuse
					if allow {
						want = test.allow
					}
					for range 2 { // at first sight, and from memory
						took, holds := p.mustCheck(c, p.chain(), want, test.why)
						if took != 0 {
							t.Errorf("took %s", took)
						}
						if holds > time.Hour || test.refuse == validators.RevocationUnavailable && holds != unavailableFor {
							t.Errorf("holds for %s", holds)
						}
					}
					if wantTold := allow && test.refuse != test.allow; (admitted != "") != wantTold || wantTold && !strings.Contains(admitted, test.why) {
						t.Errorf("told %q", admitted)
					}
				})
			}
		})
	}
}

func TestChainThatIsNotVerifiedIsRefused_D8(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		for _, config := range []Config{{}, {CRLs: true}, {OCSP: []string{"a"}}, {CRLs: true, AllowUnavailable: true}} {
			c := p.checker(config)
			c.SetCRLs(p.crls())
			for _, chain := range [][]*x509.Certificate{nil, {}, p.chain()[:1]} {
				p.mustCheck(c, chain, validators.RevocationUnavailable, "no verified chain")
			}
		}
		if n := p.questions(p.leaf.Cert); n != 0 {
			t.Errorf("%d questions", n)
		}
	})
}

// No address in a certificate is asked, whether or not its chain has verified.
func TestAddressesInCertificatesAreNotAsked_C5(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		leaf := p.issue(testpki.Template(func(c *x509.Certificate) {
			c.OCSPServer = []string{"http://169.254.169.254/ocsp"}
			c.CRLDistributionPoints = []string{"http://169.254.169.254/crl"}
			c.IssuingCertificateURL = []string{"http://169.254.169.254/ca"}
		}))
		var urls []string
		c := NewChecker(Config{OCSP: []string{"http://a"}, CRLs: true, Ask: func(_ context.Context, url string, _ []byte) ([]byte, error) {
			p.mu.Lock()
			defer p.mu.Unlock()
			urls = append(urls, url)
			return nil, errDown
		}})
		p.mustCheck(c, p.chainOf(leaf.Cert), validators.RevocationUnavailable, "connection refused")
		if fmt.Sprint(urls) != "[http://a http://a]" {
			t.Errorf("asked %v", urls)
		}
	})
}

func TestDenyListComesFirst(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		c := p.checker(Config{OCSP: []string{"a"}, AllowUnavailable: true})
		p.hangs("a", nil)
		before := c.Generation()
		c.SetDenyList(mustDeny(t, "thumbprint "+digest(p.leaf.Cert.Raw)))
		if c.Generation() == before {
			t.Error("what is remembered still counts")
		}
		for _, leaf := range []*x509.Certificate{p.leaf.Cert, ecdsaTwin(t, p.leaf.Cert, elliptic.P256())} {
			if _, err := validators.NewTrustPool(p.root.Pool()).Verify(leaf, []*x509.Certificate{p.sub.Cert}, time.Now()); err != nil {
				t.Fatal(err)
			}
			if took, _ := p.mustCheck(c, p.chainOf(leaf), validators.CertificateRevoked, "thumbprint rule"); took != 0 {
				t.Errorf("took %s", took)
			}
			wantRefusal(t, c.CheckDenied(leaf), validators.CertificateRevoked, "thumbprint rule")
		}
		if n := p.questions(p.leaf.Cert); n != 0 {
			t.Errorf("%d questions", n)
		}
		c.SetDenyList(mustDeny(t, "public_key "+digest(p.sub.Cert.RawSubjectPublicKeyInfo)))
		p.mustCheck(c, p.chain(), validators.CertificateRevoked, "public_key rule for CA CN=Sub")
		wantRefusal(t, c.CheckDenied(p.leaf.Cert), "", "")

		denyOnly := p.checker(Config{})
		p.mustCheck(denyOnly, p.chain(), "", "")
		denyOnly.SetDenyList(mustDeny(t, "tbs "+digest(p.leaf.Cert.RawTBSCertificate)))
		p.mustCheck(denyOnly, p.chain(), validators.CertificateRevoked, "tbs rule")
	})
}

func TestVerdictHoldsUntilTheEarliestNextUpdate(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		c := p.checker(Config{CRLs: true})
		before := c.Generation()
		c.SetCRLs(crlSetOf(mustCRL(t, p.root, time.Now(), crlDates(time.Now(), time.Now().Add(20*time.Minute))), mustCRL(t, p.sub, time.Now())))
		if c.Generation() == before {
			t.Error("what is remembered still counts")
		}
		if _, holds := p.mustCheck(c, p.chain(), "", ""); holds != 20*time.Minute {
			t.Errorf("holds for %s", holds)
		}
		c.SetCRLs(p.crls(crlRevokes(1, p.leaf.Cert)))
		if _, holds := p.mustCheck(c, p.chain(), validators.CertificateRevoked, ""); holds != time.Hour {
			t.Errorf("holds for %s", holds)
		}
		both := p.checker(Config{CRLs: true, OCSP: []string{"a"}})
		both.SetCRLs(p.crls())
		if _, holds := p.mustCheck(both, p.chain(), "", ""); holds != 45*time.Minute {
			t.Errorf("holds for %s, want until the OCSP answer is renewed", holds)
		}
		p.down("a")
		if _, holds := p.mustCheck(both, p.chainOf(p.issue().Cert), "", ""); holds != unavailableFor {
			t.Errorf("holds for %s, though OCSP may soon know more", holds)
		}
	})
}

func TestRevocationDetailIsFitForALog(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.sub = testpki.MustIntermediate(t, p.root, testpki.CommonName("a\nb\u202e"+strings.Repeat("x", 5000)))
		p.know(p.sub.Cert, p.root)
		leaf := p.issue()
		long := errors.New("\x1b[31m" + strings.Repeat("y\n", 5000))
		p.does("a", func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error) { return nil, long })
		c := p.checker(Config{CRLs: true, OCSP: []string{"a"}})
		p.mustCheck(c, p.chainOf(leaf.Cert), validators.RevocationUnavailable, "no CRL of the issuer")
		c.SetCRLs(p.crls(crlRevokes(1, leaf.Cert)))
		p.mustCheck(c, p.chainOf(leaf.Cert), validators.CertificateRevoked, "according to a CRL")
		c.SetDenyList(mustDeny(t, "public_key "+digest(p.sub.Cert.RawSubjectPublicKeyInfo)))
		p.mustCheck(c, p.chainOf(leaf.Cert), validators.CertificateRevoked, "the deny file")
	})
}

func TestCheckerIsSafeForConcurrentUse(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		c := p.checker(Config{CRLs: true, OCSP: []string{"a", "b"}, AllowUnavailable: true})
		var leaves []*testpki.Leaf
		for range 8 {
			leaves = append(leaves, p.issue())
		}
		good, revoking := p.crls(), p.crls(crlRevokes(1, leaves[0].Cert))
		deny := mustDeny(t, "thumbprint "+digest(leaves[1].Cert.Raw))
		p.does("b", func(ctx context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
			switch cert {
			case leaves[2].Cert:
				return nil, errDown
			case leaves[3].Cert:
				return p.good(cert, ca, ocspState(ocsp.Revoked)), nil
			}
			return p.good(cert, ca), nil
		})
		var all sync.WaitGroup
		for _, leaf := range leaves {
			for range 8 {
				all.Go(func() {
					for range 4 {
						_, _ = c.Check(t.Context(), p.chainOf(leaf.Cert), time.Now())
						_ = c.Generation()
						time.Sleep(20 * time.Minute) // of the bubble
					}
				})
			}
		}
		all.Go(func() {
			for range 100 {
				c.SetCRLs(good)
				c.SetDenyList(deny)
				c.SetCRLs(revoking)
				c.SetDenyList(nil)
			}
		})
		all.Wait()
		p.mustCheck(c, p.chainOf(leaves[0].Cert), validators.CertificateRevoked, "CRL")
		p.mustCheck(c, p.chainOf(leaves[3].Cert), validators.CertificateRevoked, "OCSP")
	})
}

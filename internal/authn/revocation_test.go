package authn

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators/revocation"
)

func crlSet(t *testing.T, ders ...[]byte) *revocation.CRLSet {
	t.Helper()
	var config revocation.CRLConfig
	for i, der := range ders {
		config.Locations = append(config.Locations, writeFile(t, fmt.Sprintf("%d.crl", i), der))
	}
	crls, err := revocation.NewCRLSource(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := crls.LoadFiles(); err != nil {
		t.Fatal(err)
	}
	return crls.CRLs()
}

func writeFile(t *testing.T, name string, content []byte) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// twoChains is a leaf with two chains, because two roots have certified its CA.
type twoChains struct {
	one, two     *testpki.CA
	ofOne, ofTwo *testpki.CA
	leaf         *testpki.Leaf
}

func newTwoChains(t *testing.T) twoChains {
	t.Helper()
	one, two := testpki.MustCA(t, testpki.CommonName("One")), testpki.MustCA(t, testpki.CommonName("Two"))
	ofOne := testpki.MustIntermediate(t, one, testpki.CommonName("Sub"))
	ofTwo := testpki.MustIntermediate(t, two, testpki.Key(ofOne.Key), testpki.RawSubject(ofOne.Cert.RawSubject))
	return twoChains{one, two, ofOne, ofTwo, testpki.MustIssue(t, ofOne, company("client"))}
}

func (x twoChains) presented() []*x509.Certificate {
	return []*x509.Certificate{x.leaf.Cert, x.ofOne.Cert, x.ofTwo.Cert}
}

// TestOneChainSatisfiesEverything checks that a revoked chain does not count, for
// issued_by either, and that another chain of the leaf can still admit.
func TestOneChainSatisfiesEverything(t *testing.T) {
	x := newTwoChains(t)
	tomorrow := time.Now().Add(24 * time.Hour)
	for name, test := range map[string]struct {
		revokedOne, revokedTwo, revokedLeaf bool
		any, byOne, byTwo                   string // the outcome for a client of any issuer, of one and of two
	}{
		"nothing is revoked": {false, false, false, "a", "a", "a"},
		"one is":             {true, false, false, "a", "[certificate_untrusted]", "a"},
		"two is":             {false, true, false, "a", "a", "[certificate_untrusted]"},
		"both are":           {true, true, false, "[certificate_revoked]", "[certificate_revoked]", "[certificate_revoked]"},
		"the leaf is":        {false, false, true, "[certificate_revoked]", "[certificate_revoked]", "[certificate_revoked]"},
	} {
		t.Run(name, func(t *testing.T) {
			lists := make(map[*testpki.CA][]*x509.Certificate)
			if test.revokedOne {
				lists[x.one] = []*x509.Certificate{x.ofOne.Cert}
			}
			if test.revokedTwo {
				lists[x.two] = []*x509.Certificate{x.ofTwo.Cert}
			}
			if test.revokedLeaf {
				lists[x.ofOne] = []*x509.Certificate{x.leaf.Cert}
			}
			var ders [][]byte
			for _, ca := range []*testpki.CA{x.one, x.two, x.ofOne} {
				ders = append(ders, testpki.CRL(t, ca, 1, tomorrow, lists[ca]...))
			}
			for issuer, want := range map[*testpki.CA]string{nil: test.any, x.one: test.byOne, x.two: test.byTwo} {
				byName, byPin := named("a", "CN=client,O=company"), pinned("a", x.leaf)
				byPin.RequireChain = true
				for _, record := range []clients.Record{byName, byPin} {
					if issuer != nil {
						record.IssuedBy = clients.Strings{testpki.HashOf(issuer.Cert.Raw)}
					}
					auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{x.one, x.two}, record)
					auth.config.Revocation = revocation.NewChecker(revocation.Config{CRLs: true})
					auth.config.Revocation.SetCRLs(crlSet(t, ders...))
					for range 2 { // at first sight, and from the cache
						if got := auth.ask(x.presented(), ""); got != want {
							t.Errorf("issued by %v: %s, want %s", record.IssuedBy, got, want)
						}
					}
				}
			}
		})
	}
}

// TestVerdictEndsWithTheCRL checks that a verdict expires at nextUpdate, and after
// five seconds if there is no revocation status.
func TestVerdictEndsWithTheCRL(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf, revoked := testpki.MustIssue(t, ca, company("client")), testpki.MustIssue(t, ca, company("client"))
	for _, allow := range []bool{false, true} {
		clock := testenv.NewClockAt(time.Now())
		auth := newTestAuthenticator(t, clock, []*testpki.CA{ca}, named("a", "CN=client,O=company"))
		auth.config.Revocation = revocation.NewChecker(revocation.Config{CRLs: true, AllowUnavailable: allow})
		until := clock.Now().Add(10 * time.Minute).Truncate(time.Second)
		auth.config.Revocation.SetCRLs(crlSet(t, testpki.CRL(t, ca, 1, until, revoked.Cert)))
		want := func(leaf *testpki.Leaf, want string, remembered bool) {
			t.Helper()
			before, _, was := auth.Decide(context.Background(), leaf.Presented(), "")
			got := auth.ask(leaf.Presented(), "")
			if got != want || was != remembered {
				t.Errorf("allow %v: %s, remembered %v; want %s, %v (%v)", allow, got, was, want, remembered, before.Matched)
			}
		}
		want(leaf, "a", false)
		want(leaf, "a", true)
		want(revoked, "[certificate_revoked]", false)
		want(revoked, "[certificate_revoked]", true)
		clock.Advance(until.Sub(clock.Now()) - time.Nanosecond)
		want(leaf, "a", true)
		clock.Advance(time.Nanosecond)
		outcome := "[revocation_unavailable]"
		if allow {
			outcome = "a"
		}
		for range 3 {
			want(leaf, outcome, false)
			clock.Advance(5*time.Second - time.Nanosecond)
			want(leaf, outcome, true)
			clock.Advance(time.Nanosecond)
		}
		want(revoked, "[certificate_revoked]", false)
	}
}

// ocspOf returns an OCSP response of a CA.
func ocspOf(t *testing.T, ca *testpki.CA, question []byte, status int, at time.Time) []byte {
	t.Helper()
	request, err := ocsp.ParseRequest(question)
	if err != nil {
		t.Fatal(err)
	}
	der, err := ocsp.CreateResponse(ca.Cert, ca.Cert, ocsp.Response{
		Status: status, SerialNumber: request.SerialNumber, RevokedAt: at, ThisUpdate: at.Add(-time.Minute), NextUpdate: at.Add(time.Hour),
	}, ca.Key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// TestVerdictEndsWithTheOCSPAnswer checks that a verdict expires while the OCSP
// answer is still fresh, so that the answer is renewed, and never later.
func TestVerdictEndsWithTheOCSPAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := testpki.MustCA(t)
		leaf := testpki.MustIssue(t, ca, company("client"))
		var down atomic.Bool
		var asked atomic.Int64
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
		auth.config.Now = time.Now
		auth.config.Revocation = revocation.NewChecker(revocation.Config{
			OCSP: []string{"http://ocsp.test"},
			Ask: func(_ context.Context, _ string, question []byte) ([]byte, error) {
				asked.Add(1)
				if down.Load() {
					return nil, context.DeadlineExceeded
				}
				return ocspOf(t, ca, question, ocsp.Good, time.Now()), nil
			},
		})
		want := func(want string, remembered bool, questions int64) {
			t.Helper()
			_, _, was := auth.Decide(context.Background(), leaf.Presented(), "")
			synctest.Wait()
			if got := auth.ask(leaf.Presented(), ""); got != want || was != remembered || asked.Load() != questions {
				t.Errorf("%s, remembered %v, %d questions; want %s, %v, %d", got, was, asked.Load(), want, remembered, questions)
			}
		}
		want("a", false, 1)
		want("a", true, 1)
		time.Sleep(45*time.Minute - time.Nanosecond)
		want("a", true, 1)
		down.Store(true)
		time.Sleep(time.Nanosecond)
		want("a", false, 2) // it fails, and there is the old answer
		time.Sleep(4 * time.Second)
		want("a", true, 2)
		time.Sleep(15*time.Minute - 4*time.Second)
		want("[revocation_unavailable]", false, 3)
		time.Sleep(5 * time.Second)
		want("[revocation_unavailable]", false, 4)
		time.Sleep(time.Minute) // for questions to end
	})
}

// TestSeveralChainsShareOneDeadline checks that several chains do not wait longer
// for hanging responders than one.
func TestSeveralChainsShareOneDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newTwoChains(t)
		auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{x.one, x.two}, named("a", "CN=client,O=company"))
		var asked atomic.Int64
		auth.config.Revocation = revocation.NewChecker(revocation.Config{
			OCSP: []string{"http://ocsp.test"},
			Ask: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
				asked.Add(1)
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		start := time.Now()
		if got := auth.ask(x.presented(), ""); got != "[revocation_unavailable]" {
			t.Error(got)
		}
		if took := time.Since(start); took > revocation.DefaultOCSPTimeout || asked.Load() != 3 {
			t.Errorf("waited for %s, %d questions", took, asked.Load())
		}
		time.Sleep(time.Minute)
	})
}

// TestVerdictIsNoNewerThanItSays checks that a verdict is reached anew if the deny
// list or a CRL changed meanwhile.
func TestVerdictIsNoNewerThanItSays(t *testing.T) {
	ca := testpki.MustCA(t)
	for name, change := range map[string]func(*revocation.Checker, *testpki.Leaf){
		"deny list": func(c *revocation.Checker, leaf *testpki.Leaf) {
			file, err := revocation.OpenDenyFile(writeFile(t, "deny", []byte("thumbprint "+testpki.HashOf(leaf.Cert.Raw))), time.Now())
			if err != nil {
				t.Error(err)
				return
			}
			c.SetDenyList(file.List())
		},
		"CRL": func(c *revocation.Checker, leaf *testpki.Leaf) {
			c.SetCRLs(crlSet(t, testpki.CRL(t, ca, 2, time.Now().Add(time.Hour), leaf.Cert)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			leaf := testpki.MustIssue(t, ca, company("client"))
			auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
			var checker *revocation.Checker
			checker = revocation.NewChecker(revocation.Config{
				CRLs: true, OCSP: []string{"http://ocsp.test"},
				Ask: func(_ context.Context, _ string, question []byte) ([]byte, error) {
					change(checker, leaf) // behind the back of who waits for the answer
					return ocspOf(t, ca, question, ocsp.Good, time.Now()), nil
				},
			})
			checker.SetCRLs(crlSet(t, testpki.CRL(t, ca, 1, time.Now().Add(time.Hour))))
			auth.config.Revocation = checker
			if got := auth.ask(leaf.Presented(), ""); got != "a" {
				t.Fatalf("%s, though nothing was known yet", got)
			}
			for range 2 {
				if got := auth.ask(leaf.Presented(), ""); got != "[certificate_revoked]" {
					t.Error(got)
				}
			}
		})
	}
}

// TestRevokedClientIsRemembered checks that a client that was admitted and is then
// revoked does not cost an examination on each request.
func TestRevokedClientIsRemembered(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, ca, company("client"))
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
	auth.config.Revocation = revocation.NewChecker(revocation.Config{CRLs: true})
	auth.config.Revocation.SetCRLs(crlSet(t, testpki.CRL(t, ca, 1, time.Now().Add(time.Hour))))
	if got := auth.ask(leaf.Presented(), ""); got != "a" {
		t.Fatal(got)
	}
	auth.config.Revocation.SetCRLs(crlSet(t, testpki.CRL(t, ca, 2, time.Now().Add(time.Hour), leaf.Cert)))
	if auth.Refuses(leaf.Presented()) {
		t.Error("it is known to be refused before it was examined")
	}
	for _, want := range []bool{false, true, true} {
		_, refusal, remembered := auth.Decide(t.Context(), leaf.Presented(), "")
		if refusal == nil || remembered != want {
			t.Errorf("%v, remembered %v, want %v", refusal, remembered, want)
		}
	}
	if !auth.Refuses(leaf.Presented()) {
		t.Error("it is not known to be refused")
	}
}

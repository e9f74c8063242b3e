package revocation

import (
	"context"
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// patience is how long a request waits for a responder that hangs.
const patience = DefaultOCSPTimeout - DefaultOCSPTimeout/20

// The first request with a certificate waits, once, and delays no other. The time of
// the bubble advances when all goroutines wait.
func TestHangingOCSP(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.hangs("a", p.leaf.Cert)
		c := p.checker(Config{OCSP: []string{"a"}})
		other := p.issue()
		var all sync.WaitGroup
		for range 5 {
			all.Go(func() {
				took, holds := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "OCSP: ")
				if took != patience || holds != unavailableFor {
					t.Errorf("took %s, holds for %s", took, holds)
				}
			})
		}
		synctest.Wait() // all of them wait
		if took, _ := p.mustCheck(c, p.chainOf(other.Cert), "", ""); took != 0 {
			t.Errorf("another certificate is held up for %s", took)
		}
		time.Sleep(time.Second)
		if took, _ := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, ""); took != patience-time.Second {
			t.Errorf("who comes later waits for %s", took)
		}
		all.Wait()
		if n := p.questions(p.leaf.Cert); n != 1 {
			t.Errorf("%d questions", n)
		}

		// From now on no request waits, and questions are asked again in the
		// background.
		for i, pause := range []time.Duration{0, time.Second, unavailableFor, unavailableFor, 20 * time.Second} {
			time.Sleep(pause)
			if took, _ := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "in time"); took != 0 {
				t.Errorf("request %d waits for %s", i, took)
			}
		}
		synctest.Wait()
		if n := p.questions(p.leaf.Cert); n != 3 {
			t.Errorf("%d questions", n)
		}
		time.Sleep(unhurriedOCSP)
		p.says("a", nil)
		time.Sleep(ocspRetry)
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "")
		synctest.Wait()
		if took, _ := p.mustCheck(c, p.chain(), "", ""); took != 0 {
			t.Errorf("took %s", took)
		}
	})
}

func TestOCSPWaitsAgainAfterAWhile(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.down("a")
		c := p.checker(Config{OCSP: []string{"a"}})
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "refused")
		time.Sleep(ocspForget)
		p.does("a", func(_ context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
			time.Sleep(time.Second)
			return p.good(cert, ca), nil
		})
		if took, _ := p.mustCheck(c, p.chain(), "", ""); took != time.Second {
			t.Errorf("took %s", took)
		}
		c.ocsp.mu.Lock()
		defer c.ocsp.mu.Unlock()
		if n := len(c.ocsp.failures) + len(c.ocsp.inFlight); n != 0 {
			t.Errorf("%d failures and questions left", n)
		}
	})
}

// The answer of a responder that is too slow for requests still counts.
func TestSlowOCSP(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.does("a", func(ctx context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
			select {
			case <-time.After(DefaultOCSPTimeout + time.Second):
				return p.good(cert, ca), nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		c := p.checker(Config{OCSP: []string{"a"}})
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "")
		time.Sleep(ocspRetry)
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "")
		time.Sleep(DefaultOCSPTimeout + time.Second)
		synctest.Wait()
		p.mustCheck(c, p.chain(), "", "")
	})
}

// The answer unknown is not forgotten when another responder fails later.
func TestOCSPUnknownOutlastsAFailure(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.says("a", p.leaf.Cert, ocspState(ocsp.Unknown))
		p.does("b", func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error) {
			time.Sleep(time.Second)
			return nil, errDown
		})
		c := p.checker(Config{OCSP: []string{"a", "b"}, AllowUnavailable: true})
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "does not know")
	})
}

func TestOCSPAsksAboutAChainAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.hangs("a", nil)
		c := p.checker(Config{OCSP: []string{"a"}, Timeout: 2 * time.Second})
		if took, _ := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "of CN=Sub, OCSP"); took != 1900*time.Millisecond {
			t.Errorf("took %s", took)
		}
		// Several chains of one leaf share a deadline.
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		for range 3 {
			p.check(ctx, c, p.chainOf(p.issue().Cert), validators.RevocationUnavailable, "")
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("took %s", took)
		}
	})
}

func TestOCSPAsksAllRespondersAtOnce(t *testing.T) {
	for name, test := range map[string]struct {
		b    func(p *pki)
		want validators.Reason
		took time.Duration
	}{
		"a hangs, b is good":    {func(p *pki) { p.says("b", nil) }, "", patience},
		"a hangs, b is revoked": {func(p *pki) { p.says("b", nil, ocspState(ocsp.Revoked)) }, validators.CertificateRevoked, 0},
		"a hangs, b is down":    {func(p *pki) { p.down("b") }, validators.RevocationUnavailable, patience},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pki) {
				p.hangs("a", p.leaf.Cert)
				test.b(p)
				c := p.checker(Config{OCSP: []string{"a", "b"}})
				took, _ := p.mustCheck(c, p.chain(), test.want, "")
				if took != test.took {
					t.Errorf("took %s, want %s", took, test.took)
				}
				if took, _ := p.mustCheck(c, p.chain(), test.want, ""); took != 0 {
					t.Errorf("then took %s", took)
				}
			})
		})
	}
}

func TestOCSPVerdictDoesNotLastWhenTheCallerHangsUp(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		for _, allow := range []bool{false, true} {
			leaf := p.issue()
			p.does("a", func(_ context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
				time.Sleep(time.Second)
				return p.good(cert, ca), nil
			})
			c := p.checker(Config{OCSP: []string{"a"}, AllowUnavailable: allow})
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(100*time.Millisecond, cancel)
			took, holds := p.check(ctx, c, p.chainOf(leaf.Cert), validators.RevocationUnavailable, "")
			if took != 100*time.Millisecond || holds != 0 {
				t.Errorf("took %s, holds for %s", took, holds)
			}
			if took, _ := p.mustCheck(c, p.chainOf(leaf.Cert), "", ""); took != 900*time.Millisecond {
				t.Errorf("who stays waits for %s", took)
			}
			if n := p.questions(leaf.Cert); n != 1 {
				t.Errorf("%d questions", n)
			}
		}
	})
}

func TestOCSPAnswerIsRenewedWithoutWaiting(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		c := p.checker(Config{OCSP: []string{"a"}})
		_, holds := p.mustCheck(c, p.chain(), "", "")
		if holds != 45*time.Minute {
			t.Fatalf("holds for %s", holds)
		}
		p.hangs("a", nil)
		time.Sleep(holds - time.Second)
		p.mustCheck(c, p.chain(), "", "")
		if n := p.questions(p.leaf.Cert); n != 1 {
			t.Errorf("%d questions", n)
		}
		time.Sleep(time.Second)
		took, holds := p.mustCheck(c, p.chain(), "", "")
		if took != 0 || holds != unavailableFor {
			t.Errorf("took %s, holds for %s", took, holds)
		}
		synctest.Wait()
		if n := p.questions(p.leaf.Cert); n != 2 {
			t.Errorf("%d questions", n)
		}
		// It fails until the response is stale.
		p.down("a")
		for range 3 {
			time.Sleep(4 * time.Minute)
			if took, _ := p.mustCheck(c, p.chain(), "", ""); took != 0 {
				t.Errorf("took %s", took)
			}
		}
		time.Sleep(4 * time.Minute)
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "refused")
	})
}

func TestOCSPTurnsFromGoodToRevokedAndBack(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		c := p.checker(Config{OCSP: []string{"a"}, AllowUnavailable: true})
		p.mustCheck(c, p.chain(), "", "")
		old := p.good(p.leaf.Cert, p.sub, ocspDates(time.Now(), time.Now().Add(24*time.Hour)))
		before := c.Generation()
		time.Sleep(50 * time.Minute)
		p.says("a", p.leaf.Cert, ocspState(ocsp.Revoked))
		p.mustCheck(c, p.chain(), "", "")
		synctest.Wait()
		if c.Generation() == before {
			t.Error("who is remembered as good is not looked at again")
		}
		p.mustCheck(c, p.chain(), validators.CertificateRevoked, "OCSP")

		// Neither an old answer nor a missing one makes it good again, whatever
		// on_unavailable says.
		for _, says := range []func(){
			func() {
				p.does("a", func(_ context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
					if cert == p.leaf.Cert {
						return old, nil
					}
					return p.good(cert, ca), nil
				})
			},
			func() { p.down("a") },
		} {
			says()
			for range 3 {
				time.Sleep(2 * time.Hour)
				if _, holds := p.mustCheck(c, p.chain(), validators.CertificateRevoked, "OCSP"); holds != unavailableFor {
					t.Errorf("holds for %s", holds)
				}
			}
		}
		// Taken off hold.
		p.says("a", nil)
		time.Sleep(2 * time.Hour)
		p.mustCheck(c, p.chain(), "", "")
	})
}

func TestOCSPAnswerOfARevokedSigner(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		delegate := p.issue(testpki.EKU(x509.ExtKeyUsageOCSPSigning))
		state := ocsp.Good
		p.does("a", func(_ context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
			if ca == p.root {
				return p.good(cert, ca), nil
			}
			return makeOCSP(t, ca, cert, delegate, time.Now(), ocspState(state)), nil
		})
		c := p.checker(Config{OCSP: []string{"a"}})
		p.mustCheck(c, p.chain(), "", "")
		c.SetCRLs(p.crls(crlRevokes(1, delegate.Cert)))
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "signed the response is revoked")
		c.SetCRLs(p.crls())
		p.mustCheck(c, p.chain(), "", "")
		c.SetDenyList(mustDeny(t, "public_key "+digest(delegate.Cert.RawSubjectPublicKeyInfo)))
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "signed the response is revoked")
		state = ocsp.Revoked
		p.mustCheck(c, p.chainOf(p.issue().Cert), validators.CertificateRevoked, "")
	})
}

func TestOCSPCacheOutlivesTheChecker(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		cache := NewOCSPCache()
		p.mustCheck(p.checker(Config{OCSP: []string{"a"}, Cache: cache}), p.chain(), "", "")
		p.down("b")
		p.mustCheck(p.checker(Config{OCSP: []string{"b"}, Cache: cache}), p.chain(), "", "")
		p.mustCheck(p.checker(Config{OCSP: []string{"b"}}), p.chain(), validators.RevocationUnavailable, "")
	})
}

// A certificate with a re-encoded signature causes no new question.
func TestOCSPAsksOnceAboutReencodedIssuers(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		c := p.checker(Config{OCSP: []string{"a"}})
		p.mustCheck(c, p.chain(), "", "")
		p.mustCheck(c, p.chainOf(ecdsaTwin(t, p.leaf.Cert, elliptic.P256())), "", "")
		for _, variant := range testpki.Reencoded(t, p.sub.Cert) {
			p.mustCheck(c, []*x509.Certificate{p.leaf.Cert, variant, p.root.Cert}, "", "")
		}
		if a, b := p.questions(p.leaf.Cert), p.questions(p.sub.Cert); a != 1 || b != 1 {
			t.Errorf("%d and %d questions", a, b)
		}
	})
}

func TestOCSPReportsEveryQuestion(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		var mu sync.Mutex
		var told []string
		p.down("b")
		p.says("c", nil, ocspState(ocsp.Unknown))
		p.hangs("d", nil)
		c := p.checker(Config{OCSP: []string{"a", "b", "c", "d"}, ReportOCSP: func(url string, err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(url, " ", err))
		}})
		p.mustCheck(c, p.chain()[1:], "", "")
		synctest.Wait()
		slices.Sort(told)
		if want := "[a <nil> b connection refused c " + errOCSPUnknown.Error() + " d context deadline exceeded]"; fmt.Sprint(told) != want {
			t.Errorf("told %v, want %s", told, want)
		}
	})
}

func TestPanickingOCSP(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.does("a", func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error) { panic("index out of range") })
		c := p.checker(Config{OCSP: []string{"a"}})
		p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "panicked: index out of range")
	})
}

package revocation

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Requests must neither wait for questions that hang, nor pile up.
func TestOCSPQuestionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.hangs("a", nil)
		c := p.checker(Config{OCSP: []string{"a"}})
		for i := range maxOCSPQuestions {
			c.ocsp.inFlight[ocspKey{byte(i), byte(i >> 8), 1}] = make(chan struct{})
		}
		took, holds := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "too many")
		if took != 0 || holds != unavailableFor {
			t.Errorf("took %s, holds for %s", took, holds)
		}
		clear(c.ocsp.inFlight)
		if took, _ := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, ""); took != patience {
			t.Errorf("took %s", took)
		}
	})
}

// The monotonic clock stops while a machine is suspended.
func TestOCSPAnswersExpireByTheWallClock(t *testing.T) {
	cache, at := NewOCSPCache(), time.Now()
	if _, err := cache.store(ocspKey{}, certStatus{Until: at.Add(time.Hour)}, at); err != nil {
		t.Fatal(err)
	}
	answer := cache.answer(ocspKey{})
	for name, end := range map[string]time.Time{"renew": answer.renew, "until": answer.Until} {
		if end != end.Round(0) {
			t.Errorf("%s is %s", name, end)
		}
	}
}

func TestOCSPCacheIsBounded(t *testing.T) {
	cache := NewOCSPCache()
	delegate := testpki.MustSelfSigned(t).Cert
	for _, variant := range testpki.Reencoded(t, delegate) {
		if _, err := cache.store(ocspKey{0xff, 0xff, 0xff}, certStatus{Until: now.Add(time.Hour), Signer: variant}, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(cache.signers) != 1 {
		t.Errorf("%d signers", len(cache.signers))
	}
	for i := range 2 * maxOCSPSigners {
		cache.sharedSigner(&x509.Certificate{RawTBSCertificate: []byte{byte(i), byte(i >> 8)}})
	}
	if len(cache.signers) > maxOCSPSigners {
		t.Errorf("%d signers", len(cache.signers))
	}
	key := func(i int) ocspKey { return ocspKey{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxOCSPAnswers + 100 {
		status := certStatus{Until: now.Add(time.Hour), Revoked: i < 1000}
		if _, err := cache.store(key(i), status, now); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for i := range 1000 {
		if cache.answer(key(i)).Revoked {
			kept++
		}
	}
	if len(cache.answers) != maxOCSPAnswers || kept < 990 {
		t.Errorf("%d answers, of them %d revoked", len(cache.answers), kept)
	}

	c := &ocspClient{failures: make(map[ocspKey]ocspFailure), config: Config{Now: func() time.Time { return now }}}
	for i := range maxOCSPAnswers + 100 {
		c.dropOldFailures()
		c.failures[key(i)] = ocspFailure{now, errors.New("x")}
	}
	if len(c.failures) > maxOCSPAnswers {
		t.Errorf("%d failures", len(c.failures))
	}
	for range 100_000 {
		c.config.Now = func() time.Time { return now.Add(ocspForget) }
		c.dropOldFailures()
	}
	if len(c.failures) != 0 {
		t.Errorf("%d old failures", len(c.failures))
	}
}

// What one responder calls revoked is not admitted because another one lags behind, as
// soon as the first cannot be reached.
func TestRevokedCountsUntilEveryResponderSaysGood(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.says("a", p.leaf.Cert, ocspState(ocsp.Revoked))
		c := p.checker(Config{OCSP: []string{"a", "b"}})
		p.mustCheck(c, p.chain(), validators.CertificateRevoked, "revoked since")
		p.down("a")
		for range 3 {
			time.Sleep(15 * time.Minute)
			p.mustCheck(c, p.chain(), validators.CertificateRevoked, "revoked since")
		}
		time.Sleep(5 * time.Minute) // both are asked again
		p.mustCheck(c, p.chain(), validators.CertificateRevoked, "revoked since")
		time.Sleep(time.Minute)
		p.mustCheck(c, p.chain(), validators.CertificateRevoked, "revoked since")
		p.says("a", nil)
		p.mustCheck(c, p.chain(), validators.CertificateRevoked, "revoked since")
		time.Sleep(time.Second)
		p.mustCheck(c, p.chain(), "", "")
	})
}

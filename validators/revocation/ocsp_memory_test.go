package revocation

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// Who asks must neither be kept waiting by others that hang, nor pile up.
func TestOCSPQuestionsAreBounded(t *testing.T) {
	bubble(t, func(t *testing.T, p *pki) {
		p.hangs("a", nil)
		c := p.checker(Config{OCSP: []string{"a"}})
		for i := range maxOCSPQuestions {
			c.ocsp.underWay[ocspKey{byte(i), byte(i >> 8), 1}] = make(chan struct{})
		}
		took, holds := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, "too many")
		if took != 0 || holds != unavailableMemory {
			t.Errorf("took %s, holds for %s", took, holds)
		}
		clear(c.ocsp.underWay)
		if took, _ := p.mustCheck(c, p.chain(), validators.RevocationUnavailable, ""); took != patience {
			t.Errorf("took %s", took)
		}
	})
}

// The clock that Go measures with stands still while a machine is suspended.
func TestOCSPAnswersEndByTheTimeOfDay(t *testing.T) {
	memory, at := NewOCSPMemory(), time.Now()
	if _, err := memory.put(ocspKey{}, Status{Until: at.Add(time.Hour)}, at); err != nil {
		t.Fatal(err)
	}
	answer := memory.get(ocspKey{})
	for name, end := range map[string]time.Time{"renew": answer.renew, "until": answer.Until} {
		if end != end.Round(0) {
			t.Errorf("%s is %s", name, end)
		}
	}
}

func TestOCSPMemoryIsBounded(t *testing.T) {
	memory := NewOCSPMemory()
	delegate := testpki.MustSelfSigned(t).Cert
	for _, variant := range testpki.Reencoded(t, delegate) {
		if _, err := memory.put(ocspKey{0xff, 0xff, 0xff}, Status{Until: now.Add(time.Hour), Signer: variant}, now); err != nil {
			t.Fatal(err)
		}
	}
	if len(memory.signers) != 1 {
		t.Errorf("%d signers", len(memory.signers))
	}
	for i := range 2 * maxOCSPSigners {
		memory.signer(&x509.Certificate{RawTBSCertificate: []byte{byte(i), byte(i >> 8)}})
	}
	if len(memory.signers) > maxOCSPSigners {
		t.Errorf("%d signers", len(memory.signers))
	}
	key := func(i int) ocspKey { return ocspKey{byte(i), byte(i >> 8), byte(i >> 16)} }
	for i := range maxOCSPAnswers + 100 {
		status := Status{Until: now.Add(time.Hour), Revoked: i < 1000}
		if _, err := memory.put(key(i), status, now); err != nil {
			t.Fatal(err)
		}
	}
	kept := 0
	for i := range 1000 {
		if memory.get(key(i)).Revoked {
			kept++
		}
	}
	if len(memory.answers) != maxOCSPAnswers || kept < 990 {
		t.Errorf("%d answers, of them %d revoked", len(memory.answers), kept)
	}

	c := &ocspClient{failures: make(map[ocspKey]ocspFailure), now: func() time.Time { return now }}
	for i := range maxOCSPAnswers + 100 {
		c.tidy()
		c.failures[key(i)] = ocspFailure{now, errors.New("x")}
	}
	if len(c.failures) > maxOCSPAnswers {
		t.Errorf("%d failures", len(c.failures))
	}
	for range 100_000 {
		c.now = func() time.Time { return now.Add(ocspForget) }
		c.tidy()
	}
	if len(c.failures) != 0 {
		t.Errorf("%d old failures", len(c.failures))
	}
}

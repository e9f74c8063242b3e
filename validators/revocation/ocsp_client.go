package revocation

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxOCSPAnswers is how many answers are remembered.
	maxOCSPAnswers = 1 << 16
	// maxOCSPSigners is how many certificates are remembered that sign them.
	maxOCSPSigners = 1 << 8
	// maxOCSPQuestions is how many certificates are asked about at a time.
	maxOCSPQuestions = 1 << 10
	// ocspRetry is how long a question is not put again after it has failed.
	ocspRetry = 5 * time.Second
	// ocspForget is when a failure is forgotten, so that a request waits again.
	ocspForget = time.Minute
	// unhurriedOCSP is how long a question may take that no request waits for.
	unhurriedOCSP = 10 * time.Second
)

// ocspKey is for what OCSP names a certificate by (CertID, RFC 6960 §4.1.1).
type ocspKey [sha256.Size]byte

func ocspKeyOf(cert, issuer *x509.Certificate) ocspKey {
	var text []byte
	for _, part := range [][]byte{issuer.RawSubject, issuer.RawSubjectPublicKeyInfo, []byte(serialKey(cert.SerialNumber))} {
		text = binary.BigEndian.AppendUint32(text, uint32(len(part)))
		text = append(text, part...)
	}
	return sha256.Sum256(text)
}

// OCSPMemory remembers a bounded number of OCSP answers. It may be shared by
// several checkers, and outlive them.
type OCSPMemory struct {
	mu      sync.Mutex
	answers map[ocspKey]ocspAnswer
	// signers are the certificates that signed them, each of them once, by the
	// SHA-256 of what was signed of it.
	signers map[[sha256.Size]byte]*x509.Certificate
}

type ocspAnswer struct {
	Status
	// renew is when to ask anew, with no request waiting for it.
	renew time.Time
}

// NewOCSPMemory returns a memory without answers.
func NewOCSPMemory() *OCSPMemory {
	return &OCSPMemory{
		answers: make(map[ocspKey]ocspAnswer),
		signers: make(map[[sha256.Size]byte]*x509.Certificate),
	}
}

func (m *OCSPMemory) get(key ocspKey) ocspAnswer {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.answers[key]
}

// put remembers an answer, which is fresh now. Who replays an older good one
// must not undo that a certificate is revoked. It reports whether a good answer
// has given way to revoked.
func (m *OCSPMemory) put(key ocspKey, status Status, now time.Time) (turned bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, known := m.answers[key]
	if known && old.Revoked && !status.Revoked && !status.ThisUpdate.After(old.ThisUpdate) {
		return false, fmt.Errorf("the answer, as of %s, is not newer than the one that says revoked", timeText(status.ThisUpdate))
	}
	if !known && len(m.answers) >= maxOCSPAnswers {
		m.evict()
	}
	status.Signer = m.signer(status.Signer)
	// the time of day alone: the other clock stands still while a machine is
	// suspended, and the answer would be fresh when it wakes up
	now, status.Until = now.Round(0), status.Until.Round(0)
	m.answers[key] = ocspAnswer{status, now.Add(status.Until.Sub(now) / 4 * 3)}
	return known && !old.Revoked && status.Revoked, nil
}

// signer returns the one that is known for an equal one.
func (m *OCSPMemory) signer(cert *x509.Certificate) *x509.Certificate {
	if cert == nil {
		return nil
	}
	sum := sha256.Sum256(cert.RawTBSCertificate)
	if known := m.signers[sum]; known != nil {
		return known
	}
	if len(m.signers) >= maxOCSPSigners {
		clear(m.signers)
	}
	m.signers[sum] = cert
	return cert
}

// evict drops the least useful of a few answers: revoked ones are kept longest.
func (m *OCSPMemory) evict() {
	var victim ocspKey
	var worst *ocspAnswer
	seen := 0
	for key, answer := range m.answers { // in random order
		if worst == nil || worst.Revoked && !answer.Revoked || worst.Revoked == answer.Revoked && answer.Until.Before(worst.Until) {
			victim, worst = key, &answer
		}
		if seen++; seen == 8 {
			break
		}
	}
	delete(m.answers, victim)
}

// ocspClient asks responders about certificates, about each one at a time.
type ocspClient struct {
	urls    []string
	timeout time.Duration
	ask     func(ctx context.Context, url string, question []byte) ([]byte, error)
	now     func() time.Time
	report  func(url string, err error)
	// failed is told of a question that no responder has answered usably.
	failed func(certificate string, err error)
	// turned is called when a certificate that was good is revoked.
	turned func()
	memory *OCSPMemory

	mu sync.Mutex
	// underWay is closed when the question about a certificate has ended.
	underWay map[ocspKey]chan struct{}
	// failures are of the last question about a certificate.
	failures map[ocspKey]ocspFailure
}

type ocspFailure struct {
	at  time.Time
	err error
}

// look returns what is remembered of a certificate. If that is missing or will
// soon be stale, it asks; wait is then not nil if a request should wait for the
// answer and look again, as it should when nothing is known of the certificate.
// After a failure nobody waits. The error is the last failure.
func (c *ocspClient) look(cert, issuer *x509.Certificate, now time.Time) (answer ocspAnswer, wait <-chan struct{}, err error) {
	key := ocspKeyOf(cert, issuer)
	answer = c.memory.get(key)
	if now.Before(answer.renew) {
		return answer, nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	failure, failed := c.failures[key]
	age := now.Sub(failure.at)
	hurried := !now.Before(answer.Until) && (!failed || age >= ocspForget)
	done, asked := c.underWay[key]
	switch {
	case asked, failed && age < ocspRetry:
	case len(c.underWay) >= maxOCSPQuestions:
		return answer, nil, errors.New("too many questions are under way")
	default:
		done = make(chan struct{})
		c.underWay[key] = done
		// What some responders have said by then is to be there before the
		// requests that wait give up.
		timeout := c.timeout - c.timeout/20
		if !hurried {
			timeout = max(timeout, unhurriedOCSP)
		}
		go c.put(key, cert, issuer, timeout)
	}
	if hurried {
		wait = done
	}
	return answer, wait, failure.err
}

// put asks about a certificate and remembers the outcome.
func (c *ocspClient) put(key ocspKey, cert, issuer *x509.Certificate, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	status, all, err := c.askAll(ctx, cert, issuer)
	turned := false
	if err == nil {
		turned, err = c.memory.put(key, status, c.now())
		all = err
	}
	if err != nil {
		c.failed(link{cert: cert, issuer: issuer}.name(), all)
	}

	c.mu.Lock()
	if err == nil {
		delete(c.failures, key)
	} else {
		c.tidy()
		c.failures[key] = ocspFailure{c.now(), err}
	}
	close(c.underWay[key])
	delete(c.underWay, key)
	c.mu.Unlock()
	if turned {
		c.turned()
	}
}

// tidy drops old failures, of a few that it looks at, and any when there are
// too many.
func (c *ocspClient) tidy() {
	seen := 0
	for key, failure := range c.failures { // in random order
		if c.now().Sub(failure.at) >= ocspForget || len(c.failures) >= maxOCSPAnswers {
			delete(c.failures, key)
		}
		if seen++; seen == 8 {
			return
		}
	}
}

// askAll asks all responders at once. As revoked by any of them is revoked, all
// get the time there is. If none of them gives a usable answer, err is why, and
// all is why of each.
func (c *ocspClient) askAll(ctx context.Context, cert, issuer *x509.Certificate) (status Status, all, err error) {
	question, err := OCSPRequest(cert, issuer)
	if err != nil {
		return status, err, err
	}
	type outcome struct {
		responder int
		status    Status
		err       error
	}
	outcomes := make(chan outcome, len(c.urls))
	for i, address := range c.urls {
		go func() {
			status, err := source.Guard(func() (Status, error) {
				answer, err := c.ask(ctx, address, question)
				if err != nil {
					return Status{}, err
				}
				return ParseOCSP(answer, cert, issuer, c.now())
			})
			c.report(redacted(address), err)
			outcomes <- outcome{i, status, err}
		}()
	}
	var good Status
	failures := make([]error, len(c.urls))
	err = errors.New("no responder has answered in time")
	for range c.urls {
		var got outcome
		select {
		case got = <-outcomes:
			failures[got.responder] = got.err
		case <-ctx.Done():
			got.err = err
		}
		switch {
		case got.status.Revoked:
			return got.status, nil, nil
		case got.err == nil && got.status.ThisUpdate.After(good.ThisUpdate):
			good = got.status
		case got.err != nil && !errors.Is(err, ErrOCSPUnknown):
			err = got.err
		}
	}
	if good.Until.IsZero() {
		return good, c.allFailures(failures), err
	}
	return good, nil, nil
}

// allFailures is one error of those of every responder, fit for a log.
func (c *ocspClient) allFailures(failures []error) error {
	texts := make([]string, len(failures))
	for i, err := range failures {
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("it has not answered in time")
		}
		texts[i] = redacted(c.urls[i]) + ": " + source.Text(err.Error(), maxErrorText)
	}
	return errors.New(source.Text(strings.Join(texts, "; "), maxDetail))
}

// redacted is an address without its password.
func redacted(address string) string {
	if parsed, err := url.Parse(address); err == nil {
		return parsed.Redacted()
	}
	return "an address that does not parse"
}

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxOCSPQuestions is how many certificates are asked about at a time.
	maxOCSPQuestions = 1 << 10
	// ocspRetry is how long nothing is asked about a certificate after a question
	// about it has failed.
	ocspRetry = 5 * time.Second
	// ocspForget is when a failure is forgotten, so that a request waits again.
	ocspForget = time.Minute
	// unhurriedOCSP is how long a question may take that no request waits for.
	unhurriedOCSP = 10 * time.Second
)

// ocspClient asks responders about certificates, one question at a time for each.
type ocspClient struct {
	config Config
	// onRevoked is called when a certificate that was good is revoked.
	onRevoked func()

	mu sync.Mutex
	// inFlight are closed when the question about a certificate has ended.
	inFlight map[ocspKey]chan struct{}
	// failures are those of the last question about a certificate.
	failures map[ocspKey]ocspFailure
}

type ocspFailure struct {
	at  time.Time
	err error
}

// lookUp returns the cached answer about a certificate. If there is none, or it
// is to be renewed, lookUp asks in the background. wait is not nil if a request
// should wait for that and look up again: when nothing is known about the
// certificate, and no question about it has failed within the last minute. err is
// the last failure.
func (c *ocspClient) lookUp(cert, issuer *x509.Certificate, now time.Time) (answer ocspAnswer, wait <-chan struct{}, err error) {
	key := newOCSPKey(cert, issuer)
	answer = c.config.Cache.answer(key)
	if now.Before(answer.renew) {
		return answer, nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	failure, failed := c.failures[key]
	age := now.Sub(failure.at)
	hurried := !now.Before(answer.Until) && (!failed || age >= ocspForget)
	done, asked := c.inFlight[key]
	switch {
	case asked, failed && age < ocspRetry:
	case len(c.inFlight) >= maxOCSPQuestions:
		return answer, nil, errors.New("too many questions are in flight")
	default:
		done = make(chan struct{})
		c.inFlight[key] = done
		// What some responders have said by then is to be there before the
		// requests that wait give up.
		timeout := c.config.Timeout - c.config.Timeout/20
		if !hurried {
			timeout = max(timeout, unhurriedOCSP)
		}
		go c.askAndStore(key, cert, issuer, timeout)
	}
	if hurried {
		wait = done
	}
	return answer, wait, failure.err
}

// askAndStore asks about a certificate and stores the outcome.
func (c *ocspClient) askAndStore(key ocspKey, cert, issuer *x509.Certificate, timeout time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	status, all, err := c.askResponders(ctx, cert, issuer)
	revoked := false
	if err == nil {
		revoked, err = c.config.Cache.store(key, status, c.config.Now())
		all = err
	}
	if err != nil {
		c.config.ReportFailure(link{cert: cert, issuer: issuer}.String(), all)
	}

	c.mu.Lock()
	if err == nil {
		delete(c.failures, key)
	} else {
		c.dropOldFailures()
		c.failures[key] = ocspFailure{c.config.Now(), err}
	}
	close(c.inFlight[key])
	delete(c.inFlight, key)
	c.mu.Unlock()
	if revoked {
		c.onRevoked()
	}
}

// dropOldFailures drops those of eight failures that are old, or all eight when
// there are too many.
func (c *ocspClient) dropOldFailures() {
	seen := 0
	for key, failure := range c.failures { // in random order
		if c.config.Now().Sub(failure.at) >= ocspForget || len(c.failures) >= maxOCSPAnswers {
			delete(c.failures, key)
		}
		if seen++; seen == 8 {
			return
		}
	}
}

// askResponders asks all responders at once, and gives each of them all the time
// there is, because revoked by any of them is revoked. If none gives a usable
// answer, err is the most telling failure and all is the failure of each. While an
// answer of revoked is fresh, good counts only if every responder says it.
func (c *ocspClient) askResponders(ctx context.Context, cert, issuer *x509.Certificate) (status certStatus, all, err error) {
	question, err := newOCSPRequest(cert, issuer)
	if err != nil {
		return status, err, err
	}
	type outcome struct {
		responder int
		status    certStatus
		err       error
	}
	outcomes := make(chan outcome, len(c.config.OCSP))
	for i, address := range c.config.OCSP {
		go func() {
			status, err := c.askOne(ctx, address, question, cert, issuer)
			c.config.ReportOCSP(source.ShownURL(address), err)
			outcomes <- outcome{i, status, err}
		}()
	}
	var good certStatus
	answered := 0
	failures := make([]error, len(c.config.OCSP))
	err = errors.New("no responder has answered in time")
	for range c.config.OCSP {
		var got outcome
		select {
		case got = <-outcomes:
			failures[got.responder] = got.err
		case <-ctx.Done():
			got.err = err
		}
		if got.err == nil {
			answered++
		}
		switch {
		case got.status.Revoked:
			return got.status, nil, nil
		case got.err == nil && got.status.ThisUpdate.After(good.ThisUpdate):
			good = got.status
		case got.err != nil && !errors.Is(err, errOCSPUnknown):
			err = got.err
			if address := source.ShownURL(c.config.OCSP[got.responder]); ctx.Err() == nil && !strings.Contains(err.Error(), address) {
				err = fmt.Errorf("%w (%s)", err, source.Text(address, maxQuote))
			}
		}
	}
	old := c.config.Cache.answer(newOCSPKey(cert, issuer))
	switch {
	case good.Until.IsZero():
		return good, c.joinFailures(failures), err
	case answered < len(c.config.OCSP) && old.Revoked && c.config.Now().Before(old.Until):
		err = errors.New("a responder has said revoked, and not all responders have said good since")
		return certStatus{}, err, err
	}
	return good, nil, nil
}

// joinFailures returns one error for the log with the failure of each responder.
func (c *ocspClient) joinFailures(failures []error) error {
	texts := make([]string, len(failures))
	for i, err := range failures {
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("it has not answered in time")
		}
		texts[i] = source.ShownURL(c.config.OCSP[i]) + ": " + source.Text(err.Error(), maxErrorText)
	}
	return errors.New(source.Text(strings.Join(texts, "; "), maxDetail))
}

// askOne asks one responder. A response that it cannot parse without a panic is an
// error.
func (c *ocspClient) askOne(ctx context.Context, address string, question []byte, cert, issuer *x509.Certificate) (status certStatus, err error) {
	defer source.Recover("reading it", &err)
	response, err := c.config.Ask(ctx, address, question)
	if err != nil {
		return status, err
	}
	return parseOCSP(response, cert, issuer, c.config.Now())
}

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	// DefaultOCSPTimeout is how long a request waits for OCSP answers.
	DefaultOCSPTimeout = 3 * time.Second
	// unavailableFor is how long a verdict counts that lacks an answer.
	unavailableFor = 5 * time.Second
	// maxDetail bounds the detail of a refusal, maxErrorText the text of an
	// error, maxQuote what is quoted in it; in bytes.
	maxDetail    = 1024
	maxErrorText = 512
	maxQuote     = 200
)

// Config configures a [Checker].
type Config struct {
	// CRLs says that [Checker.SetCRLs] provides CRLs, now or later. Until it has,
	// no CRL vouches for any certificate.
	CRLs bool
	// CAs, if set, returns the trusted CAs. A CRL that one of them has signed counts
	// for an issuer of the same name, so that a CA may sign with another key.
	CAs func() []*x509.Certificate
	// AwaitCRLs, if set, waits for the first CRLs; see [CRLSource.Await].
	AwaitCRLs func(ctx context.Context)
	// CRLFailures, if set, describes the sources of CRLs that fail, for the log.
	CRLFailures func() string
	// Exempt are CAs about whose certificates no answer is needed.
	Exempt Exempt
	// OCSP are the URLs of the responders. All are asked about every certificate.
	OCSP []string
	// AllowUnavailable admits a chain when no source has a fresh answer about one
	// of its certificates. The default is to refuse it.
	AllowUnavailable bool
	// Timeout is how long a request waits for OCSP answers. Default:
	// [DefaultOCSPTimeout].
	Timeout time.Duration
	// Ask sends an OCSP request to a responder and returns its response. Default:
	// a POST request (RFC 6960 appendix A).
	Ask func(ctx context.Context, url string, question []byte) ([]byte, error)
	// Cache holds OCSP answers. Default: a new one.
	Cache *OCSPCache
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// ReportOCSP, if set, is called with the outcome of every request to a
	// responder, by several goroutines at once, and often when a responder is
	// down.
	ReportOCSP func(url string, err error)
	// ReportFailure, if set, is called likewise with every certificate, described
	// by its serial number and issuer, about which no responder gave a usable
	// answer.
	ReportFailure func(certificate string, err error)
	// ReportAdmitted, if set, is called when AllowUnavailable admits a chain.
	ReportAdmitted func(detail string)
}

// Checker decides whether a certificate of a chain has been revoked (RFC 5280
// §6.3, RFC 6960): by a deny list, by CRLs and by OCSP. It may be used by several
// goroutines at once.
type Checker struct {
	config Config
	ocsp   *ocspClient
	crls   atomic.Pointer[CRLSet]
	deny   atomic.Pointer[DenyList]

	cas atomic.Pointer[caIndex]

	generation atomic.Uint64
}

// NewChecker returns a checker that has no CRLs and no deny list yet.
func NewChecker(config Config) *Checker {
	if config.Timeout <= 0 {
		config.Timeout = DefaultOCSPTimeout
	}
	if config.Ask == nil {
		config.Ask = NewFetcher(nil).Ask
	}
	if config.Cache == nil {
		config.Cache = NewOCSPCache()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	config.ReportOCSP, config.ReportFailure = orSilent(config.ReportOCSP), orSilent(config.ReportFailure)
	if config.CAs == nil {
		config.CAs = func() []*x509.Certificate { return nil }
	}
	if config.AwaitCRLs == nil {
		config.AwaitCRLs = func(context.Context) {}
	}
	if config.CRLFailures == nil {
		config.CRLFailures = func() string { return "" }
	}
	if config.ReportAdmitted == nil {
		config.ReportAdmitted = func(string) {}
	}
	c := &Checker{config: config}
	c.ocsp = &ocspClient{
		config:    config,
		onRevoked: func() { c.generation.Add(1) },
		inFlight:  make(map[ocspKey]chan struct{}),
		failures:  make(map[ocspKey]ocspFailure),
	}
	return c
}

// orSilent returns report or, if that is nil, a function that does nothing.
func orSilent(report func(string, error)) func(string, error) {
	if report == nil {
		return func(string, error) {}
	}
	return report
}

// SetCRLs puts other CRLs in force.
func (c *Checker) SetCRLs(crls *CRLSet) {
	c.crls.Store(crls)
	c.generation.Add(1)
}

// SetDenyList puts another deny list in force.
func (c *Checker) SetDenyList(deny *DenyList) {
	c.deny.Store(deny)
	c.generation.Add(1)
}

// Generation returns a number that changes when a verdict may no longer hold,
// whatever its time: when other CRLs or another deny list are in force, or when
// OCSP reports that a certificate which was good is revoked. Keep a verdict
// together with the number from before the call of [Checker.Check].
func (c *Checker) Generation() uint64 { return c.generation.Load() }

// CheckDenied checks the deny list alone: for a chain, or for a leaf that is
// admitted without one.
func (c *Checker) CheckDenied(chain ...*x509.Certificate) *validators.Refusal {
	if detail, denied := c.deny.Load().match(chain); denied {
		return &validators.Refusal{Reason: validators.CertificateRevoked, Detail: source.Text(detail, maxDetail)}
	}
	return nil
}

// DeniesThumbprint reports whether the deny list has a thumbprint rule with this
// hash, for a certificate that is not at hand.
func (c *Checker) DeniesThumbprint(thumbprint validators.Thumbprint) bool {
	deny := c.deny.Load()
	return deny.Len() > 0 && deny.has(ruleThumbprint, thumbprint.String(), "")
}

// Check checks a verified chain, leaf first and anchor last: every certificate
// but the anchor, whose issuer is the one above it (RFC 5280 §6.3). A certificate
// is revoked if any source says so; otherwise a fresh answer of one source is
// enough. None is needed about a certificate that an exempt CA has issued.
//
// Check waits only for the first fetch of CRLs after a start, and for OCSP: when a certificate is new, or its answer has expired
// and nobody has renewed it, until there is an answer, ctx is done or the timeout
// is over. It asks about all certificates of the chain at once, and does not wait
// for a certificate about which a question has failed within the last minute. To
// check several chains of one leaf, use one ctx with one deadline.
//
// The verdict holds until the time returned, or until [Checker.Generation]
// changes; the zero time is no limit. An OCSP answer holds until shortly before
// its nextUpdate, so that it is renewed while it is fresh. Where an answer is
// missing, the verdict holds for five seconds.
func (c *Checker) Check(ctx context.Context, chain []*x509.Certificate, now time.Time) (*validators.Refusal, time.Time) {
	if len(chain) < 2 {
		return &validators.Refusal{Reason: validators.RevocationUnavailable, Detail: "there is no verified chain, so no source can be asked about it"}, now
	}
	if refusal := c.CheckDenied(chain...); refusal != nil {
		return refusal, time.Time{}
	}
	if !c.config.CRLs && len(c.config.OCSP) == 0 {
		return nil, time.Time{}
	}

	c.config.AwaitCRLs(ctx)
	links := make([]link, len(chain)-1)
	for i := range links {
		links[i] = link{cert: chain[i], issuer: chain[i+1], exempt: c.config.Exempt.Has(chain[i+1])}
		if c.config.CRLs {
			links[i].crl, links[i].crlErr = c.crlStatus(chain[i], chain[i+1], chain[i:], now)
		}
		if links[i].crl.Revoked {
			by := "a CRL"
			if place := links[i].crl.place; place != "" {
				by += " at " + place
			}
			return links[i].revoked(by, links[i].crl, now)
		}
	}
	if len(c.config.OCSP) > 0 {
		c.askOCSP(ctx, links, now)
	}
	var until time.Time
	var missing []string
	unknown := false
	for _, l := range links {
		if l.ocsp.Revoked {
			return l.revoked("an OCSP responder", l.ocsp.certStatus, now)
		}
		if l.exempt {
			continue
		}
		end := l.validUntil(now)
		if end.IsZero() {
			missing = append(missing, l.problem())
			unknown = unknown || errors.Is(l.ocspErr, errOCSPUnknown)
			end = now.Add(unavailableFor)
		}
		if until.IsZero() || end.Before(until) {
			until = end
		}
	}
	if missing == nil {
		return nil, until
	}
	detail := "revocation status unavailable: " + strings.Join(missing, "; ")
	if failures := c.config.CRLFailures(); failures != "" {
		detail = source.Text(detail, maxDetail-maxErrorText) + "; failing: " + failures
	}
	detail = source.Text(detail, maxDetail)
	if errors.Is(ctx.Err(), context.Canceled) {
		// The caller hung up: no verdict that waiting would have changed may last.
		return &validators.Refusal{Reason: validators.RevocationUnavailable, Detail: detail}, now
	}
	if c.config.AllowUnavailable && !unknown {
		c.config.ReportAdmitted(detail)
		return nil, until
	}
	return &validators.Refusal{Reason: validators.RevocationUnavailable, Detail: detail}, until
}

// askOCSP looks up the certificates, and waits once for the answers about those
// that nothing is known about.
func (c *Checker) askOCSP(ctx context.Context, links []link, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	waits := make([]<-chan struct{}, len(links))
	for i := range links {
		if !links[i].exempt {
			waits[i] = c.lookUpOCSP(&links[i], now)
		}
	}
	for i, wait := range waits {
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
		}
		if c.lookUpOCSP(&links[i], now) != nil {
			links[i].ocspErr = errors.New("no responder has answered in time")
		}
	}
}

// lookUpOCSP looks up one certificate. It ignores an answer of good if the
// certificate that signed it is itself revoked (RFC 6960 §4.2.2.2.1).
func (c *Checker) lookUpOCSP(l *link, now time.Time) (wait <-chan struct{}) {
	l.ocsp, wait, l.ocspErr = c.ocsp.lookUp(l.cert, l.issuer, now)
	signer := l.ocsp.Signer
	if signer == nil || l.ocsp.Revoked {
		return wait
	}
	status, _ := c.crlStatus(signer, l.issuer, []*x509.Certificate{signer, l.issuer}, now)
	if status.Revoked || c.deny.Load().matchingRule(signer) != "" {
		l.ocsp, l.ocspErr = ocspAnswer{}, errors.New("the certificate that signed the response is revoked")
	}
	return wait
}

// link is a certificate of a chain, its issuer, and what the sources say.
type link struct {
	cert, issuer    *x509.Certificate
	crl             certStatus
	ocsp            ocspAnswer
	crlErr, ocspErr error
	// exempt means that no answer is needed. One that says revoked counts.
	exempt bool
}

func (l link) String() string {
	return fmt.Sprintf("number %s of %s", source.Text(l.cert.SerialNumber.Text(16), 64), source.Text(dn.Format(l.cert.RawIssuer), maxQuote))
}

func (l link) revoked(by string, status certStatus, now time.Time) (*validators.Refusal, time.Time) {
	until := status.Until
	if !until.After(now) {
		until = now.Add(unavailableFor)
	}
	detail := fmt.Sprintf("certificate %s: revoked since %s according to %s", l, timeText(status.RevokedAt), by)
	return &validators.Refusal{Reason: validators.CertificateRevoked, Detail: source.Text(detail, maxDetail)}, until
}

// validUntil returns how long the answers about the certificate hold, or zero if
// none is fresh.
func (l link) validUntil(now time.Time) time.Time {
	var ends []time.Time
	if now.Before(l.crl.Until) {
		ends = append(ends, l.crl.Until)
	}
	switch {
	case now.Before(l.ocsp.renew):
		ends = append(ends, l.ocsp.renew)
	case now.Before(l.ocsp.Until):
		ends = append(ends, l.ocsp.Until, now.Add(unavailableFor))
	case l.ocspErr != nil && ends != nil:
		ends = append(ends, now.Add(unavailableFor)) // the responders may answer soon
	}
	if ends == nil {
		return time.Time{}
	}
	return earliest(ends...)
}

// problem describes why there is no fresh answer, and what to do about it.
func (l link) problem() string {
	text := fmt.Sprintf("certificate %s, %s", source.Text(dn.Format(l.cert.RawSubject), maxQuote), l)
	remedy := ""
	if l.crlErr != nil {
		text += ", CRL: " + l.crlErr.Error()
		if known := new(remedied); errors.As(l.crlErr, &known) {
			remedy = "; " + known.remedy
		}
	}
	if l.ocspErr != nil {
		text += ", OCSP: " + l.ocspErr.Error()
		if remedy == "" && !strings.Contains(l.ocspErr.Error(), "; ") {
			remedy = "; check the responder"
		}
	}
	return text + remedy
}

// remedied is an error with a remedy, which its text lacks, because other errors may
// come between.
type remedied struct {
	error
	remedy string
}

func (r remedied) Unwrap() error { return r.error }

// errorFor returns an error with a remedy.
func errorFor(remedy, format string, args ...any) error {
	return &remedied{fmt.Errorf(format, args...), remedy}
}

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// DefaultOCSPTimeout is how long a request waits for OCSP answers.
	DefaultOCSPTimeout = 3 * time.Second
	// unavailableMemory is how long a verdict counts that lacks an answer.
	unavailableMemory = 5 * time.Second
	// maxDetail bounds the detail of a refusal, maxErrorText the text of an
	// error, maxQuote what is quoted in it; in bytes.
	maxDetail    = 1024
	maxErrorText = 512
	maxQuote     = 200
)

// Config says what a [Checker] asks.
type Config struct {
	// CRLs says that CRLs are a source, which [Checker.SetCRLs]
	// provides, later perhaps.
	CRLs bool
	// OCSP is the addresses of the responders. All are asked about every
	// certificate.
	OCSP []string
	// AllowUnavailable admits a chain when no source has a fresh answer on
	// some certificate of it. The default is to refuse.
	AllowUnavailable bool
	// Timeout is how long a request waits for OCSP answers at most. Default:
	// [DefaultOCSPTimeout].
	Timeout time.Duration
	// Ask puts a question to a responder. Default: a POST
	// request.
	Ask func(ctx context.Context, url string, question []byte) ([]byte, error)
	// Memory remembers OCSP answers. Default: a new one.
	Memory *OCSPMemory
	// Now is the clock. Default: [time.Now].
	Now func() time.Time
	// ReportOCSP, if set, is told how every question to a responder ended, also
	// where another responder has answered. It is called from several
	// goroutines, and often when a responder is down.
	ReportOCSP func(url string, err error)
	// ReportFailure, if set, is told of every certificate, by its number and its
	// issuer, that no responder gave a usable answer on. It is called likewise.
	ReportFailure func(certificate string, err error)
	// ReportAdmitted, if set, is told of a chain that AllowUnavailable admits.
	ReportAdmitted func(detail string)
}

// Checker decides whether a certificate of a chain has been revoked
// (RFC 5280 §6.3, RFC 6960): by a deny list, by CRLs and by OCSP. It may be
// used by several goroutines at once.
type Checker struct {
	config Config
	ocsp   *ocspClient
	crls   atomic.Pointer[CRLSet]
	deny   atomic.Pointer[DenyList]

	generation atomic.Uint64
}

// NewChecker returns a checker without CRLs and deny list as yet.
func NewChecker(config Config) *Checker {
	if config.Timeout <= 0 {
		config.Timeout = DefaultOCSPTimeout
	}
	if config.Ask == nil {
		config.Ask = askResponder
	}
	if config.Memory == nil {
		config.Memory = NewOCSPMemory()
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	if config.ReportOCSP == nil {
		config.ReportOCSP = func(string, error) {}
	}
	if config.ReportFailure == nil {
		config.ReportFailure = func(string, error) {}
	}
	if config.ReportAdmitted == nil {
		config.ReportAdmitted = func(string) {}
	}
	c := &Checker{config: config}
	c.ocsp = &ocspClient{
		urls:     config.OCSP,
		timeout:  config.Timeout,
		ask:      config.Ask,
		now:      config.Now,
		report:   config.ReportOCSP,
		failed:   config.ReportFailure,
		turned:   func() { c.generation.Add(1) },
		memory:   config.Memory,
		underWay: make(map[ocspKey]chan struct{}),
		failures: make(map[ocspKey]ocspFailure),
	}
	return c
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

// Generation is another number whenever a verdict may no longer hold, whatever
// its time: when CRLs or deny list are others, or when OCSP says of a
// certificate that was good that it is revoked. A verdict is to be kept with
// the number from before [Checker.Check] was called.
func (c *Checker) Generation() uint64 { return c.generation.Load() }

// CheckDenied checks a leaf that is admitted without a chain, or a chain,
// against the deny list alone.
func (c *Checker) CheckDenied(chain ...*x509.Certificate) *validators.Refusal {
	if detail, denied := c.deny.Load().Denies(chain); denied {
		return &validators.Refusal{Reason: validators.CertificateRevoked, Detail: source.Text(detail, maxDetail)}
	}
	return nil
}

// Check checks a chain that has verified, leaf first and anchor last: every
// certificate but the anchor, with the one above it as its issuer (RFC 5280
// §6.3). Revoked by any source is revoked; a fresh answer of any source is
// enough otherwise.
//
// Only OCSP makes it wait: when a certificate is seen for the first time, or
// again after its answer has expired unasked for, until there is an answer, the
// context is done or the timeout is over, whichever comes first. All
// certificates of the chain are asked about at once, and nobody waits for a
// certificate that a question has failed about within the last minute. Who
// checks several chains of one leaf gives them a context with one deadline.
//
// The verdict holds until the time returned, or until [Checker]'s
// Generation is another; the zero time is no limit. For an OCSP answer that is
// before its nextUpdate, so that it is renewed while it still holds; where an
// answer is missing, it is after five seconds.
func (c *Checker) Check(ctx context.Context, chain []*x509.Certificate, now time.Time) (*validators.Refusal, time.Time) {
	if len(chain) < 2 {
		return &validators.Refusal{Reason: validators.RevocationUnavailable, Detail: "there is no verified chain, so nobody can be asked about it"}, now
	}
	if refusal := c.CheckDenied(chain...); refusal != nil {
		return refusal, time.Time{}
	}
	if !c.config.CRLs && len(c.config.OCSP) == 0 {
		return nil, time.Time{}
	}

	links := make([]link, len(chain)-1)
	for i := range links {
		links[i] = link{cert: chain[i], issuer: chain[i+1]}
		if c.config.CRLs {
			links[i].crl, links[i].crlErr = c.crls.Load().Status(chain[i], chain[i+1], now)
		}
		if links[i].crl.Revoked {
			return links[i].revoked("a CRL", links[i].crl, now)
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
			return l.revoked("an OCSP responder", l.ocsp.Status, now)
		}
		end := l.until(now)
		if end.IsZero() {
			missing = append(missing, l.missing())
			unknown = unknown || errors.Is(l.ocspErr, ErrOCSPUnknown)
			end = now.Add(unavailableMemory)
		}
		if until.IsZero() || end.Before(until) {
			until = end
		}
	}
	if missing == nil {
		return nil, until
	}
	detail := source.Text("no source says whether the certificates are revoked: "+strings.Join(missing, "; "), maxDetail)
	if errors.Is(ctx.Err(), context.Canceled) {
		// Who hangs up must not have a verdict that patience would have changed.
		return &validators.Refusal{Reason: validators.RevocationUnavailable, Detail: detail}, now
	}
	if c.config.AllowUnavailable && !unknown {
		c.config.ReportAdmitted(detail)
		return nil, until
	}
	return &validators.Refusal{Reason: validators.RevocationUnavailable, Detail: detail}, until
}

// askOCSP looks up the certificates, and waits once for the answers on those
// that nothing is known of.
func (c *Checker) askOCSP(ctx context.Context, links []link, now time.Time) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	waits := make([]<-chan struct{}, len(links))
	for i := range links {
		waits[i] = c.lookOCSP(&links[i], now)
	}
	for i, wait := range waits {
		if wait == nil {
			continue
		}
		select {
		case <-wait:
		case <-ctx.Done():
		}
		if c.lookOCSP(&links[i], now) != nil {
			links[i].ocspErr = errors.New("no responder has answered in time")
		}
	}
}

// lookOCSP looks up one certificate. A good answer that was signed by a
// certificate which is itself revoked is none (RFC 6960 §4.2.2.2.1).
func (c *Checker) lookOCSP(l *link, now time.Time) (wait <-chan struct{}) {
	l.ocsp, wait, l.ocspErr = c.ocsp.look(l.cert, l.issuer, now)
	signer := l.ocsp.Signer
	if signer == nil || l.ocsp.Revoked {
		return wait
	}
	status, _ := c.crls.Load().Status(signer, l.issuer, now)
	if status.Revoked || c.deny.Load().fits(signer) != "" {
		l.ocsp, l.ocspErr = ocspAnswer{}, errors.New("the certificate that signed the answer is revoked")
	}
	return wait
}

// link is a certificate of a chain, its issuer, and what is known of it.
type link struct {
	cert, issuer    *x509.Certificate
	crl             Status
	ocsp            ocspAnswer
	crlErr, ocspErr error
}

func (l link) name() string {
	return fmt.Sprintf("number %s of %s", source.Text(l.cert.SerialNumber.Text(16), 64), source.Text(validators.FormatDN(l.cert.RawIssuer), maxQuote))
}

func (l link) revoked(by string, status Status, now time.Time) (*validators.Refusal, time.Time) {
	until := status.Until
	if !until.After(now) {
		until = now.Add(unavailableMemory)
	}
	detail := fmt.Sprintf("certificate %s: %s says it is revoked since %s", l.name(), by, timeText(status.RevokedAt))
	return &validators.Refusal{Reason: validators.CertificateRevoked, Detail: source.Text(detail, maxDetail)}, until
}

// until is how long the answers on the certificate hold, or zero if there is
// none that is fresh.
func (l link) until(now time.Time) time.Time {
	var ends []time.Time
	if now.Before(l.crl.Until) {
		ends = append(ends, l.crl.Until)
	}
	switch {
	case now.Before(l.ocsp.renew):
		ends = append(ends, l.ocsp.renew)
	case now.Before(l.ocsp.Until):
		ends = append(ends, l.ocsp.Until, now.Add(unavailableMemory))
	case l.ocspErr != nil && ends != nil:
		ends = append(ends, now.Add(unavailableMemory)) // the other source may know more
	}
	if ends == nil {
		return time.Time{}
	}
	return slices.MinFunc(ends, time.Time.Compare)
}

func (l link) missing() string {
	text := "certificate " + l.name()
	if l.crlErr != nil {
		text += ", CRL: " + l.crlErr.Error()
	}
	if l.ocspErr != nil {
		text += ", OCSP: " + l.ocspErr.Error()
	}
	return text
}

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

var errDown = errors.New("connection refused")

// pki is a chain of three certificates, and the responders that are asked about it.
type pki struct {
	t         *testing.T
	root, sub *testpki.CA
	leaf      *testpki.Leaf

	mu sync.Mutex
	// answers are the answers of responders, by URL; the default is good.
	answers map[string]func(ctx context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error)
	// asked counts the questions, by certificate.
	asked map[*x509.Certificate]int
	known map[string]*testpki.CA
	certs map[string]*x509.Certificate
}

func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t: t, root: testpki.MustCA(t, testpki.CommonName("Root")),
		answers: make(map[string]func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error)),
		asked:   make(map[*x509.Certificate]int),
		known:   make(map[string]*testpki.CA),
		certs:   make(map[string]*x509.Certificate),
	}
	p.sub = testpki.MustIntermediate(t, p.root, testpki.CommonName("Sub"))
	p.know(p.sub.Cert, p.root)
	p.leaf = p.issue()
	return p
}

func (p *pki) know(cert *x509.Certificate, ca *testpki.CA) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.known[cert.SerialNumber.String()], p.certs[cert.SerialNumber.String()] = ca, cert
}

func (p *pki) issue(opts ...testpki.Option) *testpki.Leaf {
	leaf := testpki.MustIssue(p.t, p.sub, opts...)
	p.know(leaf.Cert, p.sub)
	return leaf
}

func (p *pki) chain() []*x509.Certificate { return p.chainOf(p.leaf.Cert) }

func (p *pki) chainOf(leaf *x509.Certificate) []*x509.Certificate {
	return []*x509.Certificate{leaf, p.sub.Cert, p.root.Cert}
}

// says makes a responder answer like this about one certificate, or about all.
func (p *pki) says(url string, about *x509.Certificate, opts ...ocspOption) {
	p.does(url, func(_ context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
		if about != nil && cert != about {
			return p.good(cert, ca), nil
		}
		return p.good(cert, ca, opts...), nil
	})
}

func (p *pki) does(url string, answer func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers[url] = answer
}

func (p *pki) good(cert *x509.Certificate, ca *testpki.CA, opts ...ocspOption) []byte {
	return makeOCSP(p.t, ca, cert, ca, time.Now(), opts...)
}

func (p *pki) down(url string) {
	p.does(url, func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error) { return nil, errDown })
}

// hangs makes a responder hang for one certificate, or for all.
func (p *pki) hangs(url string, about *x509.Certificate) {
	p.does(url, func(ctx context.Context, cert *x509.Certificate, ca *testpki.CA) ([]byte, error) {
		if about != nil && cert != about {
			return p.good(cert, ca), nil
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
}

func (p *pki) ask(ctx context.Context, url string, question []byte) ([]byte, error) {
	request, err := ocsp.ParseRequest(question)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	ca, cert := p.known[request.SerialNumber.String()], p.certs[request.SerialNumber.String()]
	answer := p.answers[url]
	p.asked[cert]++
	p.mu.Unlock()
	if answer == nil {
		return p.good(cert, ca), nil
	}
	return answer(ctx, cert, ca)
}

func (p *pki) questions(cert *x509.Certificate) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asked[cert]
}

func (p *pki) checker(config Config) *Checker {
	config.Ask = p.ask
	return NewChecker(config)
}

// crls returns CRLs of both CAs; the options are for that of the sub-CA.
func (p *pki) crls(opts ...crlOption) *CRLSet {
	return crlSetOf(mustCRL(p.t, p.root, time.Now()), mustCRL(p.t, p.sub, time.Now(), opts...))
}

// mustCheck checks, and returns how long it took and how long the verdict holds.
func (p *pki) mustCheck(c *Checker, chain []*x509.Certificate, want validators.Reason, why string) (took, holds time.Duration) {
	p.t.Helper()
	return p.check(p.t.Context(), c, chain, want, why)
}

func (p *pki) check(ctx context.Context, c *Checker, chain []*x509.Certificate, want validators.Reason, why string) (took, holds time.Duration) {
	p.t.Helper()
	start := time.Now()
	refusal, until := c.Check(ctx, chain, start)
	switch {
	case refusal == nil && want != "":
		p.t.Errorf("admitted, want %s", want)
	case refusal != nil && (refusal.Reason != want || !strings.Contains(refusal.Detail, why)):
		p.t.Errorf("%v, want %s: …%s…", refusal, want, why)
	case refusal != nil && (!testtool.Printable(refusal.Detail) || len(refusal.Detail) > maxDetail+4):
		p.t.Errorf("%q is not fit for a log", refusal.Detail)
	}
	return time.Since(start), until.Sub(start)
}

// bubble runs a test in a bubble of its own time (testing/synctest), which
// moves when everybody waits.
func bubble(t *testing.T, test func(t *testing.T, p *pki)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		test(t, newPKI(t))
		time.Sleep(time.Minute) // for questions to end
	})
}

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ocsp"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// With a responder for each CA, some do not know a certificate. That is reported only
// if none has a usable answer, and once.
func TestOCSPReportsCertificatesWithoutAnswer(t *testing.T) {
	const a, b, secret = "http://a", "http://b", "http://u:secret@c"
	unknown := func(p *pki, url string) { p.says(url, nil, ocspState(ocsp.Unknown)) }
	for name, test := range map[string]struct {
		set  func(*pki)
		want []string // parts of the one error, none if there is to be none
	}{
		"one is good":           {func(p *pki) { p.down(a); unknown(p, secret) }, nil},
		"one is good, one late": {func(p *pki) { p.down(a); p.hangs(secret, nil) }, nil},
		"one says revoked":      {func(p *pki) { p.down(a); p.down(secret); p.says(b, nil, ocspState(ocsp.Revoked)) }, nil},
		"none": {func(p *pki) { p.down(a); unknown(p, b); p.hangs(secret, nil) },
			[]string{"http://a: connection refused; http://b: the responder does not know the certificate; http://c: it has not answered in time"}},
		"none, at length": {func(p *pki) {
			for _, url := range []string{a, b, secret} {
				p.does(url, func(context.Context, *x509.Certificate, *testpki.CA) ([]byte, error) {
					return nil, errors.New("\x1b[31m" + strings.Repeat("y\n", 5000))
				})
			}
		}, []string{"http://a: "}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, p *pki) {
				var mu sync.Mutex
				var told []string
				test.set(p)
				p.sub = testpki.MustIntermediate(t, p.root, testpki.CommonName("a\nb\u202e"+strings.Repeat("x", 5000)))
				p.know(p.sub.Cert, p.root)
				leaf := p.issue().Cert
				c := p.checker(Config{OCSP: []string{a, b, secret}, ReportFailure: func(certificate string, err error) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, certificate+": "+err.Error())
				}})
				chain := []*x509.Certificate{leaf, p.sub.Cert}
				for range 3 { // from memory twice
					_, _ = c.Check(t.Context(), chain, time.Now())
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if test.want == nil && len(told) > 0 || test.want != nil && len(told) != 1 {
					t.Fatalf("told %q, want %q", told, test.want)
				}
				for _, text := range told {
					for _, part := range append(test.want, fmt.Sprintf("number %x of ", leaf.SerialNumber)) {
						if !strings.Contains(text, part) {
							t.Errorf("told %q without %q", text, part)
						}
					}
					if !testtool.Printable(text) || len(text) > 2000 {
						t.Errorf("%d octets: %q is not fit for a log", len(text), text)
					}
				}
			})
		})
	}
}

// A good answer of the same moment as a revoked one does not replace it, like an older
// one, and is reported.
func TestOCSPRevokedOutlastsGoodOfTheSameMoment(t *testing.T) {
	cache := NewOCSPCache()
	at := now.Truncate(time.Second)
	put := func(revoked bool, thisUpdate time.Time, onRevoked, works bool) {
		t.Helper()
		got, err := cache.store(ocspKey{}, certStatus{Revoked: revoked, ThisUpdate: thisUpdate, Until: at.Add(time.Hour)}, at)
		if got != onRevoked || (err == nil) != works {
			t.Errorf("onRevoked %v, %v", got, err)
		}
	}
	put(false, at, false, true)
	put(true, at, true, true)
	put(false, at, false, false)
	put(false, at.Add(-time.Second), false, false)
	if !cache.answer(ocspKey{}).Revoked {
		t.Error("no longer revoked")
	}
	put(false, at.Add(time.Second), false, true)
	if cache.answer(ocspKey{}).Revoked {
		t.Error("revoked for ever")
	}
}

package revocation

import (
	"context"
	"crypto/x509"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// After a start, requests wait for the first fetch, so that on_unavailable allow does not
// admit what the CRL has revoked. They do not wait for a server that hangs.
func TestFirstFetchOfCRLsIsAwaited(t *testing.T) {
	for title, test := range map[string]struct {
		fetch, wait time.Duration
		fails       bool
		want        validators.Reason
	}{
		"answers": {time.Second, time.Second, false, validators.CertificateRevoked},
		"fails":   {time.Second, time.Second, true, ""},
		"hangs":   {time.Minute, 3 * time.Second, false, ""},
	} {
		t.Run(title, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca := testpki.MustCA(t)
				p := &pki{t: t}
				leaf := testpki.MustIssue(t, ca).Cert
				crl := makeCRL(t, ca, time.Now(), crlRevokes(1, leaf))
				var source *CRLSource
				c := NewChecker(Config{CRLs: true, AllowUnavailable: true, AwaitCRLs: func(ctx context.Context) { source.Await(ctx) }})
				source, err := NewCRLSource(CRLConfig{
					Locations: []string{crlURL}, Use: c.SetCRLs,
					Fetch: func(context.Context, string) ([]byte, error) {
						time.Sleep(test.fetch)
						if test.fails {
							return nil, errors.New("down")
						}
						return crl, nil
					},
				})
				if err != nil {
					t.Fatal(err)
				}
				source.Begin(3 * time.Second)
				go source.Refresh(t.Context())
				chain := []*x509.Certificate{leaf, ca.Cert}
				if took, _ := p.mustCheck(c, chain, test.want, ""); took != test.wait {
					t.Errorf("took %s, want %s", took, test.wait)
				}
				if took, _ := p.mustCheck(c, chain, test.want, ""); took != 0 {
					t.Errorf("the next took %s", took)
				}
				time.Sleep(2 * time.Minute)
				source.Begin(3 * time.Second) // it has been tried
				if took, _ := p.mustCheck(c, chain, map[bool]validators.Reason{false: validators.CertificateRevoked}[test.fails], ""); took != 0 {
					t.Errorf("later, it took %s", took)
				}
			})
		})
	}
}

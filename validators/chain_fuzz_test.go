package validators

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// FuzzVerify checks that what verifies also verifies for [x509.Certificate.Verify], that
// neither the order nor what a pool remembers changes a verdict, and that an error is one
// bounded line in words of its own.
func FuzzVerify(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		maker := newChainMaker(t, seed)
		c := maker.chain()
		all, anchors := x509.NewCertPool(), x509.NewCertPool()
		for _, cert := range c.presented {
			all.AddCert(cert)
		}
		for _, cert := range c.anchors {
			anchors.AddCert(cert)
		}
		chains, first := c.pool().Verify(c.leaf, c.presented, now)
		_, err := c.leaf.Verify(x509.VerifyOptions{Roots: anchors, Intermediates: all, CurrentTime: now, KeyUsages: usageClientAuth})
		if first == nil && (err != nil || len(chains) == 0) {
			t.Errorf("%d chains verify, and for x509: %v", len(chains), err)
		}
		pool := c.pool()
		for range 4 {
			_, err := pool.Verify(c.leaf, c.presented, now)
			if (err == nil) != (first == nil) {
				t.Errorf("%v, and in another order: %v", first, err)
			}
			if err != nil && (len(err.Error()) > maxChainErrorText+16 || strings.Contains(err.Error(), "x509") || !testtool.Printable(err.Error())) {
				t.Errorf("unfit for a log: %q", err)
			}
			maker.Shuffle(len(c.presented), func(i, j int) { c.presented[i], c.presented[j] = c.presented[j], c.presented[i] })
		}
	})
}

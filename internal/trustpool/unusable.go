package trustpool

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxReported bounds the CAs that have a warning each, and maxExpiries those whose
// expiry is shown.
const (
	maxReported = 20
	maxExpiries = 100
)

// UnusableReporter logs the CAs of a pool under which no client certificate can verify,
// each once for each cause.
type UnusableReporter struct {
	logger   *zap.Logger
	reported map[[sha256.Size]byte]string
}

// NewUnusableReporter returns a reporter for the pool of that name in the
// configuration.
func NewUnusableReporter(logger *zap.Logger, word string) *UnusableReporter {
	return &UnusableReporter{logger: logger.With(zap.String("pool", word)), reported: make(map[[sha256.Size]byte]string)}
}

// Report logs the CAs that are not usable at the given time and have not been
// reported.
func (r *UnusableReporter) Report(t *Trust, now time.Time) {
	causes, unreported := make(map[[sha256.Size]byte]string), 0
	for _, ca := range t.all {
		err := validators.CheckCA(ca, now)
		if err == nil {
			continue
		}
		sum := sha256.Sum256(ca.Raw)
		known := causes[sum] != "" || r.reported[sum] == err.Error()
		causes[sum] = err.Error()
		if known {
			continue
		}
		if unreported++; unreported <= maxReported {
			r.logger.Warn("no client can verify under CA of trust pool",
				zap.String("subject", dn.Format(ca.RawSubject)), zap.String("thumbprint", hex.EncodeToString(sum[:])), zap.Error(err))
		}
	}
	if unreported > maxReported {
		r.logger.Warn("no client can verify under more CAs of trust pool", zap.Int("cas", unreported-maxReported))
	}
	r.reported = causes
}

// ExpiringFirst returns the CAs of the pool that expire first, at most a hundred.
func (t *Trust) ExpiringFirst() []*x509.Certificate {
	sorted := slices.SortedFunc(slices.Values(t.Certificates), func(a, b *x509.Certificate) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), slices.Compare(a.Raw, b.Raw))
	})
	return sorted[:min(len(sorted), maxExpiries)]
}

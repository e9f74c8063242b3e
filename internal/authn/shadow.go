package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"maps"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// shadowQueue is how many certificates may wait to be held against the
	// shadow pool.
	shadowQueue = 256
	// maxShadowFailures bounds the certificates that are known to fail.
	maxShadowFailures = 10000
)

// Counter counts outcomes.
type Counter interface{ Inc() }

// ShadowConfig is where a [Shadow] reports what it finds.
type ShadowConfig struct {
	Logger *zap.Logger
	// OK and Fail count certificates by what the shadow pool says, Dropped those
	// that were not compared because too many waited; their next request tries
	// again.
	OK, Fail, Dropped Counter
}

// Shadow finds out, in the background, which admitted clients would fail if the
// shadow pool were the trust pool. Nothing waits for it.
type Shadow struct {
	config ShadowConfig
	queue  chan shadowSight

	mu sync.Mutex
	// pool is the one that failures are about.
	pool     *validators.TrustPool
	failures map[shadowKey]time.Time // to the end of the certificate
	full     bool                    // and somebody has been told
}

// shadowSight is the first sight of a certificate that was admitted.
type shadowSight struct {
	pool      *validators.TrustPool
	presented []*x509.Certificate
	matches   []admission
	now       time.Time
}

type shadowKey struct {
	thumbprint [sha256.Size]byte
	clientID   string
}

// NewShadow returns a Shadow without a pool; see [Shadow.Use] and [Shadow.Run].
func NewShadow(config ShadowConfig) *Shadow {
	return &Shadow{config: config, queue: make(chan shadowSight, shadowQueue), failures: make(map[shadowKey]time.Time)}
}

// Use makes failures be about this pool from now on.
func (w *Shadow) Use(pool *validators.TrustPool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != pool {
		w.pool, w.full = pool, false
		clear(w.failures)
	}
}

// see queues a certificate that has just been admitted, unless that has been
// done since the verdict was worked out. It waits for nothing.
func (w *Shadow) see(pool *validators.TrustPool, presented []*x509.Certificate, v *verdict, now time.Time) {
	if !v.unseen.Load() || !v.unseen.CompareAndSwap(true, false) {
		return
	}
	select {
	case w.queue <- shadowSight{pool: pool, presented: presented, matches: v.matches, now: now}:
	default:
		v.unseen.Store(true)
		w.config.Dropped.Inc()
	}
}

// Run works through the queue.
func (w *Shadow) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case sight := <-w.queue:
			w.judge(sight)
		}
	}
}

// judge holds a certificate against the shadow pool, for each client that it
// is by its chain.
func (w *Shadow) judge(sight shadowSight) {
	defer func() {
		if fault := recover(); fault != nil {
			w.config.Logger.Error("checking the shadow trust pool failed", zap.Any("fault", fault))
		}
	}()
	var chains [][]*x509.Certificate
	var err error
	verified := false
	for _, match := range sight.matches {
		if match.Client.Disabled || !match.byChain() {
			continue
		}
		if !verified {
			verified = true
			chains, err = sight.pool.Verify(sight.presented[0], sight.presented[1:], sight.now)
		}
		w.note(sight, match.Client, shadowRefusal(chains, err, match.Client))
	}
}

// shadowRefusal is why the client would not be admitted by these chains, or "".
func shadowRefusal(chains [][]*x509.Certificate, err error, client *clients.Client) string {
	if err != nil {
		return err.Error()
	}
	for _, chain := range chains {
		if validators.IssuedBy(chain, client.IssuedBy) {
			return ""
		}
	}
	return "no certificate of the chain is in the client's issued_by"
}

// note counts an outcome, and logs a failure that is not known yet.
func (w *Shadow) note(sight shadowSight, client *clients.Client, why string) {
	leaf := sight.presented[0]
	key := shadowKey{sha256.Sum256(leaf.Raw), client.ID}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.pool != sight.pool {
		return // it is seen again, and held against the pool that took its place
	}
	if why == "" {
		w.config.OK.Inc()
		delete(w.failures, key)
		return
	}
	w.config.Fail.Inc()
	if _, known := w.failures[key]; known {
		return
	}
	if len(w.failures) >= maxShadowFailures {
		maps.DeleteFunc(w.failures, func(_ shadowKey, end time.Time) bool { return end.Before(sight.now) })
	}
	if len(w.failures) >= maxShadowFailures {
		if !w.full {
			w.full = true
			w.config.Logger.Warn("too many certificates would fail under the shadow trust pool; further ones are only counted",
				zap.Int("remembered", maxShadowFailures))
		}
		return
	}
	w.failures[key] = leaf.NotAfter
	w.config.Logger.Warn("client would fail under the shadow trust pool",
		zap.String("client_id", client.ID),
		zap.String("subject", validators.FormatDN(leaf.RawSubject)),
		zap.String("issuer", validators.FormatDN(leaf.RawIssuer)),
		zap.String("serial", validators.FormatSerial(leaf.SerialNumber)),
		zap.String("thumbprint", hex.EncodeToString(key.thumbprint[:])),
		zap.Time("not_after", leaf.NotAfter),
		zap.String("why", why))
}

// Failing is the number of registered clients that have presented a certificate
// which would fail and has not expired.
func (w *Shadow) Failing(registry *clients.Registry, now time.Time) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	distinct := make(map[string]struct{})
	for key, end := range w.failures {
		if client := registry.Client(key.clientID); client != nil && !client.Disabled && now.Before(end) {
			distinct[key.clientID] = struct{}{}
		}
	}
	return len(distinct)
}

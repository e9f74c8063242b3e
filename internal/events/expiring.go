package events

import (
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/status"
)

const (
	// expiringEvery is how often a realm looks for certificates that expire soon.
	expiringEvery = time.Minute
	// maxExpiringTold is of how many certificates a realm tells that they expire.
	maxExpiringTold = 10_000
	// maxExpiringQueued is how many events may wait when the next one is added. A CA may
	// have issued thousands of certificates on the same day.
	maxExpiringQueued = 256

	day = 24 * time.Hour
)

// ExpiringTold remembers of which certificates handlers were told that they expire, and
// when, so that this happens once a day.
type ExpiringTold struct {
	mu   sync.Mutex
	next time.Time // when the realm looks again
	last map[string]time.Time
}

// Tell tells once a day of each certificate that expires soon. Only the running
// configuration does so. list returns those that expire between two times, up to a
// number.
func (t *ExpiringTold) Tell(r Realm, within time.Duration, now time.Time, list func(now, until time.Time, most int) ([]status.Expiring, int)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if wait := t.next.Sub(now); wait > 0 && wait <= expiringEvery || r.emitter.config.Running() != r.emitter || !r.emitter.queue.Wants(eventCertificateExpiring) {
		return
	}
	t.next = now.Add(expiringEvery)
	expiring, _ := list(now, now.Add(within), maxExpiringTold)
	last := make(map[string]time.Time, len(expiring)) // without what no longer expires soon
	for _, certificate := range expiring {
		key := certificate.Kind + " " + certificate.ClientID + " " + certificate.Thumbprint
		at, known := t.last[key]
		if (!known || now.Sub(at).Abs() >= day) && r.emitter.Len() < maxExpiringQueued {
			r.expires(certificate, now)
			at, known = now, true
		}
		if known {
			last[key] = at
		}
	}
	t.last = last
}

func (r Realm) expires(certificate status.Expiring, now time.Time) {
	r.emit(eventCertificateExpiring, func() map[string]any {
		return map[string]any{
			"kind": certificate.Kind, "client_id": certificate.ClientID, "subject": certificate.Subject, "thumbprint": certificate.Thumbprint,
			"not_after": timeText(certificate.NotAfter), "days_left": DaysLeft(certificate.NotAfter, now),
		}
	})
}

// DaysLeft returns how many whole days are left until a certificate expires.
func DaysLeft(notAfter, now time.Time) int { return max(0, int(notAfter.Sub(now)/day)) }

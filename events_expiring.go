package mtlsauth

import (
	"context"
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
)

// expiringTold remembers of which certificates handlers were told that they expire, and
// when, so that this happens once a day.
type expiringTold struct {
	mu   sync.Mutex
	next time.Time // when the realm looks again
	last map[string]time.Time
}

// tellExpiring tells once a day of each certificate that expires soon. Only the running
// configuration does so.
func (realm *Realm) tellExpiring(context.Context) {
	told, now := &realm.memory.expiring, realm.app.Now()
	told.mu.Lock()
	defer told.mu.Unlock()
	if wait := told.next.Sub(now); wait > 0 && wait <= expiringEvery || runningApp() != realm.app || !realm.app.events.Wants(eventCertificateExpiring) {
		return
	}
	told.next = now.Add(expiringEvery)
	list, _ := realm.expiring(now, now.Add(realm.expiry.within), maxExpiringTold)
	last := make(map[string]time.Time, len(list)) // without what no longer expires soon
	for _, certificate := range list {
		key := certificate.Kind + " " + certificate.ClientID + " " + certificate.Thumbprint
		at, known := told.last[key]
		if (!known || now.Sub(at).Abs() >= day) && realm.app.events.Len() < maxExpiringQueued {
			realm.emitExpiring(certificate, now)
			at, known = now, true
		}
		if known {
			last[key] = at
		}
	}
	told.last = last
}

func (realm *Realm) emitExpiring(certificate status.Expiring, now time.Time) {
	days, _ := realm.expiry.daysLeft(certificate.NotAfter, now)
	realm.emit(eventCertificateExpiring, func() map[string]any {
		return map[string]any{
			"kind": certificate.Kind, "client_id": certificate.ClientID, "subject": certificate.Subject, "thumbprint": certificate.Thumbprint,
			"not_after": timeText(certificate.NotAfter), "days_left": days,
		}
	})
}

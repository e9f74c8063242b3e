package mtlsauth

import (
	"sync"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens/keyring"
)

const (
	eventKeysRotated     = "mtls_keys_rotated"
	eventSourceFailed    = "mtls_source_failed"
	eventSourceRecovered = "mtls_source_recovered"
)

// failingSources are the sources that fail at the moment, so that a failure is one event.
type failingSources struct {
	mu    sync.Mutex
	known map[failingSource]struct{}
}

// failingSource is a source of a realm, as the metrics call it.
type failingSource struct{ realm, name string }

// note notes whether a source fails, and reports whether that is new.
func (f *failingSources) note(from failingSource, fails bool) (changed bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, failed := f.known[from]
	switch {
	case failed == fails:
		return false
	case !fails:
		delete(f.known, from)
	case f.known == nil:
		f.known = map[failingSource]struct{}{from: {}}
	default:
		f.known[from] = struct{}{}
	}
	return true
}

// noteSource tells that a source has begun to fail or, with nil, works again. It may be
// called with each outcome. The realm is "" for a source that belongs to none.
func (a *App) noteSource(realm, name string, err error) {
	if a.ctx.Err() != nil || !a.failing.note(failingSource{realm, name}, err != nil) {
		return // the next configuration looks itself
	}
	if err == nil {
		a.emit(eventSourceRecovered, func() map[string]any {
			return map[string]any{
				"realm": realm, "source": name,
			}
		})
		return
	}
	a.emit(eventSourceFailed, func() map[string]any {
		return map[string]any{
			"realm": realm, "source": name, "error": source.Plain(err, maxEventText),
		}
	})
}

func (realm *Realm) noteSource(name string, err error) { realm.app.noteSource(realm.name, name, err) }

// emitKeysRotated tells that a signing key was announced or retired, or signs from now on.
func (realm *Realm) emitKeysRotated(change keyring.Change) {
	realm.emit(eventKeysRotated, func() map[string]any {
		return map[string]any{
			"kid": change.Key.ID, "alg": string(change.Key.Algorithm), "change": change.Kind, "by": change.By,
			"signs_from": timeText(change.Key.SignsFrom),
		}
	})
}

// timeText returns a time for the data of an event, "" for none.
func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

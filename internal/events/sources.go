package events

import (
	"sync"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
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

// SourceRead tells that a source of the realm has begun to fail or, with nil, works again.
// It may be called with each outcome. The realm is "" for a source that belongs to none.
func (r Realm) SourceRead(name string, err error) {
	e := r.emitter
	if e == nil || e.config.Context.Err() != nil || !e.failing.note(failingSource{r.name, name}, err != nil) {
		return // the next configuration looks itself
	}
	if err == nil {
		r.emit(eventSourceRecovered, func() map[string]any {
			return map[string]any{
				"source": name,
			}
		})
		return
	}
	r.emit(eventSourceFailed, func() map[string]any {
		return map[string]any{
			"source": name, "error": source.Plain(err, maxText),
		}
	})
}

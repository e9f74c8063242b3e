package sightings

import (
	"encoding/hex"
	"time"
	"weak"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// pruneStep is how many clients are looked at while the table is locked, and
	// pruneAtOnce how many each time.
	pruneStep   = 1000
	pruneAtOnce = 10_000
)

// Sighting is the last admission of a client.
type Sighting struct {
	ClientID string
	// At is when it was, to the minute.
	At time.Time
	Credential
}

// ThumbprintText returns the SHA-256 of the certificate in hexadecimal, "" if there was
// none.
func (c Credential) ThumbprintText() string {
	if c.Thumbprint == ([32]byte{}) {
		return ""
	}
	return hex.EncodeToString(c.Thumbprint[:])
}

// Presented is a certificate that a client has presented.
type Presented struct {
	ClientID string
	Credential
}

// Of returns the last admission of a client, if there was any. A nil table has none.
func (t *Table) Of(clientID string) (Sighting, bool) {
	if t == nil {
		return Sighting{}, false
	}
	t.mu.RLock()
	s, _ := t.clients.Get(&sighting{id: clientID})
	t.mu.RUnlock()
	if s == nil || s.minute.Load() == 0 {
		return Sighting{}, false
	}
	return Sighting{ClientID: s.id, At: time.Unix(s.minute.Load()*60, 0).UTC(), Credential: *s.by.Load()}, true
}

// Len returns how many clients have been admitted.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.seen
}

// Unnoted returns how many admissions have not been noted, because the table was full.
func (t *Table) Unnoted() uint64 {
	if t == nil {
		return 0
	}
	return t.unnoted.Load()
}

// Expiring returns the certificates that clients have last presented and that expire in a
// time, soonest first, at most limit. more is how many others there are among the 10,000
// that the table keeps.
func (t *Table) Expiring(from, until time.Time, limit int) (list []Presented, more int) {
	if t == nil {
		return nil, 0
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	t.expiring.AscendRange(expiry{at: from.Unix(), of: new(sighting)}, expiry{at: until.Unix() + 1, of: new(sighting)}, func(e expiry) bool {
		switch {
		case len(list) < limit:
			list = append(list, Presented{e.of.id, *e.of.presented.Load()})
		default:
			more++
		}
		return true
	})
	return list, more
}

// Prune forgets some of the clients that the registry does not have. It looks at all of the
// table, step by step, once for each registry.
func (t *Table) Prune(registry *clients.Registry) {
	if !t.pruning.TryLock() {
		return
	}
	defer t.pruning.Unlock()
	if t.prunedBy == weak.Make(registry) {
		return
	}
	if t.prune(func(id string) bool { return registry.Client(id) != nil }, pruneAtOnce) {
		t.prunedBy = weak.Make(registry)
	}
}

// prune forgets clients that are no longer registered. It looks at no more than most of the
// next clients, and goes on with the rest the next time. done is true if it has come to the
// end.
func (t *Table) prune(registered func(clientID string) bool, most int) (done bool) {
	for looked := 0; looked < most; {
		ids := t.nextIDs(min(pruneStep, most-looked))
		if len(ids) == 0 {
			return true
		}
		looked += len(ids)
		for _, id := range ids {
			if !registered(id) { // asked without the lock
				t.Forget(id)
			}
		}
	}
	return false
}

// nextIDs returns the next clients to look at, none at the end.
func (t *Table) nextIDs(most int) (ids []string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.clients.AscendGreaterOrEqual(&sighting{id: t.pruned}, func(s *sighting) bool {
		if s.id != t.pruned {
			ids = append(ids, s.id)
		}
		return len(ids) < most
	})
	t.pruned = ""
	if len(ids) > 0 {
		t.pruned = ids[len(ids)-1]
	}
	return ids
}

// Forget forgets a client.
func (t *Table) Forget(clientID string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s, found := t.clients.Delete(&sighting{id: clientID}); found {
		t.unlist(s)
		s.forgotten.Store(true)
		if s.minute.Load() != 0 {
			t.seen--
		}
	}
}

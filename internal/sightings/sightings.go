// Package sightings remembers when the clients of a realm were last admitted and by which
// credential, and when the certificates expire that they have presented.
package sightings

import (
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/google/btree"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

const (
	// maxClients is how many clients are remembered. One takes about 250 bytes.
	maxClients = 1_000_000
	// maxExpiring is how many certificates are kept in the order in which they expire.
	maxExpiring = 10_000
	// expiredKept is how long a certificate that has expired keeps its place among them.
	expiredKept = 7 * 24 * time.Hour

	treeDegree = 32
)

// Credential is what a client was recognized by.
type Credential struct {
	// Kind is the kind of credential, and Matched the part of the certificate that
	// matched.
	Kind, Matched string
	// Thumbprint is the SHA-256 of the certificate, NotAfter when it expires. It is zero
	// if the client needed none.
	Thumbprint [32]byte
	NotAfter   time.Time
}

// Table remembers the clients of one realm. It is safe for concurrent use.
type Table struct {
	mu       sync.RWMutex
	clients  *btree.BTreeG[*sighting] // by client_id
	expiring *btree.BTreeG[expiry]
	// pruned is the client_id that the next prune goes on after
	pruned string
	// prunedBy are the registered clients by which Prune has come to the end last
	pruning  sync.Mutex
	prunedBy weak.Pointer[clients.Registry]
	// max and maxExpiring are the constants
	max, maxExpiring int
	// seen is how many of the clients have been admitted
	seen    int
	unnoted atomic.Uint64
}

// sighting is what is known of a client.
type sighting struct {
	id     string
	minute atomic.Int64 // of the last admission, since 1970; 0 for never
	by     atomic.Pointer[Credential]
	// presented is what the client was last recognized by, admitted or not
	presented atomic.Pointer[Credential]
	// forgotten is set when the table no longer has it
	forgotten atomic.Bool
	// surplus is set if there was no room for it in the table
	surplus bool
	// listed is the time under which its certificate is in expiring, 0 if it is not. The
	// table's lock guards it.
	listed int64
}

// expiry is when the certificate of a client expires.
type expiry struct {
	at int64 // Unix seconds
	of *sighting
}

// NewTable returns a table without clients.
func NewTable() *Table {
	return &Table{
		clients: btree.NewG(treeDegree, func(a, b *sighting) bool { return a.id < b.id }),
		expiring: btree.NewG(treeDegree, func(a, b expiry) bool {
			return a.at < b.at || a.at == b.at && a.of.id < b.of.id
		}),
		max: maxClients, maxExpiring: maxExpiring,
	}
}

// Mark is where the admissions of a client by a credential are noted. It belongs to what
// is remembered about a certificate or token. A nil Mark notes nothing.
type Mark struct {
	table *Table
	id    string
	by    *Credential
	seen  atomic.Pointer[sighting]
}

// Mark returns a mark for a client. Nothing is noted before [Mark.See]. A nil table
// returns a nil mark.
func (t *Table) Mark(clientID string, by Credential) *Mark {
	if t == nil {
		return nil
	}
	by.Matched = strings.Clone(by.Matched) // it may be part of a record, which would be kept
	return &Mark{table: t, id: clientID, by: &by}
}

// See notes that the client was admitted, at a time in Unix seconds. What it costs but
// once a minute is two atomic loads. first reports whether it is the first time for the
// mark.
func (m *Mark) See(at int64) (first bool) {
	if m == nil {
		return false
	}
	minute := at / 60
	s := m.seen.Load()
	if s != nil && s.minute.Load() == minute {
		return false
	}
	m.note(s, minute)
	return s == nil
}

// note notes the first admission within a minute.
func (m *Mark) note(s *sighting, minute int64) {
	if s == nil || s.forgotten.Load() {
		s = m.table.sightingOf(m.id)
		m.seen.Store(s)
	}
	s.by.Store(m.by)
	if s.minute.Load() == 0 {
		m.table.countSeen(s, minute)
	} else {
		s.minute.Store(minute)
	}
	m.present(s, minute*60)
}

// countSeen notes the first admission of a client.
func (t *Table) countSeen(s *sighting, minute int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s.minute.Swap(minute) == 0 && !s.surplus && !s.forgotten.Load() {
		t.seen++
	}
}

// Present notes that the client has been recognized, at a time in Unix seconds.
func (m *Mark) Present(at int64) {
	if m != nil {
		m.present(m.table.sightingOf(m.id), at)
	}
}

func (m *Mark) present(s *sighting, at int64) {
	if s.presented.Swap(m.by) != m.by {
		m.table.list(s, m.by.NotAfter, at)
	}
}

// sightingOf returns the sighting of a client. If the table is full, it is one that the
// table does not have.
func (t *Table) sightingOf(id string) *sighting {
	t.mu.RLock()
	known, _ := t.clients.Get(&sighting{id: id})
	t.mu.RUnlock()
	if known != nil {
		return known
	}
	next := &sighting{id: strings.Clone(id)}
	t.mu.Lock()
	defer t.mu.Unlock()
	if known, _ := t.clients.Get(next); known != nil {
		return known
	}
	if t.clients.Len() >= t.max {
		t.unnoted.Add(1)
		next.surplus = true
		return next
	}
	t.clients.ReplaceOrInsert(next)
	return next
}

// list keeps the time when the certificate of a client expires, if it is among the first.
func (t *Table) list(s *sighting, notAfter time.Time, now int64) {
	at := notAfter.Unix()
	t.mu.RLock()
	done := s.listed == at || s.surplus
	t.mu.RUnlock()
	if done {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unlist(s)
	if s.forgotten.Load() || notAfter.IsZero() || at <= 0 {
		return
	}
	s.listed = at
	t.expiring.ReplaceOrInsert(expiry{at, s})
	if t.expiring.Len() <= t.maxExpiring {
		return
	}
	victim, _ := t.expiring.Max()
	if first, _ := t.expiring.Min(); first.at < now-int64(expiredKept/time.Second) {
		victim = first
	}
	t.unlist(victim.of)
}

// unlist takes a client's certificate from those that expire.
func (t *Table) unlist(s *sighting) {
	if s.listed > 0 {
		t.expiring.Delete(expiry{s.listed, s})
		s.listed = 0
	}
}

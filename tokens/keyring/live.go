package keyring

import (
	"slices"
	"sync/atomic"
)

// live is the keyring in use.
type live struct {
	current atomic.Pointer[Keyring]
	store   *store // nil if fixed
}

// Current returns the keyring, or nil if there is none yet. It never blocks. A
// key whose time has come signs from that moment on, even while storage is
// down.
func (l *live) Current() *Keyring {
	ring := l.current.Load()
	if ring == nil || ring.until.IsZero() {
		return ring
	}
	now := l.store.Now()
	if now.Before(ring.until) {
		return ring
	}
	return l.swap(ring, ring.schedule.ring(now, l.store.VerifyKeys))
}

// swap replaces one keyring by another, and returns the current one.
func (l *live) swap(old, ring *Keyring) *Keyring {
	if !l.current.CompareAndSwap(old, ring) {
		return l.current.Load()
	}
	if old != nil && old.Signing().ID != ring.Signing().ID {
		l.store.Report(EventActive, l.store.keyPath(ring.Signing().ID), nil)
	}
	l.reportChanges(old, ring)
	return ring
}

// use makes the keys the current ones, unless there are none.
func (l *live) use(keys schedule) *Keyring {
	ring := keys.ring(l.store.Now(), l.store.VerifyKeys)
	if ring == nil {
		return l.Current()
	}
	for old := l.current.Load(); l.swap(old, ring) != ring; {
		old = l.current.Load() // a request has just replaced the previous keyring
	}
	return ring
}

// localKeys returns the keys that this node has.
func (l *live) localKeys() schedule {
	if ring := l.current.Load(); ring != nil {
		return ring.schedule
	}
	return schedule{}
}

// reportChanges reports how one keyring differs from the one before. At first, there is
// none before.
func (l *live) reportChanges(old, ring *Keyring) {
	if l.store.ended.Load() { // the next source reports them
		return
	}
	if old == nil {
		if by := l.by(ring.Signing().ID, false); by == ByThisNode { // it has made the first key
			l.store.ReportChange(Change{ring.infos[0], ChangeActive, by})
		}
		return
	}
	for _, info := range ring.infos {
		known := slices.ContainsFunc(old.schedule.keys, func(key scheduledKey) bool { return key.ID == info.ID })
		switch {
		case info.State == StateActive && info.ID == old.Signing().ID:
		case info.State == StateActive && known:
			l.store.ReportChange(Change{info, ChangeActive, BySchedule})
		case info.State == StateActive:
			l.store.ReportChange(Change{info, ChangeActive, l.by(info.ID, false)})
		case info.State == StateNext && !known:
			l.store.ReportChange(Change{info, ChangeAnnounced, l.by(info.ID, false)})
		}
	}
	for _, key := range old.schedule.keys {
		if name := objectName(key.ID); ring.schedule.retired[name] && !old.schedule.retired[name] {
			l.store.ReportChange(Change{key.info(""), ChangeRetired, l.by(key.ID, true)})
		}
	}
}

// touch is that a node has created or retired a key.
type touch struct {
	kid     string
	retired bool
}

// by returns who has created or retired a key.
func (l *live) by(kid string, retired bool) string {
	if _, own := l.store.touched.Load(touch{kid, retired}); own {
		return ByThisNode
	}
	return ByAnotherNode
}

// The kinds of [Change].
const (
	ChangeAnnounced = "announced" // the key signs later
	ChangeActive    = "active"    // the key signs from now on
	ChangeRetired   = "retired"   // the key was retired before its time
)

// Who has made a [Change].
const (
	ByThisNode    = "this_node"
	ByAnotherNode = "another_node"
	BySchedule    = "schedule" // the time of an announced key has come
)

// Change is a change of the managed keys, as this node sees it.
type Change struct {
	// Key is what the change is about. Its State is the one after the change, "" for a
	// key that is retired.
	Key Info
	// Kind is what has happened to the key.
	Kind string
	// By is who has made the change.
	By string
}

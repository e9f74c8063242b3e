package keyring

import "slices"

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

// reportChanges reports how one keyring differs from the one before. At first, there is
// none before.
func (s *Source) reportChanges(old, ring *Keyring) {
	if s.store.ended.Load() { // the next source reports them
		return
	}
	if old == nil {
		if by := s.by(ring.Signing().ID, false); by == ByThisNode { // it has made the first key
			s.store.ReportChange(Change{ring.infos[0], ChangeActive, by})
		}
		return
	}
	for _, info := range ring.infos {
		known := slices.ContainsFunc(old.schedule.keys, func(key scheduledKey) bool { return key.ID == info.ID })
		switch {
		case info.State == StateActive && info.ID == old.Signing().ID:
		case info.State == StateActive && known:
			s.store.ReportChange(Change{info, ChangeActive, BySchedule})
		case info.State == StateActive:
			s.store.ReportChange(Change{info, ChangeActive, s.by(info.ID, false)})
		case info.State == StateNext && !known:
			s.store.ReportChange(Change{info, ChangeAnnounced, s.by(info.ID, false)})
		}
	}
	for _, key := range old.schedule.keys {
		if name := objectName(key.ID); ring.schedule.retired[name] && !old.schedule.retired[name] {
			s.store.ReportChange(Change{key.info(""), ChangeRetired, s.by(key.ID, true)})
		}
	}
}

// touch is that a node has created or retired a key.
type touch struct {
	kid     string
	retired bool
}

// by returns who has created or retired a key.
func (s *Source) by(kid string, retired bool) string {
	if _, own := s.store.touched.Load(touch{kid, retired}); own {
		return ByThisNode
	}
	return ByAnotherNode
}

package keyring

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"
)

// scheduledKey is a managed key and when it signs, from which its state
// follows at any time.
type scheduledKey struct {
	*Key
	// signsFrom is when the key begins to sign.
	signsFrom time.Time
	// longest is the lifetime that no token of the key exceeds.
	longest time.Duration
}

// schedule is the managed keys of an issuer, in the order in which they sign. It
// is immutable.
type schedule struct {
	keys []scheduledKey
	// retired are the object names of the keys that are known to be retired.
	// They stay here when storage loses a retirement, for example when a
	// backup is restored.
	retired map[string]bool
}

// newSchedule returns a schedule of keys in any order. Among keys of the same
// time the id decides, so that all nodes agree.
func newSchedule(keys []scheduledKey, retired map[string]bool) schedule {
	slices.SortFunc(keys, func(a, b scheduledKey) int {
		return cmp.Or(a.signsFrom.Compare(b.signsFrom), a.created.Compare(b.created), strings.Compare(a.ID, b.ID))
	})
	return schedule{keys, retired}
}

// with returns the schedule with a new or changed key.
func (s schedule) with(key scheduledKey) schedule {
	others := slices.DeleteFunc(slices.Clone(s.keys), key.same)
	return newSchedule(append(others, key), s.retired)
}

// withoutRetired returns the schedule after a key was retired.
func (s schedule) withoutRetired(key scheduledKey) schedule {
	retired := maps.Clone(s.retired)
	retired[objectName(key.ID)] = true
	return schedule{slices.DeleteFunc(slices.Clone(s.keys), key.same), retired}
}

func (k scheduledKey) same(other scheduledKey) bool { return k.ID == other.ID }

// merge returns the schedule that follows from what storage has and what this
// node knows. A published key that is no longer found, or cannot be read,
// stays.
func (s schedule) merge(found *reading, now time.Time) schedule {
	retired := make(map[string]bool)
	maps.Copy(retired, s.retired)
	for name := range found.retired {
		retired[name] = true
	}
	keys := slices.Clone(found.keys)
	for n, key := range s.keys {
		if !slices.ContainsFunc(keys, key.same) && (found.objects[objectName(key.ID)] || s.published(n, now)) {
			keys = append(keys, key)
		}
	}
	keys = slices.DeleteFunc(keys, func(key scheduledKey) bool { return retired[objectName(key.ID)] })
	return newSchedule(keys, retired)
}

// active is the index of the key that signs: the latest whose time has come.
// It is the first key while no time has come, because this node's clock is
// behind or another one was far ahead.
func (s schedule) active(now time.Time) int {
	active := 0
	for n, key := range s.keys {
		if !key.signsFrom.After(now) {
			active = n
		}
	}
	return active
}

// leaves is when key n is no longer published. It signs its last token before
// its successor signs, and both times follow from the same clock. It is zero
// while there is no successor.
func (s schedule) leaves(n int) time.Time {
	if n+1 >= len(s.keys) {
		return time.Time{}
	}
	return s.keys[n+1].signsFrom.Add(s.keys[n].longest + publishedSlack)
}

// published reports whether key n is in the JWKS.
func (s schedule) published(n int, now time.Time) bool {
	return n >= s.active(now) || s.leaves(n).After(now)
}

// pending is the index of the key that is announced to follow the active one,
// or -1. A key that a node whose clock is far ahead announced for later does
// not count.
func (s schedule) pending(now time.Time, announceFor time.Duration) int {
	for n := s.active(now) + 1; n < len(s.keys); n++ {
		if !s.keys[n].signsFrom.After(now.Add(announceFor + clockTolerance)) {
			return n
		}
	}
	return -1
}

// ring returns the keyring of one moment, nil if there are no keys. Its order
// is the same on every node: the key that signs, the keys to come, and the
// past keys from the youngest.
func (s schedule) ring(now time.Time, verify []*VerifyKey) *Keyring {
	if len(s.keys) == 0 {
		return nil
	}
	active := s.active(now)
	r := &Keyring{signing: s.keys[active].Key, schedule: s, longest: s.keys[active].longest}
	add := func(n int, state string, until time.Time) {
		key := s.keys[n]
		info := key.info(state)
		info.Created, info.SignsFrom, info.Leaves = key.created.UTC(), key.signsFrom.UTC(), s.leaves(n).UTC()
		r.published, r.infos = append(r.published, &key.VerifyKey), append(r.infos, info)
		if until.After(now) && (r.until.IsZero() || until.Before(r.until)) {
			r.until = until
		}
	}
	add(active, StateActive, time.Time{})
	for n := active + 1; n < len(s.keys); n++ {
		add(n, StateNext, s.keys[n].signsFrom)
	}
	for n := active - 1; n >= 0; n-- {
		if s.published(n, now) {
			add(n, StatePast, s.leaves(n))
		}
	}
	r.addVerifyKeys(verify)
	return r
}

// tasks is what a node has to do in storage.
type tasks struct {
	create   bool           // a key that signs at once, because there is none
	announce bool           // a key that signs after its announcement
	retire   []scheduledKey // keys whose retirement storage has lost
	write    []scheduledKey // keys that storage has lost, or that record too short a lifetime
	remove   []string       // names of objects that nobody needs any more
}

func (t tasks) none() bool {
	return !t.create && !t.announce && len(t.retire)+len(t.write)+len(t.remove) == 0
}

// due returns what has to be done. It depends only on what was read, the
// configuration and the clock.
func (s *store) due(found *reading, keys schedule, now time.Time) tasks {
	var t tasks
	for name, at := range found.retired {
		if !found.objects[name] && now.After(at.Add(retirementKept)) {
			t.remove = append(t.remove, name+retirementSuffix)
		}
	}
	for _, key := range found.keys {
		name := objectName(key.ID)
		at, stored := found.retired[name]
		switch {
		case !keys.retired[name]:
		case !stored:
			t.retire = append(t.retire, key)
		case now.After(at.Add(key.longest + publishedSlack + deletionSlack)):
			t.remove = append(t.remove, name+keySuffix)
		}
	}
	t.create = len(keys.keys) == 0
	for n, key := range keys.keys {
		readable := slices.ContainsFunc(found.keys, key.same)
		switch {
		case !readable && found.objects[objectName(key.ID)]: // it is not overwritten
		case !readable:
			t.write = append(t.write, key)
		case n >= keys.active(now) && key.longest < s.longestToken():
			key.longest = s.longestToken()
			t.write = append(t.write, key)
		case n < keys.active(now) && now.After(keys.leaves(n).Add(deletionSlack)):
			t.remove = append(t.remove, objectName(key.ID)+keySuffix)
		}
	}
	t.announce = !t.create && keys.pending(now, s.AnnounceFor) < 0 && s.replaces(keys.keys[keys.active(now)], now)
	slices.Sort(t.remove)
	return t
}

// replaces reports whether it is time to announce a successor of the active key.
func (s *store) replaces(active scheduledKey, now time.Time) bool {
	return !now.Before(active.signsFrom.Add(s.RotateEvery-s.AnnounceFor)) ||
		active.Algorithm != s.Algorithm ||
		active.signsFrom.After(now.Add(clockTolerance))
}

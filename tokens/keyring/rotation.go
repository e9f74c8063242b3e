package keyring

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// The settings of rotation where nothing else is said, and their bounds.
const (
	DefaultRotateEvery = 90 * 24 * time.Hour
	DefaultAnnounceFor = 24 * time.Hour

	// MinRotateEvery bounds how many past keys there can be.
	MinRotateEvery = time.Hour
	// MinAnnounceFor leaves every node several times to read a key before it
	// signs.
	MinAnnounceFor = 5 * time.Second

	// readsPerAnnouncement is how often a node reads storage while a key is
	// announced, at least.
	readsPerAnnouncement = 5
	maxRefreshInterval   = 30 * time.Second
	maxJWKSAge           = 5 * time.Minute
)

const (
	// clockTolerance is how far the clock of a node may be off.
	clockTolerance = 5 * time.Minute
	// publishedSlack is how much longer a past key is published than its last
	// token lasts: one clock may be ahead and another behind.
	publishedSlack = 2 * clockTolerance
	// deletionSlack is how much longer a key stays in storage than in the JWKS,
	// so that a clock that is hours ahead deletes nothing that is needed.
	deletionSlack = 24 * time.Hour
	// retirementKept is how long storage remembers that a key is retired, for
	// nodes that could not read it meanwhile.
	retirementKept = 30 * 24 * time.Hour

	// minLongestToken is the least lifetime of tokens that a key is kept for:
	// most configurations then never have to record a longer one.
	minLongestToken = time.Hour
	// oldLongestToken is what tokens of a key may last whose object does not
	// say.
	oldLongestToken = 24 * time.Hour
	// maxLongestToken keeps sums of times in range.
	maxLongestToken = 100 * 365 * 24 * time.Hour
)

// CheckRotation returns what is wrong with the settings of rotation. Zero
// means the default.
func CheckRotation(rotateEvery, announceFor time.Duration) error {
	if err := CheckRotateEvery(cmp.Or(rotateEvery, DefaultRotateEvery)); err != nil {
		return err
	}
	if err := CheckAnnounceFor(cmp.Or(announceFor, DefaultAnnounceFor)); err != nil {
		return err
	}
	rotateEvery, announceFor = cmp.Or(rotateEvery, DefaultRotateEvery), cmp.Or(announceFor, DefaultAnnounceFor)
	if announceFor >= rotateEvery {
		return fmt.Errorf("announce_for %v is not shorter than rotate_every %v: a key would be replaced before it signs; make announce_for shorter or rotate_every longer", announceFor, rotateEvery)
	}
	return nil
}

// CheckRotateEvery returns what is wrong with the time between two keys.
func CheckRotateEvery(d time.Duration) error {
	if d < MinRotateEvery {
		return fmt.Errorf("rotate_every %v is too short; use at least %v", d, MinRotateEvery)
	}
	return nil
}

// CheckAnnounceFor returns what is wrong with the time a key is announced.
func CheckAnnounceFor(d time.Duration) error {
	if d < MinAnnounceFor {
		return fmt.Errorf("announce_for %v is too short; use at least %v", d, MinAnnounceFor)
	}
	return nil
}

// managedKey is a key and what storage says of its life. What state it is in
// follows from that and the clock.
type managedKey struct {
	*Key
	// signsFrom is when the key begins to sign, as it is stored.
	signsFrom time.Time
	// longest is the lifetime that no token of the key exceeds.
	longest time.Duration

	// from is signsFrom, or later on a node that learned of the key too late.
	from time.Time
	// unread says that the key is known from earlier, for its object cannot be
	// read now; missing, that storage has none.
	unread, missing bool
}

func newManagedKey(key *Key, signsFrom time.Time, longest time.Duration) managedKey {
	return managedKey{Key: key, signsFrom: signsFrom, longest: longest, from: signsFrom}
}

// lifeline is the managed keys of an issuer that are not retired, in the order
// in which they sign. It is immutable.
type lifeline []managedKey

// newLifeline sorts the keys; the id decides between keys of the same time, so
// that all nodes agree.
func newLifeline(keys []managedKey) lifeline {
	slices.SortFunc(keys, func(a, b managedKey) int {
		return cmp.Or(a.signsFrom.Compare(b.signsFrom), a.created.Compare(b.created), strings.Compare(a.id, b.id))
	})
	return keys
}

func (l lifeline) index(kid string) int {
	return slices.IndexFunc(l, func(k managedKey) bool { return k.id == kid })
}

// active is the index of the key that signs: the latest whose time has come.
// While no time has come, because this node's clock is behind or because all
// there is was made by a clock far ahead, it is the first.
func (l lifeline) active(now time.Time) int {
	active := 0
	for n, key := range l {
		if !key.from.After(now) {
			active = n
		}
	}
	return active
}

// leaves is when key n is no longer published: when its successor signs, the
// key has signed its last token, whose `exp` both follow from the clock that
// said so. It is zero while there is no successor.
func (l lifeline) leaves(n int) time.Time {
	if n+1 >= len(l) {
		return time.Time{}
	}
	return l[n+1].from.Add(l[n].longest + publishedSlack)
}

// ring derives the snapshot of one moment, nil if there are no keys. Its order
// is the same on every node: the key that signs, those to come, those of the
// past from the youngest.
func (l lifeline) ring(now time.Time, verify []*VerifyKey) *Keyring {
	if len(l) == 0 {
		return nil
	}
	active := l.active(now)
	r := &Keyring{life: l, longest: l[active].longest}
	add := func(n int, state string) {
		r.keys = append(r.keys, l[n].Key)
		r.infos = append(r.infos, Info{
			ID: l[n].id, Algorithm: l[n].algorithm, State: state, Created: l[n].created, SignsFrom: l[n].from, Leaves: l.leaves(n),
		})
	}
	changes := func(at time.Time) {
		if at.After(now) && (r.until.IsZero() || at.Before(r.until)) {
			r.until = at
		}
	}
	add(active, StateActive)
	for n := active + 1; n < len(l); n++ {
		add(n, StateNext)
		changes(l[n].from)
	}
	for n := active - 1; n >= 0; n-- {
		if l.leaves(n).After(now) {
			add(n, StatePast)
			changes(l.leaves(n))
		}
	}
	r.addVerifyKeys(verify)
	return r
}

// published reports whether key n is in the JWKS.
func (l lifeline) published(n int, now time.Time) bool {
	return n >= l.active(now) || l.leaves(n).After(now)
}

// pending is the index of the key that is announced to follow the active one,
// or -1. A key that a clock far ahead announced for later is none.
func (l lifeline) pending(now time.Time, announceFor time.Duration) int {
	for n := l.active(now) + 1; n < len(l); n++ {
		if !l[n].from.After(now.Add(announceFor + clockTolerance)) {
			return n
		}
	}
	return -1
}

// tasks is what a node has to do in storage.
type tasks struct {
	create   bool         // a key that signs at once, for there is none
	announce bool         // a key that signs after its announcement
	raise    []string     // keys that record too short a lifetime of tokens, by id
	restore  []managedKey // keys that storage has lost
	retire   []string     // keys whose retirement storage has lost, by id
	remove   []string     // what is no longer needed, by storage key
}

func (t tasks) none() bool {
	return !t.create && !t.announce && len(t.raise)+len(t.restore)+len(t.retire)+len(t.remove) == 0
}

// due works out what has to be done; it depends on what was read, the
// configuration and the clock alone.
func (s *Store) due(found *reading, now time.Time) tasks {
	var t tasks
	for name, r := range found.retired {
		switch {
		case r.lost != "":
			t.retire = append(t.retire, r.lost)
		case r.object != "" && now.After(r.at.Add(r.longest+publishedSlack+deletionSlack)):
			t.remove = append(t.remove, r.object)
		case r.object == "" && now.After(r.at.Add(retirementKept)):
			t.remove = append(t.remove, name)
		}
	}
	slices.Sort(t.retire)
	slices.Sort(t.remove)
	l := found.keys
	if len(l) == 0 {
		t.create = true
		return t
	}
	active := l.active(now)
	key := l[active]
	if l.pending(now, s.announceFor()) < 0 {
		t.announce = !now.Before(key.from.Add(s.rotateEvery()-s.announceFor())) ||
			key.algorithm != s.algorithm() ||
			key.from.After(now.Add(clockTolerance))
	}
	for n, key := range l {
		switch {
		case key.missing:
			if l.published(n, now) {
				t.restore = append(t.restore, key)
			}
		case key.unread:
		case n >= active && key.longest < s.longest():
			t.raise = append(t.raise, key.id)
		case n < active && now.After(l.leaves(n).Add(deletionSlack)):
			t.remove = append(t.remove, s.path(key.id))
		}
	}
	return t
}

// ErrAnnounced means that a next key is announced already.
var ErrAnnounced = errors.New("the next key is already announced")

func alreadyAnnounced(key managedKey) error {
	return fmt.Errorf("%w: '%s' signs from %s", ErrAnnounced, key.id, key.from.UTC().Format(time.RFC3339))
}

func (s *Store) rotateEvery() time.Duration { return cmp.Or(s.RotateEvery, DefaultRotateEvery) }
func (s *Store) announceFor() time.Duration { return cmp.Or(s.AnnounceFor, DefaultAnnounceFor) }

// RefreshInterval is how often a node reads the keys: every 30 s, or five
// times while a key is announced if that is more often.
func (s *Store) RefreshInterval() time.Duration {
	return min(maxRefreshInterval, s.announceFor()/readsPerAnnouncement)
}

// maxAge is how long a JWKS may be cached, so that a cached one has the next
// key before it signs.
func (s *Store) maxAge() time.Duration {
	return min(maxJWKSAge, s.announceFor()/readsPerAnnouncement)
}

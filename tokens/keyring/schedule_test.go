package keyring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// scheduled returns a schedule of keys that begin to sign at these offsets
// from testenv.Now, with tokens of an hour. They are named k0, k1 and so on.
func scheduled(t *testing.T, from ...time.Duration) schedule {
	t.Helper()
	var keys []scheduledKey
	for n, d := range from {
		key := *mustKey(t, ES256, testenv.Now.Add(d))
		key.ID = fmt.Sprintf("k%d", n)
		keys = append(keys, scheduledKey{&key, testenv.Now.Add(d), time.Hour})
	}
	return newSchedule(keys, nil)
}

// states describes what a keyring publishes, such as "k1 active, k0 past".
func states(ring *Keyring) string {
	if ring == nil {
		return ""
	}
	var all []string
	for _, info := range ring.Infos() {
		all = append(all, info.ID+" "+info.State)
	}
	return strings.Join(all, ", ")
}

const day = 24 * time.Hour

func TestStatesFollowFromTheClock(t *testing.T) {
	const stays = time.Hour + publishedSlack
	for _, tc := range []struct {
		name string
		from []time.Duration
		at   time.Duration
		want string
	}{
		{"nothing", nil, 0, ""},
		{"the first", []time.Duration{0}, 0, "k0 active"},
		{"the first, years later", []time.Duration{0}, 1000 * day, "k0 active"},
		{"announced", []time.Duration{0, day}, time.Hour, "k0 active, k1 next"},
		{"right before it signs", []time.Duration{0, day}, day - 1, "k0 active, k1 next"},
		{"when it signs", []time.Duration{0, day}, day, "k1 active, k0 past"},
		{"right before the last token is over", []time.Duration{0, day}, day + stays - 1, "k1 active, k0 past"},
		{"when the last token is over", []time.Duration{0, day}, day + stays, "k1 active"},
		{"several of the past", []time.Duration{0, time.Minute, 2 * time.Minute}, time.Hour, "k2 active, k1 past, k0 past"},
		{"each leaves for itself", []time.Duration{0, time.Minute, 2 * time.Minute}, time.Minute + stays, "k2 active, k1 past"},
		{"a clock behind", []time.Duration{0}, -3 * time.Minute, "k0 active"},
		{"a clock behind at a rotation", []time.Duration{0, day}, day - 3*time.Minute, "k0 active, k1 next"},
		{"a clock ahead at a rotation", []time.Duration{0, day}, day + 3*time.Minute, "k1 active, k0 past"},
		{"a key of the far future", []time.Duration{0, 70 * 365 * day}, 0, "k0 active, k1 next"},
		{"no other key than one of the far future", []time.Duration{70 * 365 * day}, 0, "k0 active"},
		{"a key after one of the far future", []time.Duration{70 * 365 * day, day}, day, "k1 active, k0 next"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := scheduled(t, tc.from...)
			now := testenv.Now.Add(tc.at)
			ring := l.ring(now, nil)
			if got := states(ring); got != tc.want {
				t.Fatalf("states are %q, want %q", got, tc.want)
			}
			if ring == nil {
				return
			}
			// the keyring knows when it is out of date
			if !ring.until.IsZero() {
				if got := states(l.ring(ring.until.Add(-1), nil)); got != tc.want {
					t.Errorf("before it ends it is %q", got)
				}
				if got := states(l.ring(ring.until, nil)); got == tc.want {
					t.Error("when it ends nothing changes")
				}
			} else if got := states(l.ring(now.Add(200*365*day), nil)); got != tc.want {
				t.Errorf("it never ends, but becomes %q", got)
			}
		})
	}
}

func TestKeysOfOneTimeSortByID(t *testing.T) {
	a, b := scheduled(t, 0, 0), scheduled(t, 0, 0)
	slices.Reverse(b.keys)
	if one, two := states(a.ring(testenv.Now, nil)), states(newSchedule(b.keys, nil).ring(testenv.Now, nil)); one != two || one != "k1 active, k0 past" {
		t.Errorf("two nodes see %q and %q", one, two)
	}
}

func TestLongestTokenDecidesWhenAKeyLeaves(t *testing.T) {
	l := scheduled(t, 0, day)
	l.keys[0].longest = 10 * day
	if got := states(l.ring(testenv.Now.Add(11*day), nil)); got != "k1 active, k0 past" {
		t.Errorf("states are %q", got)
	}
	if got := states(l.ring(testenv.Now.Add(11*day+publishedSlack), nil)); got != "k1 active" {
		t.Errorf("states are %q", got)
	}
}

func TestDueTasks(t *testing.T) {
	const rotate, announce = 10 * day, day
	for _, tc := range []struct {
		name   string
		from   []time.Duration
		at     time.Duration
		change func(*store, *reading)
		want   string
	}{
		{"no key", nil, 0, nil, "create"},
		{"a young key", []time.Duration{0}, 0, nil, ""},
		{"right before it is old", []time.Duration{0}, rotate - announce - 1, nil, ""},
		{"an old key", []time.Duration{0}, rotate - announce, nil, "announce"},
		{"a very old key", []time.Duration{0}, 100 * rotate, nil, "announce"},
		{"announced already", []time.Duration{0, rotate}, rotate - announce, nil, ""},
		{"announced by a clock a little ahead", []time.Duration{0, rotate + clockTolerance}, rotate - announce, nil, ""},
		{"announced by a clock far ahead", []time.Duration{0, 50 * rotate}, rotate - announce, nil, "announce"},
		{"a clock behind", []time.Duration{0}, -clockTolerance, nil, ""},
		{"made by a clock far ahead", []time.Duration{50 * rotate}, 0, nil, "announce"},
		{"another algorithm", []time.Duration{0}, 0, func(s *store, _ *reading) { s.Algorithm = EdDSA }, "announce"},
		{"another algorithm, while a key is announced", []time.Duration{0, day}, 0, func(s *store, _ *reading) { s.Algorithm = EdDSA }, ""},
		{"longer tokens", []time.Duration{-day, 0, day}, 0, func(s *store, _ *reading) { s.LongestToken = 2 * time.Hour }, "extend k1, extend k2"},
		{"shorter tokens", []time.Duration{0}, 0, func(s *store, _ *reading) { s.LongestToken = time.Minute }, ""},
		{"an unreadable key", []time.Duration{0}, 0, func(s *store, r *reading) { unreadable(r, "k0"); s.LongestToken = day }, ""},
		{"a missing key", []time.Duration{0}, 0, func(_ *store, r *reading) { missing(r, "k0") }, "restore k0"},
		{"a missing key of the past", []time.Duration{0, day}, day, func(_ *store, r *reading) { missing(r, "k0") }, "restore k0"},
		{"a missing key that has left", []time.Duration{0, day}, 3 * day, func(_ *store, r *reading) { missing(r, "k0") }, ""},
		{"one that has left", []time.Duration{0, day}, day + time.Hour + publishedSlack + deletionSlack, nil, ""},
		{"one that has left long ago", []time.Duration{0, day}, day + time.Hour + publishedSlack + deletionSlack + 1, nil, "remove k0.json"},
		{"an unreadable one that has left long ago", []time.Duration{0, day}, 5 * day, func(_ *store, r *reading) { unreadable(r, "k0") }, ""},
		{"a retired key", []time.Duration{-day, 0}, 0, func(_ *store, r *reading) { r.retired["k0"] = testenv.Now }, ""},
		{"a key retired long ago", []time.Duration{-day, 0}, 0, func(_ *store, r *reading) { r.retired["k0"] = testenv.Now.Add(-2 * day) }, "remove k0.json"},
		{"a retirement without its key", []time.Duration{0}, 0, func(_ *store, r *reading) { r.retired["k9"] = testenv.Now.Add(-2 * day) }, ""},
		{"an old retirement without its key", []time.Duration{0}, 0, func(_ *store, r *reading) { r.retired["k9"] = testenv.Now.Add(-31 * day) }, "remove k9.retired"},
		{"an old retirement of an unreadable key", []time.Duration{-day, 0}, 0, func(_ *store, r *reading) {
			unreadable(r, "k0")
			r.retired["k0"] = testenv.Now.Add(-31 * day)
		}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store, _ := newTestStore(t, newStorage(t))
			store.RotateEvery, store.AnnounceFor = rotate, announce
			local, now := scheduled(t, tc.from...), testenv.Now.Add(tc.at)
			found := &reading{keys: slices.Clone(local.keys), objects: make(map[string]bool), retired: make(map[string]time.Time)}
			for _, key := range local.keys {
				found.objects[key.ID] = true
			}
			if tc.change != nil {
				tc.change(store, found)
			}
			work := store.due(found, local.merge(found, now), now)
			if got := renderTasks(work, found); got != tc.want || work.none() != (tc.want == "") {
				t.Errorf("due is %q, want %q", got, tc.want)
			}
		})
	}
}

// unreadable changes a reading as if a key could not be read.
func unreadable(r *reading, kid string) {
	r.keys = slices.DeleteFunc(r.keys, func(key scheduledKey) bool { return key.ID == kid })
}

// missing changes a reading as if a key had not been found.
func missing(r *reading, kid string) {
	unreadable(r, kid)
	delete(r.objects, kid)
}

func renderTasks(t tasks, found *reading) string {
	var all []string
	if t.create {
		all = append(all, "create")
	}
	if t.announce {
		all = append(all, "announce")
	}
	for _, key := range t.retire {
		all = append(all, "retire "+key.ID)
	}
	for _, key := range t.write {
		if found.objects[key.ID] {
			all = append(all, "extend "+key.ID)
		} else {
			all = append(all, "restore "+key.ID)
		}
	}
	for _, name := range t.remove {
		all = append(all, "remove "+name)
	}
	return strings.Join(all, ", ")
}

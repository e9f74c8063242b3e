package keyring

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
)

// life makes a lifeline of keys that sign from these times on, as offsets from
// testenv.Now, with tokens of an hour. They are named k0, k1 and so on.
func life(t *testing.T, from ...time.Duration) lifeline {
	t.Helper()
	var l lifeline
	for n, d := range from {
		key := *mustKey(t, ES256, testenv.Now.Add(d))
		key.id = fmt.Sprintf("k%d", n)
		l = append(l, newManagedKey(&key, testenv.Now.Add(d), time.Hour))
	}
	return newLifeline(l)
}

// states renders what a keyring publishes, such as "k1 active, k0 past".
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
			l := life(t, tc.from...)
			now := testenv.Now.Add(tc.at)
			ring := l.ring(now, nil)
			if got := states(ring); got != tc.want {
				t.Fatalf("states are %q, want %q", got, tc.want)
			}
			if ring == nil {
				return
			}
			// the ring knows when it is out of date
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

func TestKidDecidesBetweenKeysOfOneTime(t *testing.T) {
	a, b := life(t, 0, 0), life(t, 0, 0)
	slices.Reverse(b)
	if one, two := states(a.ring(testenv.Now, nil)), states(newLifeline(b).ring(testenv.Now, nil)); one != two || one != "k1 active, k0 past" {
		t.Errorf("two nodes see %q and %q", one, two)
	}
}

func TestLongestTokenDecidesWhenAKeyLeaves(t *testing.T) {
	l := life(t, 0, day)
	l[0].longest = 10 * day
	if got := states(l.ring(testenv.Now.Add(11*day), nil)); got != "k1 active, k0 past" {
		t.Errorf("states are %q", got)
	}
	if got := states(l.ring(testenv.Now.Add(11*day+publishedSlack), nil)); got != "k1 active" {
		t.Errorf("states are %q", got)
	}
}

func TestWhatIsDue(t *testing.T) {
	const rotate, announce = 10 * day, day
	for _, tc := range []struct {
		name   string
		from   []time.Duration
		at     time.Duration
		change func(*Store, lifeline)
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
		{"another algorithm", []time.Duration{0}, 0, func(s *Store, _ lifeline) { s.Algorithm = EdDSA }, "announce"},
		{"another algorithm, while a key is announced", []time.Duration{0, day}, 0, func(s *Store, _ lifeline) { s.Algorithm = EdDSA }, ""},
		{"longer tokens", []time.Duration{-day, 0, day}, 0, func(s *Store, _ lifeline) { s.LongestToken = 2 * time.Hour }, "raise k1, raise k2"},
		{"shorter tokens", []time.Duration{0}, 0, func(s *Store, _ lifeline) { s.LongestToken = time.Minute }, ""},
		{"an unreadable key", []time.Duration{0}, 0, func(s *Store, l lifeline) { l[0].unread, s.LongestToken = true, day }, ""},
		{"a missing key", []time.Duration{0}, 0, func(_ *Store, l lifeline) { l[0].missing = true }, "restore k0"},
		{"a missing key of the past", []time.Duration{0, day}, day, func(_ *Store, l lifeline) { l[0].missing = true }, "restore k0"},
		{"a missing key that has left", []time.Duration{0, day}, 3 * day, func(_ *Store, l lifeline) { l[0].missing = true }, ""},
		{"one that has left", []time.Duration{0, day}, day + time.Hour + publishedSlack + deletionSlack, nil, ""},
		{"one that has left long ago", []time.Duration{0, day}, day + time.Hour + publishedSlack + deletionSlack + 1, nil, "remove k0.json"},
		{"an unreadable one that has left long ago", []time.Duration{0, day}, 5 * day, func(_ *Store, l lifeline) { l[0].unread = true }, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			store, _ := newStore(t, newStorage(t))
			store.RotateEvery, store.AnnounceFor = rotate, announce
			l := life(t, tc.from...)
			if tc.change != nil {
				tc.change(store, l)
			}
			work := store.due(&reading{keys: l}, testenv.Now.Add(tc.at))
			if got := renderTasks(work); got != tc.want || work.none() != (tc.want == "") {
				t.Errorf("due is %q, want %q", got, tc.want)
			}
		})
	}
}

func renderTasks(t tasks) string {
	var all []string
	if t.create {
		all = append(all, "create")
	}
	if t.announce {
		all = append(all, "announce")
	}
	for _, kid := range t.raise {
		all = append(all, "raise "+kid)
	}
	for _, key := range t.restore {
		all = append(all, "restore "+key.id)
	}
	for _, name := range t.remove {
		all = append(all, "remove "+name[strings.LastIndex(name, "/")+1:])
	}
	return strings.Join(all, ", ")
}

func TestCheckRotation(t *testing.T) {
	for _, tc := range []struct {
		rotate, announce time.Duration
		want             string
	}{
		{0, 0, ""},
		{MinRotateEvery, MinAnnounceFor, ""},
		{2 * day, 0, ""},
		{day, 0, "announce_for 24h0m0s is not shorter than rotate_every 24h0m0s"},
		{0, DefaultRotateEvery, "announce_for 2160h0m0s is not shorter than rotate_every 2160h0m0s"},
		{MinRotateEvery - 1, MinAnnounceFor, "rotate_every 59m59.999999999s is too short; use at least 1h0m0s"},
		{-day, 0, "rotate_every -24h0m0s is too short; use at least 1h0m0s"},
		{0, time.Second, "announce_for 1s is too short; use at least 5s"},
		{0, -time.Second, "announce_for -1s is too short; use at least 5s"},
	} {
		err := CheckRotation(tc.rotate, tc.announce)
		if got := fmt.Sprint(err); !strings.HasPrefix(got, tc.want) || (err == nil) != (tc.want == "") {
			t.Errorf("%v, %v: error is %v, want %q", tc.rotate, tc.announce, err, tc.want)
		}
	}
}

func TestIntervals(t *testing.T) {
	for announce, want := range map[time.Duration][2]time.Duration{
		0:                {30 * time.Second, 5 * time.Minute},
		day:              {30 * time.Second, 5 * time.Minute},
		10 * time.Minute: {30 * time.Second, 2 * time.Minute},
		time.Minute:      {12 * time.Second, 12 * time.Second},
		MinAnnounceFor:   {time.Second, time.Second},
	} {
		source := Managed(&Store{AnnounceFor: announce}, nil)
		if got := [2]time.Duration{source.RefreshInterval(), source.MaxAge()}; got != want {
			t.Errorf("%v: intervals are %v, want %v", announce, got, want)
		}
	}
	fixed := Fixed(New(exampleKey(t)))
	if fixed.RefreshInterval() != 0 || fixed.MaxAge() != 5*time.Minute || !fixed.LastRead().IsZero() {
		t.Error("fixed keys are read from somewhere")
	}
}

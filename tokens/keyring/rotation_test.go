package keyring

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestCheckRotation(t *testing.T) {
	for _, tc := range []struct {
		rotate, announce time.Duration
		want             string
	}{
		{0, 0, ""},
		{minRotateEvery, minAnnounceFor, ""},
		{2 * day, 0, ""},
		{day, 0, "announce_for 24h0m0s is not shorter than rotate_every 24h0m0s"},
		{0, defaultRotateEvery, "announce_for 2160h0m0s is not shorter than rotate_every 2160h0m0s"},
		{minRotateEvery - 1, minAnnounceFor, "rotate_every 59m59.999999999s is too short; use at least 1h0m0s"},
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

func TestRefreshAndCacheIntervals(t *testing.T) {
	for announce, want := range map[time.Duration][2]time.Duration{
		0:                {30 * time.Second, 5 * time.Minute},
		day:              {30 * time.Second, 5 * time.Minute},
		10 * time.Minute: {30 * time.Second, 2 * time.Minute},
		time.Minute:      {12 * time.Second, 12 * time.Second},
		minAnnounceFor:   {time.Second, time.Second},
	} {
		source, err := Managed(Config{Storage: newStorage(t), Realm: "default", Issuer: testURL, AnnounceFor: announce}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := [2]time.Duration{source.store.refreshInterval(), source.MaxAge()}; got != want {
			t.Errorf("%v: intervals are %v, want %v", announce, got, want)
		}
	}
	fixed := Fixed(New(exampleKey(t)))
	if fixed.MaxAge() != 5*time.Minute || !fixed.LastRead().IsZero() {
		t.Error("fixed keys are read from somewhere")
	}
}

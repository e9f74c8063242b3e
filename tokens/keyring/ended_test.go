package keyring

import (
	"context"
	"errors"
	"testing"
	"time"
)

// writes returns the operations that change storage or lock it.
func (n *node) writes() int {
	return n.storage.Count("lock") + n.storage.Count("store") + n.storage.Count("delete")
}

// TestEndedSourceOnlyReads_S1 checks that a source whose configuration has ended
// leaves storage as it is, whatever is due there, and still learns what another
// source retires.
func TestEndedSourceOnlyReads_S1(t *testing.T) {
	c, a, b := newPair(t)
	old := a.Current().Signing().ID
	a.Wait(t.Context())
	a.End()
	a.storage.Forget()

	c.clock.Advance(10 * minRotateEvery) // the next key is long due, and the old one could be deleted
	if err := a.refresh(); err != nil {
		t.Errorf("an ended source reports %v", err)
	}
	for _, retire := range []bool{false, true} {
		if _, err := a.Rotate(t.Context(), retire); !errors.Is(err, errEnded) {
			t.Errorf("rotating an ended source: %v", err)
		}
	}
	a.LimitLifetime(a.Current(), int64(10*time.Hour/time.Second))
	a.PublicKey("made up", ES256)
	a.Wait(t.Context())
	if n := a.writes(); n != 0 {
		t.Errorf("%d changes to storage: %v", n, a.storage.Calls())
	}
	if a.Current().Signing().ID != old {
		t.Error("an ended source made a key")
	}

	if _, err := b.Rotate(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	if err := a.refresh(); err != nil {
		t.Fatal(err)
	}
	if _, known := a.Current().publicKey(old); known || a.writes() != 0 {
		t.Errorf("the retired key is known: %v; %d changes to storage", known, a.writes())
	}
	a.down = true
	if err := a.refresh(); err == nil || a.log.count(EventUnavailable) != 0 {
		t.Errorf("the failure of a closed storage is reported: %v", err)
	}
	Fixed(New(exampleKey(t))).End() // has nothing to end
}

// TestSourceEndsWithinAChange_S1 checks that a change which was running when its
// source ended writes nothing more.
func TestSourceEndsWithinAChange_S1(t *testing.T) {
	_, a, b := newPair(t)
	a.storage.OnStore = func(context.Context, string) error { a.End(); return nil }
	a.storage.Forget()
	if _, err := a.Rotate(t.Context(), true); !errors.Is(err, errEnded) {
		t.Errorf("the error is %v", err)
	}
	if n := a.storage.Count("store") + a.storage.Count("delete"); n != 1 {
		t.Errorf("%d changes to storage, want only the one that was running: %v", n, a.storage.Calls())
	}
	if err := b.refresh(); err != nil || b.Current() == nil {
		t.Errorf("the other node: %v", err)
	}
}

// TestEndedSourceWithoutKeys_S1 checks that a source that ends before there is any
// key neither makes one nor claims to have one.
func TestEndedSourceWithoutKeys_S1(t *testing.T) {
	c := newCluster(t, 0)
	a := c.nodes[0]
	a.End()
	if ring, err := a.Ensure(t.Context()); ring != nil || !errors.Is(err, errNoKey) || a.writes() != 0 {
		t.Errorf("keys %v, error %v, %d changes to storage", ring, err, a.writes())
	}
}

package keyring

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// changes records what [Config.ReportChange] is called with.
type changes struct {
	mu  sync.Mutex
	all []string
}

func (c *changes) report(change Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, strings.Join([]string{change.Kind, change.Key.ID, change.By, change.Key.State}, " "))
}

// take returns the changes since the last call, in alphabetical order.
func (c *changes) take() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.all)
	text := strings.Join(c.all, "; ")
	c.all = nil
	return text
}

// TestChangesAreReportedOnEachNode checks that each node reports each change once, and
// who has made it.
func TestChangesAreReportedOnEachNode(t *testing.T) {
	c := newCluster(t, 0, 0)
	a, b := c.nodes[0], c.nodes[1]
	var onA, onB changes
	a.store.ReportChange, b.store.ReportChange = onA.report, onB.report
	refresh := func() {
		t.Helper()
		for _, n := range c.nodes {
			if err := n.refresh(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := func(when, wantA, wantB string) {
		t.Helper()
		refresh()
		refresh()
		if got := onA.take(); got != wantA {
			t.Errorf("%s, the node that does it reports %q, want %q", when, got, wantA)
		}
		if got := onB.take(); got != wantB {
			t.Errorf("%s, the other node reports %q, want %q", when, got, wantB)
		}
	}
	refresh()
	first := a.Current().Signing().ID
	want("at first", "active "+first+" this_node active", "")

	second, err := a.Rotate(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	want("announced", "announced "+second+" this_node next", "announced "+second+" another_node next")

	c.clock.Advance(11 * time.Minute)
	a.Current()
	b.Current()
	want("after that time", "active "+second+" schedule active", "active "+second+" schedule active")

	third, err := a.Rotate(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	all := func(by string) string {
		list := []string{"active " + third + " " + by + " active", "retired " + first + " " + by + " ", "retired " + second + " " + by + " "}
		slices.Sort(list)
		return strings.Join(list, "; ")
	}
	want("in an emergency", all("this_node"), all("another_node"))

	// the next configuration of the node knows all that, and the ended one is silent
	old := a.Source
	old.End()
	c.start(a, old)
	a.store.ReportChange = onA.report
	fourth, err := b.Rotate(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := old.Load(t.Context()); err != nil || old.Current().Signing().ID != fourth {
		t.Errorf("the ended source: %v", err)
	}
	want("after a reload", "active "+fourth+" another_node active; retired "+third+" another_node ", "active "+fourth+" this_node active; retired "+third+" this_node ")
}

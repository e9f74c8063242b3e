package directory

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// TestReplacingGivesWay: an update of many clients lets others run again and again once
// requests may be served, and does not while the process starts.
func TestReplacingGivesWay(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	const count = 5000
	var records []clients.Entry
	for i := range count {
		records = append(records, entriesOf(pinned(fmt.Sprint("client-", i)))...)
	}
	w := newWorld(t)
	guest := newGuest("first", pinned("a"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	u := w.sources[1].newUpdate(true)
	if err := u.run(t.Context(), all(records, nil)); err != nil {
		t.Fatal(err)
	}
	if p := u.plan.pace; p == nil || p.rested < restTime || p.steps < 2*count {
		t.Errorf("%+v", p)
	}
	for name, before := range map[string]*Directory{"start": nil, "reload": w.Directory} {
		d := &Directory{config: w.config}
		d.beginning.Store(&beginning{before: before})
		if got := d.newPlan().pace != nil; got != (before != nil) {
			t.Errorf("%s gives way: %v", name, got)
		}
	}
}

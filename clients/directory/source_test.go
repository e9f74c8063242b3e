package directory

import (
	"errors"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
)

// TestSourceHandsOverChanges: what a source hands over is in force when its sink
// returns.
func TestSourceHandsOverChanges(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"), pinned("b"))
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	w.wantClients("a b")
	sink := w.watch(guest)
	if err := sink.Update(t.Context(), append(entriesOf(pinned("c")), clients.Entry{ID: "a"})); err != nil {
		t.Error(err)
	}
	w.wantClients("b c")
	if err := sink.Replace(t.Context(), all(entriesOf(pinned("d")), nil)); err != nil {
		t.Error(err)
	}
	w.wantClients("d")
	if err := sink.Replace(t.Context(), all(entriesOf(pinned("e")), errors.New("cut off"))); err == nil {
		t.Error("half of the records")
	}
	wrong := []clients.Entry{{ID: "f", Place: "line 7", Wrong: errors.New("an alias")}}
	if err := sink.Replace(t.Context(), all(wrong, nil)); err == nil || err.Error() != "line 7: client 'f': an alias" {
		t.Error(err)
	}
	w.wantClients("d")
}

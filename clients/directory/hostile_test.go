package directory

import (
	"fmt"
	"runtime/debug"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestLongRowOfKeptClients: that a wrong record has its client keep what another one
// wants, and so on, takes no stack, however many clients there are.
func TestLongRowOfKeptClients(t *testing.T) {
	const count = 10_000
	w := newWorld(t)
	guest := newGuest("guest")
	guest.SkipBad = true
	named := func(i, name int) clients.Record {
		return clients.Record{ClientID: fmt.Sprintf("c%05d", i), SubjectDN: clients.Strings{fmt.Sprintf("CN=%d", name)}}
	}
	var before, after []clients.Record
	for i := range count {
		before = append(before, named(i, i))
		after = append(after, named(i, i+1))
	}
	after[count-1] = named(count-1, 1) // which the first one has now
	guest.entries = entriesOf(before...)
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	was := w.Registry().Client("c00007")
	sink := w.watch(guest)
	defer debug.SetMaxStack(debug.SetMaxStack(1 << 20))
	if err := sink.Replace(t.Context(), all(append(entriesOf(after...), entriesOf(pinned("new"))...), nil)); err != nil {
		t.Fatal(err)
	}
	if r := w.Registry(); r.Len() != count+1 || r.Client("c00007") != was || r.Client("new") == nil {
		t.Errorf("%d clients", r.Len())
	}
	w.tookNote("line 9999: client 'c09998': it has what client 'c09999' keeps, because the new record of that client is wrong")
}

// TestTwoNewRecordsOfOneClient: both are wrong, the old one stays, and so does the rest.
func TestTwoNewRecordsOfOneClient(t *testing.T) {
	w := newWorld(t)
	guest := newGuest("guest", pinned("a"), pinned("b"))
	guest.SkipBad = true
	w.config.Sources = []clients.Source{guest}
	w.mustLoad()
	was := w.Registry().Client("a")
	scoped := func(id, scope string) clients.Record {
		record := pinned(id)
		record.Scope = scope
		return record
	}
	if err := w.watch(guest).Replace(t.Context(), all(entriesOf(scoped("a", "one"), scoped("a", "two"), scoped("b", "three")), nil)); err != nil {
		t.Fatal(err)
	}
	if r := w.Registry(); r.Client("a") != was || r.Client("b").Scope() != "three" {
		t.Errorf("a %q, b %q", r.Client("a").Scope(), r.Client("b").Scope())
	}
}

// wildcards are n clients that share names, and n that share wildcards which all overlap
// with all of them.
func wildcards(n int) (records []clients.Record) {
	for i := range n {
		path, segments := "", fmt.Sprintf("%08b", i)
		for _, bit := range segments {
			path += "/" + map[rune]string{'0': "a", '1': "*"}[bit]
		}
		records = append(records,
			clients.Record{ClientID: fmt.Sprint("name-", i), SharedCredential: true, SANURI: clients.Strings{fmt.Sprintf("https://h.example%s/%d", strings.Repeat("/a", 8), i)}},
			clients.Record{ClientID: fmt.Sprint("wild-", i), SharedCredential: true, SANURI: clients.Strings{"https://h.example" + path + "/*"}})
	}
	return records
}

// TestClientsThatTakeLong: an update whose names have to be compared with too many others
// is refused, because other changes wait for it. It is not a matter of one record.
func TestClientsThatTakeLong(t *testing.T) {
	w := newWorld(t)
	guest, other := newGuest("guest", pinned("a")), newGuest("other", pinned("mine"))
	guest.SkipBad = true
	w.config.Sources = []clients.Source{guest, other}
	w.mustLoad()
	before := w.Registry()
	w.maxHold = -time.Hour
	sink := w.watch(guest)
	if err := sink.Replace(t.Context(), all(entriesOf(wildcards(100)...), nil)); err == nil || !strings.HasPrefix(err.Error(), clients.ErrLate.Error()) {
		t.Error(err)
	}
	w.tookNote(clients.ErrLate.Error())
	if w.Registry() != before {
		t.Errorf("clients %s", w.ids())
	}
	// a few take no time that matters
	off := pinned("a")
	off.Disabled = true
	if err := sink.Update(t.Context(), entriesOf(off)); err != nil || !w.Registry().Client("a").Disabled {
		t.Error(err)
	}
	w.maxHold = time.Minute
	if err := sink.Replace(t.Context(), all(entriesOf(wildcards(100)...), nil)); err != nil || w.Registry().Len() != 201 {
		t.Error(w.Registry().Len(), err)
	}
}

// TestKeySetsWithoutMemory: JWK Sets are not taken if there is no memory for them, and
// one that does not grow is.
func TestKeySetsWithoutMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const address = "https://a.example/jwks"
		w := newWorld(t)
		one, two := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
		w.config.Records = []clients.Record{{ClientID: "a", JWKSURI: address}}
		w.mustLoad()
		w.web[address] = testpki.JWKS(t, one)
		unlimited := debug.SetMemoryLimit(1)
		defer debug.SetMemoryLimit(unlimited)
		w.poll(0)
		w.wantPin(one, "")
		w.tookNote("of the memory limit of")
		debug.SetMemoryLimit(unlimited)
		w.poll(time.Minute)
		w.wantPin(one, "a by jwks")
		debug.SetMemoryLimit(1)
		w.web[address] = testpki.JWKS(t, two)
		w.poll(time.Hour)
		w.wantPin(two, "a by jwks")
		// a new configuration needs what the old one has
		w.config.Before = w.Directory
		w.mustLoad()
		w.wantPin(two, "a by jwks")
	})
}

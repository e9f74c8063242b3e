package directory

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestRanksByCredential: a client of a higher rank has what one of a lower rank claims,
// by each kind of credential, whichever comes first. When the one lets go, the other is
// in force.
func TestRanksByCredential(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	file, _, err := leaf.WriteFiles(t.TempDir(), "leaf")
	if err != nil {
		t.Fatal(err)
	}
	sum, old := sha256.Sum256(leaf.Cert.Raw), sha1.Sum(leaf.Cert.Raw)
	key := sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)
	one := func(value string) clients.Strings { return clients.Strings{value} }
	for name, pair := range map[string][2]clients.Record{
		"client_id":              {pinned("same"), {ClientID: "same", SubjectDN: one("CN=x")}},
		"subject":                {{SubjectDN: one("CN=x,O=y")}, {SubjectDN: one("cn=X, o=Y")}},
		"DNS name":               {{SANDNS: one("a.example.com")}, {SANDNS: one("A.example.com")}},
		"wildcard DNS name":      {{SANDNS: one("*.example.com")}, {SANDNS: one("a.example.com")}},
		"under a wildcard":       {{SANDNS: one("a.example.com")}, {SANDNS: one("*.example.com")}},
		"URI":                    {{SANURI: one("spiffe://prod.example/a/b")}, {SANURI: one("spiffe://prod.example/a/*")}},
		"overlapping URIs":       {{SANURI: one("spiffe://prod.example/**")}, {SANURI: one("spiffe://prod.example/a/*")}},
		"SPIFFE trust domain":    {{SANURI: one("spiffe://prod.example/a")}, {SANURI: one("spiffe://test.example/a")}},
		"IP address":             {{SANIP: one("192.0.2.1")}, {SANIP: one("192.0.2.1")}},
		"e-mail address":         {{SANEmail: one("a@example.com")}, {SANEmail: one("a@EXAMPLE.com")}},
		"thumbprint":             {{Thumbprints: one(sha256Hex)}, {Thumbprints: one(sha256Hex)}},
		"SHA-1 thumbprint":       {{Thumbprints: one(sha1Hex)}, {Thumbprints: one(sha1Hex)}},
		"public key":             {{PublicKeys: one(sha256Hex)}, {PublicKeys: one(sha256Hex)}},
		"file and thumbprint":    {{CertificateFiles: one(file)}, {Thumbprints: one(hex.EncodeToString(sum[:]))}},
		"file and SHA-1":         {{CertificateFiles: one(file)}, {Thumbprints: one(hex.EncodeToString(old[:]))}},
		"public key and file":    {{PublicKeys: one(hex.EncodeToString(key[:]))}, {CertificateFiles: one(file)}},
		"one of them may share":  {{Thumbprints: one(sha256Hex), SharedCredential: true}, {Thumbprints: one(sha256Hex)}},
		"second of the members ": {{Thumbprints: one(sha256Hex)}, {SubjectDN: one("CN=own"), Thumbprints: one(sha256Hex)}},
	} {
		t.Run(name, func(t *testing.T) {
			high, low := pair[0], pair[1]
			if high.ClientID == "" {
				high.ClientID, low.ClientID = "high", "low"
			}
			w := newWorld(t)
			first, second := newGuest("first", high), newGuest("second", low, pinned("other"))
			first.NamesFiles, second.NamesFiles = true, true
			w.config.Sources = []clients.Source{first, second}
			w.mustLoad()
			refused := fmt.Sprintf("refused: %s of clients:second for %s of first", low.ClientID, high.ClientID)
			want := func(wantLow bool) {
				t.Helper()
				got := w.Registry().Client(high.ClientID)
				if got == nil || got.Source() != "first" || w.Registry().Client("other") == nil {
					t.Errorf("clients %s", w.ids())
				}
				if low.ClientID != high.ClientID && (w.Registry().Client("low") != nil) != wantLow {
					t.Errorf("clients %s", w.ids())
				}
			}
			want(false)
			w.tookNote(refused)
			hands := w.watch(first)
			update := func(records ...clients.Entry) {
				t.Helper()
				if err := hands.Update(t.Context(), records); err != nil {
					t.Error(err)
				}
			}
			for range 2 { // displaced and back
				update(clients.Entry{ID: high.ClientID})
				if got := w.Registry().Client(low.ClientID); got == nil || got.Source() != "second" {
					t.Fatalf("clients %s", w.ids())
				}
				w.tookNote("admitted: " + low.ClientID + " of clients:second")
				update(entriesOf(high)...)
				want(false)
				w.tookNote(refused)
			}
			if got := fmt.Sprint(w.Sizes()); got != "[{config 0 0} {first 1 0} {second 1 1}]" {
				t.Error(got)
			}
			if err := w.CheckRecord("second", low.ClientID, second.entries[0].Record); err == nil {
				t.Error("a record that waits passes the check")
			}
			for c := range w.Waiting("") {
				if c.ID != low.ClientID || c.Source() != "second" || c.Holder.Source() != "first" || c.Reason == nil {
					t.Errorf("%+v", c)
				}
			}
		})
	}
}

// TestWaitingRecordMoves: a record that waits for one client, and then for another, and
// one that is removed while it waits.
func TestWaitingRecordMoves(t *testing.T) {
	w := newWorld(t)
	pin := func(id string, of ...string) clients.Record {
		record := clients.Record{ClientID: id}
		for _, name := range of {
			record.Thumbprints = append(record.Thumbprints, pinned(name).Thumbprints...)
		}
		return record
	}
	first, second, third := newGuest("first", pin("a", "1")), newGuest("second", pin("b", "2")), newGuest("third", pin("c", "1", "2"))
	w.config.Sources = []clients.Source{first, second, third}
	w.mustLoad()
	w.wantClients("a b")
	hands := map[string]clients.Sink{"second": nil, "third": nil}
	w.Directory.Watch(t.Context())
	hands["first"], hands["second"], hands["third"] = <-first.sink, <-second.sink, <-third.sink
	update := func(source string, entries ...clients.Entry) {
		t.Helper()
		if err := hands[source].Update(t.Context(), entries); err != nil {
			t.Error(err)
		}
	}
	update("first", clients.Entry{ID: "a"})
	w.wantClients("b")
	update("second", clients.Entry{ID: "b"})
	w.wantClients("c")
	update("second", entriesOf(pin("b", "2"))...) // which displaces it
	w.wantClients("b")
	update("third", clients.Entry{ID: "c"}) // while it waits
	update("second", clients.Entry{ID: "b"})
	w.wantClients("")
	update("third", entriesOf(pin("c", "1"))...)
	update("second", entriesOf(pin("b", "1", "2"))...)
	w.wantClients("b")
	update("third", entriesOf(pin("c", "3"))...) // a record that no longer claims it
	w.wantClients("b c")
	// a chain: x is displaced by what was waiting for a
	update("first", entriesOf(pin("a", "5"))...)
	update("second", entriesOf(pin("b", "5", "6"))...)
	update("third", entriesOf(pin("c", "6"))...)
	w.wantClients("a c")
	update("first", clients.Entry{ID: "a"})
	w.wantClients("b")
	update("first", entriesOf(pin("a", "5"))...)
	w.wantClients("a c")
}

// TestConfigurationIsRankedFirst: so the operator decides, whatever a source says.
func TestConfigurationIsRankedFirst(t *testing.T) {
	w := newWorld(t)
	w.config.Records = []clients.Record{pinned("a")}
	w.config.Sources = []clients.Source{newGuest("guest", clients.Record{ClientID: "a", SubjectDN: clients.Strings{"CN=x"}}, pinned("b"))}
	w.mustLoad()
	w.wantClients("a b")
	if w.Registry().Client("a").Source() != SourceConfig || w.Registry().HasPKI() {
		t.Error("a source has replaced a client of the configuration")
	}
	w.saw("refused: a of clients:guest for a of config")
}

package directory

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestDirectoryFetchesJWKS_R10: JWKS behind URLs are fetched in the background,
// change the registry, and stay as they were if they cannot be fetched.
func TestDirectoryFetchesJWKS_R10(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const address = "https://user:secret@a.example/jwks"
		w := newWorld(t)
		one, two := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
		w.config.Records = []clients.Record{{ClientID: "a", JWKSURI: address}, pinned("c")}
		w.mustLoad()
		if w.fetched[address] != 0 || !w.state("jwks:a").Success.IsZero() || w.Registry().Client("a").Credentials[0].Value != "https://a.example/jwks" {
			t.Error("it was fetched at load")
		}
		w.wantPin(one, "")
		w.poll(0)
		w.saw("jwks:a, https://a.example/jwks: nothing there")
		w.web[address] = testpki.JWKS(t, one)
		w.poll(time.Second)
		w.wantPin(one, "") // the pause has not passed
		w.poll(5 * time.Second)
		w.wantPin(one, "a by jwks")
		w.saw("jwks:a, https://a.example/jwks: <nil>")
		if state := w.state("jwks:a"); !state.Success.Equal(w.now) || state.Failure != "" || w.fetched[address] != 2 {
			t.Errorf("%+v, %d fetches", state, w.fetched[address])
		}
		w.web[address] = testpki.JWKS(t, one, two)
		w.poll(time.Minute)
		w.wantPin(two, "")
		w.poll(time.Hour)
		w.wantPin(one, "a by jwks")
		w.wantPin(two, "a by jwks")
		w.web[address] = testpki.JWKS(t, two)
		w.poll(time.Hour)
		w.wantPin(one, "")
		w.saw("jwks:a", "jwks:a")

		for _, broken := range []string{"", `{"keys":[]}`, "<html>"} {
			w.web[address] = []byte(broken)
			w.poll(time.Hour)
			w.wantPin(two, "a by jwks")
			w.mu.Lock()
			if len(w.said) != 1 || strings.Contains(w.said[0], "secret") {
				t.Errorf("%q: said %q", broken, w.said)
			}
			w.said = nil
			w.mu.Unlock()
			if w.state("jwks:a").Failure == "" {
				t.Error("no failure is known")
			}
		}
		// warnings are reported once
		w.web[address] = testpki.KeySet(t, testpki.JWK(t, two), json.RawMessage("7"))
		w.poll(time.Hour)
		w.saw("warning: client 'a': jwks 'https://a.example/jwks': key 2 is ignored", "jwks:a")
		w.poll(time.Hour)
		w.saw()

		// a new configuration takes over what the old one has
		old := w.Directory
		w.config.Before = old
		fetches := w.fetched[address]
		w.mustLoad()
		w.wantPin(two, "a by jwks")
		w.poll(time.Minute)
		w.saw()
		if w.fetched[address] != fetches || w.state("jwks:a") != (SourceState{"jwks:a", old.States(9)[0].Success, "", old.States(9)[0].Refresh, "", time.Time{}}) {
			t.Errorf("%d fetches, %+v", w.fetched[address]-fetches, w.state("jwks:a"))
		}
	})
}

// TestDirectoryReportsSharedCertificates_B10: a certificate in several JWKS is
// reported once, again when one more client lists it, and when that is over.
func TestDirectoryReportsSharedCertificates_B10(t *testing.T) {
	w := newWorld(t)
	leaf, own := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	sum := sha256.Sum256(leaf.Cert.Raw)
	list := func(name string, leaves ...*testpki.Leaf) {
		t.Helper()
		w.write(name, testpki.JWKS(t, leaves...))
		w.poll(time.Minute)
	}
	w.write("victim.json", testpki.JWKS(t, leaf))
	w.write("thief.json", testpki.JWKS(t, own))
	w.write("third.json", testpki.JWKS(t, testpki.MustSelfSigned(t)))
	w.write("pin.json", []byte("[]"))
	w.config.Sources = []clients.Source{w.file("pin.json")}
	for _, id := range []string{"victim", "thief", "third"} {
		w.config.Records = append(w.config.Records, clients.Record{ClientID: id, JWKSFile: w.path(id + ".json")})
	}
	w.mustLoad()
	w.said = nil
	w.wantPin(leaf, "victim by jwks")
	list("thief.json", own, leaf)
	w.saw(`of ["thief" "victim"]`, "jwks:thief")
	w.wantPin(leaf, "thief by jwks, victim by jwks")
	w.wantPin(own, "thief by jwks")
	list("thief.json", leaf)
	w.saw("jwks:thief")
	list("third.json", leaf)
	w.saw(`ambiguous: `+hex.EncodeToString(sum[:2])+` of ["thief" "third" "victim"]`, "jwks:third")
	list("thief.json", own)
	w.saw(`ambiguous: `, "jwks:thief")
	list("victim.json", testpki.MustSelfSigned(t))
	w.saw(`unambiguous: `, "jwks:victim")
	w.wantPin(leaf, "third by jwks")
	list("victim.json", leaf)
	w.saw(`ambiguous: `, "jwks:victim")

	// a broken file changes nothing, and a declared credential ends the ambiguity
	w.write("third.json", []byte("{"))
	w.poll(time.Minute)
	w.poll(time.Minute)
	w.saw("jwks:third")
	w.wantPin(leaf, "third by jwks, victim by jwks")
	w.records("pin.json", clients.Record{ClientID: "owner", Thumbprints: clients.Strings{hex.EncodeToString(sum[:])}})
	w.poll(time.Minute)
	w.saw("ignored: ", "ignored: ", "unambiguous: ", "clients:")
	w.wantPin(leaf, "owner by thumbprint")
}

// TestDirectoryForgetsJWKS: a URL that no client names any more is not fetched.
func TestDirectoryForgetsJWKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		leaf := testpki.MustSelfSigned(t)
		w.web["https://a.example/"], w.web["https://b.example/"] = testpki.JWKS(t, leaf), testpki.JWKS(t, testpki.MustSelfSigned(t))
		w.records("a.json", clients.Record{ClientID: "a", JWKSURI: "https://a.example/"}, clients.Record{ClientID: "b", JWKSURI: "https://a.example/", SharedCredential: true})
		w.config.Sources = []clients.Source{w.file("a.json")}
		w.mustLoad()
		w.poll(0)
		w.wantPin(leaf, "a by jwks, b by jwks")
		w.saw("ambiguous: ", "jwks:a")
		if w.fetched["https://a.example/"] != 1 {
			t.Errorf("%d fetches", w.fetched["https://a.example/"])
		}
		w.state("jwks:a")
		w.state("jwks:b")
		w.records("a.json", clients.Record{ClientID: "b", JWKSURI: "https://b.example/"})
		w.poll(time.Second)
		w.poll(24 * time.Hour)
		w.wantPin(leaf, "")
		if w.fetched["https://a.example/"] != 1 || w.fetched["https://b.example/"] != 2 {
			t.Errorf("fetches %v", w.fetched)
		}
	})
}

// TestDirectoryRestsBetweenJWKS: clients that change their JWKS all the time do
// not keep the server busy, and changes of an operator do not wait for them.
func TestDirectoryRestsBetweenJWKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		one, two := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
		w.web["https://a.example/"] = testpki.JWKS(t, one)
		w.records("a.json", pinned("a1"))
		w.config.Sources = []clients.Source{w.file("a.json")}
		w.config.Records = []clients.Record{{ClientID: "a", JWKSURI: "https://a.example/"}}
		w.config.Use = func(*clients.Registry) error {
			time.Sleep(time.Minute) // which takes so long
			return nil
		}
		w.mustLoad()
		w.poll(0)
		w.wantPin(one, "a by jwks")
		w.web["https://a.example/"] = testpki.JWKS(t, two)
		w.documents.urls.all[0].url.AskSoon()
		time.Sleep(8 * time.Minute)
		w.poll(0)
		w.wantPin(one, "a by jwks")
		w.records("a.json", pinned("a2"))
		w.poll(0)
		w.wantClients("a a2")
		w.wantPin(one, "a by jwks")
		time.Sleep(10 * time.Minute)
		w.poll(0)
		w.wantPin(two, "a by jwks")
	})
}

// TestDirectoryFetchesAFewAtATime: many JWKS are not fetched all at once, and
// one that hangs holds up no other.
func TestDirectoryFetchesAFewAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		under, most := 0, 0
		var mu sync.Mutex
		w.config.Fetch = func(ctx context.Context, address string, _ int64) (source.Document, error) {
			mu.Lock()
			under++
			most = max(most, under)
			mu.Unlock()
			<-ctx.Done()
			mu.Lock()
			under--
			mu.Unlock()
			return source.Document{}, ctx.Err()
		}
		w.config.Now = time.Now
		for i := range 20 {
			w.config.Records = append(w.config.Records, clients.Record{ClientID: fmt.Sprint("a", i), JWKSURI: fmt.Sprintf("https://a%d.example/", i)})
		}
		w.mustLoad()
		ctx, cancel := context.WithCancel(t.Context())
		for range 1000 {
			w.Poll(ctx)
			time.Sleep(250 * time.Millisecond)
		}
		mu.Lock()
		defer mu.Unlock()
		if most != maxFetches {
			t.Errorf("%d at a time", most)
		}
		failed := 0
		for _, state := range w.States(100) {
			if state.Failure != "" {
				failed++
			}
		}
		if failed != 20 {
			t.Errorf("%d have been tried", failed)
		}
		mu.Unlock()
		cancel()
		synctest.Wait()
		mu.Lock()
	})
}

// TestJWKSThatPanics: a certificate of one client that causes a panic does not affect
// others.
func TestJWKSThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const a, b = "https://a.example/jwks", "https://b.example/jwks"
		w := newWorld(t)
		good, bad := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
		use := w.config.Use
		w.config.Use = func(r *clients.Registry) error {
			if who(r, bad) != "" {
				panic("index out of range")
			}
			return use(r)
		}
		w.config.Records = []clients.Record{{ClientID: "a", JWKSURI: a}, {ClientID: "b", JWKSURI: b}}
		w.mustLoad()
		w.web[a], w.web[b] = testpki.JWKS(t, bad), testpki.JWKS(t, good)
		w.poll(0)
		w.wantPin(bad, "")
		w.wantPin(good, "b by jwks")
		if failure := w.state("jwks:a").Failure; failure != "planning panicked: index out of range" {
			t.Errorf("failure %q", failure)
		}
		w.web[a] = testpki.JWKS(t, testpki.MustSelfSigned(t))
		w.poll(time.Hour)
		if failure := w.state("jwks:a").Failure; failure != "" {
			t.Errorf("failure %q", failure)
		}
	})
}

// TestDocumentOfWaitingClients: records of one client_id that wait in two sources may
// name the same document.
func TestDocumentOfWaitingClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const address = "https://a.example/jwks"
		w := newWorld(t)
		one := testpki.MustSelfSigned(t)
		w.config.Records = []clients.Record{pinned("a")}
		b := clients.Record{ClientID: "b", JWKSURI: address}
		a := clients.Record{ClientID: "a", JWKSURI: address}
		w.config.Sources = []clients.Source{newGuest("first", a, b), newGuest("second", a)}
		w.web[address] = testpki.JWKS(t, one)
		w.mustLoad()
		w.said = nil
		w.poll(0)
		w.poll(time.Second)
		w.wantPin(one, "b by jwks")
		if state := w.state("jwks:b"); state.Failure != "" {
			t.Error(state.Failure)
		}
	})
}

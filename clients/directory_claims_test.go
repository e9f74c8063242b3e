package clients

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// rivals are a client that has a certificate in its JWKS and one that wants it.
type rivals struct {
	*world
	store *CopyStore
	kept  *keptStorage
	// leaf is what both want, others is what each has beside
	leaf   *testpki.Leaf
	others map[string]*testpki.Leaf
}

const victim, thief = "https://victim.example/", "https://thief.example/"

// newRivals begins with the thief, who stands first and lists nothing of the
// victim's.
func newRivals(t *testing.T) *rivals {
	r := &rivals{world: newWorld(t), leaf: testpki.MustSelfSigned(t), others: map[string]*testpki.Leaf{victim: testpki.MustSelfSigned(t), thief: testpki.MustSelfSigned(t)}}
	r.store, r.kept = r.keepCopies()
	r.config.Records = []Record{{ClientID: "thief", JWKSURI: thief}, {ClientID: "victim", JWKSURI: victim}}
	r.list(victim, true)
	r.list(thief, false)
	return r
}

func (r *rivals) list(address string, leaf bool) {
	if leaf {
		r.web[address] = testpki.JWKS(r.t, r.others[address], r.leaf)
		return
	}
	r.web[address] = testpki.JWKS(r.t, r.others[address])
}

// after lets time pass, has what has changed stored, and says who has the
// certificate.
func (r *rivals) after(d time.Duration, holder string) {
	r.t.Helper()
	r.poll(d)
	r.sync(r.store)
	if holder != "" {
		holder += " by jwks"
	}
	r.wantPin(r.leaf, holder)
}

func (r *rivals) restart() {
	r.t.Helper()
	r.config.Before = nil
	r.mustLoad()
}

func (r *rivals) reload(records ...Record) {
	r.t.Helper()
	r.config.Before = r.Directory
	r.config.Records = records
	r.mustLoad()
}

// TestB10_JWKSThatWasGivenUp: what a client gave up, however it did, is not its
// own again because an old copy says so.
func TestB10_JWKSThatWasGivenUp(t *testing.T) {
	gone := Record{ClientID: "victim", JWKSURI: "https://gone.example/"}
	other := Record{ClientID: "thief", JWKSURI: thief}
	for _, how := range []string{"reload", "restart"} {
		t.Run("in a file after a "+how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRivals(t)
				r.mustLoad()
				r.after(0, "victim")
				r.write("v.json", r.web[victim])
				r.reload(other, Record{ClientID: "victim", JWKSFile: r.path("v.json")})
				if how == "restart" {
					r.restart()
				}
				r.after(time.Minute, "victim")
				r.write("v.json", testpki.JWKS(t, r.others[victim]))
				r.after(time.Minute, "")
				r.list(thief, true)
				r.after(time.Hour, "thief")
				r.write("v.json", testpki.JWKS(t, r.others[victim], r.leaf))
				r.after(time.Hour, "thief")
				r.restart()
				r.after(0, "thief")
			})
		})
	}
	t.Run("for a pin", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRivals(t)
			r.mustLoad()
			r.after(0, "victim")
			r.reload(other, pinned("victim"))
			r.list(thief, true)
			r.after(time.Hour, "thief")
			r.reload(other, gone)
			r.after(time.Hour, "thief")
			r.restart()
			r.after(0, "thief")
		})
	})
	t.Run("for a pin, while nobody was there", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := newRivals(t)
			r.mustLoad()
			r.after(0, "victim")
			r.config.Records = []Record{other, pinned("victim")}
			r.restart()
			r.list(thief, true)
			r.after(time.Hour, "thief")
			r.reload(other, gone)
			r.after(time.Hour, "thief")
			r.restart()
			r.after(0, "thief")
		})
	})
}

// TestB10_JWKSWithoutStorageAtTheStart: what storage knows counts as soon as it
// answers, as it does for clients that come later.
func TestB10_JWKSWithoutStorageAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivals(t)
		r.mustLoad()
		r.after(0, "victim")
		r.list(thief, true)
		r.after(time.Hour, "victim")
		down := errors.New("storage is down")
		r.kept.ask = func(string, string) error { return down }
		r.restart()
		r.poll(0)
		r.wantPin(r.leaf, "thief by jwks")
		if err := r.SaveCopies(t.Context(), r.store); !errors.Is(err, down) {
			t.Error(err)
		}
		r.kept.ask = nil
		uses := r.uses
		r.after(time.Minute, "victim")
		r.after(time.Minute, "victim")
		if r.uses != uses+1 {
			t.Errorf("there were %d registries", r.uses-uses)
		}
		// even if its JWKS cannot be had
		r.kept.ask = func(string, string) error { return down }
		delete(r.web, victim)
		r.restart()
		r.poll(0)
		r.wantPin(r.leaf, "thief by jwks")
		r.kept.ask = nil
		r.after(time.Minute, "victim")

		// a client of a file that comes, goes and comes again
		r.records("v.json", Record{ClientID: "victim", JWKSURI: victim})
		r.config.Records = r.config.Records[:1]
		r.config.Sources = []Source{NewFileSource(r.path("v.json"))}
		r.restart()
		r.after(0, "victim")
		r.write("v.json", []byte("[]"))
		r.after(time.Minute, "thief")
		r.records("v.json", Record{ClientID: "victim", JWKSURI: victim})
		r.after(time.Minute, "victim")
	})
}

// TestCopyThatIsReadDuringAFetch counts if the fetch fails.
func TestCopyThatIsReadDuringAFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivals(t)
		r.mustLoad()
		r.after(0, "victim")
		r.config.Fetch = func(ctx context.Context, _ string, _ int64) (source.Document, error) {
			<-ctx.Done()
			return source.Document{}, ctx.Err()
		}
		recall := r.config.Recall
		r.config.Recall = func([]string) []Copy { return nil }
		r.restart()
		r.config.Recall = recall
		r.poll(0)
		r.sync(r.store)
		r.wantPin(r.leaf, "")
		time.Sleep(source.DefaultTimeout)
		synctest.Wait()
		r.after(0, "victim")
	})
}

// TestB10_JWKSOnTwoNodes: whichever node asks first, both come to the same.
func TestB10_JWKSOnTwoNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newRivals(t)
		a.mustLoad()
		a.poll(0)
		a.wantPin(a.leaf, "victim by jwks")
		// the other node does not reach the victim's server at first
		b := &rivals{world: newWorld(t), store: a.store, leaf: a.leaf, others: a.others}
		b.now = a.now.Add(time.Minute)
		b.config.Records, b.config.Recall = a.config.Records, a.config.Recall
		b.list(thief, true)
		b.mustLoad()
		b.after(0, "thief")
		b.list(victim, true)
		b.after(time.Hour, "thief")
		a.sync(a.store)
		b.after(7*time.Hour, "victim")
		a.list(thief, true)
		a.after(8*time.Hour, "victim")
		b.after(7*time.Hour, "victim")
	})
}

// TestB10_JWKSAndAClockThatWasAhead: a later one is later, whatever the clock
// says.
func TestB10_JWKSAndAClockThatWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivals(t)
		real := r.now
		r.now = real.Add(3 * time.Hour)
		r.mustLoad()
		r.after(0, "victim")
		r.now = real.Add(time.Minute)
		r.restart()
		r.after(0, "victim")
		r.list(thief, true)
		r.after(2*time.Hour, "victim")
		r.restart()
		r.after(0, "victim")
	})
}

// TestCopiesThatAreRefused keep no others from being stored, and of those first
// the ones of clients whose certificates others list.
func TestCopiesThatAreRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivals(t)
		r.list(thief, true)
		r.list(victim, true)
		for i := range 20 {
			address := fmt.Sprintf("https://a%d.example/", i)
			r.web[address] = testpki.JWKS(t, testpki.MustSelfSigned(t))
			r.config.Records = append(r.config.Records, Record{ClientID: fmt.Sprint("a", i), JWKSURI: address})
		}
		r.mustLoad()
		for range 10 {
			r.poll(10 * time.Second)
		}
		var order []string
		r.kept.ask = func(what, id string) error {
			if what == "store" {
				order = append(order, id)
				if len(id) == 3 {
					return errors.New("too large")
				}
			}
			return nil
		}
		err := r.SaveCopies(t.Context(), r.store)
		if err == nil || strings.Count(err.Error(), "too large") != maxFailures || !strings.Contains(err.Error(), "5 more") {
			t.Error(err)
		}
		if len(order) != 22 || order[0] != r.Registry().Conflicts()[0].Holder.Client.ID {
			t.Errorf("asked for %q", order)
		}
		if len(r.copies.unsaved) != 10 {
			t.Errorf("unsaved are %v", r.copies.unsaved)
		}
		// those that failed come last, and storage that does not answer ends it
		r.CopiesLost([]string{"a1"})
		r.kept.ask = func(what, id string) error {
			if what == "store" {
				return context.DeadlineExceeded
			}
			return nil
		}
		if err := r.store.Delete(t.Context(), "a1"); err != nil {
			t.Error(err)
		}
		order = nil
		if err := r.SaveCopies(t.Context(), r.store); !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "\n") {
			t.Error(err)
		}
	})
}

// TestJWKSWithPadding costs storage nothing, and no verdict of the server.
func TestJWKSWithPadding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivals(t)
		r.mustLoad()
		r.after(0, "victim")
		before, uses := r.Registry(), r.uses
		r.web[victim] = append(r.web[victim], strings.Repeat(" ", 700<<10)...)
		r.after(7*time.Hour, "victim")
		r.web[victim] = testpki.JWKS(t, r.leaf, r.others[victim]) // in another order
		r.after(7*time.Hour, "victim")
		if r.Registry() != before || r.uses != uses {
			t.Error("there is another registry")
		}
		text, err := r.store.Storage.Load(t.Context(), r.store.object("victim"))
		if err != nil || len(text) > 8<<10 {
			t.Errorf("%d bytes, %v", len(text), err)
		}
		r.web = nil
		r.restart()
		r.wantPin(r.leaf, "victim by jwks")
	})
}

// TestReloadParsesNoJWKS: what the configuration before has parsed is taken over.
func TestReloadParsesNoJWKS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRivals(t)
		r.mustLoad()
		r.after(0, "victim")
		one := r.open[documentKey{KindJWKS, victim, true}].certificates[0]
		r.reload(r.config.Records...)
		if r.open[documentKey{KindJWKS, victim, true}].certificates[0] != one {
			t.Error("it was parsed again")
		}
	})
}

// TestReloadsWhileJWKSAreFetched is for the race detector.
func TestReloadsWhileJWKSAreFetched(t *testing.T) {
	w := newWorld(t)
	began := time.Now()
	var offset atomic.Int64
	w.config.Now = func() time.Time { return began.Add(time.Duration(offset.Load())) }
	w.web[victim] = testpki.JWKS(t, testpki.MustSelfSigned(t))
	w.config.Records = []Record{{ClientID: "victim", JWKSURI: victim}}
	w.mustLoad()
	running := w.Directory
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			offset.Add(int64(7 * time.Hour))
			running.Poll(t.Context())
		}
	}()
	w.config.Before = running
	for range 100 {
		w.mustLoad()
	}
	<-done
}

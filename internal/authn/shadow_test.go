package authn

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// shadowed returns an authenticator with this CA as its trust pool and shadow pool.
// Its queue is not being processed.
func shadowed(t *testing.T, ca *testpki.CA) (*Authenticator, *outcomes) {
	t.Helper()
	counted := new(outcomes)
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=a"), named("b", "CN=b"))
	auth.config.ShadowTrust = auth.config.Trust
	auth.config.Shadow = NewShadow(ShadowConfig{Logger: zap.NewNop(), OK: &counted.ok, Fail: &counted.fail, Dropped: &counted.dropped})
	auth.config.Shadow.Use(auth.config.ShadowTrust)
	return auth, counted
}

// outcomes are the counters of a Shadow.
type outcomes struct{ ok, fail, dropped counter }

type counter int

func (c *counter) Inc() { *c++ }

// TestShadowQueueNeverBlocks checks that a certificate is dropped if the queue is
// full, and tried again on its next request.
func TestShadowQueueNeverBlocks(t *testing.T) {
	ca := testpki.MustCA(t)
	current, counted := shadowed(t, ca)
	w := current.config.Shadow
	drained := func() (n int) {
		for {
			select {
			case sight := <-w.queue:
				if err := w.judge(sight); err != nil {
					t.Error(err)
				}
				n++
			default:
				return n
			}
		}
	}
	known := testpki.MustIssue(t, ca, testpki.CommonName("a")).Presented()
	ask := func(presented []*x509.Certificate) {
		t.Helper()
		if id, refusal, _ := current.Decide(context.Background(), presented, ""); refusal != nil || id.Client().ID != "a" {
			t.Fatalf("refused: %v", refusal)
		}
	}
	ask(known)
	ask(known)
	if n := drained(); n != 1 {
		t.Fatalf("a certificate that came twice was queued %d times", n)
	}
	ask(testpki.MustIssue(t, ca, testpki.CommonName("a")).Presented())
	filler := <-w.queue
	for len(w.queue) < cap(w.queue) {
		w.queue <- filler
	}
	late := testpki.MustIssue(t, ca, testpki.CommonName("a")).Presented()
	ask(late)
	if got := counted.dropped; got != 1 {
		t.Errorf("dropped %v, want 1", got)
	}
	drained()
	ask(late)
	if n := drained(); n != 1 {
		t.Errorf("the certificate that was left out was queued %d times later", n)
	}
	if got := counted.ok; got != 1+shadowQueue+1 {
		t.Errorf("%v are ok, want %d", got, 1+shadowQueue+1)
	}
	if n := testing.AllocsPerRun(100, func() { ask(late) }); n > 0 && !testtool.RaceEnabled {
		t.Errorf("a remembered certificate costs %v allocations", n)
	}
}

// TestShadowFailuresAreBounded checks that the number of remembered failures is
// bounded, and that expired ones make room.
func TestShadowFailuresAreBounded(t *testing.T) {
	current, counted := shadowed(t, testpki.MustCA(t))
	w, now := current.config.Shadow, current.config.Now()
	note := func(n int, client string, end time.Time, why string) {
		leaf := &x509.Certificate{Raw: fmt.Append(nil, n), NotAfter: end, SerialNumber: big.NewInt(1)}
		w.note(shadowSight{pool: current.config.ShadowTrust, presented: []*x509.Certificate{leaf}, now: now}, current.config.Registry.Client(client), why)
	}
	failing := func(want int) {
		t.Helper()
		if got := w.Failing(current.config.Registry, now); got != want {
			t.Errorf("%d clients fail, want %d", got, want)
		}
	}
	note(-1, "a", now.Add(time.Hour), "why")
	note(-1, "a", now.Add(time.Hour), "why")
	note(-2, "a", now.Add(time.Hour), "why")
	failing(1)
	note(-1, "a", now.Add(time.Hour), "")
	failing(1)
	note(-2, "a", now.Add(time.Hour), "")
	failing(0)
	for n := range maxShadowFailures + 5 {
		note(n, "a", now.Add(time.Duration(n+1)*time.Second), "why")
	}
	if len(w.failures) != maxShadowFailures {
		t.Errorf("%d are remembered, want %d", len(w.failures), maxShadowFailures)
	}
	if got := counted.fail; got != maxShadowFailures+5+3 {
		t.Errorf("%v were counted, want %d", got, maxShadowFailures+5+3)
	}
	note(-3, "b", now.Add(time.Hour), "why")
	failing(1)
	now = now.Add(10 * time.Second)
	note(-3, "b", now.Add(time.Hour), "why")
	failing(2)
	list, more := w.Failures(current.config.Registry, now, 3)
	if len(list) != 3 || more != maxShadowFailures-12 || list[0].ClientID != "a" || !list[0].NotAfter.Before(list[1].NotAfter) {
		t.Errorf("%d more than %+v", more, list)
	}
	list, more = w.Failures(current.config.Registry, now, maxShadowFailures)
	if last := list[len(list)-1]; more != 0 || last.ClientID != "b" || last.Why != "why" || last.Thumbprint != sha256.Sum256([]byte("-3")) {
		t.Errorf("%d more than those before %+v", more, last)
	}
	// another pool, nothing known
	w.Use(new(validators.TrustPool))
	failing(0)
	note(-3, "b", now.Add(time.Hour), "why") // about the pool before
	failing(0)
}

// TestShadowSurvivesAPanic checks that a panic over a certificate becomes an error.
func TestShadowSurvivesAPanic(t *testing.T) {
	ca := testpki.MustCA(t)
	auth, counted := shadowed(t, ca)
	if id, refusal, _ := auth.Decide(context.Background(), testpki.MustIssue(t, ca, testpki.CommonName("a")).Presented(), ""); refusal != nil {
		t.Fatalf("%v %v", id, refusal)
	}
	sight := <-auth.config.Shadow.queue
	sight.presented = []*x509.Certificate{nil}
	if err := auth.config.Shadow.judge(sight); err == nil || *counted != (outcomes{}) {
		t.Errorf("%v, counted %+v", err, *counted)
	}
}

package mtlsauth

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// shadowedRealm is a realm with this CA as its trust pool and its shadow, whose
// background work has not begun.
func shadowedRealm(t *testing.T, ca *testpki.CA) *Realm {
	t.Helper()
	file, err := json.Marshal(writeTemp(t, t.TempDir(), "ca.pem", ca.PEM()))
	if err != nil {
		t.Fatal(err)
	}
	pool := `{"provider":"file","pem_files":[` + string(file) + `]}`
	app := provisionRealm(t, `{"trust_pool":`+pool+`,"shadow_trust_pool":`+pool+`,"clients":[
		{"client_id":"a","tls_client_auth_subject_dn":"CN=a"},{"client_id":"b","tls_client_auth_subject_dn":"CN=b"}]}`)
	return app.Realms[defaultRealm]
}

// counted returns the value of a counter.
func counted(t *testing.T, counter prometheus.Counter) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	if err := registry.Register(counter); err != nil {
		t.Fatal(err)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families[0].GetMetric()[0].GetCounter().GetValue()
}

// TestShadowQueue: where too many wait, a certificate is left out and tried
// again with its next request; nobody waits.
func TestShadowQueue(t *testing.T) {
	ca := testpki.MustCA(t)
	realm := shadowedRealm(t, ca)
	w, current := realm.shadow, realm.current.Load()
	ok, dropped := counted(t, w.ok), counted(t, w.dropped)
	drained := func() (n int) {
		for {
			select {
			case sight := <-w.queue:
				w.judge(sight)
				n++
			default:
				return n
			}
		}
	}
	known := testpki.MustIssue(t, ca, testpki.CommonName("a")).Presented()
	ask := func(presented []*x509.Certificate) {
		t.Helper()
		if id, refusal, _ := current.authenticate(presented, ""); refusal != nil || id.client().ID != "a" {
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
	if got := counted(t, w.dropped) - dropped; got != 1 {
		t.Errorf("dropped %v, want 1", got)
	}
	drained()
	ask(late)
	if n := drained(); n != 1 {
		t.Errorf("the certificate that was left out was queued %d times later", n)
	}
	if got := counted(t, w.ok) - ok; got != float64(1+shadowQueue+1) {
		t.Errorf("%v are ok, want %d", got, 1+shadowQueue+1)
	}
	if n := testing.AllocsPerRun(100, func() { ask(late) }); n > 0 && !raceEnabled {
		t.Errorf("a remembered certificate costs %v allocations", n)
	}
}

// TestShadowFailuresAreBounded: no more than so many certificates are
// remembered, and those that have expired make room.
func TestShadowFailuresAreBounded(t *testing.T) {
	realm := shadowedRealm(t, testpki.MustCA(t))
	realm.app.logger = zap.NewNop() // there is a line for each
	w, current := realm.shadow, realm.current.Load()
	now := realm.app.Now()
	note := func(n int, client string, end time.Time, why string) {
		leaf := &x509.Certificate{Raw: fmt.Append(nil, n), NotAfter: end, SerialNumber: big.NewInt(1)}
		w.note(shadowSight{pool: current.shadow, presented: []*x509.Certificate{leaf}, now: now}, current.registry.Client(client), why)
	}
	failing := func(want int) {
		t.Helper()
		if got := w.failing(current.registry, now); got != want {
			t.Errorf("%d clients fail, want %d", got, want)
		}
	}
	fails := counted(t, w.fail)
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
	if got := counted(t, w.fail) - fails; got != maxShadowFailures+5+3 {
		t.Errorf("%v were counted, want %d", got, maxShadowFailures+5+3)
	}
	note(-3, "b", now.Add(time.Hour), "why")
	failing(1)
	now = now.Add(10 * time.Second)
	note(-3, "b", now.Add(time.Hour), "why")
	failing(2)
	// another pool, nothing known
	w.use(new(trust))
	failing(0)
	note(-3, "b", now.Add(time.Hour), "why") // about the pool before
	failing(0)
}

// TestShadowPanic: what goes wrong while the shadow pool is asked ends there.
func TestShadowPanic(t *testing.T) {
	ca := testpki.MustCA(t)
	realm := shadowedRealm(t, ca)
	if id, refusal, _ := realm.current.Load().authenticate(testpki.MustIssue(t, ca, testpki.CommonName("a")).Presented(), ""); refusal != nil {
		t.Fatalf("%v %v", id, refusal)
	}
	sight := <-realm.shadow.queue
	sight.pool = nil // Verify would be called on nothing
	realm.shadow.judge(sight)
}

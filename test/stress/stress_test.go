// Package stress_test holds traffic while everything that decides about it changes.
package stress_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Duration is an environment variable that says how long the stress lasts.
const Duration = "MTLS_STRESS"

// enoughAnswers is after how many everything must have happened.
const enoughAnswers = 20_000

// pinnedClients take turns having the pinned certificate.
var pinnedClients = []string{"alpha", "beta"}

// leafNames are the certificates of the traffic.
var leafNames = []string{"static", "pinned", "trusted", "revocable", "stored", "stranger"}

const realm = `
mtls {
	trust_pool file @DIR@/pool.pem
	revocation {
		crl    @DIR@/crl.pem
		exempt @OTHER@
	}
	clients_from file @DIR@/clients.json
	clients_from storage
	client static {
		certificate @DIR@/static.pem
		scopes      use
		introspect  https://other.test
		claim       generation @GENERATION@
	}
	client trusted {
		subject CN=trusted
		scopes  use
	}
	client revocable {
		subject CN=revocable
		scopes  use
	}
	issuer https://auth.test {
		resource https://other.test {
			scopes use
		}
	}
}
`

const sites = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	respond "{http.mtls.client_id} @GENERATION@ {http.mtls.claim.generation}"
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		audience https://other.test
	}
	respond "{http.mtls.client_id} @GENERATION@"
}
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
}
`

// stress is a Caddy under stress.
type stress struct {
	*rig.Rig
	leaves map[string]*testpki.Leaf
	oracle *oracle

	realm string
	crls  atomic.Int64 // the number of the last CRL

	reloadsBegun, reloadsEnded atomic.Int64

	workers, changing sync.WaitGroup
	stop              chan struct{}
	answers           atomic.Int64
	failure           atomic.Pointer[string] // the first one

	mu     sync.Mutex
	counts map[string]int
}

// start starts Caddy.
func start(t *testing.T) *stress {
	s := &stress{Rig: rig.New(t), leaves: make(map[string]*testpki.Leaf), oracle: new(oracle), counts: make(map[string]int)}
	s.AdminOn = true
	s.Grace = "20s" // one second is too short for a request on a busy machine
	s.Change = func(config map[string]any) {
		rig.Member(t, config, "logging", "logs", "default")["level"] = "ERROR" // a refusal is a warning
	}
	for _, name := range []string{"static", "pinned", "stored", "stranger"} {
		s.leaves[name] = s.SelfSigned(name)
	}
	s.leaves["trusted"], s.leaves["revocable"] = s.IssueBy(s.OtherCA, "trusted"), s.Issue("revocable")
	for _, err := range []error{s.put("pool.pem", s.CA.PEM()), s.put("crl.pem", s.crl(s.crls.Add(1), false)), s.writeClients("")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.realm = strings.Replace(realm, "@OTHER@", testpki.HashOf(s.OtherCA.Cert.Raw), 1)
	s.Start(s.realm, sites)
	s.Caller(t, "h1", s.leaves["static"]).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("static")).WantStatus(t, http.StatusOK)
	known(&s.oracle.config, s.Generation())
	known(&s.oracle.pinned, "")
	known(&s.oracle.trusted, false)
	known(&s.oracle.revoked, false)
	known(&s.oracle.stored, true)
	if err := s.changeKey(0); err != nil {
		t.Fatal(err)
	}
	record := fmt.Sprintf(`{"client_id":"stored","scope":"use","x509_thumbprints":%q}`, testpki.HashOf(s.leaves["stored"].Cert.Raw))
	if status, text, err := s.admin(http.MethodPut, storedPath, record); err != nil || status != http.StatusCreated {
		t.Fatal(status, text, err)
	}
	return s
}

// known notes what a fact is in the beginning.
func known[T comparable](f *fact[T], value T) {
	f.begin(value)
	f.end(value)
}

// TestNothingIsLostUnderStress checks that every answer is right for one of the states
// it fell between while mixed traffic meets changes of everything that decides about
// it, and that nothing is left behind.
func TestNothingIsLostUnderStress(t *testing.T) {
	duration := 4 * time.Second
	if text := os.Getenv(Duration); text != "" {
		var err error
		if duration, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	s := start(t)
	s.run(t, duration/4)
	before := s.quiet(t, footprint{})
	s.run(t, duration)
	s.checkLog(t)
	after := s.quiet(t, before)
	s.checkLog(t)
	t.Logf("before %s, after %s", before, after)
	for _, what := range slices.Sorted(maps.Keys(s.counts)) {
		t.Logf("%7d %s", s.counts[what], what)
	}
}

// checkLog fails the test if errors of the plugin were logged.
func (s *stress) checkLog(t *testing.T) {
	t.Helper()
	if entries := s.Logs.All(func(e rig.LogEntry) bool {
		return strings.HasPrefix(e.Str("logger"), "mtls") || strings.Contains(e.Str("msg"), "panic")
	}); len(entries) > 0 {
		t.Errorf("%d errors were logged, the first one is %v", len(entries), entries[0])
	}
}

// run holds traffic under changes for that long, and longer until everything has
// changed and every kind of answer has been given.
func (s *stress) run(t *testing.T, duration time.Duration) {
	t.Helper()
	s.stop = make(chan struct{})
	s.counts = make(map[string]int)
	for _, protocol := range rig.Protocols {
		for _, keeps := range []bool{false, false, true} {
			w := &worker{stress: s, protocol: protocol, keeps: keeps, callers: make(map[string]*rig.Caller), tokens: make(map[string]held), reloads: s.reloadsEnded.Load()}
			s.workers.Add(1)
			go w.run()
		}
	}
	changes := map[string]func(int) error{
		"change of clients": s.changePinned, "change of the trust pool": s.changeTrusted, "change of the CRL": s.changeRevoked,
		"change of the key": s.changeKey, "change of the stored client": s.changeStored, "change of the configuration": s.changeConfig,
	}
	for what, change := range changes {
		s.changing.Add(1)
		between := int64(100)
		if what == "change of the key" {
			between = 500 // it ends every token
		}
		go s.repeat(what, between, change)
	}
	s.changing.Add(1)
	go s.repeat("reading", 20, s.read)
	wanted := append(slices.Collect(maps.Keys(changes)), "guard 200", "guard 401", "token 200", "token 400", "bearer 200", "bearer 401", "introspection true", "introspection false")
	deadline, begun := time.Now().Add(duration), s.answers.Load()
	happened := func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.failure.Load() != nil || time.Now().After(deadline) && !slices.ContainsFunc(wanted, func(what string) bool { return s.counts[what] < 3 })
	}
	for last := int64(-1); ; { // a busy machine takes its time
		err := s.await("everything has happened", happened, duration+rig.Patience)
		if err == nil {
			break
		}
		made := s.answers.Load() - begun
		if made == last || made > enoughAnswers {
			s.failed("%v after %d answers", err, made)
			break
		}
		last = made
	}
	close(s.stop)
	s.workers.Wait()
	s.changing.Wait()
	if failure := s.failure.Load(); failure != nil {
		t.Fatal(*failure)
	}
}

// repeat makes a change again and again, with that many answers in between.
func (s *stress) repeat(what string, between int64, change func(n int) error) {
	defer s.changing.Done()
	for n := 1; !s.over(); n++ {
		if err := change(n); err != nil {
			s.failed("%s %d: %v", what, n, err)
			return
		}
		s.count(what)
		answers := s.answers.Load()
		_ = s.await("traffic goes on", func() bool { return s.over() || s.answers.Load() >= answers+between })
	}
}

func (s *stress) over() bool {
	select {
	case <-s.stop:
		return true
	default:
		return s.failure.Load() != nil
	}
}

// failed ends the stress with a failure.
func (s *stress) failed(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.failure.CompareAndSwap(nil, &text)
}

func (s *stress) count(what string) {
	s.answers.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.counts[what]++
}

// await waits for a condition, by default for at most a minute.
func (s *stress) await(what string, holds func() bool, patience ...time.Duration) error {
	limit := rig.Patience
	if len(patience) > 0 {
		limit = patience[0]
	}
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %s", what, limit)
		}
	}
	return nil
}

// admin sends a request to the admin endpoint. That closes connections when the
// configuration is replaced, so a request that was not answered is sent again.
func (s *stress) admin(method, path, body string) (status int, answer string, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	for range maxReopened {
		var request *http.Request
		if request, err = http.NewRequest(method, "http://127.0.0.1:"+s.Admin+path, strings.NewReader(body)); err != nil {
			return 0, "", err
		}
		request.Header.Set("Content-Type", "application/json")
		if method == http.MethodPatch {
			request.Header.Set("Content-Type", "application/merge-patch+json")
		}
		var response *http.Response
		if response, err = client.Do(request); err != nil {
			continue
		}
		var text []byte
		text, err = io.ReadAll(response.Body)
		_ = response.Body.Close()
		if err == nil {
			return response.StatusCode, string(text), nil
		}
	}
	return 0, "", err
}

// crl makes a CRL with this number that revokes the revocable certificate, or not.
func (s *stress) crl(number int64, revoked bool) []byte {
	var list []*x509.Certificate
	if revoked {
		list = append(list, s.leaves["revocable"].Cert)
	}
	der := testpki.CRL(s.T, s.CA, number, time.Now().Add(time.Hour), list...)
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

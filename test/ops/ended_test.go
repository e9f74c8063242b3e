package ops_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// The log messages of a configuration that has ended.
const (
	endedMessage = "previous configuration no longer answers requests"
	deniedNow    = "deny file in force"
)

// endingRealm has every kind of state that is kept up to date.
func endingRealm(t *testing.T) string {
	return `
mtls {
	trust_pool rig "@DIR@/clients-ca.pem" ` + t.Name() + `
	revocation {
		deny "@DIR@/deny"
	}
	clients_from file "@DIR@/clients.json"
	client billing.partner {
		subject "CN=billing"
	}
	client denied {
		subject "CN=denied"
	}
	client removed {
		subject "CN=removed"
	}
	issuer https://auth.test
}
`
}

// endingSites are one for each directive.
const endingSites = rig.OneSite + rig.IssuerSite + `
https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	reverse_proxy @UP@
}
`

const (
	clientEnabled  = `[{"client_id": "disabled", "tls_client_auth_subject_dn": "CN=disabled"}]`
	clientDisabled = `[{"client_id": "disabled", "tls_client_auth_subject_dn": "CN=disabled", "disabled": true}]`
)

// startEnding starts Caddy with a clock that stands still. Connections in use outlive their
// configuration for as long as their clients like, as by default.
func startEnding(t *testing.T, sites string) (*rig.Rig, *rig.Clock) {
	t.Helper()
	clock := rig.NewClock(t)
	r := rig.New(t)
	r.Grace, r.AdminOn = "0s", true
	r.Write("deny", nil)
	r.Write("clients.json", []byte(clientEnabled))
	r.Start(endingRealm(t), sites)
	clock.Freeze() // no configuration ends before the test wants it to
	return r, clock
}

// end lets the time pass after which an ended configuration decides nothing.
func end(r *rig.Rig, t *testing.T, clock *rig.Clock) {
	t.Helper()
	ended := func(e rig.LogEntry) bool { return e.Str("msg") == endedMessage }
	before := len(r.Logs.All(ended))
	clock.Advance(time.Minute)
	// its time may begin only now
	clock.Until(t, "the end of the configuration", func() bool { return len(r.Logs.All(ended)) > before })
}

// wantEnded fails the test unless a directive refused the request because its
// configuration had ended.
func wantEnded(t *testing.T, what string, got rig.Reply) {
	t.Helper()
	if got.Status != http.StatusServiceUnavailable || got.Seen != nil || got.Header.Get("Retry-After") != "5" || got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("WWW-Authenticate") != "" {
		t.Errorf("%s: %d %.200q %v", what, got.Status, got.Body, got.Header)
	}
}

// TestParkedRequests_S1 checks that a request which was left half sent before a
// reload, and is finished long after it, is not decided: the state of the ended
// configuration knows nothing of what has happened since.
func TestParkedRequests_S1(t *testing.T) {
	r, clock := startEnding(t, endingSites)
	leaves := make(map[string]*testpki.Leaf)
	for _, name := range []string{"billing", "denied", "removed", "disabled"} {
		leaves[name] = r.Issue(name)
	}
	revoked := rig.AccessToken(r, t, leaves["billing"], "billing.partner")
	retired := rig.AccessToken(r, t, leaves["billing"], "billing.partner")

	parked := make(map[string]*rig.Parked)
	park := func(what string, leaf *testpki.Leaf, host, method, path string, options ...func(*http.Request)) {
		parked[what] = r.Parking(t, leaf, host).Park(method, path, options...)
	}
	for name, leaf := range leaves {
		park(name+" at mtls_auth", leaf, "api.test", "GET", "/")
		park(name+" at the token endpoint", leaf, "auth.test", "POST", "/connect/token", rig.Form(strings.Replace(name, "billing", "billing.partner", 1)))
	}
	park("nobody at optional mtls_auth", nil, "public.test", "GET", "/")
	park("revoked token", leaves["billing"], "other.test", "GET", "/", rig.Bearer(revoked))
	park("token of a retired key", leaves["billing"], "other.test", "GET", "/", rig.Bearer(retired))
	park("introspection", leaves["billing"], "auth.test", "POST", "/connect/introspect", rig.Query("billing.partner", revoked))
	park("revocation", leaves["billing"], "auth.test", "POST", "/connect/revocation", rig.Query("billing.partner", retired))
	park("keys", nil, "auth.test", "GET", "/.well-known/openid-configuration/jwks")
	park("metadata", nil, "auth.test", "GET", "/.well-known/oauth-authorization-server")

	r.Reload(strings.Replace(endingRealm(t), `subject "CN=removed"`, `subject "CN=somebody"`, 1), endingSites)
	rig.Revoke(r, t, "h2", leaves["billing"], "billing.partner", revoked)
	if status, text := rig.Ask(r, t, "POST", "/mtls/realms/default/keys/rotate", `{"retire":"now"}`); status != http.StatusOK {
		t.Fatalf("retiring the keys: %d %s", status, text)
	}
	r.Write("deny", []byte("public_key "+testpki.HashOf(leaves["denied"].Cert.RawSubjectPublicKeyInfo)+"\n"))
	r.Write("clients.json", []byte(clientDisabled))
	end(r, t, clock)
	for _, protocol := range rig.Protocols {
		for name, leaf := range leaves {
			if c := r.Caller(t, protocol, leaf); name == "billing" {
				c.Get("https://api.test/").WantStatus(t, http.StatusOK)
			} else {
				clock.Until(r.T, name+" is refused", func() bool { return c.Get("https://api.test/").Status == http.StatusUnauthorized })
			}
		}
		for _, token := range []string{revoked, retired} {
			r.Caller(t, protocol, leaves["billing"]).Get("https://other.test/", rig.Bearer(token)).WantStatus(t, http.StatusUnauthorized)
		}
	}

	before := rig.Series(t, rig.Metrics(r, t), "default")
	for what, request := range parked {
		wantEnded(t, what, request.Finish())
	}
	const reason = "configuration_ended"
	r.Logs.WaitFor(t, len(parked), "requests after the end", func(e rig.LogEntry) bool {
		return e.Str("reason") == reason && e.Str("error_id") != "" && e.Str("realm") == "default" &&
			(e.Str("msg") == "client refused" || e.Str("msg") == "token refused")
	})
	after := rig.Series(t, rig.Metrics(r, t), "default")
	for name, want := range map[string]int{"authentications_total": len(parked) - 2, "bearer_total": 2} {
		name = fmt.Sprintf(`%s{result="%s"}`, name, reason)
		if got := after[name] - before[name]; got != float64(want) {
			t.Errorf("%s rose by %v, want %d", name, got, want)
		}
	}
}

// TestRequestsRightAfterAReload_S1 checks that a request which was on its way during
// a reload is still decided, by state that is still kept up to date.
func TestRequestsRightAfterAReload_S1(t *testing.T) {
	r, clock := startEnding(t, endingSites)
	billing, denied := r.Issue("billing"), r.Issue("denied")
	asBilling, asDenied := r.Parking(t, billing, "api.test"), r.Parking(t, denied, "api.test")
	park := func(p *rig.Parking) *rig.Parked { return p.Park("GET", "/") }
	first, second, third, last := park(asBilling), park(asDenied), park(asDenied), park(asBilling)
	token := r.Parking(t, billing, "auth.test").Park("POST", "/connect/token", rig.Form("billing.partner"))
	clock.Freeze()
	r.Reload(endingRealm(t)+"\n# changed", endingSites)

	first.Finish().WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	second.Finish().WantStatus(t, http.StatusOK).WantClient(t, "denied")
	token.Finish().WantStatus(t, http.StatusOK)
	r.Write("deny", []byte("public_key "+testpki.HashOf(denied.Cert.RawSubjectPublicKeyInfo)+"\n"))
	const step, most = 100 * time.Millisecond, 45 // within five seconds of the clock
	denials := func() int { return len(r.Logs.All(func(e rig.LogEntry) bool { return e.Str("msg") == deniedNow })) }
	deadline := time.Now().Add(rig.Patience)
	for n := 0; denials() < 2; n++ {
		if n < most {
			clock.Advance(step)
		} else if time.Now().After(deadline) {
			t.Fatalf("%d configurations follow the deny file, want both", denials())
		}
		time.Sleep(3 * step / 2) // the files are polled in real time
	}
	r.WantReason(t, third.Finish(), "certificate_revoked")
	last.Finish().WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
}

// TestWaysToEnd_S1 checks that a configuration decides nothing after its end,
// whatever comes next.
func TestWaysToEnd_S1(t *testing.T) {
	ways := map[string]func(*rig.Rig, *testing.T){
		"reloaded":           func(r *rig.Rig, t *testing.T) { r.Reload(endingRealm(t)+"\n# changed", endingSites) },
		"without the app":    func(r *rig.Rig, t *testing.T) { r.Reload("", "") },
		"without the server": func(r *rig.Rig, t *testing.T) { loadEmpty(t) },
		"stopped": func(_ *rig.Rig, t *testing.T) {
			if err := caddy.Stop(); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			r, clock := startEnding(t, endingSites)
			billing := r.Issue("billing")
			atAPI, atIssuer := r.Parking(t, billing, "api.test").Park("GET", "/"), r.Parking(t, billing, "auth.test").Park("POST", "/connect/token", rig.Form("billing.partner"))
			way(r, t)
			end(r, t, clock)
			wantEnded(t, "mtls_auth", atAPI.Finish())
			wantEnded(t, "mtls_issuer", atIssuer.Finish())
		})
	}
}

func loadEmpty(t *testing.T) {
	t.Helper()
	if err := caddy.Load([]byte(`{"admin": {"disabled": true, "config": {"persist": false}}}`), true); err != nil {
		t.Fatal(err)
	}
}

// TestRequestsThatGoOn_S1 checks that requests which were admitted before the end of
// their configuration are not disturbed by it, however long they take.
func TestRequestsThatGoOn_S1(t *testing.T) {
	// by default, Caddy closes WebSockets at a reload; they have a proxy of their own because
	// one that delays that is changed when the last of them ends, which is a data race with
	// other requests in Caddy 2.11
	sites := strings.Replace(endingSites, "reverse_proxy @UP@", "reverse_proxy /upgrade @STREAM@ {\n\t\tstream_close_delay 1h\n\t}\n\treverse_proxy @UP@", 1)
	r, clock := startEnding(t, sites)
	billing := r.Issue("billing")
	answers := make(chan rig.Reply, len(rig.Protocols))
	for _, protocol := range rig.Protocols {
		go func() {
			got, err := r.Caller(t, protocol, billing).Try("GET", "https://api.test/block")
			if err != nil {
				t.Errorf("%s: %v", protocol, err)
			}
			answers <- got
		}()
	}
	for range rig.Protocols {
		<-r.Upstream.Blocked
	}
	socket := r.Raw(t, billing, "api.test")
	socket.Write("GET /upgrade HTTP/1.1\nHost: api.test\nConnection: Upgrade\nUpgrade: websocket\n\n")
	line := func(want string) {
		t.Helper()
		for {
			got, err := socket.In.ReadString('\n')
			if err != nil {
				t.Fatalf("%v before %q", err, want)
			}
			if strings.Contains(got, want) {
				return
			}
		}
	}
	line(`hello ["billing.partner"]`)
	r.Reload(endingRealm(t)+"\n# changed", sites)
	end(r, t, clock)
	socket.Write("still here\n")
	line("echo still here")
	for range rig.Protocols {
		r.Upstream.Release <- struct{}{}
		(<-answers).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
}

// TestFailedLoadEndsNothing_S1 checks that a configuration goes on after another one
// fails to load, also if that one was already started.
func TestFailedLoadEndsNothing_S1(t *testing.T) {
	r, clock := startEnding(t, endingSites)
	billing := r.Issue("billing")
	parking := r.Parking(t, billing, "api.test")
	parked := parking.Park("GET", "/")
	// nobody may share this port, so the http app does not start
	taken := r.Upstream.Address
	for _, sites := range []string{
		endingSites + "\nhttp://" + taken + " {\n\tbind 127.0.0.1\n\trespond ok\n}\n",
		endingSites + "\nhttps://api.test:@HTTPS@ {\n\trespond ok\n}\n",
	} {
		for range 4 { // apps start in a random order
			if err := r.Load(endingRealm(t), sites); err == nil {
				t.Fatal("the configuration loads")
			}
		}
	}
	clock.Advance(time.Minute)
	clock.Until(r.T, "the file of clients is followed", func() bool {
		r.Write("deny", []byte("public_key "+testpki.HashOf(billing.Cert.RawSubjectPublicKeyInfo)+"\n"))
		return parking.Park("GET", "/").Finish().Status == http.StatusUnauthorized
	})
	r.WantReason(t, parked.Finish(), "certificate_revoked")
}

// TestEndedConfigurationLeavesNothing_S1 checks that no goroutine and no file stays
// behind after a configuration has ended or was only validated, and that nothing in
// storage has changed.
func TestEndedConfigurationLeavesNothing_S1(t *testing.T) {
	r, clock := startEnding(t, endingSites)
	rig.AccessToken(r, t, r.Issue("billing"), "billing.partner")
	r.Reload(endingRealm(t)+"\n# first", endingSites)
	end(r, t, clock)
	count := func() (goroutines, files int) {
		stacks := make([]byte, 8<<20)
		for stack := range bytes.SplitSeq(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			if bytes.Contains(stack, []byte("caddy-mtls-auth")) && !bytes.Contains(stack, []byte("_test.")) && !bytes.Contains(stack, []byte("internal/rig")) {
				goroutines++
			}
		}
		open, err := os.ReadDir("/proc/self/fd")
		if err != nil && runtime.GOOS == "linux" {
			t.Fatal(err)
		}
		return goroutines, len(open)
	}
	stored := storedFiles(r, t)
	var goroutines, files int
	rig.Await(r, t, "the first configuration has ended", func() bool {
		before := goroutines
		time.Sleep(200 * time.Millisecond)
		goroutines, files = count()
		return goroutines == before
	})
	for n := range 3 {
		r.Reload(fmt.Sprintf("%s\n# change %d", endingRealm(t), n), endingSites)
		config, err := r.Adapt(endingRealm(t), endingSites)
		if err == nil {
			err = validate(config)
		}
		if err != nil {
			t.Fatal(err)
		}
		end(r, t, clock)
	}
	const slack = 4 // files of connections that are being closed
	var now, open int
	rig.Await(r, t, fmt.Sprintf("%d goroutines and about %d files", goroutines, files), func() bool {
		now, open = count()
		if now <= goroutines && open <= files+slack {
			return true
		}
		time.Sleep(100 * time.Millisecond)
		return false
	})
	if now := storedFiles(r, t); !maps.Equal(now, stored) {
		t.Errorf("storage has %v, had %v", now, stored)
	}
}

// storedFiles returns when the plugin's files in storage were last written.
func storedFiles(r *rig.Rig, t *testing.T) map[string]time.Time {
	t.Helper()
	written := make(map[string]time.Time)
	err := filepath.WalkDir(filepath.Join(r.Dir, "storage", "mtls"), func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err == nil {
			written[path] = info.ModTime()
		}
		return err
	})
	if err != nil || len(written) == 0 {
		t.Fatalf("storage has %v, %v", written, err)
	}
	return written
}

func validate(config []byte) error {
	var parsed caddy.Config
	if err := caddy.StrictUnmarshalJSON(config, &parsed); err != nil {
		return err
	}
	return caddy.Validate(&parsed)
}

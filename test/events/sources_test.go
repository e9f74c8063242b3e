package events_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestSourceFailed checks that each source that begins to fail is one event, and so is the
// end of that.
func TestSourceFailed(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.SelfSigned("sensor")
	r.Write("clients.json", []byte("[]"))
	r.Write("deny.txt", nil)
	r.Write("ca.crl", rig.CRL(r, 1))
	r.Start(on(t, "mtls_source_failed", "mtls_source_recovered")+`mtls {
	trust_pool file @DIR@/clients-ca.pem
	clients_from file @DIR@/clients.json
	client sensor {
		certificate @DIR@/sensor.pem
	}
	revocation {
		crl  @DIR@/ca.crl
		deny @DIR@/deny.txt
	}
}`, rig.OneSite)
	files := map[string]string{
		"clients-ca.pem": "trust_pool", "clients.json": "clients:" + r.Dir + "/clients.json", "sensor.pem": "certificate:" + r.Dir + "/sensor.pem",
		"ca.crl": "crl:" + r.Dir + "/ca.crl", "deny.txt": "deny",
	}
	bySource := func(name string) map[string]map[string]any {
		t.Helper()
		events.Wait(t, len(files), name)
		found := make(map[string]map[string]any)
		for _, event := range events.All(name) {
			from := event.Data["source"].(string)
			if found[from] != nil {
				t.Errorf("two events %s about %s", name, from)
			}
			found[from] = event.Data
		}
		return found
	}
	saved := make(map[string][]byte)
	for name := range files {
		saved[name], _ = os.ReadFile(r.Dir + "/" + name)
		r.Write(name, []byte("broken <b>\u202e"))
	}
	failed := bySource("mtls_source_failed")
	for _, from := range files {
		if data := failed[from]; data["realm"] != "default" || data["error"] == "" || len(data) != 3 {
			t.Errorf("%s: the event is %v", from, data)
		}
	}
	// a failure that goes on is no event again
	r.Write("deny.txt", []byte("broken otherwise"))
	r.Logs.WaitFor(t, 2, "the deny file", func(e rig.LogEntry) bool {
		return e.Str("msg") == "refreshing revocation source failed; keeping previous data" && e.Str("source") == "deny"
	})
	for name, content := range saved {
		r.Write(name, content)
	}
	recovered := bySource("mtls_source_recovered")
	for _, from := range files {
		if data := recovered[from]; data["realm"] != "default" || len(data) != 2 {
			t.Errorf("%s: the event is %v", from, data)
		}
	}
	bySource("mtls_source_failed")
}

// TestKeysRotated checks the events about signing keys: a key that is announced, and the
// emergency, in which all others are retired.
func TestKeysRotated(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.AdminOn = true
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(on(t, "mtls_keys_rotated")+rig.IssuerRealm(""), rig.IssuerSite)
	const rotate = "/mtls/realms/default/keys/rotate"
	data := func(n int) map[string]any { return events.Wait(t, n, "mtls_keys_rotated") }
	check := func(n int, kid any, change string) {
		t.Helper()
		want := map[string]any{"realm": "default", "kid": kid, "alg": "ES256", "change": change, "by": "this_node", "signs_from": "*"}
		if change == "retired" {
			want["signs_from"] = ""
		}
		events.Check(t, n, "mtls_keys_rotated", want)
	}
	check(1, "*", "active") // the first key
	first := data(1)["kid"]
	_, text := rig.Ask(r, t, "POST", rotate, "")
	second := rig.JSON(t, text)["rotated"]
	check(2, second, "announced")
	_, text = rig.Ask(r, t, "POST", rotate, `{"retire":"now"}`)
	check(3, rig.JSON(t, text)["rotated"], "active")
	retired := map[any]bool{data(4)["kid"]: true, data(5)["kid"]: true}
	if !retired[first] || !retired[second] {
		t.Errorf("retired are %v, want %v and %v", retired, first, second)
	}
	check(4, "*", "retired")
}

// TestSourcesOfTokensFail checks the events about signing keys and revoked tokens in
// storage, and about the keys of a server that realms trust.
func TestSourcesOfTokensFail(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	if err := os.Mkdir(filepath.Join(r.Dir, "storage"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.Write("storage/mtls", nil) // a file, where a folder should be
	r.Start(on(t, "mtls_source_failed")+rig.IssuerRealm(""), rig.IssuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer https://127.0.0.1:1 {
			audience  api
			id_prefix other-
		}
	}
}`)
	realms := map[string]string{"keys": "default", "revocations": "default", "jwks:https://127.0.0.1:1": ""} // nothing listens on that port
	events.Wait(t, len(realms), "mtls_source_failed")
	for _, event := range events.All("mtls_source_failed") {
		from := event.Data["source"].(string)
		if realm, known := realms[from]; !known || event.Data["realm"] != realm || event.Data["error"] == "" || len(event.Data) != 3 {
			t.Errorf("the event is %v", event.Data)
		}
		delete(realms, from)
	}
	if len(realms) > 0 {
		t.Errorf("no event about %v", realms)
	}
}

// TestCAsOfAnotherServerFail checks the events about the trust pool of a directive that has
// no realm.
func TestCAsOfAnotherServerFail(t *testing.T) {
	r, events := rig.New(t), rig.NewEvents(t)
	r.Write("server-ca.pem", r.CA.PEM())
	r.Start(on(t, "mtls_source_failed", "mtls_source_recovered"), `https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		trust_issuer https://127.0.0.1:1 {
			audience   api
			id_prefix  other-
			trust_pool file "@DIR@/server-ca.pem"
		}
	}
}`)
	events.Check(t, 1, "mtls_source_failed", map[string]any{"realm": "", "source": "jwks:https://127.0.0.1:1", "error": "*"}) // nothing listens on that port
	r.Write("server-ca.pem", []byte("broken"))
	events.Check(t, 2, "mtls_source_failed", map[string]any{"realm": "", "source": "trust_pool", "error": "*"})
	r.Write("server-ca.pem", r.CA.PEM())
	events.Check(t, 1, "mtls_source_recovered", map[string]any{"realm": "", "source": "trust_pool"})
}

package clients_test

import (
	"crypto/x509/pkix"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestClientsCommands checks the commands with a running Caddy, and what they exit with.
func TestClientsCommands(t *testing.T) {
	r, _ := start(t, nil)
	leaf := r.SelfSigned("sensor-7")
	caller := r.Caller(t, "h2", leaf)
	guarded := func() rig.Reply { t.Helper(); return caller.Get("https://public.test/") }

	rig.MustShell(r, t, "caddy mtls clients add team/sensor-7 --certificate sensor-7.pem --scope invoices.read --name 'Sensor 7'")
	guarded().WantClient(t, "team/sensor-7")
	rig.MustShell(r, t, "caddy mtls clients disable team/sensor-7")
	guarded().WantRefused(t, "default", 401, rig.Refused)
	if out := rig.MustShell(r, t, "caddy mtls clients list"); !regexp.MustCompile(`(?m)^team/sensor-7 +memory +disabled +invoices.read +Sensor 7$`).MatchString(out) || !regexp.MustCompile(`(?m)^fixed +config +enabled`).MatchString(out) {
		t.Error(out)
	}
	rig.MustShell(r, t, "caddy mtls clients enable team/sensor-7")
	guarded().WantClient(t, "team/sensor-7")
	if out := rig.MustShell(r, t, "caddy mtls clients list --json --q SENSOR"); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"client_id":"team/sensor-7"`) {
		t.Error(out)
	}
	shown := rig.MustShell(r, t, "caddy mtls clients show team/sensor-7")
	if removed := rig.MustShell(r, t, "caddy mtls clients remove team/sensor-7"); removed != shown || !strings.Contains(removed, thumbprint(leaf)) {
		t.Errorf("%s, %s", removed, shown)
	}
	guarded().WantRefused(t, "default", 401, rig.Refused)
	r.Write("record.json", []byte(shown))
	rig.MustShell(r, t, "caddy mtls clients add --file record.json")
	guarded().WantClient(t, "team/sensor-7")

	for line, want := range map[string]string{
		"caddy mtls clients add --file - < record.json":             "client 'team/sensor-7' exists already",
		"caddy mtls clients disable fixed":                          "client 'fixed' is declared in source 'config', which is not written to here; change it there",
		"caddy mtls clients remove nobody":                          "has no client 'nobody'",
		"caddy mtls clients show fixed --realm other":               `unknown realm "other"; declared are: default`,
		"caddy mtls clients add x --subject CN=fixed":               "fixed",
		"caddy mtls clients add x --thumbprint 0a":                  "0a",
		"caddy mtls clients list --address 127.0.0.1:1":             "no admin API at 127.0.0.1:1",
		"caddy mtls clients list --address 127.0.0.1:" + r.HTTPS:    "is Caddy there?",
		"caddy mtls clients add":                                    "missing client_id",
		"caddy mtls clients":                                        "missing command",
		"caddy mtls clients disable":                                "accepts 1 arg(s)",
		"CADDY_ADMIN=off caddy mtls clients list --address 'x y:z'": "x y",
	} {
		out, problems, status := rig.Shell(r, t, line)
		if status == 0 || !strings.Contains(problems, want) || out != "" && !strings.HasPrefix(out, "CLIENT_ID") {
			t.Errorf("%s\nexits with %d: %s%s", line, status, out, problems)
		}
	}
}

// TestManagingClients runs the commands of docs/managing-clients.md.
func TestManagingClients(t *testing.T) {
	testtool.Path(t, "curl")
	const page = "../../docs/managing-clients.md"
	r := rig.New(t)
	r.AdminOn = true
	sensor, billing := r.SelfSigned("sensor-7"), r.Issue("billing", testpki.Subject(pkix.Name{CommonName: "billing", Organization: []string{"Company"}}))
	global, _ := rig.Snippet(t, page, 0, "clients-ca.pem", `"@DIR@/clients-ca.pem"`)
	r.Start(global, "https://public.test:@HTTPS@ {\n\timport mtls\n\tmtls_auth\n\treverse_proxy @UP@\n}\n")
	get := func(leaf *testpki.Leaf) rig.Reply {
		t.Helper()
		return r.Caller(t, "h2", leaf).Get("https://public.test/")
	}
	r.Write("partners.jsonl", []byte(`{"client_id":"sensor-8","x509_thumbprints":"`+thumbprint(r.SelfSigned("sensor-8"))+`"}`+"\n"))
	// what holds after a command that begins so
	after := map[string]func(out string){
		"while read -r record": func(out string) {
			if out != "client 'sensor-8' is added\n" {
				t.Error(out)
			}
		},
		"caddy mtls clients add sensor-7": func(string) { get(sensor).WantClient(t, "sensor-7") },
		"caddy mtls clients show": func(out string) {
			if !strings.Contains(out, thumbprint(sensor)) {
				t.Error(out)
			}
		},
		"caddy mtls clients disable":    func(string) { get(sensor).WantRefused(t, "default", 401, rig.Refused) },
		"caddy mtls clients enable":     func(string) { get(sensor).WantClient(t, "sensor-7") },
		"caddy mtls clients remove":     func(string) { get(sensor).WantRefused(t, "default", 401, rig.Refused) },
		"caddy mtls clients add --file": func(string) { get(sensor).WantClient(t, "sensor-7") },
		"curl -X PUT":                   func(string) { get(billing).WantClient(t, "billing") },
		"curl -X PATCH": func(out string) {
			if !strings.Contains(out, `"scope":"api1 api2"`) || !strings.Contains(out, `"tenant":"acme"`) {
				t.Error(out)
			}
		},
		"curl -X DELETE": func(string) { get(billing).WantRefused(t, "default", 401, rig.Refused) },
		"curl -i": func(out string) {
			if !strings.Contains(strings.ToLower(out), "etag: \"") {
				t.Error(out)
			}
		},
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	commands := 0
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllStringSubmatch(string(text), -1) {
		for line := range strings.Lines(block[1]) {
			line = strings.TrimSpace(line)
			commands++
			out := rig.MustShell(r, t, strings.ReplaceAll(strings.Replace(line, "curl ", "curl -sSf ", 1), "localhost:2019", "127.0.0.1:"+r.Admin))
			longest := ""
			for begin := range after {
				if strings.HasPrefix(line, begin) && len(begin) > len(longest) {
					longest = begin
				}
			}
			if longest != "" {
				after[longest](out)
				continue
			}
			if !strings.Contains(out, "sensor-7") { // a list
				t.Errorf("%s prints %s", line, out)
			}
		}
	}
	if commands < 10 {
		t.Errorf("ran %d commands", commands)
	}
}

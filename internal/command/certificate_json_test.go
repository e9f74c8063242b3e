package command_test

import (
	"encoding/json"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// members parses JSON that a command printed, and checks that it is harmless on a
// terminal.
func members(t *testing.T, out string) map[string]any {
	t.Helper()
	if strings.ContainsAny(out, "\x00\r\x1b\u202e\u009b") || !strings.HasSuffix(out, "}\n") {
		t.Errorf("the command printed %q", out)
	}
	var object map[string]any
	if err := json.Unmarshal([]byte(out), &object); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	return object
}

func TestInspectJSON(t *testing.T) {
	dir := t.TempDir()
	ca := testpki.MustCA(t, testpki.CommonName("Root"))
	leaf := testpki.MustIssue(t, ca, partner("a\x1b[2J\u202e"), testpki.DNSNames("api.example.com"), testpki.IPs(net.IPv4(192, 0, 2, 1)), testpki.IsCA(true))
	file := writeFile(t, dir, "chain.pem", append(leaf.PEM(), ca.PEM()...))
	text := mustRun(t, "inspect", file)
	got := members(t, mustRun(t, "inspect", "--json", file))

	list, _ := got["certificates"].([]any)
	if len(list) != 2 {
		t.Fatalf("%v", got)
	}
	first, second := list[0].(map[string]any), list[1].(map[string]any)
	if !reflect.DeepEqual(first["names"], []any{"san_dns api.example.com", "san_ip 192.0.2.1"}) || first["thumbprint"] != hashOf(leaf.Cert.Raw) ||
		first["public_key"] != hashOf(leaf.Cert.RawSubjectPublicKeyInfo) || first["issuer"] != "CN=Root" || first["ca"] != true || first["self_signed"] != false ||
		first["not_after"] != leaf.Cert.NotAfter.UTC().Format(time.RFC3339) || second["subject"] != "CN=Root" || second["self_signed"] != true {
		t.Errorf("%v", got)
	}
	for _, name := range []string{"subject", "serial", "key", "signature", "thumbprint_sha1"} {
		if value, _ := first[name].(string); value == "" || !strings.Contains(text, value) {
			t.Errorf("%s is %v, which inspect prints not without --json", name, first[name])
		}
	}
	notes, _ := got["notes"].([]any)
	for _, note := range notes {
		if !strings.Contains(text, "note              "+note.(string)+"\n") {
			t.Errorf("note %q is not in\n%s", note, text)
		}
	}
	if register, _ := got["register"].(string); len(notes) != strings.Count(text, "\nnote ") || len(notes) == 0 || !strings.HasSuffix(text, "\n\n"+register) || register == "" {
		t.Errorf("notes %q, register %v in\n%s", notes, got["register"], text)
	}
}

func TestExplainJSON(t *testing.T) {
	x := newExplaining(t)
	x.write("billing", testpki.MustIssue(t, x.ca, partner("billing")))
	x.write("stranger", testpki.MustIssue(t, x.ca, partner("stranger\x1b[2J\u202e")))
	out, err := x.ask("billing", "--json")
	if err != nil {
		t.Fatal(err)
	}
	got := members(t, out)
	certificate, _ := got["certificate"].(map[string]any)
	delete(got, "certificate")
	want := map[string]any{
		"realm": "default", "admitted": true, "client_id": "billing.partner", "credential": "subject", "matched": "CN=billing,O=Partner",
		"declared": "CN=billing,O=Partner", "scope": "invoices.read invoices.write", "default_scopes": []any{"invoices.read"},
	}
	if !reflect.DeepEqual(got, want) || certificate["subject"] != "CN=billing,O=Partner" {
		t.Errorf("%v %v, want %v", got, certificate, want)
	}
	if out, err := x.ask("until", "--json"); err != nil || members(t, out)["until"] != "2101-01-01T00:00:00Z" {
		t.Errorf("%s %v", out, err)
	}

	out, err = x.ask("stranger", "--json", "--client-id", "sensor")
	wantError(t, err, "the certificate is refused")
	got = members(t, out)
	text, _ := reasons.Of("certificate_unknown")
	text = text.Plain()
	misses, _ := got["near_misses"].([]any)
	if got["admitted"] != false || got["reason"] != "certificate_unknown" || got["sentence"] != text.Sentence || got["remedy"] != text.Remedy ||
		got["detail"] == nil || len(misses) == 0 || got["client_id"] != nil || !strings.HasPrefix(got["register"].(string), "client \"CHANGE-ME\" {\n\tthumbprint ") {
		t.Errorf("%v", got)
	}
}

package command_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
)

// why runs `caddy mtls why <args>` with an admin endpoint.
func (a *adminAPI) why(args ...string) (out, notes string, err error) {
	var text, errOut bytes.Buffer
	cmd := newCommand(nil, &text, append(append([]string{"why"}, args...), "--address", strings.TrimPrefix(a.URL, "http://"))...)
	cmd.SetErr(&errOut)
	err = cmd.Execute()
	return text.String(), errOut.String(), err
}

// refusalAnswer returns the answer of the admin API about a refusal.
func refusalAnswer(t *testing.T, record refusals.Record) string {
	t.Helper()
	text, _ := reasons.Of(record.Reason)
	text = text.Plain()
	answer, err := json.Marshal(struct {
		refusals.Record
		Sentence string `json:"sentence"`
		Remedy   string `json:"remedy"`
	}{record, text.Sentence, text.Remedy})
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func unknownCertificate() refusals.Record {
	now := time.Now().Truncate(time.Second)
	return refusals.Record{
		ErrorID: "7gsx4nkp2", At: now.Add(-3 * time.Minute), Realm: "default", Directive: "mtls_auth", Message: "client refused",
		Reason: "certificate_unknown", Detail: "no client declares it", RemoteIP: "192.0.2.7", Host: "api.example.com", URI: "/orders",
		Certificate: &refusals.Certificate{
			Subject: "CN=billing,O=Partner", Issuer: "CN=Clients CA", Serial: "0a1b", Thumbprint: strings.Repeat("ab", 32),
			Names: []string{"san_dns a.example", "san_dns b.example"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		},
		Hint:     "client 'billing' declares the subject in reverse order",
		Register: "client \"CHANGE-ME\" {\n\tthumbprint \"" + strings.Repeat("ab", 32) + "\"\n}",
		Times:    12, First: now.Add(-time.Hour),
	}
}

func TestWhy(t *testing.T) {
	record := unknownCertificate()
	api := newAdminAPI(t, refusalAnswer(t, record))
	out, notes, err := api.why(`error_id="7GSX4NKP2"`)
	if err != nil || notes != "" {
		t.Fatal(notes, err)
	}
	if asked := strings.Join(api.asked, "\n"); asked != "GET /mtls/refusals/7gsx4nkp2" {
		t.Error(asked)
	}
	text, _ := reasons.Of("certificate_unknown")
	text = text.Plain()
	flat := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"error id 7gsx4nkp2 time " + record.At.UTC().Format(time.RFC3339) + " (3m", "what client refused, by mtls_auth of realm 'default' from 192.0.2.7 request api.example.com/orders reason certificate_unknown",
		"detail no client declares it hint client 'billing' declares the subject in reverse order subject CN=billing,O=Partner issuer CN=Clients CA serial 0a1b valid from ",
		"names san_dns a.example names san_dns b.example", "times 12 since " + record.First.UTC().Format(time.RFC3339),
		text.Sentence + " " + text.Remedy,
	} {
		if !strings.Contains(flat, want) {
			t.Errorf("%s\nlacks %q", out, want)
		}
	}
	if !strings.HasSuffix(out, "\nTo register it, paste this into the global option 'mtls', with the client's ID\nin place of CHANGE-ME:\n\n"+record.Register+"\n") {
		t.Errorf("%s\ndoes not end in the block", out)
	}
	for line := range strings.Lines(out) {
		if len(line) > 120 {
			t.Errorf("a line has %d bytes: %s", len(line), line)
		}
	}

	record = refusals.Record{ErrorID: "7gsx4nkp2", At: time.Now(), Directive: "mtls_issuer", Message: "token request refused", Reason: "invalid_scope", Detail: "x",
		ClientID: "billing", Claimed: true, RemoteIP: "192.0.2.7", Forwarded: true, ReportOnly: true, Times: 1, First: time.Now()}
	out, _, err = newAdminAPI(t, refusalAnswer(t, record)).why("7gsx4nkp2")
	for _, want := range []string{"by mtls_issuer; report_only passed the request on\n", "a client behind the proxy 192.0.2.7\n", "billing (the request says so)\n"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s\n%v; want %q", out, err, want)
		}
	}
	for _, absent := range []string{"of realm", "subject", "register", "times", "request  "} {
		if strings.Contains(out, absent) {
			t.Errorf("%s\nhas %q", out, absent)
		}
	}
}

// TestWhyIsHarmlessOnATerminal checks that nothing that a stranger chose, or an admin API
// that is another's, can control the terminal.
func TestWhyIsHarmlessOnATerminal(t *testing.T) {
	const hostile = "x\x1b]0;owned\a\u009b31m\u202etxt\r\n<b>\x00\t\xff"
	record := unknownCertificate()
	for _, field := range []*string{&record.Realm, &record.ErrorID, &record.Directive, &record.Message, &record.Reason, &record.Detail, &record.RemoteIP,
		&record.Host, &record.URI, &record.ClientID, &record.Hint, &record.Register, &record.TokenIssuer, &record.TokenID,
		&record.Certificate.Subject, &record.Certificate.Issuer, &record.Certificate.Serial, &record.Certificate.Thumbprint, &record.Certificate.Names[0]} {
		*field = hostile + strings.Repeat("long", 2000)
	}
	record.Register = strings.ReplaceAll(record.Register, "\n", "") // the block has lines
	answer := strings.Replace(refusalAnswer(t, record), `"sentence":"`, `"sentence":"\u001b[2J\u202e`, 1)
	list := `{"refusals":[` + answer + `]}`
	for _, tc := range []struct {
		answer string
		args   []string
	}{{answer, []string{"7gsx4nkp2"}}, {answer, []string{"7gsx4nkp2", "--json"}}, {list, nil}, {list, []string{"--json"}}} {
		out, notes, err := newAdminAPI(t, tc.answer).why(tc.args...)
		if err != nil || out == "" {
			t.Fatal(err)
		}
		for _, r := range out + notes {
			if r < ' ' && r != '\n' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x202e {
				t.Errorf("%q: the output has %U", tc.args, r)
			}
		}
		if len(tc.args) == 1 && tc.args[0] == "--json" {
			continue
		}
		for line := range strings.Lines(out) {
			if strings.HasPrefix(strings.TrimSpace(line), "<b>") {
				t.Errorf("%q: a text begins a line: %s", tc.args, line)
			}
		}
	}
}

func TestWhyLists(t *testing.T) {
	first, second, third := unknownCertificate(), unknownCertificate(), unknownCertificate()
	second.ErrorID, second.ClientID, second.Reason, second.Certificate = "aaaaaaaa2", "billing.partner", "client_disabled", nil
	third.ErrorID, third.ClientID, third.Claimed, third.Certificate = "aaaaaaaa3", "somebody", true, nil
	var list []string
	for _, record := range []refusals.Record{first, second, third} {
		list = append(list, refusalAnswer(t, record))
	}
	answer := `{"refusals":[` + strings.Join(list, ",") + `]}`
	api := newAdminAPI(t, answer, answer, `{"refusals":[]}`)
	out, notes, err := api.why()
	at := first.At.UTC().Format(time.RFC3339)
	want := fmt.Sprintf(`TIME                  ERROR_ID   REALM    REASON               DIRECTIVE  CALLER                REMOTE_IP  TIMES
%s  7gsx4nkp2  default  certificate_unknown  mtls_auth  CN=billing,O=Partner  192.0.2.7     12
%s  aaaaaaaa2  default  client_disabled      mtls_auth  billing.partner       192.0.2.7     12
%s  aaaaaaaa3  default  certificate_unknown  mtls_auth                        192.0.2.7     12
`, at, at, at)
	if err != nil || out != want || notes != "" {
		t.Errorf("%s\n%s\n%v, want\n%s", out, notes, err, want)
	}
	if _, notes, err = api.why("--client-id", "billing partner", "--reason", "client_disabled", "--since", "2h", "--limit", "3", "--realm", "other"); err != nil || !strings.Contains(notes, "There may be more") {
		t.Errorf("%s %v", notes, err)
	}
	if out, notes, err = api.why("--reason", "token_type"); err != nil || out != "" || !strings.Contains(notes, "No such refusal") {
		t.Errorf("%s %s %v", out, notes, err)
	}
	if asked := strings.Join(api.asked, "\n"); asked != "GET /mtls/refusals?limit=20\nGET /mtls/refusals?client_id=billing+partner&limit=3&realm=other&reason=client_disabled&since=2h\nGET /mtls/refusals?limit=20&reason=token_type" {
		t.Error(asked)
	}
}

func TestWhyFails(t *testing.T) {
	for _, tc := range []struct {
		answer string
		args   []string
		usage  bool
		want   string
	}{
		{`404 {"error":"no refusal with the error id \"7gsx4nkp2\" is remembered; each node remembers its own"}`, []string{"7gsx4nkp2"}, false, "each node remembers its own"},
		{`404 404 page not found`, []string{"7gsx4nkp2"}, false, "an older one"},
		{`400 {"error":"since is \"yesterday\"; use a time"}`, []string{"--since", "yesterday"}, true, "use a time"},
		{`400 {"error":"parameter \"client_id\" is empty"}`, []string{"--client-id", ""}, true, "is empty"},
		{`200 <html>`, []string{"7gsx4nkp2"}, false, "cannot be read"},
		{`200 <html>`, nil, false, "cannot be read"},
		{"", []string{"hello"}, true, "cannot be an error id"},
		{"", []string{"7gsx4nkp2", "--since", "2h"}, true, "leave out either"},
		{"", []string{"7gsx4nkp2", "--limit", "20"}, true, "leave out either"},
		{"", []string{"--reason", "certificate_unknow"}, true, "did you mean 'certificate_unknown'?"},
		{"", []string{"--reason", ""}, true, "use one of"},
	} {
		api := newAdminAPI(t, tc.answer)
		_, _, err := api.why(tc.args...)
		wantError(t, err, tc.want)
		// an error with an exit status of its own has it besides the cause
		if parts, _ := err.(interface{ Unwrap() []error }); parts == nil || (len(parts.Unwrap()) == 2) != tc.usage {
			t.Errorf("%q: the status of %v is wrong, want 2: %t", tc.args, err, tc.usage)
		}
		if tc.answer == "" && len(api.asked) > 0 {
			t.Errorf("%q: asked %q", tc.args, api.asked)
		}
	}
}

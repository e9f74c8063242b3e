package command_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpg"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// adminAPI is an admin endpoint that answers each request in turn, and keeps what was
// asked.
type adminAPI struct {
	*httptest.Server
	answers []string // status, headers and body
	asked   []string
}

func newAdminAPI(t *testing.T, answers ...string) *adminAPI {
	a := &adminAPI{answers: answers}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		line := r.Method + " " + r.RequestURI
		for _, name := range []string{"If-None-Match", "If-Match"} {
			if r.Header.Get(name) != "" {
				line += " " + name + ": " + r.Header.Get(name)
			}
		}
		a.asked = append(a.asked, strings.TrimSpace(line+" "+string(body)))
		if len(a.answers) == 0 {
			http.NotFound(w, r)
			return
		}
		status, text := 200, a.answers[0]
		a.answers = a.answers[1:]
		if _, err := fmt.Sscanf(text, "%d ", &status); err == nil {
			text = text[4:]
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(a.Close)
	return a
}

// runClients runs `caddy mtls clients <args>` with that admin endpoint.
func (a *adminAPI) run(in io.Reader, args ...string) (out, notes string, err error) {
	var text, errOut bytes.Buffer
	cmd := newCommand(in, &text, append(append([]string{"clients"}, args...), "--address", strings.TrimPrefix(a.URL, "http://"))...)
	cmd.SetErr(&errOut)
	err = cmd.Execute()
	return text.String(), errOut.String(), err
}

func TestClientsList(t *testing.T) {
	const (
		a     = `{"client_id":"a","source":"config","record":{"client_id":"a","client_name":"Al\u001b[31mice","scope":"api1 api2"}}`
		b     = `{"client_id":"team/b","source":"storage","record":{"disabled":true}}`
		c     = `{"client_id":"c","source":"storage","waits":{"holder":"a","reason":"x"},"record":{}}`
		first = `{"clients":[` + a + `],"next":"a"}`
	)
	api := newAdminAPI(t, first, `{"clients":[],"next":"aa"}`, `{"clients":[`+b+`,`+c+`]}`)
	out, notes, err := api.run(nil, "list", "--limit", "0", "--q", "x y", "--realm", "other")
	want := "CLIENT_ID  SOURCE   STATE        SCOPE      NAME\n" +
		"a          config   enabled      api1 api2  Al\\x1b[31mice\n" +
		"team/b     storage  disabled\n" +
		"c          storage  waits for a\n"
	if err != nil || out != want || notes != "" {
		t.Errorf("%s\n%s%v", out, notes, err)
	}
	if asked := strings.Join(api.asked, "\n"); asked != `GET /mtls/realms/other/clients?limit=500&q=x+y
GET /mtls/realms/other/clients?after=a&limit=500&q=x+y
GET /mtls/realms/other/clients?after=aa&limit=500&q=x+y` {
		t.Error(asked)
	}

	api = newAdminAPI(t, first)
	if out, notes, err = api.run(nil, "list", "--limit", "1", "--json", "--waiting"); err != nil || out != a+"\n" || !strings.Contains(notes, "continue with --after 'a'") {
		t.Errorf("%s\n%s%v", out, notes, err)
	}
	if asked := strings.Join(api.asked, "\n"); asked != "GET /mtls/realms/default/clients?limit=1&waiting=true" {
		t.Error(asked)
	}
	if out, _, err = newAdminAPI(t).run(nil, "list"); err == nil || out != "" {
		t.Errorf("a failure has the output %q, %v", out, err)
	}
	if _, _, err = api.run(nil, "list", "--limit", "-1"); err == nil || !strings.Contains(err.Error(), "use 0 to list all") {
		t.Error(err)
	}
}

// TestRecordsAreHarmlessOnATerminal checks that what a client is called cannot control the
// terminal, or change the order of what is on it, and that the JSON stays the same.
func TestRecordsAreHarmlessOnATerminal(t *testing.T) {
	record := "{\"client_id\":\"a\",\"client_name\":\"é\u009b31m\u007f\u202e\U000e0041\U0001f600\"}"
	shown := `"é\u009b31m\u007f\u202e\udb40\udc41` + "\U0001f600\""
	for _, args := range [][]string{{"show", "a"}, {"remove", "a"}, {"list", "--json"}} {
		answer := record
		if args[0] == "list" {
			answer = `{"clients":[` + record + `]}`
		}
		out, _, err := newAdminAPI(t, answer).run(nil, args...)
		if err != nil || !strings.Contains(out, shown) {
			t.Errorf("%s: %q, %v", args, out, err)
		}
		var got, want any
		if err := errors.Join(json.Unmarshal([]byte(out), &got), json.Unmarshal([]byte(record), &want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, %v", args, got, err)
		}
	}
}

func TestClientsAdd(t *testing.T) {
	dir := t.TempDir()
	leaf := testpki.MustSelfSigned(t)
	certificate, record := filepath.Join(dir, "leaf.pem"), filepath.Join(dir, "record.json")
	for file, text := range map[string][]byte{certificate: leaf.PEM(), record: []byte("\ufeff" + ` {"client_id": "team/b", "x509_thumbprints": "0b"} ` + "\n")} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tc := range []struct {
		args  []string
		asked string
	}{
		{
			[]string{"a", "--certificate", certificate, "--thumbprint", "0a", "--scope", "x", "--scope", "y z", "--name", "A", "--claim", "tenant=a=b,c"},
			`PUT /mtls/realms/default/clients/a If-None-Match: * {"client_id":"a","client_name":"A","scope":"x y z","x509_thumbprints":["0a","` + hashOf(leaf.Cert.Raw) + `"],"claims":{"tenant":"a=b,c"}}`,
		},
		{
			[]string{"..", "--subject", "CN=a,O=b", "--san-dns", "a.example", "--san-uri", "spiffe://a/b", "--public-key", "0c", "--jwks", "https://a.example", "--realm", "other"},
			`PUT /mtls/realms/other/clients/%2E%2E If-None-Match: * {"client_id":"..","tls_client_auth_subject_dn":"CN=a,O=b","tls_client_auth_san_dns":"a.example","tls_client_auth_san_uri":"spiffe://a/b","x509_public_keys":"0c","jwks_uri":"https://a.example"}`,
		},
		{[]string{"--file", record}, `PUT /mtls/realms/default/clients/team%2Fb If-None-Match: * {"client_id": "team/b", "x509_thumbprints": "0b"}`},
		{[]string{"c", "--file", "-"}, `PUT /mtls/realms/default/clients/c If-None-Match: * {"x509_thumbprints":"0c"}`},
	} {
		api := newAdminAPI(t, "201 {}")
		out, _, err := api.run(strings.NewReader(`{"x509_thumbprints":"0c"}`), append([]string{"add"}, tc.args...)...)
		if err != nil || !strings.HasSuffix(out, "' is added\n") {
			t.Errorf("%s: %s%v", tc.args, out, err)
		}
		if len(api.asked) != 1 || api.asked[0] != tc.asked {
			t.Errorf("%s: asked\n%s, want\n%s", tc.args, api.asked, tc.asked)
		}
	}
	for _, tc := range []struct {
		in, want string
		args     []string
	}{
		{"", "missing client_id; name the client, or its record with --file", []string{"--thumbprint", "0a"}},
		{"", "the client has no credential; add --certificate", []string{"a", "--scope", "x"}},
		{"", "--claim 'tenant' has no value", []string{"a", "--thumbprint", "0a", "--claim", "tenant"}},
		{"", "--claim tenant is given twice", []string{"a", "--thumbprint", "0a", "--claim", "tenant=a", "--claim", "tenant=b"}},
		{"", "no such file", []string{"a", "--certificate", filepath.Join(dir, "none.pem")}},
		{"", "no such file", []string{"--file", filepath.Join(dir, "none.json")}},
		{"", "is not a client record: invalid character", []string{"--file", certificate}},
		{"{}", "standard input has no client_id", []string{"--file", "-"}},
		{`{"client_id":1}`, "client_id is 1; use a string", []string{"--file", "-"}},
		{`{"client_id":"b"}`, `is the record of client "b", not of 'a'`, []string{"a", "--file", "-"}},
		{`{"client_id":"a","client_id":"b"}`, `duplicate member "client_id"`, []string{"--file", "-"}},
		{strings.Repeat(" ", 64<<10) + "{}", "standard input has more than 65536 bytes", []string{"--file", "-"}},
		{`{"client_id":"a"}`, "--file has the whole record; write what --scope says into it", []string{"--file", "-", "--scope", "x"}},
	} {
		api := newAdminAPI(t)
		_, _, err := api.run(strings.NewReader(tc.in), append([]string{"add"}, tc.args...)...)
		if err == nil || !strings.Contains(err.Error(), tc.want) || len(api.asked) > 0 {
			t.Errorf("%s: %v, asked %s; want %q", tc.args, err, api.asked, tc.want)
		}
	}
	api := newAdminAPI(t, `412 {"error":"the client exists"}`)
	if _, _, err := api.run(nil, "add", "a", "--thumbprint", "0a"); err == nil || !strings.Contains(err.Error(), "client 'a' exists already") {
		t.Error(err)
	}
}

func TestClientsChange(t *testing.T) {
	for _, tc := range []struct {
		args         []string
		answer       string
		asked, print string
	}{
		{[]string{"disable", "team/a"}, `{}`, `PATCH /mtls/realms/default/clients/team%2Fa {"disabled":true}`, "client 'team/a' is disabled\n"},
		{[]string{"enable", "."}, `{}`, `PATCH /mtls/realms/default/clients/%2E {"disabled":null}`, "client '.' is enabled\n"},
		{[]string{"enable", "a", "--source", "b c"}, `{}`, `PATCH /mtls/realms/default/clients/a?source=b+c {"disabled":null}`, "client 'a' is enabled\n"},
		{[]string{"remove", "a"}, `{"client_id":"a"}`, `DELETE /mtls/realms/default/clients/a`, "{\n\t\"client_id\": \"a\"\n}\n"},
		{[]string{"show", "a"}, `{"client_id":"a"}`, `GET /mtls/realms/default/clients/a`, "{\n\t\"client_id\": \"a\"\n}\n"},
	} {
		api := newAdminAPI(t, tc.answer)
		out, _, err := api.run(nil, tc.args...)
		if err != nil || out != tc.print || len(api.asked) != 1 || api.asked[0] != tc.asked {
			t.Errorf("%s: %s%v, asked %s", tc.args, out, err, api.asked)
		}
	}
}

func TestRealms(t *testing.T) {
	const text = `{"realms":[{"realm":"default","sources":[{"name":"config","clients":1,"refused":0,"writable":false},{"name":"storage","clients":20,"refused":3,"writable":true,"error":"gone\u001b[31m"}]}]}`
	api := newAdminAPI(t, text, text)
	address := strings.TrimPrefix(api.URL, "http://")
	if out := mustRun(t, "realms", "--address", address); out != "REALM    SOURCE   CLIENTS  REFUSED  WRITABLE  ERROR\n"+
		"default  config         1        0  no\n"+
		"default  storage       20        3  yes       gone\\x1b[31m\n" {
		t.Error(out)
	}
	if out := mustRun(t, "realms", "--json", "--address", address); !strings.Contains(out, "\"name\": \"storage\"") {
		t.Error(out)
	}
}

// TestClientsErrors checks that errors say what to do.
func TestClientsErrors(t *testing.T) {
	for answer, want := range map[string]string{
		`404 {"error":"unknown realm \"default\"; declared are: a"}`: `unknown realm "default"; declared are: a`,
		`409 {"error":"no source\u001b[31m"}`:                        `no source\x1b[31m`,
		`404 404 page not found`:                                     "has no admin API of this plugin, or an older one; start it with the same binary",
		`500 <html>`:                                                 "answers 500: <html>; is Caddy there?",
		`200 <html>`:                                                 "the answer of the admin API cannot be read",
	} {
		api := newAdminAPI(t, answer)
		if out, _, err := api.run(nil, "show", "a"); err == nil || !strings.Contains(err.Error(), want) || out != "" {
			t.Errorf("%s: %s%v", answer, out, err)
		}
	}
	api := newAdminAPI(t)
	api.Close()
	if _, _, err := api.run(nil, "list"); err == nil || !strings.Contains(err.Error(), "no admin API at 127.0.0.1:") || !strings.Contains(err.Error(), "--address") {
		t.Error(err)
	}
	for want, args := range map[string][]string{
		"missing command; see 'mtls clients --help'": {"clients"},
		`unknown command "shw"`:                      {"clients", "shw"},
		"accepts 1 arg(s), received 0":               {"clients", "show"},
		"finding the address of the admin API":       {"clients", "list", "--config", "none.json"},
	} {
		if _, err := run(t, nil, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
}

// TestAdminAddressOfConfig checks that the address is that of the configuration, as for
// Caddy's own commands.
func TestAdminAddressOfConfig(t *testing.T) {
	api := newAdminAPI(t, `{"client_id":"a"}`)
	config := filepath.Join(t.TempDir(), "Caddyfile")
	if err := os.WriteFile(config, []byte("{\n\tadmin "+strings.TrimPrefix(api.URL, "http://")+"\n}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := mustRun(t, "clients", "show", "a", "--config", config); !strings.Contains(out, `"a"`) {
		t.Error(out)
	}
}

// TestOtherAnswersAreNoOutput checks that what somebody else answers at the address of
// the admin API is not passed on as the output of a command.
func TestOtherAnswersAreNoOutput(t *testing.T) {
	for _, answer := range []string{`[]`, `null`, `<html>`, `{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`} {
		for _, command := range []string{"status", "realms", "keys list", "keys rotate", "why", "why abcdefgh2"} {
			api := newAdminAPI(t, answer)
			out, err := run(t, nil, append(strings.Fields(command), "--json", "--address", strings.TrimPrefix(api.URL, "http://"))...)
			if err == nil || !strings.Contains(err.Error(), "the answer of the admin API cannot be read") || out != "" {
				t.Errorf("%s, %.20s: %v\n%.100s", command, answer, err, out)
			}
		}
	}
}

// TestInitDBCommand checks that the command creates the table that --print shows, under
// the name that is asked for, and keeps the password of the database to itself.
func TestInitDBCommand(t *testing.T) {
	dsn := testpg.Shared(t).Database(t)
	t.Setenv("DATABASE_URL", dsn)
	for range 2 {
		if out, err := run(t, nil, "clients", "init-db", "--dsn", "{env.DATABASE_URL}"); err != nil || out != "Table mtls_clients is ready.\n" {
			t.Fatalf("%q, %v", out, err)
		}
	}
	testpg.Exec(t, dsn, `INSERT INTO mtls_clients (client_id, record) VALUES ('a', '{"client_id": "a"}')`)

	file := filepath.Join(t.TempDir(), "dsn")
	if err := os.WriteFile(file, []byte(dsn+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := run(t, nil, "clients", "init-db", "--dsn", "{file."+file+"}", "--table", `"Other"`); err != nil {
		t.Fatalf("%q, %v", out, err)
	}
	testpg.Exec(t, dsn, `SELECT client_id, record, changed FROM "Other"`)

	sql, err := run(t, nil, "clients", "init-db", "--print", "--table", "printed")
	if err != nil {
		t.Fatal(err)
	}
	testpg.Exec(t, dsn, sql)
	var answer struct {
		Table, SQL string
		Ready      bool
	}
	if out, err := run(t, nil, "clients", "init-db", "--print", "--table", "printed", "--json"); err != nil || json.Unmarshal([]byte(out), &answer) != nil || answer.SQL != sql || answer.Ready {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := run(t, nil, "clients", "init-db", "--dsn", dsn, "--json"); err != nil || json.Unmarshal([]byte(out), &answer) != nil || answer.Table != "mtls_clients" || !answer.Ready {
		t.Errorf("%q, %v", out, err)
	}
	testpg.Exec(t, dsn, `INSERT INTO printed (client_id, record) VALUES ('a', '{"client_id": "a"}'); DELETE FROM printed; SELECT FROM printed_deleted`)

	for want, args := range map[string][]string{
		"no database is named; add --dsn '{env.DATABASE_URL}', or --print":      nil,
		"placeholder {env.MTLS_TEST_UNSET} is empty; set it":                    {"--dsn", "{env.MTLS_TEST_UNSET}"},
		"invalid DSN, which is not shown":                                       {"--dsn", "postgres://u:SEC%zzRET@h/d"},
		"table 'a;b': ';' needs double quotes around the name":                  {"--dsn", dsn, "--table", "a;b"},
		"failed to connect to `user=u database=d`: 127.0.0.1:1 (127.0.0.1): ":   {"--dsn", "postgres://u:SECRET@127.0.0.1:1/d?sslmode=disable"},
		"password authentication failed for user \"postgres\" (SQLSTATE 28P01)": {"--dsn", strings.Replace(dsn, testpg.Password, "SECRET", 1)},
	} {
		_, err := run(t, nil, append([]string{"clients", "init-db"}, args...)...)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "RET@") {
			t.Errorf("%v: %v", args, err)
		}
	}
}

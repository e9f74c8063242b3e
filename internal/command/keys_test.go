package command_test

import (
	"encoding/json"
	"runtime"
	"slices"
	"strings"
	"testing"
)

const twoKeys = `{"rotated":"new\u001b[2J","last_read":"2026-11-29T12:00:00Z","keys":[
{"kid":"old","alg":"ES256","state":"active","created":"2026-11-01T00:00:00Z","signs_from":"2026-11-01T00:00:00Z"},
{"kid":"new\u001b[2J","alg":"ES256","state":"next","signs_from":"2026-11-30T00:00:00Z"}]}`

// TestKeysCommands checks what is asked of the admin API, and what is printed.
func TestKeysCommands(t *testing.T) {
	const table = "KID         ALG    STATE   CREATED               SIGNS_FROM            LEAVES_AT\n" +
		"old         ES256  active  2026-11-01T00:00:00Z  2026-11-01T00:00:00Z\n" +
		"new\\x1b[2J  ES256  next                          2026-11-30T00:00:00Z\n"
	for _, tc := range []struct{ args, asked, want string }{
		{"keys list", "GET /mtls/realms/default/keys", table},
		{"keys list --realm a/b", "GET /mtls/realms/a%2Fb/keys", table},
		{"keys rotate", "POST /mtls/realms/default/keys/rotate", "key 'new\\x1b[2J' is announced\n\n" + table},
		{"keys rotate --retire now", `POST /mtls/realms/default/keys/rotate {"retire":"now"}`, "key 'new\\x1b[2J' signs now; the others are retired, and all tokens that they signed have ended\n\n" + table},
	} {
		api := newAdminAPI(t, twoKeys)
		out := mustRun(t, append(strings.Fields(tc.args), "--address", strings.TrimPrefix(api.URL, "http://"))...)
		if out != tc.want || !slices.Equal(api.asked, []string{tc.asked}) {
			t.Errorf("%s: %q\n%s", tc.args, api.asked, out)
		}
		api = newAdminAPI(t, twoKeys)
		out = mustRun(t, append(strings.Fields(tc.args), "--json", "--address", strings.TrimPrefix(api.URL, "http://"))...)
		if !json.Valid([]byte(out)) || !strings.Contains(out, `"kid": "new\u001b[2J"`) {
			t.Errorf("%s --json: %s", tc.args, out)
		}
	}
	for args, want := range map[string]string{
		"keys rotate --retire later": `--retire is "later"; write now`,
		"keys rotate --retire=":      `--retire is ""; write now`,
		"keys rotate now":            "unknown command",
	} {
		api := newAdminAPI(t, twoKeys)
		_, err := run(t, nil, append(strings.Fields(args), "--address", strings.TrimPrefix(api.URL, "http://"))...)
		if wantError(t, err, want); len(api.asked) > 0 {
			t.Errorf("%s: asked %q", args, api.asked)
		}
	}
}

// TestVersion checks the versions of this program and of a running Caddy.
func TestVersion(t *testing.T) {
	if out := mustRun(t, "version"); !strings.Contains(out, runtime.Version()) || !strings.Contains(out, "\ncommit            ") || strings.Contains(out, "running") {
		t.Error(out)
	}
	api := newAdminAPI(t, `{"version":"v1.2.3\u001b[2J","realms":[]}`)
	out := mustRun(t, "version", "--running", "--address", strings.TrimPrefix(api.URL, "http://"))
	if !strings.Contains(out, `running           v1.2.3\x1b[2J`) || api.asked[0] != "GET /mtls/status?limit=1" {
		t.Errorf("%q\n%s", api.asked, out)
	}
	var v map[string]string
	if err := json.Unmarshal([]byte(mustRun(t, "version", "--json")), &v); err != nil || v["go"] != runtime.Version() || v["caddy"] == "" || v["plugin"] == "" || v["commit"] == "" {
		t.Errorf("%v %v", v, err)
	}
}

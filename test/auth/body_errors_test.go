package auth_test

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestErrorsOfOthersStayTheSame checks that a server with mtls_auth answers and logs the
// errors of other handlers, octet for octet, as it does without.
func TestErrorsOfOthersStayTheSame(t *testing.T) {
	r := rig.New(t)
	other := func(host, log string) string {
		return site(host, log+`route {
			error /client "client's fault" 404
			error /broken "boom" 500
			error /status 503
			reverse_proxy /down 127.0.0.1:1
			request_header /secret X-Api-Key hunter2
			error /secret "boom" 500
			respond "fine"
		}`)
	}
	guarded := site("api.test", "mtls_auth\nreverse_proxy @UP@")
	for _, tc := range []struct{ name, without, with string }{
		{"without handle_errors", other("public.test", ""), guarded},
		{"log of its own", other("public.test", "log {\noutput discard\n}\n"), guarded},
		{"log of all", other("*.test", "log {\noutput discard\n}\n"), guarded},
		{"handle_errors of another site", other("public.test", "") + site("other.test", "handle_errors {\nrespond own\n}"), guarded},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if r.Generation() == 0 {
				r.Start(oneClient, tc.without)
			} else {
				r.Reload(oneClient, tc.without)
			}
			before := errorAnswers(r, t, "before")
			r.Reload(oneClient, tc.without+tc.with)
			after := errorAnswers(r, t, "after")
			for path, want := range before {
				if after[path] != want {
					t.Errorf("%s: with mtls_auth\n%s\nwithout\n%s", path, after[path], want)
				}
			}
			if !strings.Contains(before["/down"], "502 Bad Gateway") || strings.Contains(tc.name, "handle_errors of") != !strings.Contains(before["/down"], "connection refused") {
				t.Errorf("the answer without mtls_auth is %s", before["/down"])
			}
		})
	}
}

// errorAnswers returns the raw answer to each path, and what Caddy logs about it at
// ERROR, without what varies.
func errorAnswers(r *rig.Rig, t *testing.T, query string) map[string]string {
	answers := make(map[string]string)
	for _, path := range []string{"/client", "/broken", "/status", "/down", "/secret", "/"} {
		uri := path + "?" + query + fmt.Sprint(r.Generation())
		conn := r.Raw(t, nil, "public.test")
		conn.Write("GET " + uri + " HTTP/1.1\nHost: public.test\nConnection: close\n\n")
		answer, err := io.ReadAll(conn.In)
		if err != nil {
			t.Fatal(err)
		}
		lines := slices.DeleteFunc(strings.Split(string(answer), "\r\n"), func(line string) bool {
			return strings.HasPrefix(line, "Date: ") || strings.HasPrefix(line, "Alt-Svc: ")
		})
		ofRequest := func(e rig.LogEntry) bool {
			request, _ := e["request"].(map[string]any)
			return request["uri"] == uri && strings.HasPrefix(e.Str("logger"), "http.log.error")
		}
		atError := func(e rig.LogEntry) bool { return ofRequest(e) && e.Str("level") == "error" }
		if path != "/" {
			r.Logs.Wait(t, uri, ofRequest)
		}
		for _, entry := range r.Logs.All(atError) {
			if entry["duration"] == nil || entry.Str("err_id") == "" {
				t.Errorf("%s: %v", uri, entry)
			}
			entry = maps.Clone(entry)
			for _, name := range []string{"ts", "duration", "err_id"} {
				delete(entry, name)
			}
			request := maps.Clone(entry["request"].(map[string]any))
			if strings.Contains(fmt.Sprint(request["headers"]), "hunter2") {
				t.Errorf("%s: the log has a secret that a handler added: %v", uri, request)
			}
			for _, name := range []string{"remote_port", "uri", "headers"} {
				delete(request, name)
			}
			entry["request"] = request
			lines = append(lines, fmt.Sprint(entry))
		}
		answers[path] = strings.Join(lines, "\n")
	}
	return answers
}

// TestNamedRouteAlone checks that guards that only named routes have answer refusals
// themselves, unless the server has error routes: Caddy provisions named routes too late
// to add one.
func TestNamedRouteAlone(t *testing.T) {
	r := rig.New(t)
	named := "&(guarded) {\nroute {\nmtls_auth {\nallow alice\n}\nrespond passed\n}\n}\n&(tokens) {\nroute {\nmtls_bearer {\naudience https://api.test\n}\n}\n}\n"
	invoked := site("api.test", "handle /token {\ninvoke tokens\n}\nhandle {\ninvoke guarded\n}")
	realm := strings.Replace(oneClient, "client alice", "issuer https://auth.test {\naudience https://api.test\n}\nclient bob {\nsubject CN=bob\n}\nclient alice", 1)
	check := func(t *testing.T, body bool) {
		t.Helper()
		for _, protocol := range rig.Protocols {
			nobody, bob := r.Caller(t, protocol, nil), r.Caller(t, protocol, r.Issue("bob"))
			for word, got := range map[string]rig.Reply{
				"certificate_missing": nobody.Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing"),
				"client_not_allowed":  bob.Get("https://api.test/").WantStatus(t, http.StatusForbidden),
				"invalid_token":       bob.Get("https://api.test/token", rig.With("Authorization", "Bearer abc")).WantStatus(t, http.StatusUnauthorized),
			} {
				if body {
					wantText(t, got, word)
				} else if got.Body != "" {
					t.Errorf("body %q; say so in refusals.md", got.Body)
				}
			}
			if got := nobody.Get("https://api.test/", rig.With("Accept", "application/json")); body != strings.HasPrefix(got.Body, `{"title":"Unauthorized","status":401,"error":"certificate_missing"`) {
				t.Errorf("body %q", got.Body)
			}
			if got := r.Caller(t, protocol, r.Issue("alice")).Get("https://api.test/"); got.Body != "passed" {
				t.Errorf("alice gets %d %q", got.Status, got.Body)
			}
		}
	}
	r.Start(realm, named+invoked)
	check(t, true)
	got := r.Raw(t, nil, "api.test").Send("CONNECT api.test:443 HTTP/1.1\nHost: api.test\n\n").WantStatus(t, http.StatusMethodNotAllowed)
	wantText(t, got, "connect_refused")
	r.Reload(realm, named+invoked+site("other.test", "handle_errors {\nrespond own\n}"))
	check(t, false)
	r.Reload(realm, named+invoked+site("other.test", "mtls_auth"))
	check(t, true)
}

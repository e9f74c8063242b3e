package auth_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

const oneClient = `
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client alice {
			subject "CN=alice"
		}
	}
`

// site returns a site that asks for certificates.
func site(host, routes string) string {
	return "https://" + host + ":@HTTPS@ {\n\timport mtls\n" + routes + "\n}\n"
}

// wantText fails the test unless the body is that of a refusal, as text.
func wantText(t *testing.T, got rig.Reply, word string) {
	t.Helper()
	want := word + " (error id: " + got.ErrorID + ")\n"
	if got.Body != want || got.ErrorID == "" || got.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("body %q as %q, want %q", got.Body, got.Header.Get("Content-Type"), want)
	}
}

// TestRefusalBody checks what a refused caller reads where the site has no
// handle_errors: the word and the error id of the log, in the form that they ask for.
func TestRefusalBody(t *testing.T) {
	r := rig.New(t)
	alice, stranger := r.Issue("alice"), r.IssueBy(r.OtherCA, "stranger")
	r.Start(oneClient, site("api.test", "mtls_auth {\nallow alice\n}\nreverse_proxy @UP@")+site("public.test", "mtls_auth {\nallow nobody\n}\nreverse_proxy @UP@"))
	for _, protocol := range rig.Protocols {
		for _, tc := range []struct {
			c         *rig.Caller
			host      string
			status    int
			word      string
			challenge bool
		}{
			{r.Caller(t, protocol, stranger), "api.test", http.StatusUnauthorized, rig.Refused, true},
			{r.Caller(t, protocol, nil), "api.test", http.StatusUnauthorized, "certificate_missing", true},
			{r.Caller(t, protocol, alice), "public.test", http.StatusForbidden, "client_not_allowed", false},
		} {
			t.Run(protocol+"/"+tc.word, func(t *testing.T) {
				url := "https://" + tc.host + "/"
				text := tc.c.Get(url).WantStatus(t, tc.status)
				wantText(t, text, tc.word)
				r.Logs.WithErrorID(t, "client refused", text.ErrorID)

				got := tc.c.Get(url, rig.With("Accept", "application/problem+json")).WantStatus(t, tc.status)
				var details map[string]any
				if err := json.Unmarshal([]byte(got.Body), &details); err != nil || got.Header.Get("Content-Type") != "application/problem+json" {
					t.Fatalf("%v in %q as %q", err, got.Body, got.Header.Get("Content-Type"))
				}
				id, _ := details["error_id"].(string)
				want := fmt.Sprint(map[string]any{"title": http.StatusText(tc.status), "status": tc.status, "error": tc.word, "error_id": id})
				if fmt.Sprint(details) != want || !strings.HasSuffix(got.Body, "}\n") {
					t.Errorf("problem details %q, want %s", got.Body, want)
				}
				if tc.challenge && id != got.ErrorID {
					t.Errorf("error id %q in the body, %q in the challenge", id, got.ErrorID)
				}
				r.Logs.WithErrorID(t, "client refused", id)

				head := tc.c.Do(http.MethodHead, url).WantStatus(t, tc.status)
				if head.Body != "" || head.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
					t.Errorf("HEAD: body %q as %q", head.Body, head.Header.Get("Content-Type"))
				}
				for _, reply := range []rig.Reply{text, head} {
					for name, value := range map[string]string{"Content-Length": strconv.Itoa(len(text.Body)), "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
						if reply.Header.Get(name) != value {
							t.Errorf("%s is %q, want %q", name, reply.Header.Get(name), value)
						}
					}
				}
				if post := tc.c.Do(http.MethodPost, url, rig.WithBody("text/plain", strings.Repeat("x", 1<<16)), rig.With("Accept", "text/plain;q=0.5, */*;q=0.1")); post.Status != tc.status {
					t.Errorf("POST: %d", post.Status)
				} else {
					wantText(t, post, tc.word)
				}
			})
		}
	}
}

// TestRefusalBodyOfOtherDirectives checks the bodies of mtls_bearer, and of a CONNECT, and
// that their error ids are remembered.
func TestRefusalBodyOfOtherDirectives(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.IssuerSite+site("api.test", "mtls_bearer\nreverse_proxy @UP@"))
	c := r.Caller(t, "h1", billing)
	for word, authorization := range map[string]string{"token_missing": "", "invalid_token": "Bearer abc", "invalid_request": "Bearer a b"} {
		got := c.Get("https://api.test/", func(r *http.Request) {
			if authorization != "" {
				r.Header.Set("Authorization", authorization)
			}
		})
		wantText(t, got, word)
		r.Logs.WithErrorID(t, "token refused", got.ErrorID)
	}
	got := r.Raw(t, nil, "api.test").Send("CONNECT api.test:443 HTTP/1.1\nHost: api.test\n\n").WantStatus(t, http.StatusMethodNotAllowed)
	wantText(t, got, "connect_refused")
	if got.Header.Get("Cache-Control") != "no-store" || got.Header.Get("Allow") == "" {
		t.Errorf("headers %v", got.Header)
	}
	r.Logs.WithErrorID(t, "tunnel refused", got.ErrorID)
}

// TestRefusalBodyLeavesErrorRoutesAlone checks that whatever answers an error in the
// configuration goes on doing so, and that all other sites of the server have a body.
func TestRefusalBodyLeavesErrorRoutesAlone(t *testing.T) {
	r := rig.New(t)
	r.AdminOn = true
	sites := "&(guarded) {\nroute {\nmtls_auth\nrespond passed\n}\n}\n" +
		site("api.test", "handle_path /stripped/* {\nmtls_auth\n}\nhandle /invoked {\ninvoke guarded\n}\nhandle {\nmtls_auth\n}") +
		site("public.test", "mtls_auth\nhandle_errors {\nheader X-Own yes\nrespond \"own {http.error.status_code} {http.error.message} {http.mtls.error}\"\n}") +
		site("other.test", "mtls_auth\nhandle_errors 404 {\nrespond \"own 404\"\n}") +
		site("alias.test", "mtls_auth")
	r.Change = func(config map[string]any) {
		// alias.test gets error routes within a subroute, which only JSON has
		text, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		const guard = `{"handle":[{"handler":"mtls_auth"}]}`
		own := `{"handle":[{"handler":"subroute","routes":[` + guard + `],"errors":{"routes":[{"handle":[{"handler":"static_response","status_code":418,"body":"subroute {http.error.message}"}]}]}}]}`
		at := strings.Index(string(text), `"alias.test"`)
		from := strings.LastIndex(string(text)[:at], `{"handle":[{"handler":"subroute"`)
		changed := string(text)[:from] + strings.Replace(string(text)[from:], guard, own, 1)
		clear(config)
		if err := json.Unmarshal([]byte(changed), &config); err != nil {
			t.Fatal(err)
		}
	}
	r.Start(oneClient, sites)
	checkSites := func(t *testing.T) {
		for _, protocol := range rig.Protocols {
			c := r.Caller(t, protocol, nil)
			for _, path := range []string{"/", "/stripped/x", "/invoked"} {
				wantText(t, c.Get("https://api.test"+path).WantStatus(t, http.StatusUnauthorized), "certificate_missing")
			}
			if got := c.Get("https://public.test/", rig.With("Accept", "application/problem+json")); got.Status != 401 || got.Header.Get("X-Own") != "yes" ||
				got.Body != "own 401 certificate_missing certificate_missing" || got.Header.Get("X-Content-Type-Options") != "" {
				t.Errorf("handle_errors: %d %q %v", got.Status, got.Body, got.Header)
			}
			// a site with handle_errors answers all its errors itself, as ever
			if got := c.Get("https://other.test/"); got.Status != 401 || got.Body != "" || got.Header.Get("Content-Type") != "" || got.ErrorID == "" {
				t.Errorf("handle_errors 404: %d %q %v", got.Status, got.Body, got.Header)
			}
			if got := c.Get("https://alias.test/"); got.Status != 418 || got.Body != "subroute certificate_missing" {
				t.Errorf("errors of a subroute: %d %q", got.Status, got.Body)
			}
		}
	}
	checkSites(t)
	r.Reload(oneClient, sites)
	checkSites(t)
	if _, config := rig.Ask(r, t, http.MethodGet, "/config/apps/http/servers", ""); strings.Count(config, `"errors"`) != 2 { // of the server and the subroute
		t.Errorf("the configuration is %s", config)
	}
}

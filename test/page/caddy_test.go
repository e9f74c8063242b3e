package page_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const (
	pageRealm = `mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing {
			subject CN=billing
		}
		client idle {
			subject CN=idle
		}
	}`
	// the password is "night shift"
	pageSites = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	respond hello
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		allow billing
	}
	templates
	mtls_status
}
http://127.0.0.1:@HTTP@ {
	import plain
	basic_auth {
		operator HASH
	}
	mtls_status /status
	respond "something else"
}
`
	passwordHash = "$2a$04$4./oNEgoTIXSZaJoPvvQLOz4Zdk5JhVD.aZWo/8ypLxtNtZuE54SG"
)

// startPage starts a Caddy with a status page.
func startPage(t *testing.T) *rig.Rig {
	t.Helper()
	r := rig.New(t)
	r.Start(pageRealm, strings.Replace(pageSites, "HASH", passwordHash, 1))
	return r
}

// TestPageOfCaddy checks in a browser what the page of a running Caddy shows, to those
// who may see it.
func TestPageOfCaddy(t *testing.T) {
	r := startPage(t)
	billing := r.Issue("billing")
	stranger := r.Issue("stranger", testpki.CommonName(`<script>window.pwned=1</script>{{env "HOME"}}`))
	r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	refused := r.Caller(t, "h1", stranger).Get("https://api.test/orders").WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
	errorID := r.Logs.WithErrorID(t, "client refused", refused.ErrorID).Str("error_id")

	page := "http://127.0.0.1:" + r.HTTP + "/status"
	r.Plain(t).Get(page).WantStatus(t, http.StatusUnauthorized)
	rig.Refusal(t, r.Caller(t, "h2", stranger).Get("https://other.test/").WantStatus(t, http.StatusUnauthorized).ErrorID)
	got := r.Caller(t, "h2", billing).Get("https://other.test/?error_id="+errorID).WantStatus(t, http.StatusOK)
	for _, text := range []string{"certificate_unknown", "&lt;script", "&#123;&#123;env"} { // which `templates` leaves alone
		if !strings.Contains(got.Body, text) {
			t.Errorf("the page has no %s", text)
		}
	}
	operator := &credentials{"operator", "night shift"}
	views := []view{
		{name: "caddy-why", URL: page, Steps: [][]string{{"fill", "Error id", errorID}, {"press", "Enter"}}, Address: page + "?realm=default&error_id=" + errorID},
		{name: "caddy-never", URL: page, Steps: [][]string{{"check", "never seen"}, {"click", "button", "Search"}}, Address: page + "?realm=default&q=&never=1#clients"},
	}
	see := [][]string{
		{"Error id " + errorID, "certificate_unknown", "No client has a name or hash", "api.test/orders", "window.pwned", `client "CHANGE-ME" {`, "1 of 2 clients seen", "Strangers", "refused 2 times"},
		{"1 of 2 clients seen", "idle", "never"},
	}
	for i := range views {
		views[i].Width, views[i].Scheme, views[i].Axe, views[i].Credentials = phone, "dark", true, operator
	}
	for i, f := range look(t, views) {
		f.Console = nil // it reports the 401 that the browser answers with the password
		checkPage(t, views[i], f)
		wantText(t, views[i], f, see[i]...)
	}
}

// TestPageShowsMoreRefusals checks that show=all lists refusals which the page of a running
// Caddy leaves out otherwise.
func TestPageShowsMoreRefusals(t *testing.T) {
	r := startPage(t)
	billing, nobody := r.Caller(t, "h2", r.Issue("billing")), r.Caller(t, "h2", nil)
	const refused = 60
	var last string
	for range refused {
		last = nobody.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized).ErrorID
	}
	link := `<a class="id" href="?error_id=` + last
	for deadline := time.Now().Add(rig.Patience); !strings.Contains(billing.Get("https://other.test/").Body, link); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the last refusal is not on the page")
		}
	}
	for query, want := range map[string]int{"": 25, "?show=all": refused} {
		body := billing.Get("https://other.test/" + query).Body
		if got := strings.Count(body, `<a class="id" href=`); got != want || strings.Contains(body, "Show longer lists") != (query == "") {
			t.Errorf("%q: %d refusals, want %d", query, got, want)
		}
	}
}

// TestPageIsOnlyRead checks that a browser which posts to the page is refused, and what
// else Caddy answers.
func TestPageIsOnlyRead(t *testing.T) {
	r := startPage(t)
	caller := r.Caller(t, "h2", r.Issue("billing"))
	for _, method := range []string{http.MethodPost, http.MethodDelete, http.MethodPut} {
		got := caller.Do(method, "https://other.test/", rig.WithBody("application/x-www-form-urlencoded", "error_id=a")).WantStatus(t, http.StatusMethodNotAllowed)
		if allow := got.Header.Get("Allow"); allow != "GET, HEAD" {
			t.Errorf("%s: Allow is %q", method, allow)
		}
	}
	head := caller.Do(http.MethodHead, "https://other.test/").WantStatus(t, http.StatusOK)
	if head.Body != "" || !strings.HasPrefix(head.Header.Get("Content-Security-Policy"), "default-src 'none';") {
		t.Errorf("HEAD: %q, %v", head.Body, head.Header)
	}
	caller.Get("https://other.test/?q="+strings.Repeat("a", 5000)).WantStatus(t, http.StatusRequestURITooLong)
	caller.Get("https://other.test/?realm=nonesuch").WantStatus(t, http.StatusNotFound)
}

// TestPageDuringReloads checks that the page is served while the configuration is
// replaced again and again.
func TestPageDuringReloads(t *testing.T) {
	r := startPage(t)
	billing := r.Issue("billing")
	end := make(chan struct{})
	var all sync.WaitGroup
	pages := 0
	all.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
			}
			caller := r.Caller(t, "h2", billing)
			got, err := caller.Try(http.MethodGet, "https://other.test/?q=b&error_id=abc")
			caller.Close()
			if err == nil && got.Status == http.StatusOK && strings.Contains(got.Body, "Realm <bdi>default</bdi>") {
				pages++
			} else if err == nil && got.Status != http.StatusServiceUnavailable {
				t.Errorf("during a reload: %d %.200q", got.Status, got.Body)
			}
		}
	})
	for range 5 {
		r.Reload(pageRealm, strings.Replace(pageSites, "HASH", passwordHash, 1))
	}
	close(end)
	all.Wait()
	if pages == 0 {
		t.Error("no page")
	}
}

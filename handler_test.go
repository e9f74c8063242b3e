package mtlsauth

import (
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// TestResumedSessionIsDecidedAnew_C3 checks that the certificate of a resumed TLS
// session is judged on every request, independently of earlier requests. Servers
// other than Caddy may allow resumption.
func TestResumedSessionIsDecidedAnew_C3(t *testing.T) {
	now := time.Now()
	leaf, stranger := testpki.MustSelfSigned(t), testpki.MustSelfSigned(t)
	soon := testpki.MustSelfSigned(t, testpki.Validity(now.Add(-time.Hour), now.Add(time.Hour)))
	realm := strings.Replace(pinnedRealm(leaf, ""), "}]}", `},{"client_id":"b","x509_thumbprints":"`+testpki.HashOf(soon.Cert.Raw)+`"}]}`, 1)
	handler := provisionHandlers(t, realm, noClients, `"realm":"default"`)[0]
	ahead := time.Duration(0)
	setClock(handler.realm, func() time.Time { return now.Add(ahead) })
	ask := func(leaf *testpki.Leaf) string {
		r, _ := newRequest(leaf)
		r.TLS.DidResume = true
		// chains that TLS has verified must not count
		r.TLS.VerifiedChains = [][]*x509.Certificate{{stranger.Cert}}
		r.Header.Set("X-Client-Id", "a")
		reached, err := serve(r, handler)
		var failure caddyhttp.HandlerError
		switch {
		case errors.As(err, &failure):
			return failure.Err.Error()
		case err != nil || reached == nil:
			t.Fatalf("reached %t, %v", reached != nil, err)
		}
		return reached.Header.Get("X-Client-Id")
	}
	for range 2 {
		for _, test := range []struct {
			leaf  *testpki.Leaf
			ahead time.Duration
			want  string
		}{
			{leaf, 0, "a"}, {stranger, 0, refusedWord}, {nil, 0, "certificate_missing"}, {leaf, 0, "a"},
			{soon, 0, "b"}, {soon, 2 * time.Hour, refusedWord}, {soon, 0, "b"},
		} {
			ahead = test.ahead
			if got := ask(test.leaf); got != test.want {
				t.Errorf("after %v: %q, want %q", ahead, got, test.want)
			}
		}
	}
	// a disabled client is refused even on a session that admitted it
	changed := handler.realm.current.Load().components
	changed.registry = registryOf(t, clients.Record{ClientID: "a", Thumbprints: clients.Strings{testpki.HashOf(leaf.Cert.Raw)}, Disabled: true})
	handler.realm.current.change(func(c *components) { *c = changed })
	if got := ask(leaf); got != refusedWord {
		t.Errorf("disabled: %q", got)
	}
}

// TestPanicAdmitsNobody_E2 checks that a panic while deciding does not let the
// request through, not even with `optional` or `report_only`.
func TestPanicAdmitsNobody_E2(t *testing.T) {
	leaf := testpki.MustSelfSigned(t)
	handlers := provisionHandlers(t, pinnedRealm(leaf, ""), noClients, `"realm":"default"`, `"optional":true`, `"report_only":true`)
	setClock(handlers[0].realm, func() time.Time { panic("out of order") })
	for i, handler := range handlers {
		for range 2 {
			r, repl := newRequest(leaf)
			r.Header.Set("X-Client-Id", "a")
			reached, panicked := (*http.Request)(nil), any(nil)
			recorder := httptest.NewRecorder()
			func() {
				defer func() { panicked = recover() }()
				_ = handler.ServeHTTP(recorder, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
					reached = r
					return nil
				}))
			}()
			if panicked != "out of order" {
				t.Fatalf("directive %d: panic %v, want 'out of order'", i, panicked)
			}
			if reached != nil || recorder.Body.Len() > 0 {
				t.Errorf("directive %d: the upstream was reached: %t, body %q", i, reached != nil, recorder.Body)
			}
			if id, _ := repl.GetString("http.mtls.client_id"); id != "" || r.Header.Get("X-Client-Id") != "" {
				t.Errorf("directive %d: client %q, header %q", i, id, r.Header)
			}
		}
	}
}

// TestDaysLeft checks the bounds: when it is told, and that a day that has begun does not
// count.
func TestDaysLeft(t *testing.T) {
	notice, err := (&CertificateExpiring{Within: caddy.Duration(30 * day)}).compile()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	for left, want := range map[time.Duration]int{
		30*day + 1: -1, 30 * day: 30, 30*day - 1: 29, day: 1, day - 1: 0, 1: 0, 0: 0, -time.Second: 0, 200 * 365 * day: -1,
	} {
		days, told := notice.daysLeft(now.Add(left), now)
		if told != (want >= 0) || told && days != want {
			t.Errorf("with %s left: %d %v, want %d", left, days, told, want)
		}
	}
}

// TestDaysLeftOfALongCertificate checks that nothing is allocated for a certificate that
// has long to go.
func TestDaysLeftOfALongCertificate(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.Validity(time.Now().Add(-time.Hour), time.Now().AddDate(1, 0, 0))).Cert
	expiry := &expiryNotice{30 * day, "A"}
	w := http.ResponseWriter(httptest.NewRecorder())
	if n := testing.AllocsPerRun(100, func() { _ = expiry.withDaysLeft(w, leaf, time.Now) }); n > 0 && !testtool.RaceEnabled {
		t.Errorf("%v allocations", n)
	}
	if len(w.Header()) > 0 {
		t.Errorf("the header is %v", w.Header())
	}
}

// TestDaysLeftIsSentWhicheverWay checks that the upstream's value is replaced by whatever
// sends the header.
func TestDaysLeftIsSentWhicheverWay(t *testing.T) {
	leaf := testpki.MustSelfSigned(t, testpki.Validity(time.Now().Add(-time.Hour), time.Now().Add(time.Hour))).Cert
	expiry := &expiryNotice{30 * day, "A"}
	for name, send := range map[string]func(http.ResponseWriter){
		"WriteHeader": func(w http.ResponseWriter) { w.WriteHeader(http.StatusTeapot) },
		"Write":       func(w http.ResponseWriter) { _, _ = w.Write([]byte("a")) },
		"Flush":       func(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() },
		"after 103": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Add("A", "9")
			w.WriteHeader(http.StatusOK)
		},
	} {
		recorder := httptest.NewRecorder()
		w := expiry.withDaysLeft(recorder, leaf, time.Now)
		w.Header().Add("A", "7")
		send(w)
		if got := recorder.Result().Header["A"]; len(got) != 1 || got[0] != "0" {
			t.Errorf("%s: %q, want 0", name, got)
		}
	}
}

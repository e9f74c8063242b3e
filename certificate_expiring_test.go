package mtlsauth

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

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
	if n := testing.AllocsPerRun(100, func() { _ = expiry.withDaysLeft(w, leaf, time.Now) }); n > 0 && !raceEnabled {
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

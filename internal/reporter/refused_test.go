package reporter

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/clients/directory"
	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// refusing returns a realm whose log can be read, and a refusal with a hint. Its clock
// stands still, so that repetitions are told at the end.
func refusing(t *testing.T) (*Realm, *observer.ObservedLogs, Refused) {
	t.Helper()
	now := time.Now()
	return refusingAt(t, func() time.Time { return now })
}

// refusingAt does so with a clock.
func refusingAt(t *testing.T, now func() time.Time) (*Realm, *observer.ObservedLogs, Refused) {
	t.Helper()
	directory, err := directory.New(t.Context(), directory.Config{Records: []clients.Record{{ClientID: "a", Thumbprints: clients.Strings{testpki.SomeSHA256}}}})
	if err != nil {
		t.Fatal(err)
	}
	core, logs := observer.New(zap.WarnLevel)
	logger := zap.New(core)
	authenticator := authn.New(authn.Config{Registry: directory.Registry(), Now: time.Now})
	realm := &Realm{
		Name: "default", Logger: logger.With(zap.String("realm", "default")), Reporter: New(Config{Logger: logger, Now: now}),
		Memory:        refusals.NewMemory(refusals.Limits{}),
		Authenticator: func() *authn.Authenticator { return authenticator },
		WhyUnknown:    func(validators.Reason) string { return "" },
		Count:         func(*refusals.Record) {},
	}
	refusal := &validators.Refusal{Reason: validators.CertificateUnknown, Detail: "nobody"}
	return realm, logs, Refused{Message: "client refused", Refusal: refusal, Presented: testpki.MustSelfSigned(t).Presented(), ErrorID: "x"}
}

// TestRefusalLogNeverWaits checks that nothing blocks while the queue is full, that the
// request path describes nothing, and that the log says how many refusals of the caller
// were counted or dropped.
func TestRefusalLogNeverWaits(t *testing.T) {
	realm, logs, refused := refusing(t)
	r := httptest.NewRequest(http.MethodGet, "https://api.test/", nil)
	for range maxQueuedRefusals + 5 {
		realm.Add(r, refused)
	}
	waiting := realm.Reporter.queues[refusals.WithCertificate].waiting
	first := <-waiting
	if logs.Len() > 0 || first.Notes.Made(nil, first.Refusal) {
		t.Fatal("the request path wrote a log line or described a certificate")
	}
	waiting <- first
	go realm.Reporter.Run()
	realm.Reporter.Close(t.Context())
	if n := logs.FilterMessage("client refused").Len(); n != 1 {
		t.Errorf("%d refusals of one caller have a line, want 1", n)
	}
	repeated := logs.FilterMessage("refusal repeated").All()
	if len(repeated) != 1 || repeated[0].ContextMap()["times"] != int64(maxQueuedRefusals-1) {
		t.Errorf("repeated: %v, want one line that counts %d", repeated, maxQueuedRefusals-1)
	}
	if dropped := realm.Reporter.Dropped(); dropped != 5 {
		t.Errorf("%d are dropped, want 5", dropped)
	}
	dropped := logs.FilterMessage("too many refusals at once; some were not logged").All()
	if len(dropped) != 1 || dropped[0].ContextMap()["dropped"] != int64(5) {
		t.Errorf("dropped: %v", dropped)
	}
	for _, line := range logs.FilterMessage("client refused").All() {
		if now := realm.Reporter.config.Now(); !line.Time.Equal(now) {
			t.Fatalf("the line has time %s, want %s", line.Time, now)
		}
	}
}

// TestRefusalLogAfterStop checks that close writes queued lines, and that later
// ones are written at once, without a hint.
func TestRefusalLogAfterStop(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.Reporter.Run()
	realm.Add(nil, refused)
	realm.Reporter.Close(t.Context())
	realm.Add(nil, refused)
	lines := logs.FilterMessage("client refused").All()
	if len(lines) != 2 {
		t.Fatalf("%d lines", len(lines))
	}
	for i, want := range []bool{true, false} {
		fields := lines[i].ContextMap()
		if _, got := fields["register"]; got != want || fields["error_id"] != "x" || fields["realm"] != "default" || fields["thumbprint"] == "" {
			t.Errorf("line %d: %v", i, fields)
		}
	}
	realm.Add(nil, Refused{Message: "request refused", Refusal: refused.Refusal, Failed: true})
	if line := logs.FilterMessage("request refused").All(); len(line) != 1 || line[0].Level != zap.ErrorLevel {
		t.Errorf("logged: %v", line)
	}
}

// TestRefusalLogSurvivesAPanic_E2 checks that a panic over a certificate ends
// neither the process nor the log, and that its error id is found.
func TestRefusalLogSurvivesAPanic_E2(t *testing.T) {
	realm, logs, refused := refusing(t)
	broken := refused
	broken.Presented, broken.ErrorID = []*x509.Certificate{{}}, "broken" // without a serial number
	go realm.Reporter.Run()
	realm.Add(nil, broken)
	realm.Add(nil, refused)
	realm.Reporter.Close(t.Context())
	if logs.FilterMessage("certificate of a refusal could not be described").Len() != 1 || logs.FilterMessage("client refused").Len() != 2 {
		t.Errorf("logged: %v", logs.All())
	}
	if record, found := realm.Memory.Find("broken"); !found || record.Certificate != nil || record.Reason != "certificate_unknown" {
		t.Errorf("remembered: %v, %v", record, found)
	}
}

// TestRefusalLogLineIsBounded_S3 checks that a line has at most 4 KiB, whatever the
// caller chooses.
func TestRefusalLogLineIsBounded_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.Reporter.Run()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, filler := range []string{"a", `"`, "\x00", "\xff", "\u2028", "\U0010ffff"} {
		long := strings.Repeat(filler, 64<<10)
		var names []string
		for range 256 {
			names = append(names, strings.Repeat("n", 200))
		}
		subject := testpki.CommonName(strings.ToValidUTF8(long[:len(filler)*500], "?"))
		refused := refused
		refused.Presented = testpki.MustSelfSigned(t, subject, testpki.DNSNames(names...)).Presented()
		refused.ClientID, refused.Refusal = long, &validators.Refusal{Reason: validators.CertificateUnknown, Detail: long}
		r := httptest.NewRequest(http.MethodGet, "https://api.test/", nil)
		r.Host, r.URL, r.Header = long, &url.URL{Path: "/" + long}, http.Header{"User-Agent": {long}, "Referer": {long}}
		realm.Add(r, refused)
	}
	realm.Reporter.Close(t.Context())
	if logs.Len() != 6 {
		t.Fatalf("%d lines", logs.Len())
	}
	for _, line := range logs.All() {
		encoded, err := encoder.EncodeEntry(line.Entry, line.Context)
		if err != nil {
			t.Fatal(err)
		}
		if encoded.Len() > 4<<10 {
			t.Errorf("a line of %d octets: %.300s", encoded.Len(), encoded)
		}
		if !json.Valid(encoded.Bytes()) || line.ContextMap()["thumbprint"] == nil {
			t.Errorf("logged: %s", encoded)
		}
	}
}

// TestRefusalLogKeepsFewOctets_S3 checks that few certificates wait in the queue, and
// none for which the fields of the line are known.
func TestRefusalLogKeepsFewOctets_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	large := *refused.Presented[0]
	large.Raw = append(large.Raw, make([]byte, 60<<10)...)
	refused.Presented = []*x509.Certificate{&large}
	for range maxQueuedRefusals {
		realm.Add(nil, refused)
	}
	octets := &realm.Reporter.queues[refusals.WithCertificate].octets
	if got := octets.Load(); got > maxQueuedOctets || got < maxQueuedOctets/2 {
		t.Errorf("%d octets are queued, at most %d may be", got, maxQueuedOctets)
	}
	go realm.Reporter.Run()
	realm.Reporter.Close(t.Context())
	if got := octets.Load(); got != 0 {
		t.Errorf("%d octets are left", got)
	}
	if logs.FilterMessage("too many refusals at once; some were not logged").Len() != 1 {
		t.Error("what was dropped is not counted")
	}

	authenticator := realm.Authenticator()
	id, refusal, _ := authenticator.Decide(t.Context(), refused.Presented, "")
	id.Notes.Describe(authenticator, refused.Presented, refusal)
	again := Refused{Refusal: refusal, Presented: refused.Presented, Notes: id.Notes, realm: realm}
	if again.keepPresented(); again.Presented != nil || again.octets != 0 {
		t.Error("certificates are kept, though the line needs none")
	}
}

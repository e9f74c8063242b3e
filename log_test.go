package mtlsauth

import (
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// refusing returns a realm whose log can be read, and a refusal with a hint.
func refusing(t *testing.T) (*Realm, *observer.ObservedLogs, refusedRequest) {
	t.Helper()
	app := provisionRealm(t, `{"clients":[{"client_id":"a","x509_thumbprints":"`+testpki.SomeSHA256+`"}]}`)
	core, logs := observer.New(zap.WarnLevel)
	app.logger = zap.New(core)
	app.Realms[defaultRealm].logger = app.logger.With(zap.String("realm", defaultRealm))
	refusal := &validators.Refusal{Reason: validators.CertificateUnknown, Detail: "nobody"}
	return app.Realms[defaultRealm], logs, refusedRequest{message: "client refused", refusal: refusal, presented: testpki.MustSelfSigned(t).Presented(), errorID: "x"}
}

// TestRefusalLogNeverWaits checks that nothing blocks while the queue is full, that the
// request path describes nothing, and that the log says how many refusals of the caller
// were counted or dropped.
func TestRefusalLogNeverWaits(t *testing.T) {
	realm, logs, refused := refusing(t)
	r, _ := newRequest(nil)
	start := time.Now()
	for range maxQueuedRefusals + 5 {
		logRefusal(realm, r, refused)
	}
	waiting := realm.app.refusals.queues[refusals.WithCertificate].waiting
	first := <-waiting
	if logs.Len() > 0 || first.notes.Made(nil, first.refusal) {
		t.Fatal("the request path wrote a log line or described a certificate")
	}
	waiting <- first
	end := time.Now()
	go realm.app.refusals.run()
	realm.app.refusals.close(t.Context())
	if n := logs.FilterMessage("client refused").Len(); n != 1 {
		t.Errorf("%d refusals of one caller have a line, want 1", n)
	}
	repeated := logs.FilterMessage("refusal repeated").All()
	if len(repeated) != 1 || repeated[0].ContextMap()["times"] != int64(maxQueuedRefusals-1) {
		t.Errorf("repeated: %v, want one line that counts %d", repeated, maxQueuedRefusals-1)
	}
	if dropped := realm.app.refusals.Dropped(); dropped != 5 {
		t.Errorf("%d are dropped, want 5", dropped)
	}
	dropped := logs.FilterMessage("too many refusals at once; some were not logged").All()
	if len(dropped) != 1 || dropped[0].ContextMap()["dropped"] != int64(5) {
		t.Errorf("dropped: %v", dropped)
	}
	for _, line := range logs.FilterMessage("client refused").All() {
		if line.Time.Before(start) || line.Time.After(end) {
			t.Fatalf("the line has time %s, want %s to %s", line.Time, start, end)
		}
	}
}

// TestRefusalLogAfterStop checks that close writes queued lines, and that later
// ones are written at once, without a hint.
func TestRefusalLogAfterStop(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.app.refusals.run()
	logRefusal(realm, nil, refused)
	realm.app.refusals.close(t.Context())
	logRefusal(realm, nil, refused)
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
	logRefusal(realm, nil, refusedRequest{message: "request refused", refusal: refused.refusal, failed: true})
	if line := logs.FilterMessage("request refused").All(); len(line) != 1 || line[0].Level != zap.ErrorLevel {
		t.Errorf("logged: %v", line)
	}
}

// TestRefusalLogSurvivesAPanic_E2 checks that a panic over a certificate ends
// neither the process nor the log, and that its error id is found.
func TestRefusalLogSurvivesAPanic_E2(t *testing.T) {
	realm, logs, refused := refusing(t)
	broken := refused
	broken.presented, broken.errorID = []*x509.Certificate{{}}, "broken" // without a serial number
	go realm.app.refusals.run()
	logRefusal(realm, nil, broken)
	logRefusal(realm, nil, refused)
	realm.app.refusals.close(t.Context())
	if logs.FilterMessage("certificate of a refusal could not be described").Len() != 1 || logs.FilterMessage("client refused").Len() != 2 {
		t.Errorf("logged: %v", logs.All())
	}
	if record, found := realm.memory.refusals.Find("broken"); !found || record.Certificate != nil || record.Reason != "certificate_unknown" {
		t.Errorf("remembered: %v, %v", record, found)
	}
}

// TestRefusalLogLineIsBounded_S3 checks that a line has at most 4 KiB, whatever the
// caller chooses.
func TestRefusalLogLineIsBounded_S3(t *testing.T) {
	realm, logs, refused := refusing(t)
	go realm.app.refusals.run()
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	for _, filler := range []string{"a", `"`, "\x00", "\xff", "\u2028", "\U0010ffff"} {
		long := strings.Repeat(filler, 64<<10)
		var names []string
		for range 256 {
			names = append(names, strings.Repeat("n", 200))
		}
		subject := testpki.CommonName(strings.ToValidUTF8(long[:len(filler)*500], "?"))
		refused := refused
		refused.presented = testpki.MustSelfSigned(t, subject, testpki.DNSNames(names...)).Presented()
		refused.clientID, refused.refusal = long, &validators.Refusal{Reason: validators.CertificateUnknown, Detail: long}
		r, _ := newRequest(nil)
		r.Host, r.URL, r.Header = long, &url.URL{Path: "/" + long}, http.Header{"User-Agent": {long}, "Referer": {long}}
		logRefusal(realm, r, refused)
	}
	realm.app.refusals.close(t.Context())
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
	large := *refused.presented[0]
	large.Raw = append(large.Raw, make([]byte, 60<<10)...)
	refused.presented = []*x509.Certificate{&large}
	for range maxQueuedRefusals {
		logRefusal(realm, nil, refused)
	}
	octets := &realm.app.refusals.queues[refusals.WithCertificate].octets
	if got := octets.Load(); got > maxQueuedOctets || got < maxQueuedOctets/2 {
		t.Errorf("%d octets are queued, at most %d may be", got, maxQueuedOctets)
	}
	go realm.app.refusals.run()
	realm.app.refusals.close(t.Context())
	if got := octets.Load(); got != 0 {
		t.Errorf("%d octets are left", got)
	}
	if logs.FilterMessage("too many refusals at once; some were not logged").Len() != 1 {
		t.Error("what was dropped is not counted")
	}

	id, refusal := realm.authenticate(t.Context(), refused.presented, "")
	id.Notes.Describe(realm.authenticator(), refused.presented, refusal)
	again := refusedRequest{refusal: refusal, presented: refused.presented, notes: id.Notes, realm: realm}
	if again.keepPresented(); again.presented != nil || again.octets != 0 {
		t.Error("certificates are kept, though the line needs none")
	}
}

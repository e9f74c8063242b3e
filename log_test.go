package mtlsauth

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestLoggedNamesAreEscapedAndFew_E3 checks that alternative names are logged as an
// operator would declare them, escaped and limited in number.
func TestLoggedNamesAreEscapedAndFew_E3(t *testing.T) {
	for want, options := range map[string][]testpki.Option{
		"": nil,
		"san_dns a.example|san_email x@a.example|san_ip 192.0.2.1|san_uri spiffe://a.example/b": {
			testpki.DNSNames("a.example"), testpki.Emails("x@a.example"), testpki.IPs(net.IPv4(192, 0, 2, 1)), testpki.URIs("spiffe://a.example/b"),
		},
		`san_dns a\n\x1b[1m.example`: {testpki.Extension(pkix.Extension{
			Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: append([]byte{0x30, 16, 0x82, 14}, "a\n\x1b[1m.example"...),
		})},
		strings.Repeat("san_dns x.example|", maxLoggedNames) + "…": {testpki.DNSNames(strings.Fields(strings.Repeat("x.example ", 100))...)},
	} {
		leaf := testpki.MustSelfSigned(t, options...)
		if got := strings.Join(loggedNames(leaf.Cert), "|"); got != want {
			t.Errorf("logged %q, want %q", got, want)
		}
	}
}

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

// TestRefusalLogNeverWaits checks that nothing blocks while the queue is full, and
// that the log says how many lines were dropped.
func TestRefusalLogNeverWaits(t *testing.T) {
	realm, logs, refused := refusing(t)
	r, _ := newRequest(nil)
	start := time.Now()
	for range maxQueuedRefusals + 5 {
		logRefusal(realm, r, refused)
	}
	if logs.Len() > 0 {
		t.Fatal("the request path wrote a log line")
	}
	end := time.Now()
	go realm.app.refusals.run(realm.app.logger)
	realm.app.refusals.close(t.Context())
	if n := logs.FilterMessage("client refused").Len(); n != maxQueuedRefusals {
		t.Errorf("%d refusals are logged, want %d", n, maxQueuedRefusals)
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
	go realm.app.refusals.run(realm.app.logger)
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
// neither the process nor the log.
func TestRefusalLogSurvivesAPanic_E2(t *testing.T) {
	realm, logs, refused := refusing(t)
	broken := refused
	broken.presented = []*x509.Certificate{nil}
	go realm.app.refusals.run(realm.app.logger)
	logRefusal(realm, nil, broken)
	logRefusal(realm, nil, refused)
	realm.app.refusals.close(t.Context())
	if logs.FilterMessage("refusal could not be logged").Len() != 1 || logs.FilterMessage("client refused").Len() != 1 {
		t.Errorf("logged: %v", logs.All())
	}
}

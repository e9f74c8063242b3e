package authn

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"net"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
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

// jsonSize returns the octets of a string field, without quotes, as zap writes it.
func jsonSize(t *testing.T, text string) int {
	t.Helper()
	encoder := zapcore.NewJSONEncoder(zapcore.EncoderConfig{})
	line, err := encoder.EncodeEntry(zapcore.Entry{}, []zap.Field{zap.String("x", text)})
	if err != nil || !json.Valid(line.Bytes()) {
		t.Fatalf("%v: %q", err, line)
	}
	return len(strings.TrimSpace(line.String())) - len(`{"x":""}`)
}

func FuzzLogText(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string, most uint8) {
		got := LogText(text, int(most))
		if size := jsonSize(t, got); size > int(most) && size > len("…") {
			t.Errorf("%q has %d octets, want %d", got, size, most)
		}
		if cut, isCut := strings.CutSuffix(got, "…"); got != text && (!isCut || !strings.HasPrefix(text, cut)) {
			t.Errorf("%q became %q", text, got)
		}
		if utf8.ValidString(text) && !utf8.ValidString(got) {
			t.Errorf("%q was cut within a character", text)
		}
		if jsonSize(t, text) <= int(most) && got != text {
			t.Errorf("%q was cut without need", text)
		}
	})
}

// TestNotesAreMadeOnce_S3 checks that a repeated refusal formats nothing, whatever the
// reason is, and that hints belong to the refusal of the certificate alone.
func TestNotesAreMadeOnce_S3(t *testing.T) {
	ca := testpki.MustCA(t)
	now := time.Now()
	off := named("off", "CN=off,O=company")
	off.Disabled = true
	auth := newTestAuthenticator(t, testenv.NewClockAt(now), []*testpki.CA{ca}, off)
	for name, test := range map[string]struct {
		leaf *testpki.Leaf
		want bool // to register it
	}{
		"untrusted": {testpki.MustSelfSigned(t, testpki.DNSNames("a.example")), true},
		"unknown":   {testpki.MustIssue(t, ca, testpki.DNSNames("a.example")), true},
		"expired":   {testpki.MustSelfSigned(t, testpki.DNSNames("a.example"), testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))), false},
		"disabled":  {testpki.MustIssue(t, ca, company("off"), testpki.DNSNames("a.example")), false},
	} {
		presented := test.leaf.Presented()
		id, refusal, _ := auth.Decide(context.Background(), presented, "")
		if id.Notes.Made(auth, refusal) {
			t.Errorf("%s: the notes are there before they are made", name)
		}
		certificate, hints := id.Notes.Describe(auth, presented, refusal)
		if got := hints.Register != ""; got != test.want || len(certificate.Names) == 0 {
			t.Errorf("%s: to be registered %v, want %v; %v", name, got, test.want, certificate)
		}
		again, refusal, _ := auth.Decide(context.Background(), presented, "")
		if again.Notes != id.Notes || !again.Notes.Made(auth, refusal) {
			t.Errorf("%s: the notes are not kept", name)
		}
		if c, h := again.Notes.Describe(auth, nil, refusal); c != certificate || h != hints {
			t.Errorf("%s: %v, then %v", name, hints, h)
		}
		other := &validators.Refusal{Reason: "token_malformed"}
		if c, h := again.Notes.Describe(auth, nil, other); c != certificate || h != (Hints{}) {
			t.Errorf("%s: the refusal of a token has the hints %v", name, h)
		}
	}
}

// TestTooManyPresented_S3 checks that more than 64 KiB of certificates are refused,
// even behind a pinned one, and that nothing is kept about them.
func TestTooManyPresented_S3(t *testing.T) {
	pin := testpki.MustSelfSigned(t)
	ca := testpki.MustCA(t)
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, pinned("pin", pin), named("name", "CN=client,O=company"))
	for client, leaf := range map[string]*testpki.Leaf{"pin": pin, "name": testpki.MustIssue(t, ca, company("client"))} {
		presented := leaf.Presented()
		for validators.PresentedSize(presented)+len(ca.Cert.Raw) <= 64<<10 {
			presented = append(presented, ca.Cert)
		}
		if got := auth.ask(presented, ""); got != client {
			t.Errorf("64 KiB: %s, want %s", got, client)
		}
		id, refusal, remembered := auth.Decide(context.Background(), append(presented, ca.Cert), "")
		if refusal == nil || refusal.Reason != validators.CertificateUnsuitable || remembered || id != (Identity{}) ||
			!strings.Contains(refusal.Detail, "at most 65536 bytes") {
			t.Errorf("more: %v, %v", id, refusal)
		}
	}
	if n := len(auth.refused.verdicts()); n != 0 {
		t.Errorf("%d refusals are remembered", n)
	}
}

// TestOwnerOfARefusedCertificate checks that a refusal names the client whose certificate
// it is, also once that has expired, and that a certificate with its name alone does not
// count as its.
func TestOwnerOfARefusedCertificate(t *testing.T) {
	ca, now := testpki.MustCA(t), time.Now()
	over := testpki.Validity(now.Add(-50*time.Minute), now.Add(-time.Minute))
	off := named("off", "CN=off,O=company")
	off.Disabled = true
	auth := newTestAuthenticator(t, testenv.NewClockAt(now), []*testpki.CA{ca}, off, named("on", "CN=on,O=company"))
	for name, test := range map[string]struct {
		leaf     *testpki.Leaf
		clientID string
		want     string
	}{
		"expired":                 {testpki.MustIssue(t, ca, company("on"), over), "", "on"},
		"disabled":                {testpki.MustIssue(t, ca, company("off")), "", "off"},
		"names another client":    {testpki.MustIssue(t, ca, company("on")), "off", "on"},
		"expired, not of this CA": {testpki.MustSelfSigned(t, company("on"), over), "", ""},
		"not of this CA":          {testpki.MustSelfSigned(t, company("on")), "", ""},
		"expired, and of nobody":  {testpki.MustIssue(t, ca, company("nobody"), over), "", ""},
		"of this CA, and unknown": {testpki.MustIssue(t, ca, company("nobody")), "", ""},
	} {
		presented := test.leaf.Presented()
		id, refusal, _ := auth.Decide(context.Background(), presented, test.clientID)
		if refusal == nil {
			t.Fatalf("%s: it is admitted", name)
		}
		for _, given := range [][]*x509.Certificate{presented, nil} { // later, they are gone
			if got := id.Notes.Owner(auth, given, refusal); got != test.want {
				t.Errorf("%s: the owner is %q, want %q", name, got, test.want)
			}
		}
		if got := id.Notes.Owner(nil, presented, refusal); got != "" {
			t.Errorf("%s: without an authenticator, the owner is %q", name, got)
		}
	}
}

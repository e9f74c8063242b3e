package ops_test

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/caddymtls/caddy-mtls-auth/internal/refusals"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// refusingSites have everything that refuses.
const refusingSites = rig.IssuerSite + `
https://api.test:@HTTPS@ {
	import mtls
	handle /report* {
		mtls_auth {
			report_only
		}
		reverse_proxy @UP@
	}
	handle {
		mtls_auth
		reverse_proxy @UP@
	}
}

https://other.test:@HTTPS@ {
	import mtls
	mtls_bearer
	reverse_proxy @UP@
}

https://alias.test:@HTTPS@ {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			mode request
			verifier mtls
		}
	}
	respond ok
}
`

// startRefusing starts Caddy with these sites, a clock and the admin endpoint.
func startRefusing(t *testing.T) (*rig.Rig, *rig.Clock) {
	t.Helper()
	r, clock := rig.New(t), rig.NewClock(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.AdminOn = true
	r.Start(rig.ClockRealmOf(t), refusingSites)
	return r, clock
}

// adminRefusal is the answer about one refusal.
type adminRefusal struct {
	refusals.Record
	Sentence, Remedy string
}

// ask asks the admin endpoint, and fails the test if the answer is hostile.
func ask[T any](r *rig.Rig, t *testing.T, path string, status int) (answer T) {
	t.Helper()
	got, text := rig.Ask(r, t, http.MethodGet, path, "")
	if got != status {
		t.Fatalf("GET %.100s: %d %.300q, want %d", path, got, text, status)
	}
	if i := strings.IndexFunc(strings.TrimSuffix(text, "\n"), func(r rune) bool { return !unicode.IsPrint(r) || r == '<' }); i >= 0 {
		t.Errorf("GET %.100s: the answer has %q", path, text[i:min(i+20, len(text))])
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil {
		t.Fatalf("%v: %.300q", err, text)
	}
	return answer
}

func latest(r *rig.Rig, t *testing.T, query string) []refusals.Record {
	t.Helper()
	return ask[struct{ Refusals []refusals.Record }](r, t, "/mtls/refusals"+query, http.StatusOK).Refusals
}

func strangersOf(r *rig.Rig, t *testing.T) []refusals.Stranger {
	t.Helper()
	return ask[struct{ Strangers []refusals.Stranger }](r, t, "/mtls/realms/default/strangers", http.StatusOK).Strangers
}

// TestErrorIDLeadsToTheRefusal checks that the error id that a caller gets from each
// directive is that of the log line and of what is remembered, and that refusals whose
// callers get none have one, too.
func TestErrorIDLeadsToTheRefusal(t *testing.T) {
	r, _ := startRefusing(t)
	for _, protocol := range rig.Protocols {
		auth, issuer, bearer, report, verifier := r.SelfSigned("a"+protocol), r.SelfSigned("i"+protocol), r.SelfSigned("b"+protocol), r.SelfSigned("r"+protocol), r.SelfSigned("v"+protocol)
		got := r.Caller(t, protocol, auth).Get("https://api.test/some/path")
		token := r.Caller(t, protocol, issuer).Do(http.MethodPost, "https://auth.test/connect/token", rig.Form("billing.partner"))
		admitted := r.Caller(t, protocol, bearer).Get("https://other.test/", rig.Bearer("no.good.token"))
		r.Caller(t, protocol, report).Get("https://api.test/report").WantStatus(t, http.StatusOK)
		if got, err := r.Caller(t, protocol, verifier).Try(http.MethodGet, "https://alias.test/"); err == nil {
			t.Errorf("the verifier let a stranger in: %d", got.Status)
		}
		own := func(directive string, leaf *testpki.Leaf) string {
			entries := rig.WaitForRefusals(t, 1, func(e rig.LogEntry) bool {
				return e.Str("directive") == directive && e.Str("thumbprint") == testpki.HashOf(leaf.Cert.Raw)
			})
			return entries[0].Str("error_id")
		}
		for _, want := range []struct {
			id, directive, message, reason string
			leaf                           *testpki.Leaf
			host                           string
			reportOnly                     bool
		}{
			{got.ErrorID, "mtls_auth", "client refused", "certificate_untrusted", auth, "api.test", false},
			{token.ErrorID, "mtls_issuer", "client refused", "certificate_untrusted", issuer, "auth.test", false},
			{admitted.ErrorID, "mtls_bearer", "token refused", "token_malformed", bearer, "other.test", false},
			{own("mtls_auth", report), "mtls_auth", "client would be refused", "certificate_untrusted", report, "api.test", true},
			{own("verifier", verifier), "verifier", "client refused in the handshake", "certificate_untrusted", verifier, "", false},
		} {
			line := r.Logs.WithErrorID(t, want.message, want.id)
			answer := ask[adminRefusal](r, t, "/mtls/refusals/"+want.id, http.StatusOK)
			if line.Str("reason") != want.reason || answer.Reason != want.reason || answer.Directive != want.directive || answer.ErrorID != want.id || answer.ReportOnly != want.reportOnly || !strings.HasPrefix(answer.Host, want.host) {
				t.Errorf("%s: the line is %v, the answer %+v, want %+v", protocol, line, answer, want)
			}
			if answer.Certificate == nil || answer.Certificate.Thumbprint != testpki.HashOf(want.leaf.Cert.Raw) || answer.Certificate.PublicKey != testpki.HashOf(want.leaf.Cert.RawSubjectPublicKeyInfo) || !answer.Certificate.NotAfter.Equal(want.leaf.Cert.NotAfter) {
				t.Errorf("%s: the certificate is %+v", protocol, answer.Certificate)
			}
			if answer.Sentence == "" || answer.Remedy == "" || strings.Contains(answer.Remedy, "](") || answer.At.IsZero() || answer.Times != 1 {
				t.Errorf("%s: the answer is %+v", protocol, answer)
			}
			if registers := strings.Contains(answer.Register, answer.Certificate.Thumbprint); registers != (want.directive != "mtls_bearer") {
				t.Errorf("%s %s: the block is %q", protocol, want.directive, answer.Register)
			}
		}
		if list := latest(r, t, "?reason=token_malformed&realm=default&since=1h&limit=1"); len(list) != 1 || list[0].ErrorID != admitted.ErrorID {
			t.Errorf("%s: listed: %+v", protocol, list)
		}
	}
	list := latest(r, t, "")
	if !slices.IsSortedFunc(list, func(a, b refusals.Record) int { return b.At.Compare(a.At) }) {
		t.Errorf("not the newest first: %+v", list)
	}
	// a client whose handshake is refused may try again
	list = slices.DeleteFunc(list, func(record refusals.Record) bool { return record.Directive == "verifier" })
	if len(list) != 12 {
		t.Errorf("%d refusals are listed besides those of the verifier: %+v", len(list), list)
	}
	if n := len(strangersOf(r, t)); n != 12 { // nobody has looked at the certificates that came with tokens
		t.Errorf("%d strangers, want 12", n)
	}
}

// TestRefusalsSurviveAReload checks that a reload forgets no refusal, that one which fails
// changes nothing, and that keep_for counts from the reload on.
func TestRefusalsSurviveAReload(t *testing.T) {
	r, clock := startRefusing(t)
	c := r.Caller(t, "h2", r.SelfSigned("stranger"))
	first := c.Get("https://api.test/").ErrorID
	rig.Refusal(t, first)
	short := strings.Replace(rig.ClockRealmOf(t), "client billing.partner", "refusals {\nkeep 2\nkeep_for 10m\n}\nclient billing.partner", 1)
	if err := r.Load(strings.Replace(short, "client billing.partner", "client billing.partner {\nsubject x\n}\nclient billing.partner", 1), refusingSites); err == nil {
		t.Fatal("a wrong configuration was loaded")
	}
	taken := "\nhttp://" + r.Upstream.Address + " {\n\tbind 127.0.0.1\n\trespond ok\n}\n"
	for range 4 { // apps start in a random order
		if err := r.Load(short, refusingSites+taken); err == nil {
			t.Fatal("the configuration loads")
		}
	}
	if answer := ask[struct{ Error string }](r, t, "/mtls/refusals/never", http.StatusNotFound); !strings.Contains(answer.Error, "the last 10000 for 24h") {
		t.Errorf("after loads that failed: %q", answer.Error)
	}
	clock.Advance(30 * time.Minute)
	if found := ask[adminRefusal](r, t, "/mtls/refusals/"+first, http.StatusOK); found.ErrorID != first {
		t.Errorf("found %+v", found)
	}
	r.Reload(rig.ClockRealmOf(t)+"\n# changed", refusingSites)
	ask[adminRefusal](r, t, "/mtls/refusals/"+first, http.StatusOK)
	r.Reload(short, refusingSites)
	answer := ask[struct{ Error string }](r, t, "/mtls/refusals/"+first, http.StatusNotFound)
	if want := fmt.Sprintf(`no refusal with the error id %q is remembered; each node remembers its own refusals since it was started, realm 'default' the last 2 for 10m; search the logs of all nodes for it`, first); answer.Error != want {
		t.Errorf("the error is %q, want %q", answer.Error, want)
	}
	var last rig.Reply
	for range 3 {
		last = r.Caller(t, "h1", r.SelfSigned("other")).Get("https://api.test/")
		rig.Refusal(t, last.ErrorID)
	}
	if list := latest(r, t, "?since=5m"); len(list) != 2 || list[0].ErrorID != last.ErrorID || len(strangersOf(r, t)) != 3 {
		t.Errorf("remembered: %+v", list)
	}
	clock.Advance(11 * time.Minute)
	if list := latest(r, t, ""); len(list) != 0 || len(strangersOf(r, t)) != 0 {
		t.Errorf("remembered after keep_for: %+v", list)
	}
}

// TestRepeatedRefusalsAreFolded checks that the log counts the repetitions of a caller each
// minute and, at the latest, when the configuration ends.
func TestRepeatedRefusalsAreFolded(t *testing.T) {
	r, clock := startRefusing(t)
	clock.Freeze()
	stranger := r.SelfSigned("stranger")
	refuse := func(n int) (id string) {
		for i := range n {
			id = r.Caller(t, rig.Protocols[i%3], stranger).Get("https://api.test/").ErrorID
			rig.Refusal(t, id)
		}
		return id
	}
	counted := func(n int) rig.LogEntry {
		return r.Logs.WaitFor(t, n, "the count", func(e rig.LogEntry) bool { return e.Str("msg") == "refusal repeated" })[n-1]
	}
	refuse(3)
	clock.Advance(50 * time.Second)
	last := refuse(1)
	clock.Advance(15 * time.Second)
	count := counted(1)
	if count["times"] != 3.0 || count.Str("error_id") != last || count.Str("refused") != "client refused" || count.Str("thumbprint") != testpki.HashOf(stranger.Cert.Raw) || count.Str("remote_ip") != "127.0.0.1" || count.Str("level") != "warn" {
		t.Errorf("the count is %v, want the error id %s", count, last)
	}
	last = refuse(2)
	r.Reload(rig.ClockRealmOf(t)+"\n# changed", refusingSites)
	if count = counted(2); count["times"] != 2.0 || count.Str("error_id") != last {
		t.Errorf("the count at the end is %v, want the error id %s", count, last)
	}
	if found := ask[adminRefusal](r, t, "/mtls/refusals/"+last, http.StatusOK); found.Times != 6 {
		t.Errorf("%d times, want 6", found.Times)
	}
	if lines := r.Logs.All(func(e rig.LogEntry) bool { return e.Str("msg") == "client refused" }); len(lines) != 1 {
		t.Errorf("%d lines, want 1", len(lines))
	}
}

// TestRegisteredStrangersLeaveTheList checks that a stranger is not one any more once a
// client declares its certificate, or its name and it has been admitted.
func TestRegisteredStrangersLeaveTheList(t *testing.T) {
	r, _ := startRefusing(t)
	pinned, named := r.SelfSigned("pinned"), r.Issue("partner")
	for _, leaf := range []*testpki.Leaf{pinned, named} {
		for range 2 {
			rig.Refusal(t, r.Caller(t, "h2", leaf).Get("https://api.test/").ErrorID)
		}
	}
	list := strangersOf(r, t)
	if len(list) != 2 || list[0].Thumbprint != testpki.HashOf(named.Cert.Raw) || list[0].Times != 2 || list[1].Register == "" || list[1].RemoteIP != "127.0.0.1" {
		t.Fatalf("strangers: %+v", list)
	}
	block := strings.Replace(list[1].Register, "CHANGE-ME", "newcomer", 1) + "\nclient partner {\nsubject CN=partner\n}\nclient billing.partner"
	r.Reload(strings.Replace(rig.ClockRealmOf(t), "client billing.partner", block, 1), refusingSites)
	if list = strangersOf(r, t); len(list) != 1 || list[0].Thumbprint != testpki.HashOf(named.Cert.Raw) {
		t.Errorf("after one was declared: %+v", list)
	}
	r.Caller(t, "h2", named).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "partner")
	r.Caller(t, "h2", pinned).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "newcomer")
	if list = strangersOf(r, t); len(list) != 0 {
		t.Errorf("after both were admitted: %+v", list)
	}
}

// TestHostileNamesInRefusals_S3 checks that what strangers choose is escaped and bounded in
// the log, in lists and in the answer about one refusal.
func TestHostileNamesInRefusals_S3(t *testing.T) {
	r, _ := startRefusing(t)
	for name, text := range map[string]string{
		"html": `<script>alert("1")</script>`, "terminal": "\x1b]0;owned\x07\x1b[31m", "lines": "a\nlevel=error\r\nb", "bidi": "abc\u202egnp.exe\u2066", "separators": "a\u2028b\u0085c\ufeff", "long": strings.Repeat("Ł", 2048),
	} {
		leaf := testpki.MustSelfSigned(t, testpki.CommonName(text), testpki.Emails("x@a.example"))
		got := r.Caller(t, "h1", leaf).Get("https://api.test/"+strings.NewReplacer("\x1b", "%1b", "\n", "%0a", "\r", "%0d", "\x07", "%07", "<", "%3c", ">", "%3e", `"`, "%22").Replace(text), rig.With("User-Agent", "x"))
		entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID)
		if _, ok := entry["ts"]; !ok {
			t.Errorf("%s: has no line: %v", name, entry)
		}
		size := 0
		for field, value := range entry {
			shown := fmt.Sprint(value)
			size += len(field) + len(shown)
			if field != "register" && strings.ContainsFunc(shown, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%s: %s is %q", name, field, shown)
			}
		}
		if size > 4<<10 {
			t.Errorf("%s: the line has %d characters", name, size)
		}
		answer := ask[adminRefusal](r, t, "/mtls/refusals/"+got.ErrorID, http.StatusOK)
		if text, _ := json.Marshal(answer.Record); len(text) > 5<<10 || answer.Certificate.Subject == "" {
			t.Errorf("%s: %d octets are remembered: %s", name, len(text), text)
		}
	}
	if list, strangers := latest(r, t, ""), strangersOf(r, t); len(list) != 6 || len(strangers) != 6 {
		t.Errorf("%d refusals, %d strangers", len(list), len(strangers))
	}
}

// TestBadRequestsForRefusals_S3 checks the answers about error ids that never were, and
// about parameters that are wrong.
func TestBadRequestsForRefusals_S3(t *testing.T) {
	r, _ := startRefusing(t)
	for path, want := range map[string]struct {
		status int
		text   string
	}{
		"/mtls/refusals/never":                          {404, `realm 'default' the last 10000 for 24h; search the logs of all nodes for it`},
		"/mtls/refusals/%1b%5b31m%e2%80%ae":             {404, `error id "\x1b[31m\u202e"`},
		"/mtls/refusals/%3Cscript%3E":                   {404, `error id "<script>"`},
		"/mtls/refusals/%ff%00":                         {404, `error id "\xff\x00"`},
		"/mtls/refusals/" + strings.Repeat("a", 10_000): {404, `error id "aaaa`},
		"/mtls/refusals/a%2Fb":                          {404, `error id "a/b"`},
		"/mtls/refusals?client=a":                       {400, `unknown parameter "client"; known are realm, client_id, reason, since and limit`},
		"/mtls/refusals?since=never":                    {400, `since is "never"; use a time such as 2026-01-02T15:04:05Z, or a duration such as 1h`},
		"/mtls/refusals?limit=1001":                     {400, `limit is "1001"; use a number from 1 to 1000`},
		"/mtls/refusals?realm=nope":                     {404, `unknown realm "nope"; declared are: default`},
		"/mtls/refusals?reason=%zz":                     {400, `the query cannot be read`},
		"/mtls/realms/nope/strangers":                   {404, `unknown realm "nope"`},
		"/mtls/realms/default/strangers?limit=0":        {400, `limit is "0"`},
		"/mtls/realms/default/strangers?realm=default":  {400, `unknown parameter "realm"; the only one is limit`},
	} {
		answer := ask[struct{ Error string }](r, t, path, want.status)
		if !strings.Contains(answer.Error, want.text) || len(answer.Error) > 600 {
			t.Errorf("%.60s: %q, want %q", path, answer.Error, want.text)
		}
	}
	for _, path := range []string{"/mtls/refusals?reason=nonsense", "/mtls/refusals?client_id=%1b", "/mtls/refusals"} {
		if list := ask[map[string][]refusals.Record](r, t, path, http.StatusOK)["refusals"]; list == nil || len(list) != 0 {
			t.Errorf("%s: %v", path, list)
		}
	}
	for _, method := range []string{http.MethodPost, http.MethodDelete} {
		if status, text := rig.Ask(r, t, method, "/mtls/refusals", ""); status < 400 {
			t.Errorf("%s: %d %q", method, status, text)
		}
	}
}

// TestGoRefusesUnreadableCertificatesItself checks what the documentation of the verifier
// says: a certificate that Go cannot parse never gets to it, and only Caddy's own log at
// DEBUG has it.
func TestGoRefusesUnreadableCertificatesItself(t *testing.T) {
	r, _ := startRefusing(t)
	leaf := testpki.MustSelfSigned(t)
	certificate := tls.Certificate{Certificate: [][]byte{leaf.Cert.Raw[:100]}, PrivateKey: leaf.Key}
	c := r.Caller(t, "h1", nil)
	c.Tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	if got, err := c.Try(http.MethodGet, "https://alias.test/"); err == nil {
		t.Errorf("answered with %d", got.Status)
	}
	r.Logs.Wait(t, "Caddy's line", func(e rig.LogEntry) bool {
		return e.Str("logger") == "http.stdlib" && e.Str("level") == "debug" && strings.Contains(e.Str("msg"), "failed to parse client certificate")
	})
	if list := latest(r, t, ""); len(list) != 0 {
		t.Errorf("remembered: %+v", list)
	}
}

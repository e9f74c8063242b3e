package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode"
)

// TestVerdicts checks what is said of answers, for each verdict.
func TestVerdicts(t *testing.T) {
	arrived := func(target string, lines ...string) result {
		return result{answers: []Answer{{200, &Seen{Echo: echoName, Target: target, Lines: append([]string{"X-Probe-Nonce: n"}, lines...)}}}}
	}
	timeout := &net.OpError{Op: "read", Err: &timeoutError{}}
	for _, test := range []struct {
		name    string
		check   check
		caller  string
		refused bool
		got     result
		want    Verdict
	}{
		{"forged", checkForgery, WithCertificate, false, arrived("/a", "x_client.id : forged"), GotThrough},
		{"forged after the honest one", checkForgery, WithCertificate, false, arrived("/a", "X-Client-ID: billing", "x-client-id: forged"), GotThrough},
		{"forged in a list", checkForgery, WithCertificate, false, arrived("/a", "X-Client-ID: billing, forged"), GotThrough},
		{"forged after CR", checkForgery, WithCertificate, false, arrived("/a", "X: a\rX-Client-ID: forged"), GotThrough},
		{"forged in a continuation", checkForgery, WithCertificate, false, arrived("/a", "X: a", " X-Client-ID: forged"), GotThrough},
		{"elsewhere", checkForgery, WithCertificate, false, arrived("/a", "X-Client-ID: billing", "X: forged"), Stripped},
		{"replaced", checkForgery, WithCertificate, false, arrived("/a", "X-Client-ID: billing"), Stripped},
		{"removed", checkRemoval, WithCertificate, false, arrived("/a"), GotThrough},
		{"empty", checkRemoval, WithCertificate, false, arrived("/a", "X-Client-ID: "), GotThrough},
		{"kept", checkRemoval, WithCertificate, false, arrived("/a", "X-Client-ID: billing"), Stripped},
		{"past the guard", checkBypass, WithoutCertificate, true, arrived("/x/..;/%41"), GotThrough},
		{"another path", checkBypass, WithoutCertificate, true, arrived("/ab"), Blocked},
		{"no guard", checkBypass, WithoutCertificate, false, arrived("/a"), Stripped},
		{"first", checkFirst, WithoutCertificate, false, arrived("/a", "X-Client-ID: forged, 10.0.0.1"), GotThrough},
		{"last", checkFirst, WithoutCertificate, false, arrived("/a", "X-Client-ID: 10.0.0.1, forged"), Stripped},
		{"hidden, with the guard's header", checkSmuggling, WithCertificate, false, arrived("/a?forged", "X-Client-ID: billing"), Stripped},
		{"hidden from the guard", checkSmuggling, WithCertificate, false, arrived("/a?forged"), GotThrough},
		{"hidden from a guard that refuses", checkSmuggling, WithoutCertificate, true, arrived("/a?forged"), GotThrough},
		{"two framings", checkFraming, WithoutCertificate, false, arrived("/a", "Content-Length: 1", "Transfer-Encoding: chunked"), GotThrough},
		{"two lengths", checkFraming, WithoutCertificate, false, arrived("/a", "Content-Length: 1", "Content-Length: 2"), GotThrough},
		{"one framing", checkFraming, WithoutCertificate, false, arrived("/a", "Content-Length: 1"), Stripped},
		{"h2c", checkUpgrade, WithoutCertificate, false, arrived("/a", "Upgrade: h2c"), GotThrough},
		{"no upgrade", checkUpgrade, WithoutCertificate, false, arrived("/a"), Stripped},
		{"another's identity", checkLeak, WithoutCertificate, false, arrived("/a", "X-Client-ID: billing"), GotThrough},
		{"own identity", checkLeak, WithOther, false, arrived("/a", "X-Client-ID: sensor"), Stripped},
		{"another's answer", checkForgery, WithoutCertificate, false, result{answers: []Answer{{200, &Seen{Lines: []string{"X-Probe-Nonce: other"}}}}}, CannotTell},
		{"refused", checkForgery, WithoutCertificate, false, result{answers: []Answer{{Status: 401}}}, Blocked},
		{"something else", checkForgery, WithoutCertificate, false, result{answers: []Answer{{Status: 200}}}, CannotTell},
		{"closed", checkForgery, WithoutCertificate, false, result{err: io.EOF}, Blocked},
		{"alert", checkForgery, WithoutCertificate, false, result{err: errors.New("remote error: tls: certificate required")}, Blocked},
		{"late", checkForgery, WithoutCertificate, false, result{err: timeout}, CannotTell},
		{"unreachable", checkForgery, WithoutCertificate, false, result{err: fmt.Errorf("%w: refused", errUnreachable)}, CannotTell},
	} {
		a := &attempt{
			facts: &facts{gateway: &Gateway{path: "/a"}, name: "X-Client-ID", honest: "billing", forged: "forged", nonce: "n"},
			check: test.check, caller: test.caller, refused: test.refused, guarded: []string{"X-Client-ID"},
		}
		if got := a.judge(test.got); got.verdict != test.want || got.evidence == "" {
			t.Errorf("%s: %s (%s), want %s", test.name, got.verdict, got.evidence, test.want)
		}
	}
}

type timeoutError struct{}

func (*timeoutError) Error() string   { return "i/o timeout" }
func (*timeoutError) Timeout() bool   { return true }
func (*timeoutError) Temporary() bool { return true }

// TestHostileGateway checks that what a gateway answers is bounded and escaped.
func TestHostileGateway(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request){
		"escape sequences": func(w http.ResponseWriter, r *http.Request) {
			nonce := r.Header.Get(nonceHeader)
			fmt.Fprintf(w, `{"echo":%q,"target":"/\u001b[2J","lines":["X-Probe-Nonce: %s","X-Client-ID: \u001b]0;x\u0007\u202e%s","%s: forged\u001b[31m"]}`,
				echoName, nonce, r.Header.Get("X-Client-ID"), strings.Repeat("\u001b[1m", 5000))
		},
		"endless": func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"echo":%q,"lines":["`, echoName)
			for range 100 {
				if _, err := io.WriteString(w, strings.Repeat("a", 1<<20)); err != nil {
					return
				}
			}
		},
		"no lines": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintf(w, `{"echo":%q}`, echoName) },
		"not JSON": func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "\x1b[2J") },
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(answer))
			defer server.Close()
			g := &Gateway{Timeout: patience}
			if err := g.SetURL(server.URL + "/a"); err != nil {
				t.Fatal(err)
			}
			report, err := Run(t.Context(), g, Options{Headers: []string{"X-Client-ID"}, Spoofs: headerSpoofs[:3]})
			text := fmt.Sprintf("%+v %v", report, err)
			if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || len(text) > 8<<10 {
				t.Errorf("%d bytes: %.300q", len(text), text)
			}
			if name != "escape sequences" && err == nil {
				t.Error("it passes for the echo API")
			}
		})
	}
}

package authn

import (
	"context"
	"crypto/x509/pkix"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/cache"
	"github.com/caddymtls/caddy-mtls-auth/internal/testenv"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestRememberedAllocatesNothing checks that a remembered certificate, also a
// refused one, costs only lookups.
func TestRememberedAllocatesNothing(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	ca := testpki.MustCA(t)
	sub := testpki.MustIntermediate(t, ca)
	pin := testpki.MustSelfSigned(t)
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, pinned("pin", pin), named("name", "CN=client,O=company"))
	for name, leaf := range map[string]*testpki.Leaf{
		"pin": pin, "name": testpki.MustIssue(t, sub, company("client")), "[certificate_untrusted]": testpki.MustSelfSigned(t),
		"[certificate_unknown]": testpki.MustIssue(t, ca),
	} {
		presented := leaf.Presented()
		if got := auth.ask(presented, ""); got != name {
			t.Fatalf("%s, want %s", got, name)
		}
		if allocs := testing.AllocsPerRun(100, func() {
			if _, _, remembered := auth.Decide(context.Background(), presented, ""); !remembered {
				t.Error("not remembered")
			}
		}); allocs != 0 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

// TestSameWorkForEverySubject_E1 checks that the work of a decision does not tell a
// stranger without a trusted chain whether a subject is registered, in this order
// or in reverse. Work is counted in allocations, at first sight and from the cache.
// Only the hint knows.
func TestSameWorkForEverySubject_E1(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("the race detector allocates on its own account")
	}
	ca, forger := testpki.MustCA(t), testpki.MustCA(t)
	forgedSub := testpki.MustIntermediate(t, forger)
	const padding = 20
	subject := func(name string) testpki.Option {
		return testpki.Subject(pkix.Name{CommonName: name, Organization: []string{strings.Repeat("o", padding)}, SerialNumber: "1"})
	}
	// names of one length, so that they differ in nothing else
	declared := "serialNumber=1,CN=%,O=" + strings.Repeat("o", padding)
	reversed := "O=" + strings.Repeat("o", padding) + ",CN=%,serialNumber=1"
	auth := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca},
		named("a", strings.Replace(declared, "%", "registered", 1)), named("b", strings.Replace(reversed, "%", "turned-rev", 1)))
	if got := auth.ask(testpki.MustIssue(t, ca, subject("registered")).Presented(), ""); got != "a" {
		t.Fatalf("the registered subject: %s", got)
	}
	forgetful := *auth

	key := testpki.MustKey(t, testpki.P256)
	for name, present := range map[string]func(testpki.Option) *testpki.Leaf{
		"self-signed":                func(o testpki.Option) *testpki.Leaf { return testpki.MustSelfSigned(t, o, testpki.Key(key)) },
		"forged CA":                  func(o testpki.Option) *testpki.Leaf { return testpki.MustIssue(t, forger, o, testpki.Key(key)) },
		"forged CA and a forged sub": func(o testpki.Option) *testpki.Leaf { return testpki.MustIssue(t, forgedSub, o, testpki.Key(key)) },
	} {
		t.Run(name, func(t *testing.T) {
			type work struct{ examined, remembered float64 }
			counted := make(map[string]work)
			hints := make(map[string]string)
			for _, cn := range []string{"registered", "turned-rev", "unknown-cn"} {
				presented := present(subject(cn)).Presented()
				if got := auth.ask(presented, ""); got != "[certificate_untrusted]" {
					t.Fatalf("%s: %s", cn, got)
				}
				counted[cn] = work{
					examined: testing.AllocsPerRun(200, func() {
						forgetful.refused = newRefusedCache(cache.Ways)
						forgetful.Decide(context.Background(), presented, "")
					}),
					remembered: testing.AllocsPerRun(200, func() { auth.Decide(context.Background(), presented, "") }),
				}
				hints[cn] = auth.about(presented, &validators.Refusal{Reason: validators.CertificateUntrusted}).hint()
			}
			for cn, got := range counted {
				if got != counted["unknown-cn"] {
					t.Errorf("%s: %+v, and for a subject that is not registered %+v", cn, got, counted["unknown-cn"])
				}
			}
			for cn, want := range map[string]string{
				"registered": "the subject is declared by client 'a', but it counts only with a verified chain",
				"turned-rev": "client 'b' declares the subject in reverse order; declare it as 'serialNumber=1,CN=turned-rev,O=" + strings.Repeat("o", padding) + "' if this is the client",
				"unknown-cn": "no client declares the subject 'serialNumber=1,CN=unknown-cn,O=" + strings.Repeat("o", padding) + "', in this order or in reverse",
			} {
				if name == "self-signed" {
					want += "; it names itself as its issuer, as self-signed certificates do; register such a client by thumbprint, not by name"
				}
				if hints[cn] != want {
					t.Errorf("hint %q, want %q", hints[cn], want)
				}
			}
		})
	}
}

// TestHintOnlyWhereANameMatters checks that only refusals as unknown or untrusted
// have a hint.
func TestHintOnlyWhereANameMatters(t *testing.T) {
	ca := testpki.MustCA(t)
	leaf := testpki.MustSelfSigned(t, company("client"))
	withPKI := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), []*testpki.CA{ca}, named("a", "CN=client,O=company"))
	pinsOnly := newTestAuthenticator(t, testenv.NewClockAt(time.Now()), nil, pinned("a", leaf))
	for _, reason := range validators.Reasons {
		want := reason == validators.CertificateUnknown || reason == validators.CertificateUntrusted
		if got := withPKI.about(leaf.Presented(), &validators.Refusal{Reason: reason}).hint(); (got != "") != want {
			t.Errorf("%s: hint %q", reason, got)
		}
		if got := pinsOnly.about(leaf.Presented(), &validators.Refusal{Reason: reason}).hint(); got != "" {
			t.Errorf("%s in a realm of pins: hint %q", reason, got)
		}
	}
	unmatchable := testpki.MustSelfSigned(t, company("cli\u200bent"))
	if got := withPKI.about(unmatchable.Presented(), &validators.Refusal{Reason: validators.CertificateUnknown}).hint(); !strings.HasPrefix(got, "the subject cannot match any client: ") || strings.Contains(got, "\u200b") {
		t.Errorf("hint %q", got)
	}
}

package auth_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// sharedRealm has two clients that match the same certificate, and a third that
// does not.
const sharedRealm = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client one {
		subject CN=twin
		scopes  read
		shared_credential
	}
	client two {
		subject CN=twin
		scopes  write
		shared_credential
	}
	client billing.partner {
		subject CN=billing
	}
	issuer https://auth.test
}
`

// TestAllowResolvesNoAmbiguity_B10 checks that a certificate of two clients is
// refused even where only one of them is allowed or has the required scope.
func TestAllowResolvesNoAmbiguity_B10(t *testing.T) {
	r := rig.New(t)
	twin, billing := r.Issue("twin"), r.Issue("billing")
	narrowing := map[string]string{"api.test": "allow one", "public.test": "allow two billing.partner", "other.test": "require_scope read", "alias.test": "optional\n\t\tallow one"}
	sites := rig.IssuerSite
	for host, lines := range narrowing {
		sites += "https://" + host + ":@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n\t\t" + lines + "\n\t}\n\treverse_proxy @UP@\n}\n"
	}
	r.Start(sharedRealm, sites)
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, twin)
		for host := range narrowing {
			for range 3 { // the first request, then repeats served from memory
				r.WantReason(t, c.Get("https://"+host+"/", rig.With("X-Client-Id", "one")), "certificate_ambiguous")
			}
		}
		r.Caller(t, protocol, billing).Get("https://public.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		// at the token endpoint, client_id selects one of the two
		for _, id := range []string{"one", "two"} {
			rig.WantToken(r, t, rig.AskToken(c, "https://auth.test", id), id, twin)
		}
		rig.WantNoToken(r, t, rig.AskToken(c, "https://auth.test", "billing.partner"), "client_mismatch")
	}
}

// TestVerifierJudgesLikeTheDirective checks that the handshake fails for disabled
// clients, for expired or denied certificates and for strangers. A certificate of
// several clients passes the handshake and is refused over HTTP. Every refused
// handshake is counted once, with its reason.
func TestVerifierJudgesLikeTheDirective(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	now := time.Now()
	pinned := []testpki.Option{testpki.Validity(now.Add(-time.Hour), now.Add(30*time.Minute))}
	leaves := map[string]*testpki.Leaf{
		"client_disabled":       r.Issue("disabled"),
		"certificate_revoked":   r.Issue("denied"),
		"certificate_expired":   r.SelfSigned("expired", pinned...),
		"certificate_unknown":   r.Issue("unregistered"),
		"certificate_missing":   nil,
		"ok":                    r.Issue("billing"),
		"certificate_untrusted": r.IssueBy(r.OtherCA, "billing-of-another-ca", testpki.CommonName("billing")),
	}
	twin := r.Issue("twin")
	r.Write("deny", []byte("thumbprint "+testpki.HashOf(leaves["certificate_revoked"].Cert.Raw)+"\n"))
	r.AdminOn = true
	realm := `mtls shut {
	trust_pool rig @DIR@/clients-ca.pem ` + t.Name() + `
	revocation {
		deny "@DIR@/deny"
	}
	client off {
		subject CN=disabled
		disabled
	}
	client denied {
		subject CN=denied
	}
	client old {
		thumbprint ` + testpki.HashOf(leaves["certificate_expired"].Cert.Raw) + `
	}` + sharedRealm[strings.Index(sharedRealm, "\n\tclient one"):]
	r.Start(realm, strings.NewReplacer("verifier mtls", "verifier mtls shut", "\tmtls_auth\n", "\tmtls_auth {\n\t\trealm shut\n\t}\n").Replace(verifierSite))
	clock.Advance(45 * time.Minute)
	counted := func() map[string]float64 { return rig.Series(t, rig.Metrics(r, t), "shut") }
	result := func(reason string) string { return `authentications_total{result="` + reason + `"}` }
	for _, protocol := range rig.Protocols {
		for reason, leaf := range leaves {
			t.Run(protocol+"/"+reason, func(t *testing.T) {
				before := counted()
				hits := r.Upstream.Hits.Load()
				c := r.Caller(t, protocol, leaf)
				opened := c.ConnectionsTo("api.test")
				got, err := c.Try(http.MethodGet, "https://api.test/", rig.With("X-Client-Id", "billing.partner"))
				counts := 1.0
				switch reason {
				case "ok":
					if err != nil {
						t.Fatal(err)
					}
					got.WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				case "certificate_missing":
					got.WantRefused(t, "shut", http.StatusUnauthorized, "certificate_missing")
				default:
					// over HTTP/3 the client may retry by itself
					counts = float64(opened.N.Load())
					if err == nil {
						t.Errorf("the handshake succeeded: %d %q", got.Status, got.Body)
					}
					if n := r.Upstream.Hits.Load() - hits; n != 0 {
						t.Errorf("%d requests reached the upstream", n)
					}
				}
				after := counted()
				for name, value := range after {
					want := 0.0
					if name == result(reason) {
						want = counts
					}
					if strings.HasPrefix(name, "authentications_total") && value-before[name] != want {
						t.Errorf("%s changed by %v, want %v", name, value-before[name], want)
					}
				}
				if _, known := after[result(reason)]; !known {
					t.Errorf("missing series for %s", reason)
				}
			})
		}
		t.Run(protocol+"/ambiguous", func(t *testing.T) {
			before := counted()
			c := r.Caller(t, protocol, twin)
			rig.WantRefusal(r, t, c.Get("https://api.test/"), "shut", "certificate_ambiguous")
			if n := counted()[result("certificate_ambiguous")] - before[result("certificate_ambiguous")]; n != 1 {
				t.Errorf("counted %v times, want once (by the directive)", n)
			}
		})
	}
	for reason := range leaves {
		if reason == "ok" || reason == "certificate_missing" {
			continue
		}
		r.Logs.Wait(t, reason, func(entry rig.LogEntry) bool {
			return entry.Str("msg") == "client refused in the handshake" && entry.Str("reason") == reason && entry.Str("realm") == "shut"
		})
	}
}

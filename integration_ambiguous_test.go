package mtlsauth

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// sharedRealm has two clients that one certificate fits, and one of its own.
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

// TestB10_AllowResolvesNoAmbiguity: who may pass does not say who somebody is.
// A certificate of two clients stays refused where only one of them, or only one
// with the scope, may pass.
func TestB10_AllowResolvesNoAmbiguity(t *testing.T) {
	r := newRig(t)
	twin, billing := r.issue("twin"), r.issue("billing")
	narrowing := map[string]string{"api.test": "allow one", "public.test": "allow two billing.partner", "other.test": "require_scope read", "alias.test": "optional\n\t\tallow one"}
	sites := issuerSite
	for host, lines := range narrowing {
		sites += "https://" + host + ":@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n\t\t" + lines + "\n\t}\n\treverse_proxy @UP@\n}\n"
	}
	r.start(sharedRealm, sites)
	for _, protocol := range rigProtocols {
		c := r.caller(t, protocol, twin)
		for host := range narrowing {
			for range 3 { // at first sight, and from memory
				r.wantReason(t, c.get("https://"+host+"/", with("X-Client-Id", "one")), "certificate_ambiguous")
			}
		}
		r.caller(t, protocol, billing).get("https://public.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		// at the token endpoint the request says which of them it is
		for _, id := range []string{"one", "two"} {
			r.wantToken(t, askToken(c, "https://auth.test", id), id, twin)
		}
		r.wantNoToken(t, askToken(c, "https://auth.test", "billing.partner"), "client_mismatch")
	}
}

// TestVerifierJudgesLikeTheDirective: the handshake ends for who is disabled,
// has expired or is denied, as for strangers; it does not for a certificate of
// several clients, which is judged over HTTP. Every refused handshake is counted
// once, with its reason.
func TestVerifierJudgesLikeTheDirective(t *testing.T) {
	r, clock := newRig(t), newRigClock(t)
	now := time.Now()
	pinned := []testpki.Option{testpki.Validity(now.Add(-time.Hour), now.Add(30*time.Minute))}
	leaves := map[string]*testpki.Leaf{
		"client_disabled":       r.issue("disabled"),
		"certificate_revoked":   r.issue("denied"),
		"certificate_expired":   r.selfSigned("expired", pinned...),
		"certificate_unknown":   r.issue("unregistered"),
		"certificate_missing":   nil,
		"ok":                    r.issue("billing"),
		"certificate_untrusted": r.issueBy(r.otherCA, "billing-of-another-ca", testpki.CommonName("billing")),
	}
	twin := r.issue("twin")
	r.write("deny", []byte("thumbprint "+testpki.HashOf(leaves["certificate_revoked"].Cert.Raw)+"\n"))
	r.adminOn = true
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
	r.start(realm, strings.NewReplacer("verifier mtls", "verifier mtls shut", "\tmtls_auth\n", "\tmtls_auth {\n\t\trealm shut\n\t}\n").Replace(verifierSite))
	clock.advance(45 * time.Minute)
	counted := func() map[string]float64 { return series(t, r.metrics(t), "shut") }
	result := func(reason string) string { return `authentications_total{result="` + reason + `"}` }
	for _, protocol := range rigProtocols {
		for reason, leaf := range leaves {
			t.Run(protocol+"/"+reason, func(t *testing.T) {
				before := counted()
				hits := r.upstream.hits.Load()
				c := r.caller(t, protocol, leaf)
				opened := c.connectionsTo("api.test")
				got, err := c.try(http.MethodGet, "https://api.test/", with("X-Client-Id", "billing.partner"))
				counts := 1.0
				switch reason {
				case "ok":
					if err != nil {
						t.Fatal(err)
					}
					got.wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				case "certificate_missing":
					got.wantRefused(t, "shut", http.StatusUnauthorized, "certificate_missing")
				default:
					// over HTTP/3 the client may try again by itself
					counts = float64(opened.n.Load())
					if err == nil {
						t.Errorf("answered with %d %q", got.status, got.body)
					}
					if n := r.upstream.hits.Load() - hits; n != 0 {
						t.Errorf("%d requests reached the API", n)
					}
				}
				after := counted()
				for name, value := range after {
					want := 0.0
					if name == result(reason) {
						want = counts
					}
					if strings.HasPrefix(name, "authentications_total") && value-before[name] != want {
						t.Errorf("%s moved by %v, want %v", name, value-before[name], want)
					}
				}
				if _, known := after[result(reason)]; !known {
					t.Errorf("there is no series for %s", reason)
				}
			})
		}
		t.Run(protocol+"/ambiguous", func(t *testing.T) {
			before := counted()
			c := r.caller(t, protocol, twin)
			r.wantRefusal(t, c.get("https://api.test/"), "shut", "certificate_ambiguous")
			if n := counted()[result("certificate_ambiguous")] - before[result("certificate_ambiguous")]; n != 1 {
				t.Errorf("counted %v times, want once, by the directive", n)
			}
		})
	}
	for reason := range leaves {
		if reason == "ok" || reason == "certificate_missing" {
			continue
		}
		r.logs.wait(t, reason, func(entry logEntry) bool {
			return entry.str("msg") == "client refused in the handshake" && entry.str("reason") == reason && entry.str("realm") == "shut"
		})
	}
}

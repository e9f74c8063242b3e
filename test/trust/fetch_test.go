package trust_test

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// insideRealm returns a realm whose CRL and JWKS are behind the company's CA.
func insideRealm(address string) string {
	return `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	fetch {
		trust_pool file "@DIR@/inside.pem"
	}
	revocation {
		crl ` + address + `/clients.crl
	}
	client billing.partner {
		subject "CN=billing"
	}
	client partner {
		jwks ` + address + `/jwks.json
	}
}
`
}

// serveInside serves a CRL and a JWKS.
func serveInside(t *testing.T, r *rig.Rig, listed *testpki.Leaf) *testtool.Inside {
	crl, set := rig.CRL(r, 1), testpki.JWKS(t, listed)
	mux := http.NewServeMux()
	mux.HandleFunc("/clients.crl", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(crl) })
	mux.HandleFunc("/jwks.json", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) })
	return testtool.NewInside(t, mux)
}

// TestFetchBehindACompanyCA checks that a CRL and a JWKS are fetched from servers whose
// CA only `fetch` names, and that this CA vouches for no client. The CA counts without a
// reload once its file has it.
func TestFetchBehindACompanyCA(t *testing.T) {
	r := rig.New(t)
	billing, listed := r.Issue("billing"), r.SelfSigned("partner")
	in := serveInside(t, r, listed)
	r.AdminOn = true
	r.Write("inside.pem", testpki.MustCA(t, testpki.CommonName("CA of yesterday")).PEM())
	r.Start(insideRealm(in.Server.URL), rig.OneSite)
	const untrusted = "the server's certificate chain ends at issuer 'CN=Intranet CA', which is not trusted for servers; add this CA to trust_pool in fetch"
	for _, message := range []string{"refreshing revocation source failed; keeping previous data", "client source failed; keeping previous clients"} {
		r.Logs.Wait(t, message, func(entry rig.LogEntry) bool {
			return entry.Str("msg") == message && strings.Contains(entry.Str("error"), untrusted)
		})
	}
	c := r.Caller(t, "h2", billing)
	r.WantReason(t, c.Get("https://api.test/"), "revocation_unavailable")

	r.Write("inside.pem", in.CA.PEM())
	r.Logs.Wait(t, "the pool", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == poolChanged && entry.Str("pool") == "fetch trust_pool"
	})
	r.Reload(insideRealm(in.Server.URL), rig.OneSite) // fetches at once what is still missing
	c.Close()
	c = r.Caller(t, "h2", billing)
	c.Eventually(t, http.StatusOK).WantClient(t, "billing.partner")
	r.Caller(t, "h1", listed).Eventually(t, http.StatusOK).WantClient(t, "partner")
	if found := rig.Series(t, rig.Metrics(r, t), "default"); found[`source_last_success_timestamp_seconds{source="fetch trust_pool"}`] == 0 {
		t.Errorf("metrics %v", found)
	}
	if asked := in.Asked(); asked != "" {
		t.Errorf("the proxy was asked %q for a loopback address", asked)
	}
	stranger := r.IssueBy(in.CA, "stranger", testpki.CommonName("billing"))
	r.WantReason(t, r.Caller(t, "h1", stranger).Get("https://api.test/"), "certificate_untrusted")
}

// TestFetchThroughAProxy checks that documents are fetched through the proxy that the
// environment names, and that its password is nowhere in the log.
func TestFetchThroughAProxy(t *testing.T) {
	r := rig.New(t)
	billing, listed := r.Issue("billing"), r.SelfSigned("partner")
	in := serveInside(t, r, listed)
	r.Secrets = append(r.Secrets, "SECRET", base64.StdEncoding.EncodeToString([]byte("proxyuser:SECRET")))
	r.Write("inside.pem", in.CA.PEM())
	in.RefuseProxy(http.StatusForbidden)
	r.Start(insideRealm("https://"+testtool.InsideHost), rig.OneSite)
	r.Logs.Wait(t, "the proxy's refusal", func(entry rig.LogEntry) bool {
		return strings.Contains(entry.Str("error"), "the proxy "+in.Proxy+" of the environment answers 403 instead of 200")
	})
	in.RefuseProxy(0)
	in.Asked()
	r.Reload(insideRealm("https://"+testtool.InsideHost), rig.OneSite)
	r.Caller(t, "h2", billing).Eventually(t, http.StatusOK).WantClient(t, "billing.partner")
	r.Caller(t, "h1", listed).Eventually(t, http.StatusOK).WantClient(t, "partner")
	if asked := in.Asked(); !strings.Contains(asked, "CONNECT inside.example:443") {
		t.Errorf("the proxy was asked %q", asked)
	}
}

// TestFetchOfATrustedIssuer checks that the keys of another authorization server are
// reached as the realm's `fetch` says, and with a pool of its own as that says. Both
// pools may change.
func TestFetchOfATrustedIssuer(t *testing.T) {
	r := rig.New(t)
	in := testtool.NewInside(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) }))
	r.AdminOn = true
	other := testpki.MustCA(t, testpki.CommonName("Another CA")).PEM()
	r.Write("inside.pem", in.CA.PEM())
	r.Write("own.pem", other)
	site := strings.ReplaceAll(`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		realm default
		trust_issuer https://one.example {
			jwks_uri @A@/keys
			audience api
			id_prefix one:
		}
		trust_issuer https://two.example {
			jwks_uri @A@/keys
			audience api
			id_prefix two:
			trust_pool file "@DIR@/own.pem"
		}
	}
	respond ok
}
`, "@A@", in.Server.URL)
	r.Start("mtls {\nfetch {\ntrust_pool file @DIR@/inside.pem\n}\nclient a {\nthumbprint "+strings.Repeat("1a", 32)+"\n}\n}", site)
	r.Logs.Wait(t, "the first issuer", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "issuer keys refreshed" && entry.Str("issuer") == "https://one.example"
	})
	r.Logs.Wait(t, "the second issuer", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "fetching issuer keys failed") && entry.Str("issuer") == "https://two.example" && strings.Contains(entry.Str("error"), "not trusted for servers")
	})
	r.Write("own.pem", append(in.CA.PEM(), other...))
	r.Logs.Wait(t, "the second issuer", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "issuer keys refreshed" && entry.Str("issuer") == "https://two.example"
	})
}

package mtlsauth

import (
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// TestA5_A6_ConnectionAndTrailersOfTokens: no hop may be told to drop what the API
// is told, nor a trailer add a second token.
func TestA5_A6_ConnectionAndTrailersOfTokens(t *testing.T) {
	r := newRig(t)
	billing := r.issue("billing")
	r.selfSigned("sensor")
	r.start(issuerRealm(""), bearerSites)
	token := r.accessToken(t, billing, "billing.partner")
	for _, lines := range []string{
		"Connection: Authorization, X-Client-ID", "Connection: close, authorization\nX-Client-ID: sensor-7", "Connection: X_Client_Id, AUTHORIZATION",
	} {
		got := r.raw(t, billing, "api.test").send("GET / HTTP/1.1\nHost: api.test\nAuthorization: Bearer " + token + "\n" + lines + "\n\n")
		got.wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		if seen := got.seen.Header["Authorization"]; len(seen) != 1 || seen[0] != "Bearer "+token {
			t.Errorf("%s: the API gets Authorization %.20q", lines, seen)
		}
	}
	got := r.raw(t, billing, "api.test").send("POST / HTTP/1.1\nHost: api.test\nAuthorization: Bearer " + token +
		"\nTransfer-Encoding: chunked\nTrailer: Authorization, X-Sum\n\n1\na\n0\nAuthorization: Bearer other\nX-Sum: 1\nX-Client-ID: sensor-7\n\n")
	got.wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	if got.seen.Trailer.Get("Authorization") != "" || got.seen.Trailer.Get("X-Client-Id") != "" || got.seen.Trailer.Get("X-Sum") != "1" {
		t.Errorf("the API gets the trailers %v", got.seen.Trailer)
	}
}

// TestR19_R21_ForwardedCertificateOfAToken takes the certificate from where
// mtls_auth does.
func TestR19_R21_ForwardedCertificateOfAToken(t *testing.T) {
	f := newForwardingRig(t)
	f.start(forwardingRealm("nginx", "nginx", "from 127.0.0.1"), strings.NewReplacer("SITES", "https://auth.test:@HTTPS@").Replace(`
SITES {
	import mtls
	mtls_issuer {
		realm nginx
	}
}
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		realm nginx
	}
	reverse_proxy @UP@
}
`))
	proxy := f.caller(t, "h2", f.proxy)
	proxy.always = []func(*http.Request){byNginx.send(f.billing)}
	answer, _, _ := f.token(t, proxy, "https://auth.test/nginx/connect/token", form("billing.partner"))
	proxy.always = []func(*http.Request){bearer(answer["access_token"].(string))}
	got := proxy.get("https://api.test/", byNginx.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
	if got.seen.Header["X-Ssl-Client-Cert"] != nil {
		t.Error("the API gets the forwarded certificate")
	}
	f.wantBearer(t, proxy.get("https://api.test/", byNginx.send(f.sensor)), "token_certificate")
	f.wantBearer(t, proxy.get("https://api.test/", byNginx.send(f.proxy)), "token_certificate")
	f.wantBearer(t, proxy.get("https://api.test/"), "certificate_missing")
	f.wantBearer(t, proxy.get("https://api.test/", with(byNginx.header, "garbage")), "certificate_unsuitable")
	f.wantBearer(t, proxy.get("https://api.test/", with(byNginx.header, escapedPEM(f.billing), escapedPEM(f.billing))), "certificate_unsuitable")
	// from anybody else the header is ignored
	stranger := f.callerFrom(t, "h2", f.sensor, "127.0.0.2")
	stranger.always = proxy.always
	f.wantBearer(t, stranger.get("https://api.test/", byNginx.send(f.billing)), "token_certificate")
	own := f.callerFrom(t, "h2", f.billing, "127.0.0.2")
	own.always = proxy.always
	own.get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
}

// TestBearerBesideAuth: each narrows, and what the API is told is what the last
// one that sets it says.
func TestBearerBesideAuth(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.start(issuerRealm(""), issuerSite+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		allow billing.partner
		header_up X-First {http.mtls.credential}
	}
	mtls_bearer {
		header_up X-Client-ID {http.mtls.credential}
	}
	reverse_proxy @UP@
}
`)
	tokens := map[*testpki.Leaf]string{billing: r.accessToken(t, billing, "billing.partner"), sensor: r.accessToken(t, sensor, "sensor-7")}
	c := r.caller(t, "h2", billing)
	got := c.get("https://api.test/", bearer(tokens[billing]), with("X-First", "forged")).wantStatus(t, http.StatusOK).wantClient(t, "token")
	if first := got.seen.Header["X-First"]; len(first) != 1 || first[0] != "subject" {
		t.Errorf("the first directive tells %q", first)
	}
	r.wantBearer(t, c.get("https://api.test/"), "token_missing")
	r.caller(t, "h2", sensor).get("https://api.test/", bearer(tokens[sensor])).wantRefused(t, "default", http.StatusForbidden, "client_not_allowed")
}

// Early data may be another's request that was recorded.
func TestD5_EarlyTokens(t *testing.T) {
	if testtool.RaceEnabled {
		t.Skip("SKIPPED under the race detector: quic-go's client has a data race of its own when it sends early data")
	}
	r := newRig(t)
	r.issue("billing")
	r.selfSigned("sensor")
	r.start(issuerRealm(""), `
https://public.test:@HTTPS@ {
	import tls_without_client_auth
	mtls_bearer
	reverse_proxy @UP@
}
`)
	cache, early := new(oneSession), 0
	for range 10 {
		c := r.caller(t, "h3", nil)
		c.tls.ClientSessionCache, c.early = cache, true
		got := c.do(http3.MethodGet0RTT, "https://public.test/", bearer("a.b.c"))
		if got.status == http.StatusTooEarly {
			early++
			got = c.get("https://public.test/", bearer("a.b.c"))
		}
		got.wantStatus(t, http.StatusUnauthorized)
		c.close()
	}
	if early == 0 {
		t.Error("no request of ten came as early data, so nothing is tested here")
	}
}

func TestBearerMetrics(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.adminOn = true
	r.start(strings.Replace(issuerRealm(""), "mtls {", "mtls borne {", 1), strings.NewReplacer("mtls_issuer", "mtls_issuer {\nrealm borne\n}").Replace(issuerSite)+`
https://api.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		realm borne
	}
	reverse_proxy @UP@
}
`)
	token := r.accessToken(t, billing, "billing.partner")
	r.caller(t, "h2", billing).get("https://api.test/", bearer(token)).wantStatus(t, http.StatusOK)
	r.wantBearer(t, r.caller(t, "h2", sensor).get("https://api.test/", bearer(token)), "token_certificate")
	r.wantBearer(t, r.caller(t, "h2", sensor).get("https://api.test/"), "token_missing")
	told := series(t, r.metrics(t), "borne")
	counted := map[string]float64{"ok": 1, "token_certificate": 1, "token_missing": 1}
	for _, reason := range []string{"authorization_malformed", "token_revoked", "token_client", "scope_missing"} {
		counted[reason] = 0
	}
	for _, reason := range tokens.TokenReasons {
		counted[string(reason)] = 0
	}
	for _, reason := range validators.Reasons {
		if reason != validators.ClientNotAllowed {
			counted[string(reason)] = 0
		}
	}
	for result, want := range counted {
		if got, ok := told[`bearer_total{result="`+result+`"}`]; !ok || got != want {
			t.Errorf("%s was counted %v times, want %v", result, got, want)
		}
	}
}

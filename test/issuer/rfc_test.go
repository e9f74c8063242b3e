package issuer_test

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// TestOnlyTheHandshakeProvesPossession_R1 checks that a certificate in a header gets no
// token, whichever client is connected.
func TestOnlyTheHandshakeProvesPossession_R1(t *testing.T) {
	r, leaves := startToken(t)
	billing := leaves["billing"].Cert
	headers := map[string]string{
		"Client-Cert":             forwarded.ClientCert(billing),
		"X-Ssl-Client-Cert":       url.QueryEscape(string(leaves["billing"].PEM())),
		"X-Forwarded-Client-Cert": `Hash=00;Cert="` + url.QueryEscape(string(leaves["billing"].PEM())) + `"`,
		"X-Client-Id":             "billing.partner",
	}
	for _, protocol := range rig.Protocols {
		for _, who := range []string{"", "stranger", "sensor"} {
			c := r.Caller(t, protocol, leaves[who])
			for name, value := range headers {
				request := rig.Form("billing.partner")
				got := c.Do(http.MethodPost, "https://auth.test/connect/token", func(r *http.Request) {
					request(r)
					r.Header[name] = []string{value}
				}).WantStatus(t, http.StatusBadRequest)
				if rig.JSON(t, got.Body)["error"] != "invalid_client" {
					t.Errorf("%s with %s: the response is %q", who, name, got.Body)
				}
			}
		}
	}
}

// TestVersionsOfTLS_R25 checks that callers get TLS 1.3 if they support it, because it
// hides the certificate from eavesdroppers. Versions below 1.2 are refused.
func TestVersionsOfTLS_R25(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for _, tc := range []struct {
		most, want uint16
	}{{tls.VersionTLS13, tls.VersionTLS13}, {tls.VersionTLS12, tls.VersionTLS12}, {tls.VersionTLS11, 0}} {
		config := r.TLSConfig(billing)
		config.ServerName, config.MinVersion, config.MaxVersion = "api.test", tls.VersionTLS10, tc.most
		conn, err := tls.Dial("tcp", "127.0.0.1:"+r.HTTPS, config)
		if err != nil {
			if tc.want != 0 {
				t.Errorf("up to %s: %v", tls.VersionName(tc.most), err)
			}
			continue
		}
		if got := conn.ConnectionState().Version; got != tc.want {
			t.Errorf("up to %s, the connection uses %s", tls.VersionName(tc.most), tls.VersionName(got))
		}
		conn.Close()
	}
}

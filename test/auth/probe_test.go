package auth_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/probe"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// TestProbeGetsNothingThrough sends the spoofs of `caddy mtls probe` to sites with
// mtls_auth.
func TestProbeGetsNothingThrough_A1_A2_A3_A5_A6_A7_A8_A10_D1_D3_D6(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.Issue("sensor")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = new(probe.Echo).Serve(ctx, listener) }()
	proxy := "reverse_proxy " + listener.Addr().String()
	// Caddy logs at level DEBUG what it sends to the upstream, and the headers of refused
	// requests, some of which have certificates
	rig.WithoutLogs(r, "http.handlers.reverse_proxy", "http.log.error")
	r.Start(rig.IssuerRealm(""), `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	`+proxy+`
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	`+proxy+`
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		header_up X-Client-ID {http.mtls.client_id}
		forward_certificate
		forward_token {
			audience upstream
		}
	}
	`+proxy+`
}
`)
	first, second := billing.TLS(), sensor.TLS()
	for _, host := range []string{"api.test", "public.test", "other.test"} {
		t.Run(host, func(t *testing.T) {
			gateway := &probe.Gateway{
				Certificates: map[string]*tls.Certificate{probe.WithCertificate: &first, probe.WithOther: &second},
				Roots:        r.ServerCA.Pool(), Address: "127.0.0.1:" + r.HTTPS, Timeout: rig.Patience,
			}
			if err := gateway.SetURL("https://" + host + ":" + r.HTTPS + "/orders/new"); err != nil {
				t.Fatal(err)
			}
			report, err := probe.Run(ctx, gateway, probe.Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("identity %v over %v: %v", report.Identity, report.Protocols, report.Counts)
			if len(report.Protocols) != 3 || report.Counts[probe.Stripped] == 0 || report.Counts[probe.Blocked] == 0 {
				t.Errorf("over %v: %v", report.Protocols, report.Counts)
			}
			for _, attempt := range report.Attempts {
				if attempt.Verdict == probe.GotThrough || attempt.Verdict == probe.CannotTell {
					t.Errorf("%s (%s) as %s over %s: %s (%s)", attempt.Spoof, attempt.Header, attempt.Caller, attempt.Protocol, attempt.Verdict, attempt.Evidence)
				}
			}
		})
	}
}

package forwarded_test

import (
	"context"
	"crypto/tls"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/probe"
	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// naiveNginx is what one writes first: the header is set for those who have a
// certificate.
const naiveNginx = `
underscores_in_headers on;
server {
	listen 127.0.0.1:@PORT@ ssl http2;
	server_name api.test;
	ssl_certificate     @DIR@/server.pem;
	ssl_certificate_key @DIR@/server.key;
	ssl_client_certificate @DIR@/clients-ca.pem;
	ssl_verify_client optional;
	location = /orders/new {
		if ($ssl_client_verify != SUCCESS) {
			return 403;
		}
		proxy_set_header X-Client-ID $ssl_client_s_dn;
		proxy_pass http://127.0.0.1:9000;
	}
	location / {
		proxy_pass http://127.0.0.1:9000$request_uri;
	}
}
`

const naiveHAProxy = `
defaults
	mode http
	timeout connect 5s
	timeout client 30s
	timeout server 30s
frontend api
	bind 127.0.0.1:@PORT@ ssl crt /etc/haproxy/api.pem ca-file /etc/haproxy/clients-ca.pem verify optional alpn h2,http/1.1
	http-request deny if { path /orders/new } !{ ssl_c_used }
	http-request set-header X-Client-ID %{+Q}[ssl_c_s_dn] if { ssl_c_used }
	default_backend api
backend api
	server api 127.0.0.1:9000
`

// probedGateways are nginx and HAProxy, configured as one does at first and as the guide
// says. through are spoofs that the former lets through.
var probedGateways = []struct {
	name, naive string
	program     program
	protocols   []string // of the guide's
	through     []string
}{
	{"nginx", naiveNginx, nginx, []string{"h1", "h2"}, []string{
		"underscores", "underscore", "other-gateways", "forwarded", "parent-semicolon", "letter-encoded-twice", "path-upper",
		"path-semicolon", "path-slash", "path-dot", "backslash",
	}},
	{"haproxy", naiveHAProxy, haproxy, []string{"h1"}, []string{
		"underscores", "underscore", "dots", "other-gateways", "trailer", "trailer-undeclared", "trailer-underscores", "trailer-dots",
		"trailer-other-gateways", "forwarded", "double-slash", "dot-segment", "parent", "parent-semicolon", "parent-encoded", "slash-encoded",
		"letter-encoded", "letter-encoded-twice", "path-upper", "path-semicolon", "path-slash", "path-dot", "path-nul", "backslash",
		"connect", "connect-body", "upgrade-h2c",
	}},
}

// TestProbeOfRealGateways checks which spoofs nginx and HAProxy let through if they are
// configured naively, and that as the guide says, they let none through.
func TestProbeOfRealGateways_A2_A6_A8_D3_D6(t *testing.T) {
	text, err := os.ReadFile("../../docs/from-nginx-or-haproxy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range probedGateways {
		t.Run(p.name+", naive", func(t *testing.T) {
			report := probeThrough(t, p.program, p.naive)
			var through []string
			for _, attempt := range report.Attempts {
				if attempt.Verdict == probe.GotThrough && !slices.Contains(through, attempt.Spoof) {
					through = append(through, attempt.Spoof)
				}
			}
			for _, name := range p.through { // another version may let more through
				if !slices.Contains(through, name) {
					t.Errorf("%s did not get through; what did is %v", name, through)
				}
			}
		})
		t.Run(p.name+", as documented", func(t *testing.T) {
			blocks := regexp.MustCompile("(?ms)^```"+p.name+"\n(.*?)^```$").FindAllStringSubmatch(string(text), -1)
			if len(blocks) != 1 {
				t.Fatalf("the guide has %d configurations of %s", len(blocks), p.name)
			}
			report := probeThrough(t, p.program, blocks[0][1])
			if !slices.Equal(report.Protocols, p.protocols) || report.Counts[probe.Stripped] == 0 {
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

// probeThrough probes a gateway in front of the echo API.
func probeThrough(t *testing.T, p program, config string) *probe.Report {
	t.Helper()
	f := rig.NewForwardingRig(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = new(probe.Echo).Serve(ctx, listener) }()
	server := f.Leaves[0]
	f.Write("front-api.pem", append(server.PEM(), server.KeyPEM()...))
	f.Write("front-clients-ca.pem", f.CA.PEM())
	f.Write("front-api.key", server.KeyPEM())
	adapt := strings.NewReplacer("127.0.0.1:9000", listener.Addr().String(), "api.example.com", "api.test",
		"listen 443", "listen 127.0.0.1:@PORT@", "bind :443", "bind 127.0.0.1:@PORT@", "/etc/nginx/", "@DIR@/front-", "/etc/haproxy/", "@DIR@/front-")
	port := startProgram(p)(t, f, adapt.Replace(config))
	first, second := f.Billing.TLS(), f.Issue("other").TLS()
	gateway := &probe.Gateway{
		Certificates: map[string]*tls.Certificate{probe.WithCertificate: &first, probe.WithOther: &second},
		Roots:        f.ServerCA.Pool(), Address: "127.0.0.1:" + port, Timeout: 5 * time.Second,
	}
	if err := gateway.SetURL("https://api.test:" + port + "/orders/new"); err != nil {
		t.Fatal(err)
	}
	report, err := probe.Run(ctx, gateway, probe.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return report
}

package forwarded_test

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// TestProxyKnownByItsKey_A9 checks that a proxy without a fixed address can identify
// itself with its own certificate.
func TestProxyKnownByItsKey_A9(t *testing.T) {
	f := rig.NewForwardingRig(t)
	renewed := testpki.MustSelfSigned(t, testpki.CommonName("proxy, renewed"), testpki.Key(f.Proxy.Key))
	run(f, rig.ForwardingRealm("edge", "rfc9440", "peer_key "+rig.KeyHash(f.Proxy)), "edge")
	const guarded, optional = "https://api.test/edge/guarded", "https://api.test/edge/optional"
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, leaf := range []*testpki.Leaf{f.Proxy, renewed, testpki.Presenting(f.Proxy, f.Sensor.Cert)} {
				hop := f.Caller(t, protocol, leaf)
				hop.Get(guarded, rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
				rig.WantRefusal(f.Rig, t, hop.Get(guarded), "edge", "certificate_missing")
				hop.Get(optional).WantStatus(t, http.StatusOK).WantClient(t, "")
				rig.WantRefusal(f.Rig, t, hop.Get(optional, rig.With("Client-Cert", "garbage")), "edge", "certificate_unsuitable")
				rig.WantToken(f.Rig, t, rig.AskToken(hop, "https://auth.test/edge", "sensor-7", rig.ByRFC9440.Send(f.Sensor)), "sensor-7", f.Sensor)
				rig.WantNoToken(f.Rig, t, rig.AskToken(hop, "https://auth.test/edge", "the-proxy"), "certificate_missing")
			}
			// appending the proxy's certificate to one's own chain proves nothing without
			// its key
			for _, leaf := range []*testpki.Leaf{f.Sensor, testpki.Presenting(f.Sensor, f.Proxy.Cert)} {
				other := f.Caller(t, protocol, leaf)
				other.Get(guarded, rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
				rig.WantToken(f.Rig, t, rig.AskToken(other, "https://auth.test/edge", "sensor-7", rig.ByRFC9440.Send(f.Billing)), "sensor-7", f.Sensor)
			}
			rig.WantRefusal(f.Rig, t, f.Caller(t, protocol, nil).Get(guarded, rig.ByRFC9440.Send(f.Billing)), "edge", "certificate_missing")
			rig.WantRefusal(f.Rig, t, f.Caller(t, protocol, f.Stranger).Get(guarded, rig.ByRFC9440.Send(f.Billing)), "edge", "certificate_unknown")
		})
	}
	rig.WantRefusal(f.Rig, t, f.Plain(t).Get("http://api.test/edge/guarded", rig.ByRFC9440.Send(f.Billing)), "edge", "certificate_missing")
	rig.WantRefusal(f.Rig, t, f.Plain(t).Get("http://api.test/edge/guarded", rig.ByRFC9440.Send(f.Billing), rig.With("Client-Cert", forwarded.ClientCert(f.Proxy.Cert))), "edge", "certificate_missing")
}

// TestProxyKnownByItsKeyOrAddress_A9 checks that either the key or the address
// suffices.
func TestProxyKnownByItsKeyOrAddress_A9(t *testing.T) {
	f := rig.NewForwardingRig(t)
	const guarded = "https://api.test/edge/guarded"
	run(f, rig.ForwardingRealm("edge", "rfc9440", "peer_key "+rig.KeyHash(f.Sensor)+" "+rig.KeyHash(f.Proxy)+"\nfrom 127.0.0.2"), "edge")
	for _, protocol := range rig.Protocols {
		f.Caller(t, protocol, f.Proxy).Get(guarded, rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
		rig.WantRefusal(f.Rig, t, f.Caller(t, protocol, f.Sensor).Get(guarded), "edge", "certificate_missing")
		rig.WantRefusal(f.Rig, t, f.Caller(t, protocol, nil).Get(guarded, rig.ByRFC9440.Send(f.Billing)), "edge", "certificate_missing")
	}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, own := range []*testpki.Leaf{nil, f.Stranger, f.Proxy} {
				rig.CallerFrom(f.Rig, t, protocol, own, "127.0.0.2").Get(guarded, rig.ByRFC9440.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			}
		})
	}
}

// TestPlainHTTPHop_A9 checks that the proxy may connect to Caddy without TLS.
func TestPlainHTTPHop_A9(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.0/31")
	hop := f.Plain(t)
	for _, proxy := range rig.Forwarders {
		t.Run(proxy.Format, func(t *testing.T) {
			guarded, optional := "http://api.test/"+realm(proxy)+"/guarded", "http://api.test/"+realm(proxy)+"/optional"
			auth := "http://auth.test/" + realm(proxy)
			hop.Get(guarded, proxy.Send(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			rig.WantRefusal(f.Rig, t, hop.Get(guarded), realm(proxy), "certificate_missing")
			rig.WantRefusal(f.Rig, t, hop.Get(optional, rig.With(proxy.Header, "garbage")), realm(proxy), "certificate_unsuitable")
			hop.Get(optional).WantStatus(t, http.StatusOK).WantClient(t, "")
			rig.WantToken(f.Rig, t, rig.AskToken(hop, auth, "sensor-7", proxy.Send(f.Sensor)), "sensor-7", f.Sensor)
			rig.WantNoToken(f.Rig, t, rig.AskToken(hop, auth, "sensor-7"), "certificate_missing")
		})
	}
}

// TestOnlyTheLastElement_A9 checks that only the last element counts because the caller
// may have written the others.
func TestOnlyTheLastElement_A9(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.1")
	const guarded = "https://api.test/envoy/guarded"
	billing, sensor := rig.ByEnvoy.Value(f.Billing), rig.ByEnvoy.Value(f.Sensor)
	for _, protocol := range rig.Protocols {
		hop := f.Caller(t, protocol, nil)
		hop.Get(guarded, rig.With(rig.ByEnvoy.Header, billing+","+sensor)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
		hop.Get(guarded, rig.With(rig.ByEnvoy.Header, billing+","+sensor+","+billing)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		for _, value := range []string{
			billing + ",By=spiffe://mesh.test/caddy", billing + ",", billing + `;Cert="` + rig.EscapedPEM(f.Sensor) + `"`, billing + `,Hash=00`, "Hash=00;Subject=\"CN=billing\"",
		} {
			rig.WantRefusal(f.Rig, t, hop.Get(guarded, rig.With(rig.ByEnvoy.Header, value)), "envoy", "certificate_unsuitable")
		}
		rig.WantRefusal(f.Rig, t, hop.Get(guarded, rig.With(rig.ByEnvoy.Header, billing, sensor)), "envoy", "certificate_unsuitable")
	}
}

// TestForwardedChain_B5 checks that the other certificates of the chain serve only to
// verify the client's.
func TestForwardedChain_B5(t *testing.T) {
	f := rig.NewForwardingRig(t)
	intermediate := testpki.MustIntermediate(t, f.CA)
	below := testpki.MustIssue(t, intermediate, testpki.CommonName("billing"))
	foreign := testpki.MustIssue(t, f.OtherCA, testpki.CommonName("billing"))
	run(f, rig.ForwardingRealm("rfc9440", "rfc9440", "from 127.0.0.1")+rig.ForwardingRealm("aws-alb", "aws_alb", "from 127.0.0.1"), "rfc9440", "aws-alb")
	const guarded = "https://api.test/rfc9440/guarded"
	chain := func(leaves ...*testpki.Leaf) func(*http.Request) {
		var text []string
		for _, leaf := range leaves {
			text = append(text, forwarded.ClientCert(leaf.Cert))
		}
		return rig.With("Client-Cert-Chain", strings.Join(text, ", "))
	}
	ca, middle := &testpki.Leaf{Cert: f.CA.Cert}, &testpki.Leaf{Cert: intermediate.Cert}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			hop := f.Caller(t, protocol, f.Proxy)
			for reason, options := range map[string][][]func(*http.Request){
				"certificate_unknown":    {{rig.ByRFC9440.Send(f.Stranger), chain(f.Billing)}, {rig.ByRFC9440.Send(f.Stranger), chain(f.Sensor, f.Billing, ca)}},
				"certificate_untrusted":  {{rig.ByRFC9440.Send(foreign), chain(f.Billing, ca)}, {rig.ByRFC9440.Send(below)}, {rig.ByRFC9440.Send(below), rig.With("Client-Cert-Chain", "")}, {rig.ByRFC9440.Send(below), chain(f.Billing)}},
				"certificate_missing":    {{chain(f.Billing, ca)}, {rig.With("Client-Cert", ""), chain(f.Sensor)}},
				"certificate_unsuitable": {{rig.ByRFC9440.Send(f.Billing), rig.With("Client-Cert-Chain", "garbage")}, {rig.With("Client-Cert", forwarded.ClientCert(f.Stranger.Cert)+", "+forwarded.ClientCert(f.Billing.Cert))}, {rig.ByRFC9440.Send(below), chain(ca, ca, ca, ca, ca, ca, ca, ca, middle)}},
			} {
				for _, sent := range options {
					rig.WantRefusal(f.Rig, t, hop.Get(guarded, sent...), "rfc9440", reason)
				}
			}
			hop.Get(guarded, rig.ByRFC9440.Send(below), chain(middle)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			hop.Get(guarded, rig.ByRFC9440.Send(below), chain(ca, middle)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			hop.Get(guarded, rig.ByRFC9440.Send(below), rig.With("Client-Cert-Chain", forwarded.ClientCert(middle.Cert), forwarded.ClientCert(ca.Cert))).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			hop.Get(guarded, rig.ByRFC9440.Send(f.Sensor), chain(f.Billing)).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
			rig.WantToken(f.Rig, t, rig.AskToken(hop, "https://auth.test/rfc9440", "billing.partner", rig.ByRFC9440.Send(below), chain(middle)), "billing.partner", below)
			rig.WantNoToken(f.Rig, t, rig.AskToken(hop, "https://auth.test/rfc9440", "billing.partner", rig.ByRFC9440.Send(f.Sensor), chain(f.Billing)), "client_mismatch")

			// a load balancer that does not verify forwards whatever the client sent
			const balanced = "https://api.test/aws-alb/guarded"
			hop.Get(balanced, rig.With(rig.ByALB.Header, rig.ByALB.Value(below)+rig.ByALB.Value(middle))).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			rig.WantRefusal(f.Rig, t, hop.Get(balanced, rig.With(rig.ByALB.Header, rig.ByALB.Value(f.Stranger)+rig.ByALB.Value(f.Billing))), "aws-alb", "certificate_unknown")
		})
	}
}

// TestHeaderOfAnotherName_A9 checks that a configured header replaces the usual one and
// is removed in any spelling.
func TestHeaderOfAnotherName_A9(t *testing.T) {
	for name, options := range map[string]string{
		"default":  "",
		"expected": "servers {\n\texpected_underscore_headers Edge_Certificate\n\texpected_dot_headers Edge.Certificate\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := rig.NewForwardingRig(t)
			run(f, options+rig.ForwardingRealm("near", "nginx", "from 127.0.0.1\nheader edge-certificate")+
				rig.ForwardingRealm("far", "nginx", "from 127.0.0.2\nheader Edge-Certificate"), "near", "far")
			for _, protocol := range rig.Protocols {
				t.Run(protocol, func(t *testing.T) { checkAnotherName(f, t, protocol, name == "default") })
			}
			if name != "default" {
				return // Caddy drops the right spelling because of the others
			}
			// Connection cannot ask a hop to drop the header that is read
			got := f.Raw(t, nil, "api.test").Send("GET /near/guarded HTTP/1.1\nHost: api.test\nConnection: close, edge-certificate\nEDGE-CERTIFICATE: " + rig.EscapedPEM(f.Billing) + "\n\n")
			got.WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
		})
	}
}

func checkAnotherName(f *rig.ForwardingRig, t *testing.T, protocol string, arrives bool) {
	value := rig.EscapedPEM(f.Billing)
	hop, nobody := f.Caller(t, protocol, f.Proxy), f.Caller(t, protocol, nil)
	for _, spelling := range []string{"Edge_Certificate", "Edge.Certificate", "Edge~Certificate", "X-SSL-Client-Cert", "Client-Cert"} {
		hop.Get("https://api.test/near/optional", rig.With(spelling, value)).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
		nobody.Get("https://api.test/far/optional", rig.With(spelling, value)).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
		hop.Get("https://api.test/far/optional", rig.With(spelling, value)).WantStatus(t, http.StatusOK).WantClient(t, "the-proxy").WantGone(t)
		rig.WantNoToken(f.Rig, t, rig.AskToken(hop, "https://auth.test/near", "billing.partner", rig.With(spelling, value)), "certificate_missing")
		if arrives {
			right := rig.With("edge-Certificate", rig.EscapedPEM(f.Sensor))
			hop.Get("https://api.test/near/optional", rig.With(spelling, value), right).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
			rig.WantToken(f.Rig, t, rig.AskToken(hop, "https://auth.test/near", "sensor-7", rig.With(spelling, value), right), "sensor-7", f.Sensor)
		}
	}
	nobody.Get("https://api.test/far/optional", rig.With("Edge-Certificate", value)).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
	trailer := func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("some body")), -1
		r.Trailer = http.Header{"Edge-Certificate": {value}, "X-Ssl-Client-Cert": {value}}
	}
	hop.Do(http.MethodPost, "https://api.test/near/optional", trailer).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
}

// TestTwoRealms_A9 uses one realm that accepts certificates from the proxy and another
// that accepts them only from connections.
func TestTwoRealms_A9(t *testing.T) {
	f := rig.NewForwardingRig(t)
	f.Start(strings.Replace(rig.ForwardingRealm("edge", "rfc9440", "from 127.0.0.1"), "issuer https://auth.test/edge", "", 1)+`
mtls {
	client direct-proxy {
		certificate "@DIR@/proxy.pem"
	}
}
`, `
https://api.test:@HTTPS@ {
	import mtls
	handle /edge {
		mtls_auth {
			realm edge
		}
		reverse_proxy @UP@
	}
	handle /direct {
		mtls_auth
		reverse_proxy @UP@
	}
	handle /edge-then-direct {
		route {
			mtls_auth {
				realm     edge
				header_up X-First {http.mtls.client_id}
			}
			mtls_auth
			reverse_proxy @UP@
		}
	}
	handle /direct-then-edge {
		route {
			mtls_auth {
				header_up   X-First {http.mtls.client_id}
				keep_header Client-Cert*
			}
			mtls_auth {
				realm edge
			}
			reverse_proxy @UP@
		}
	}
	handle /edge-then-edge {
		route {
			mtls_auth {
				realm     edge
				header_up X-First {http.mtls.client_id}
			}
			mtls_auth {
				realm edge
			}
			reverse_proxy @UP@
		}
	}
}
`)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			hop, bare := f.Caller(t, protocol, f.Proxy), f.Caller(t, protocol, nil)
			send := rig.ByRFC9440.Send(f.Billing)
			hop.Get("https://api.test/edge", send).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
			hop.Get("https://api.test/direct", send).WantStatus(t, http.StatusOK).WantClient(t, "direct-proxy").WantGone(t)
			rig.WantRefusal(f.Rig, t, bare.Get("https://api.test/direct", send), "default", "certificate_missing")
			rig.WantRefusal(f.Rig, t, hop.Get("https://api.test/edge"), "edge", "certificate_missing")
			for path, want := range map[string][2]string{
				"edge-then-direct": {"billing.partner", "direct-proxy"},
				"direct-then-edge": {"direct-proxy", "billing.partner"},
				"edge-then-edge":   {"billing.partner", "billing.partner"},
			} {
				got := hop.Get("https://api.test/"+path, send, rig.With("X-First", "forged")).WantStatus(t, http.StatusOK).WantClient(t, want[1]).WantGone(t)
				if first := got.Seen.Header["X-First"]; len(first) != 1 || first[0] != want[0] {
					t.Errorf("%s: the first directive set %q, want %s", path, first, want[0])
				}
			}
			rig.WantRefusal(f.Rig, t, hop.Get("https://api.test/edge-then-direct"), "edge", "certificate_missing")
			rig.WantRefusal(f.Rig, t, hop.Get("https://api.test/direct-then-edge"), "edge", "certificate_missing")
			rig.WantRefusal(f.Rig, t, bare.Get("https://api.test/edge-then-direct", send), "default", "certificate_missing")
		})
	}
}

// TestRefusedForwardedCertificatesAreNotLogged_E3 checks that logs contain no forwarded
// certificate, and only the beginning of an unreadable one.
func TestRefusedForwardedCertificatesAreNotLogged_E3(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.1")
	hop := f.Caller(t, "h2", nil)
	for _, proxy := range rig.Forwarders {
		value := proxy.Value(f.Stranger)
		for _, sent := range []string{value, value + "x", value[:len(value)-20], strings.Replace(value, "M", "*", 1)} {
			hop.Get("https://api.test/"+realm(proxy)+"/guarded", rig.With(proxy.Header, sent)).WantStatus(t, http.StatusUnauthorized)
			rig.AskToken(hop, "https://auth.test/"+realm(proxy), "billing.partner", rig.With(proxy.Header, sent)).WantStatus(t, http.StatusBadRequest)
		}
	}
	refused := func(e rig.LogEntry) bool { return e.Str("msg") == "client refused" }
	lines := rig.WaitForRefusals(t, len(rig.Forwarders)*8, refused)
	if len(lines) != len(rig.Forwarders)*8 {
		t.Fatalf("%d refusals are remembered", len(lines))
	}
	lines = append(lines, f.Logs.All(refused)...)
	for _, line := range lines {
		if detail := line.Str("detail"); detail == "" || len(detail) > 600 {
			t.Errorf("detail is %q", detail)
		}
		for field, value := range line {
			text, _ := value.(string)
			for _, fragment := range rig.DerFragments(f.Stranger) {
				if strings.Contains(text, fragment) || strings.Contains(text, "BEGIN%20CERT") {
					t.Errorf("%s contains %q", field, text)
				}
			}
		}
		if line.Str("remote_ip") != "127.0.0.1" {
			t.Errorf("remote_ip is %q", line["remote_ip"])
		}
	}
}

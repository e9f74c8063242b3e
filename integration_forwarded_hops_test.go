package mtlsauth

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func keyHash(leaf *testpki.Leaf) string {
	sum := sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// TestA9_ProxyKnownByItsKey: a proxy without a fixed address shows who it is
// with a certificate of its own.
func TestA9_ProxyKnownByItsKey(t *testing.T) {
	f := newForwardingRig(t)
	renewed := testpki.MustSelfSigned(t, testpki.CommonName("proxy, renewed"), testpki.Key(f.proxy.Key))
	f.run(forwardingRealm("edge", "rfc9440", "peer_key "+keyHash(f.proxy)), "edge")
	const guarded, optional = "https://api.test/edge/guarded", "https://api.test/edge/optional"
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			for _, leaf := range []*testpki.Leaf{f.proxy, renewed, testpki.Presenting(f.proxy, f.sensor.Cert)} {
				hop := f.caller(t, protocol, leaf)
				hop.get(guarded, byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
				f.wantRefusal(t, hop.get(guarded), "edge", "certificate_missing")
				hop.get(optional).wantStatus(t, http.StatusOK).wantClient(t, "")
				f.wantRefusal(t, hop.get(optional, with("Client-Cert", "garbage")), "edge", "certificate_unsuitable")
				f.wantToken(t, askToken(hop, "https://auth.test/edge", "sensor-7", byRFC9440.send(f.sensor)), "sensor-7", f.sensor)
				f.wantNoToken(t, askToken(hop, "https://auth.test/edge", "the-proxy"), "certificate_missing")
			}
			// the proxy's certificate without its key, behind one's own
			for _, leaf := range []*testpki.Leaf{f.sensor, testpki.Presenting(f.sensor, f.proxy.Cert)} {
				other := f.caller(t, protocol, leaf)
				other.get(guarded, byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
				f.wantToken(t, askToken(other, "https://auth.test/edge", "sensor-7", byRFC9440.send(f.billing)), "sensor-7", f.sensor)
			}
			f.wantRefusal(t, f.caller(t, protocol, nil).get(guarded, byRFC9440.send(f.billing)), "edge", "certificate_missing")
			f.wantRefusal(t, f.caller(t, protocol, f.stranger).get(guarded, byRFC9440.send(f.billing)), "edge", "certificate_unknown")
		})
	}
	f.wantRefusal(t, f.plain(t).get("http://api.test/edge/guarded", byRFC9440.send(f.billing)), "edge", "certificate_missing")
	f.wantRefusal(t, f.plain(t).get("http://api.test/edge/guarded", byRFC9440.send(f.billing), with("Client-Cert", validators.ClientCert(f.proxy.Cert))), "edge", "certificate_missing")
}

// TestA9_ProxyKnownByItsKeyOrAddress: either is enough.
func TestA9_ProxyKnownByItsKeyOrAddress(t *testing.T) {
	f := newForwardingRig(t)
	const guarded = "https://api.test/edge/guarded"
	f.run(forwardingRealm("edge", "rfc9440", "peer_key "+keyHash(f.sensor)+" "+keyHash(f.proxy)+"\nfrom 127.0.0.2"), "edge")
	for _, protocol := range rigProtocols {
		f.caller(t, protocol, f.proxy).get(guarded, byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
		f.wantRefusal(t, f.caller(t, protocol, f.sensor).get(guarded), "edge", "certificate_missing")
		f.wantRefusal(t, f.caller(t, protocol, nil).get(guarded, byRFC9440.send(f.billing)), "edge", "certificate_missing")
	}
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			for _, own := range []*testpki.Leaf{nil, f.stranger, f.proxy} {
				f.callerFrom(t, protocol, own, "127.0.0.2").get(guarded, byRFC9440.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			}
		})
	}
}

// TestA9_PlainHTTPHop: between the proxy and Caddy there may be no TLS at all.
func TestA9_PlainHTTPHop(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.0/31")
	hop := f.plain(t)
	for _, proxy := range forwarders {
		t.Run(proxy.format, func(t *testing.T) {
			guarded, optional := "http://api.test/"+proxy.realm()+"/guarded", "http://api.test/"+proxy.realm()+"/optional"
			auth := "http://auth.test/" + proxy.realm()
			hop.get(guarded, proxy.send(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			f.wantRefusal(t, hop.get(guarded), proxy.realm(), "certificate_missing")
			f.wantRefusal(t, hop.get(optional, with(proxy.header, "garbage")), proxy.realm(), "certificate_unsuitable")
			hop.get(optional).wantStatus(t, http.StatusOK).wantClient(t, "")
			f.wantToken(t, askToken(hop, auth, "sensor-7", proxy.send(f.sensor)), "sensor-7", f.sensor)
			f.wantNoToken(t, askToken(hop, auth, "sensor-7"), "certificate_missing")
		})
	}
}

// TestA9_OnlyTheLastElement: what comes before it, the caller wrote.
func TestA9_OnlyTheLastElement(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.1")
	const guarded = "https://api.test/envoy/guarded"
	billing, sensor := byEnvoy.value(f.billing), byEnvoy.value(f.sensor)
	for _, protocol := range rigProtocols {
		hop := f.caller(t, protocol, nil)
		hop.get(guarded, with(byEnvoy.header, billing+","+sensor)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
		hop.get(guarded, with(byEnvoy.header, billing+","+sensor+","+billing)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
		for _, value := range []string{
			billing + ",By=spiffe://mesh.test/caddy", billing + ",", billing + `;Cert="` + escapedPEM(f.sensor) + `"`, billing + `,Hash=00`, "Hash=00;Subject=\"CN=billing\"",
		} {
			f.wantRefusal(t, hop.get(guarded, with(byEnvoy.header, value)), "envoy", "certificate_unsuitable")
		}
		f.wantRefusal(t, hop.get(guarded, with(byEnvoy.header, billing, sensor)), "envoy", "certificate_unsuitable")
	}
}

// TestB5_ForwardedChain: the certificates above the client's own help to verify
// it, and do nothing else.
func TestB5_ForwardedChain(t *testing.T) {
	f := newForwardingRig(t)
	intermediate := testpki.MustIntermediate(t, f.ca)
	below := testpki.MustIssue(t, intermediate, testpki.CommonName("billing"))
	foreign := testpki.MustIssue(t, f.otherCA, testpki.CommonName("billing"))
	f.run(forwardingRealm("rfc9440", "rfc9440", "from 127.0.0.1")+forwardingRealm("aws-alb", "aws_alb", "from 127.0.0.1"), "rfc9440", "aws-alb")
	const guarded = "https://api.test/rfc9440/guarded"
	chain := func(leaves ...*testpki.Leaf) func(*http.Request) {
		var text []string
		for _, leaf := range leaves {
			text = append(text, validators.ClientCert(leaf.Cert))
		}
		return with("Client-Cert-Chain", strings.Join(text, ", "))
	}
	ca, middle := &testpki.Leaf{Cert: f.ca.Cert}, &testpki.Leaf{Cert: intermediate.Cert}
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			hop := f.caller(t, protocol, f.proxy)
			for reason, options := range map[string][][]func(*http.Request){
				"certificate_unknown":    {{byRFC9440.send(f.stranger), chain(f.billing)}, {byRFC9440.send(f.stranger), chain(f.sensor, f.billing, ca)}},
				"certificate_untrusted":  {{byRFC9440.send(foreign), chain(f.billing, ca)}, {byRFC9440.send(below)}, {byRFC9440.send(below), with("Client-Cert-Chain", "")}, {byRFC9440.send(below), chain(f.billing)}},
				"certificate_missing":    {{chain(f.billing, ca)}, {with("Client-Cert", ""), chain(f.sensor)}},
				"certificate_unsuitable": {{byRFC9440.send(f.billing), with("Client-Cert-Chain", "garbage")}, {with("Client-Cert", validators.ClientCert(f.stranger.Cert)+", "+validators.ClientCert(f.billing.Cert))}, {byRFC9440.send(below), chain(ca, ca, ca, ca, ca, ca, ca, ca, middle)}},
			} {
				for _, sent := range options {
					f.wantRefusal(t, hop.get(guarded, sent...), "rfc9440", reason)
				}
			}
			hop.get(guarded, byRFC9440.send(below), chain(middle)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			hop.get(guarded, byRFC9440.send(below), chain(ca, middle)).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			hop.get(guarded, byRFC9440.send(below), with("Client-Cert-Chain", validators.ClientCert(middle.Cert), validators.ClientCert(ca.Cert))).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			hop.get(guarded, byRFC9440.send(f.sensor), chain(f.billing)).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
			f.wantToken(t, askToken(hop, "https://auth.test/rfc9440", "billing.partner", byRFC9440.send(below), chain(middle)), "billing.partner", below)
			f.wantNoToken(t, askToken(hop, "https://auth.test/rfc9440", "billing.partner", byRFC9440.send(f.sensor), chain(f.billing)), "client_mismatch")

			// a load balancer that verifies nothing sends what the client sent
			const balanced = "https://api.test/aws-alb/guarded"
			hop.get(balanced, with(byALB.header, byALB.value(below)+byALB.value(middle))).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			f.wantRefusal(t, hop.get(balanced, with(byALB.header, byALB.value(f.stranger)+byALB.value(f.billing))), "aws-alb", "certificate_unknown")
		})
	}
}

// TestA9_HeaderOfAnotherName: the header of the configuration is read and
// removed like those that are known, in any spelling, and the usual one is not
// read.
func TestA9_HeaderOfAnotherName(t *testing.T) {
	for name, options := range map[string]string{
		"default":  "",
		"expected": "servers {\n\texpected_underscore_headers Edge_Certificate\n\texpected_dot_headers Edge.Certificate\n}\n",
	} {
		t.Run(name, func(t *testing.T) {
			f := newForwardingRig(t)
			f.run(options+forwardingRealm("near", "nginx", "from 127.0.0.1\nheader edge-certificate")+
				forwardingRealm("far", "nginx", "from 127.0.0.2\nheader Edge-Certificate"), "near", "far")
			for _, protocol := range rigProtocols {
				t.Run(protocol, func(t *testing.T) { f.checkAnotherName(t, protocol, name == "default") })
			}
			if name != "default" {
				return // Caddy drops the right spelling for the sake of the others
			}
			// a hop cannot be told to drop what is read
			got := f.raw(t, nil, "api.test").send("GET /near/guarded HTTP/1.1\nHost: api.test\nConnection: close, edge-certificate\nEDGE-CERTIFICATE: " + escapedPEM(f.billing) + "\n\n")
			got.wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
		})
	}
}

func (f *forwardingRig) checkAnotherName(t *testing.T, protocol string, arrives bool) {
	value := escapedPEM(f.billing)
	hop, nobody := f.caller(t, protocol, f.proxy), f.caller(t, protocol, nil)
	for _, spelling := range []string{"Edge_Certificate", "Edge.Certificate", "Edge~Certificate", "X-SSL-Client-Cert", "Client-Cert"} {
		hop.get("https://api.test/near/optional", with(spelling, value)).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
		nobody.get("https://api.test/far/optional", with(spelling, value)).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
		hop.get("https://api.test/far/optional", with(spelling, value)).wantStatus(t, http.StatusOK).wantClient(t, "the-proxy").wantGone(t)
		f.wantNoToken(t, askToken(hop, "https://auth.test/near", "billing.partner", with(spelling, value)), "certificate_missing")
		if arrives {
			right := with("edge-Certificate", escapedPEM(f.sensor))
			hop.get("https://api.test/near/optional", with(spelling, value), right).wantStatus(t, http.StatusOK).wantClient(t, "sensor-7").wantGone(t)
			f.wantToken(t, askToken(hop, "https://auth.test/near", "sensor-7", with(spelling, value), right), "sensor-7", f.sensor)
		}
	}
	nobody.get("https://api.test/far/optional", with("Edge-Certificate", value)).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
	trailer := func(r *http.Request) {
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader("some body")), -1
		r.Trailer = http.Header{"Edge-Certificate": {value}, "X-Ssl-Client-Cert": {value}}
	}
	hop.do(http.MethodPost, "https://api.test/near/optional", trailer).wantStatus(t, http.StatusOK).wantClient(t, "").wantGone(t)
}

// TestA9_TwoRealms: one realm takes certificates from the proxy in front, the
// other only from connections.
func TestA9_TwoRealms(t *testing.T) {
	f := newForwardingRig(t)
	f.start(strings.Replace(forwardingRealm("edge", "rfc9440", "from 127.0.0.1"), "issuer https://auth.test/edge", "", 1)+`
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
	for _, protocol := range rigProtocols {
		t.Run(protocol, func(t *testing.T) {
			hop, bare := f.caller(t, protocol, f.proxy), f.caller(t, protocol, nil)
			send := byRFC9440.send(f.billing)
			hop.get("https://api.test/edge", send).wantStatus(t, http.StatusOK).wantClient(t, "billing.partner").wantGone(t)
			hop.get("https://api.test/direct", send).wantStatus(t, http.StatusOK).wantClient(t, "direct-proxy").wantGone(t)
			f.wantRefusal(t, bare.get("https://api.test/direct", send), "default", "certificate_missing")
			f.wantRefusal(t, hop.get("https://api.test/edge"), "edge", "certificate_missing")
			for path, want := range map[string][2]string{
				"edge-then-direct": {"billing.partner", "direct-proxy"},
				"direct-then-edge": {"direct-proxy", "billing.partner"},
				"edge-then-edge":   {"billing.partner", "billing.partner"},
			} {
				got := hop.get("https://api.test/"+path, send, with("X-First", "forged")).wantStatus(t, http.StatusOK).wantClient(t, want[1]).wantGone(t)
				if first := got.seen.Header["X-First"]; len(first) != 1 || first[0] != want[0] {
					t.Errorf("%s: the first directive told %q, want %s", path, first, want[0])
				}
			}
			f.wantRefusal(t, hop.get("https://api.test/edge-then-direct"), "edge", "certificate_missing")
			f.wantRefusal(t, hop.get("https://api.test/direct-then-edge"), "edge", "certificate_missing")
			f.wantRefusal(t, bare.get("https://api.test/edge-then-direct", send), "default", "certificate_missing")
		})
	}
}

// TestE3_RefusedForwardedCertificatesAreNotLogged: neither what a proxy sends,
// nor more than the beginning of it when it cannot be read.
func TestE3_RefusedForwardedCertificatesAreNotLogged(t *testing.T) {
	f := startForwarding(t, "from 127.0.0.1")
	hop := f.caller(t, "h2", nil)
	for _, proxy := range forwarders {
		value := proxy.value(f.stranger)
		for _, sent := range []string{value, value + "x", value[:len(value)-20], strings.Replace(value, "M", "*", 1)} {
			hop.get("https://api.test/"+proxy.realm()+"/guarded", with(proxy.header, sent)).wantStatus(t, http.StatusUnauthorized)
			askToken(hop, "https://auth.test/"+proxy.realm(), "billing.partner", with(proxy.header, sent)).wantStatus(t, http.StatusUnauthorized)
		}
	}
	lines := f.logs.all(func(e logEntry) bool { return e.str("msg") == "client refused" })
	if len(lines) != len(forwarders)*8 {
		t.Fatalf("%d refusals are logged", len(lines))
	}
	for _, line := range lines {
		if detail := line.str("detail"); detail == "" || len(detail) > 600 {
			t.Errorf("detail %q", detail)
		}
		for field, value := range line {
			text, _ := value.(string)
			for _, fragment := range derFragments(f.stranger) {
				if strings.Contains(text, fragment) || strings.Contains(text, "BEGIN%20CERT") {
					t.Errorf("%s has %q", field, text)
				}
			}
		}
		if line.str("remote_ip") != "127.0.0.1" {
			t.Errorf("remote_ip %q", line["remote_ip"])
		}
	}
}

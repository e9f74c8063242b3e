package forwarded_test

import (
	"crypto/x509"
	"fmt"
	"maps"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// written is a forward_certificate with one format.
type written struct {
	// name is a path and a realm
	name, format string
	// another is the header, if it is not that of the format
	another  string
	hasChain bool
}

var writtenFormats = []written{
	{name: "rfc9440", format: "rfc9440", hasChain: true},
	{name: "nginx", format: "nginx"},
	{name: "haproxy", format: "haproxy"},
	{name: "asp-net-core", format: "haproxy", another: "X-Client-Cert"},
	{name: "azure", format: "haproxy", another: "X-ARR-ClientCert"},
	{name: "own-name", format: "nginx", another: "Edge-Certificate"},
	{name: "envoy", format: "envoy", hasChain: true},
	{name: "aws-alb", format: "aws_alb", hasChain: true},
	{name: "aws-alb-leaf", format: "aws_alb", another: "X-Amzn-Mtls-Clientcert-Leaf"},
	{name: "traefik", format: "traefik", hasChain: true},
}

func (w written) headerLine() string {
	if w.another == "" {
		return ""
	}
	return "header " + w.another
}

// directive returns the directive with more options, which writes in this format.
func (w written) directive(options string) string {
	return "mtls_auth {\nforward_certificate " + w.format + " {\n" + w.headerLine() + "\n}\n" + options + "\n}\n"
}

// headers returns what the upstream gets.
func (w written) headers(t *testing.T, leaf *x509.Certificate, chain ...*x509.Certificate) map[string]string {
	t.Helper()
	format, err := forwarded.ParseFormat(w.format)
	if err != nil {
		t.Fatal(err)
	}
	name := format.Header
	if w.another != "" {
		name = w.another
	}
	value, chainValue := format.In(name).Write(leaf, chain)
	headers := map[string]string{textproto.CanonicalMIMEHeaderKey(name): value}
	if chainValue != "" {
		headers[format.ChainHeader] = chainValue
	}
	return headers
}

// wantCertificates fails the test unless these are all headers and trailers with a
// certificate that the upstream got.
func wantCertificates(t *testing.T, got rig.Reply, want map[string]string) {
	t.Helper()
	if got.Seen == nil {
		t.Fatalf("the request did not reach the upstream: %d %.300q", got.Status, got.Body)
	}
	found := make(map[string]string)
	for _, header := range []http.Header{got.Seen.Header, got.Seen.Trailer} {
		for name, values := range header {
			if rig.IsNamed(name, append([]string{"edge-certificate*"}, rig.GatewayHeaders...)...) {
				found[name] += strings.Join(values, "|")
			}
		}
	}
	if !maps.Equal(found, want) {
		t.Errorf("the upstream got %.600q, want %.600q", found, want)
	}
}

// forgeries are the names of all formats, with another character in place of hyphens.
func forgeries(t *testing.T, hyphen string) (names []string) {
	leaf, ca := testpki.MustSelfSigned(t).Cert, testpki.MustCA(t).Cert
	for _, w := range writtenFormats {
		for name := range w.headers(t, leaf, ca) {
			if name = strings.ReplaceAll(name, "-", hyphen); !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// startWriting starts a site with a path for each format and mode, and behind it a
// realm for each format, which reads what the site writes and writes it in others.
func startWriting(t *testing.T, r *rig.Rig, options string) {
	t.Helper()
	// what a proxy in front has sent is in Caddy's own log of an error
	rig.WithoutLogs(r, "http.log.error", "http.handlers.reverse_proxy")
	global := options + rig.BillingAndSensor
	var front, inner, errors strings.Builder
	for _, w := range writtenFormats {
		global += "mtls " + w.name + " {\nforwarded_certificate " + w.format + " {\nfrom 127.0.0.1\n" + w.headerLine() + "\n}\n" +
			strings.TrimPrefix(rig.BillingAndSensor, "\nmtls {")
		for mode, options := range map[string]string{"direct": "", "optional": "optional", "report": "report_only\nallow billing.partner"} {
			fmt.Fprintf(&front, "handle /%s/%s {\n%sreverse_proxy @UP@\n}\n", w.name, mode, w.directive(options))
		}
		fmt.Fprintf(&front, "handle /%s/vary {\n%sheader Vary {query.vary}\nrespond ok\n}\n", w.name, w.directive(""))
		fmt.Fprintf(&front, "handle /%s/hop {\n%sreverse_proxy 127.0.0.1:@HTTP@ {\nheader_up Host api.test\n}\n}\n", w.name, w.directive(""))
		fmt.Fprintf(&inner, "handle /%s/hop {\nmtls_auth {\nrealm %s\nforward_certificate traefik rfc9440\n}\nreverse_proxy @UP@\n}\n", w.name, w.name)
		fmt.Fprintf(&errors, "handle /%s {\n%serror 418\n}\n", w.name, w.directive(""))
	}
	front.WriteString("handle /none {\nmtls_auth\nreverse_proxy @UP@\n}\n")
	r.Start(global, "https://api.test:@HTTPS@ {\nimport mtls\nlog\n"+front.String()+"}\n"+
		"http://api.test:@HTTP@ {\nimport plain\n"+inner.String()+"}\n"+
		"https://other.test:@HTTPS@ {\nimport mtls\n"+errors.String()+"handle_errors {\nreverse_proxy @UP@\n}\n}\n")
}

// TestForwardCertificateFormats checks, for each format, what the upstream gets of an
// admitted client, whatever the caller sent, and that it gets nothing of others. Caddy
// itself drops headers with an underscore or a dot, unless it is told to expect them.
func TestForwardCertificateFormats_A2_A5_A8(t *testing.T) {
	for name, options := range map[string]string{
		"plain": "",
		"expected": "servers {\n\texpected_underscore_headers " + strings.Join(forgeries(t, "_"), " ") +
			"\n\texpected_dot_headers " + strings.Join(forgeries(t, "."), " ") + "\n}\n",
	} {
		t.Run(name, func(t *testing.T) { checkWrittenFormats(t, options) })
	}
}

func checkWrittenFormats(t *testing.T, options string) {
	r := rig.New(t)
	sub := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Sub CA"))
	billing, sensor, stranger := r.IssueBy(sub, "billing"), r.SelfSigned("sensor"), r.IssueBy(r.OtherCA, "billing")
	billing = testpki.Presenting(billing, r.OtherCA.Cert, sub.Cert)
	startWriting(t, r, options)
	names := slices.Concat(forgeries(t, "-"), forgeries(t, "_"), forgeries(t, "."))
	var forged []func(*http.Request)
	for _, name := range names {
		forged = append(forged, rig.With(name, "forged"))
	}
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			asBilling, asSensor, asStranger, asNobody := r.Caller(t, protocol, billing), r.Caller(t, protocol, sensor), r.Caller(t, protocol, stranger), r.Caller(t, protocol, nil)
			for _, w := range writtenFormats {
				url := "https://api.test/" + w.name
				for _, mode := range []string{"/direct", "/optional", "/report"} {
					for range 2 { // the first request, then one served from memory
						got := asBilling.Get(url+mode, forged...).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
						wantCertificates(t, got, w.headers(t, billing.Cert, sub.Cert, r.CA.Cert))
					}
				}
				for _, mode := range []string{"/direct", "/optional"} {
					got := asSensor.Get(url+mode, forged...).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
					wantCertificates(t, got, w.headers(t, sensor.Cert))
					asStranger.Get(url+mode, forged...).WantRefused(t, "default", http.StatusUnauthorized, rig.Refused)
				}
				for _, got := range []rig.Reply{
					asNobody.Get(url+"/optional", forged...), asNobody.Get(url+"/report", forged...), asStranger.Get(url+"/report", forged...), asSensor.Get(url+"/report", forged...),
				} {
					got.WantStatus(t, http.StatusOK).WantClient(t, "")
					wantCertificates(t, got, nil)
				}
			}
			wantCertificates(t, asBilling.Get("https://api.test/none", forged...).WantStatus(t, http.StatusOK), nil)
		})
	}
	// in HTTP/1.1, Connection can ask the proxy to drop headers, and trailers can add some
	list, trailers := strings.Join(names, ", "), strings.Join(names, ": forged\n")+": forged\n"
	for _, w := range writtenFormats {
		got := r.Raw(t, billing, "api.test").Send("POST /" + w.name + "/direct HTTP/1.1\nHost: api.test\nTransfer-Encoding: chunked\nConnection: close, " + list +
			"\nTrailer: " + list + "\n\n1\na\n0\n" + trailers + "\n")
		wantCertificates(t, got, w.headers(t, billing.Cert, sub.Cert, r.CA.Cert))
	}
}

// TestForwardCertificateThroughAHop checks that a second Caddy reads the certificate in
// each format, and sends it on in others.
func TestForwardCertificateThroughAHop_A9(t *testing.T) {
	r := rig.New(t)
	sub := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Sub CA"))
	below, billing, sensor := r.IssueBy(sub, "billing"), r.Issue("billing"), r.SelfSigned("sensor")
	below = testpki.Presenting(below, sub.Cert)
	startWriting(t, r, "")
	sentOn := func(leaf *testpki.Leaf, chain ...*x509.Certificate) map[string]string {
		headers := writtenFormats[0].headers(t, leaf.Cert, chain...)
		maps.Copy(headers, writtenFormats[len(writtenFormats)-1].headers(t, leaf.Cert, chain...))
		return headers
	}
	for _, w := range writtenFormats {
		url := "https://api.test/" + w.name + "/hop"
		wantCertificates(t, r.Caller(t, "h2", billing).Get(url).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner"), sentOn(billing, r.CA.Cert))
		wantCertificates(t, r.Caller(t, "h2", sensor).Get(url).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7"), sentOn(sensor))
		got := r.Caller(t, "h2", below).Get(url)
		if !w.hasChain { // the second Caddy does not get to know the intermediate CA
			rig.WantRefusal(r, t, got, w.name, "certificate_untrusted")
			continue
		}
		wantCertificates(t, got.WantStatus(t, http.StatusOK).WantClient(t, "billing.partner"), sentOn(below, sub.Cert, r.CA.Cert))
	}
}

// TestVaryAndErrorRoutesOfFormats checks that caches do not see headers with a
// certificate, and that error routes do not get them.
func TestVaryAndErrorRoutesOfFormats_E4(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	startWriting(t, r, "")
	c := r.Caller(t, "h2", billing)
	for _, w := range writtenFormats {
		for name := range w.headers(t, billing.Cert, r.CA.Cert) {
			for _, spelling := range []string{name, strings.ToLower(name), "Accept,%20" + strings.ReplaceAll(name, "-", "_")} {
				if vary := c.Get("https://api.test/"+w.name+"/vary?vary="+spelling).WantStatus(t, http.StatusOK).Header.Get("Vary"); vary != "*" {
					t.Errorf("%s: Vary %s is sent as %q", w.name, spelling, vary)
				}
			}
		}
		if vary := c.Get("https://api.test/" + w.name + "/vary?vary=Accept").Header.Get("Vary"); vary != "Accept" {
			t.Errorf("%s: Vary Accept is sent as %q", w.name, vary)
		}
		got := c.Get("https://other.test/"+w.name).WantClient(t, "billing.partner")
		wantCertificates(t, got, nil)
	}
}

// TestHostileNamesInEveryFormat checks that names in a certificate neither add anything to
// a header nor break the request.
func TestHostileNamesInEveryFormat_A9(t *testing.T) {
	for name, hostile := range map[string]testpki.Option{
		"line break":   testpki.DNSNames("a\r\nX-Client-ID: billing.partner\r\nX-Forwarded-Client-Cert: a"),
		"NUL":          testpki.DNSNames("a\x00b"),
		"elements":     testpki.DNSNames("a", `b";URI=spiffe://mesh.example/admin,Hash=0;URI="`),
		"pairs of URI": testpki.URIs("spiffe://mesh.example/a;URI=spiffe://mesh.example/admin"),
		"key of DNS":   testpki.URIs("https://mesh.example/?URI=spiffe://mesh.example/admin"),
		"subject":      testpki.CommonName("sensor\";URI=spiffe://mesh.example/admin;Subject=\"é\\"),
		"long":         testpki.DNSNames(strings.Repeat("a", 5<<10)),
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t)
			r.Issue("billing")
			sensor := r.SelfSigned("sensor", hostile)
			startWriting(t, r, "")
			c := r.Caller(t, "h2", sensor)
			for _, w := range writtenFormats {
				got := c.Get("https://api.test/"+w.name+"/direct").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
				wantCertificates(t, got, w.headers(t, sensor.Cert))
				if uri := got.Seen.Header.Get("X-Forwarded-Client-Cert"); strings.Contains(uri, "URI=spiffe://mesh.example/admin") {
					t.Errorf("the upstream got %.600q", uri)
				}
				c.Get("https://api.test/"+w.name+"/hop").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			}
		})
	}
}

// TestFormatsAfterAReload checks that a certificate that is remembered is written in the
// formats of the configuration in force.
func TestFormatsAfterAReload(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	rig.WithoutProxyLog(r)
	sites := func(w written) string { return strings.Replace(rig.OneSite, "mtls_auth", w.directive(""), 1) }
	r.Start(rig.BillingAndSensor, sites(writtenFormats[0]))
	c := r.Caller(t, "h2", billing)
	for i, w := range writtenFormats {
		if i > 0 {
			r.Reload(rig.BillingAndSensor, sites(w))
			c = r.Caller(t, "h2", billing)
		}
		for range 2 {
			wantCertificates(t, c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner"), w.headers(t, billing.Cert, r.CA.Cert))
		}
	}
}

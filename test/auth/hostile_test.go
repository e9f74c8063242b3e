package auth_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// rawCertificates returns a caller that presents the given bytes as certificates.
func rawCertificates(r *rig.Rig, t *testing.T, protocol string, leaf *testpki.Leaf, ders ...[]byte) *rig.Caller {
	t.Helper()
	c := r.Caller(t, protocol, nil)
	certificate := tls.Certificate{Certificate: ders, PrivateKey: leaf.Key}
	c.Tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
	return c
}

func TestHostileCertificates(t *testing.T) {
	r, sensor := startWire(t)
	thousand := make([]string, 1000)
	for i := range thousand {
		thousand[i] = fmt.Sprintf("name-%04d.example", i)
	}
	var extensions []testpki.Option
	for i := range 500 {
		extensions = append(extensions, testpki.Extension(pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, i}, Value: []byte{5, 0}}))
	}
	var usages []testpki.Option
	usages = append(usages, testpki.Template(func(c *x509.Certificate) {
		c.ExtKeyUsage = nil
		for i := range 1000 {
			c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, asn1.ObjectIdentifier{1, 2, 3, 4, i})
		}
	}))
	long := new(big.Int).Lsh(big.NewInt(1), 8000)
	now := time.Now()
	issue := func(options ...testpki.Option) *testpki.Leaf {
		leaf := testpki.MustIssue(t, r.CA, append([]testpki.Option{testpki.CommonName("billing")}, options...)...)
		r.Leaves = append(r.Leaves, leaf)
		return leaf
	}
	var heap []*x509.Certificate
	deepest := r.OtherCA
	for range 20 {
		deepest = testpki.MustIntermediate(t, deepest)
		heap = append(heap, deepest.Cert)
	}
	below := testpki.MustIssue(t, deepest, testpki.CommonName("billing"))
	for name, tc := range map[string]struct {
		leaf   *testpki.Leaf
		reason string
	}{
		"a thousand names":         {issue(testpki.DNSNames(thousand...)), "certificate_unsuitable"},
		"a thousand usages":        {issue(usages...), "certificate_unsuitable"},
		"500 extensions":           {issue(append(extensions, testpki.CommonName("nobody"))...), "certificate_unknown"},
		"long serial":              {issue(testpki.Serial(long), testpki.CommonName("nobody")), "certificate_unknown"},
		"CA as leaf":               {issue(testpki.IsCA(true)), "certificate_unsuitable"},
		"the CA itself":            {&testpki.Leaf{Cert: r.CA.Cert, Key: r.CA.Key}, "certificate_untrusted"},
		"no clientAuth":            {issue(testpki.EKU(x509.ExtKeyUsageServerAuth)), "certificate_unsuitable"},
		"expired":                  {issue(testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour))), "certificate_expired"},
		"not yet valid":            {issue(testpki.Validity(now.Add(time.Hour), now.Add(2*time.Hour))), "certificate_expired"},
		"valid never":              {issue(testpki.Validity(now.Add(time.Hour), now.Add(-time.Hour))), "certificate_expired"},
		"same subject, other CA":   {testpki.MustIssue(t, r.OtherCA, testpki.CommonName("billing")), "certificate_untrusted"},
		"20 CAs above":             {testpki.Presenting(below, heap...), "certificate_untrusted"},
		"100 copies of one CA":     {testpki.Presenting(below, slices.Repeat([]*x509.Certificate{r.OtherCA.Cert}, 100)...), "certificate_untrusted"},
		"its own issuer":           {testpki.Presenting(below, below.Cert, below.Cert), "certificate_untrusted"},
		"name of 60 KiB":           {issue(testpki.CommonName(string(make([]byte, 60<<10)))), "certificate_unknown"},
		"empty subject and issuer": {testpki.MustSelfSigned(t, testpki.Subject(pkix.Name{})), "certificate_untrusted"},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				got, err := r.Caller(t, protocol, tc.leaf).Try(http.MethodGet, "https://api.test/")
				if err != nil {
					size := 0
					for _, cert := range tc.leaf.Presented() {
						size += len(cert.Raw)
					}
					if protocol != "h3" || size < 15<<10 || !strings.Contains(err.Error(), "CRYPTO_BUFFER_EXCEEDED (remote)") { // quic-go accepts at most 16 KiB of handshake data
						t.Error("the request failed:", err)
					}
					stillServes(r, t, sensor)
					return
				}
				r.WantReason(t, got, tc.reason)
				entry := r.Logs.WithErrorID(t, "client refused", got.ErrorID)
				size := 0
				for _, value := range entry {
					size += len(fmt.Sprint(value))
				}
				if size > 16<<10 {
					t.Errorf("the log line has %d characters, want at most 16 KiB", size)
				}
			})
		}
	}
	stillServes(r, t, sensor)
}

// endedByServer reports whether a connection failed because the server ended it,
// with an alert or, if the server stopped reading, without one. Go's HTTP/2 client
// may report the last text instead.
func endedByServer(err error) bool {
	return slices.ContainsFunc([]string{"remote error: tls: ", "(remote)", "broken pipe", "connection reset by peer", "client conn could not be established"}, func(text string) bool {
		return strings.Contains(err.Error(), text)
	})
}

func TestUnreadableCertificates(t *testing.T) {
	r, sensor := startWire(t)
	der := sensor.Cert.Raw
	change := func(at int, to byte) []byte {
		changed := slices.Clone(der)
		changed[at] = to
		return changed
	}
	stranger := testpki.MustSelfSigned(t)
	for name, ders := range map[string][][]byte{
		"empty":                  {{}},
		"noise":                  {[]byte("no certificate at all")},
		"cut":                    {der[:len(der)/2]},
		"more after the end":     {append(slices.Clone(der), 0)},
		"length too long":        {change(3, 0xff)},
		"wrong version":          {change(12, 9)},
		"key of another":         {stranger.Cert.Raw},
		"signature changed":      {change(len(der)-1, der[len(der)-1]^1)},
		"noise after a good one": {der, []byte("noise")},
		"100 KiB of noise":       {make([]byte, 100<<10)},
		"300 KiB":                {der, make([]byte, 300<<10)},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				got, err := rawCertificates(r, t, protocol, sensor, ders...).Try(http.MethodGet, "https://api.test/", rig.With("X-Client-Id", "billing.partner"))
				switch {
				case name == "signature changed" && err == nil: // TLS does not check the certificate's signature
					r.WantReason(t, got, "certificate_untrusted")
				case err == nil || name == "signature changed":
					t.Errorf("unexpected outcome: %d %q, %v", got.Status, got.Body, err)
				case !endedByServer(err):
					t.Errorf("the server did not end the handshake: %v", err)
				}
				stillServes(r, t, sensor)
			})
		}
	}
	stillServes(r, t, sensor)
}

// TestKindsOfKeys checks that clients can use every key type that Go's TLS supports.
func TestKindsOfKeys(t *testing.T) {
	r := rig.New(t)
	r.SelfSigned("sensor")
	kinds := map[string]testpki.KeyType{"P-256": testpki.P256, "P-384": testpki.P384, "P-521": testpki.P521, "RSA": testpki.RSA2048, "Ed25519": testpki.Ed25519}
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for name, kind := range kinds {
		leaf := testpki.MustIssue(t, r.CA, testpki.CommonName("billing"), testpki.WithKeyType(kind))
		for _, protocol := range rig.Protocols {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				if version == tls.VersionTLS12 && protocol == "h3" {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%x", name, protocol, version), func(t *testing.T) {
					c := r.Caller(t, protocol, leaf)
					c.Tls.MinVersion, c.Tls.MaxVersion = version, version
					c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				})
			}
		}
	}
}

// TestWireNoTLS checks that Caddy survives connections to the TLS port that are not
// TLS, and that it refuses old TLS versions.
func TestWireNoTLS(t *testing.T) {
	r, sensor := startWire(t)
	for name, text := range map[string]string{
		"plain HTTP":   "GET / HTTP/1.1\r\nHost: api.test\r\nX-Client-ID: billing.partner\r\n\r\n",
		"noise":        "\x00\x01\x02\x03\x04\x05\x06\x07",
		"half a hello": "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
		"huge record":  "\x16\x03\x01\xff\xff" + string(make([]byte, 70000)),
		"SSL 2":        "\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
		"nothing":      "",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", "127.0.0.1:"+r.HTTPS)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(rig.Patience))
			_, _ = io.WriteString(conn, text)
			_ = conn.(*net.TCPConn).CloseWrite()
			answer, err := io.ReadAll(conn)
			t.Logf("answers %.60q %v", answer, err)
			stillServes(r, t, sensor)
		})
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		config := r.TLSConfig(sensor)
		config.ServerName, config.MinVersion, config.MaxVersion = "api.test", version, version
		if conn, err := tls.Dial("tcp", "127.0.0.1:"+r.HTTPS, config); err == nil {
			_ = conn.Close()
			t.Errorf("the server accepted TLS version %x", version)
		}
	}
}

// TestStubbornClients_C2 checks that clients disabled by a reload are not admitted
// on connections from before the reload.
func TestStubbornClients_C2(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	request := []string{":method", "GET", ":scheme", "https", ":authority", "api.test"}
	h2 := newRawH2(r, t, billing, "api.test")
	h2.headers(1, true, append(request, ":path", "/block")...)
	h1 := r.Raw(t, billing, "api.test")
	h1.Write("GET /block HTTP/1.1\nHost: api.test\n\n")
	idle := r.Raw(t, billing, "api.test")
	idle.Send("GET / HTTP/1.1\nHost: api.test\n\n").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	for range 2 {
		<-r.Upstream.Blocked
	}
	r.Reload(`mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing.partner {
			subject "CN=billing"
			disabled
		}
	}`, rig.OneSite)
	hits := r.Upstream.Hits.Load()

	// send more requests on the connections from before the reload
	h2.headers(3, true, append(request, ":path", "/")...)
	h1.Write("GET / HTTP/1.1\nHost: api.test\n\n")
	for range 2 {
		r.Upstream.Release <- struct{}{}
	}
	_, _ = io.WriteString(idle.Conn, "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n")
	if answer, _ := io.ReadAll(idle.In); len(answer) > 0 {
		t.Errorf("an idle connection from before the reload got an answer: %.200q", answer)
	}
	answer, _ := io.ReadAll(h1.In)
	if n := strings.Count(string(answer), "HTTP/1.1 "); n != 1 {
		t.Errorf("a busy HTTP/1.1 connection from before the reload got %d answers, want 1: %.300q", n, answer)
	}
	if status := h2.answer(1); status != "200" {
		t.Errorf("the request from before the reload got status %q, want 200", status)
	}
	if status := h2.answer(3); status != "" && status != "401" {
		t.Errorf("a new request on the HTTP/2 connection from before the reload got status %q", status)
	} else {
		t.Logf("a new request on the HTTP/2 connection from before the reload is answered %q", status)
	}
	if n := r.Upstream.Hits.Load() - hits; n != 0 {
		t.Errorf("%d more requests reached the upstream", n)
	}
}

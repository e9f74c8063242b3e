package probe

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// behind returns a bad proxy in front of the echo API, and how it is probed.
func behind(t *testing.T) *Gateway {
	t.Helper()
	ca := testpki.MustCA(t, testpki.CommonName("CA"))
	server := testpki.MustIssue(t, ca, testpki.CommonName("server"), testpki.DNSNames("api.test"), testpki.EKU(x509.ExtKeyUsageServerAuth))
	client, other := testpki.MustIssue(t, ca, testpki.CommonName("billing")), testpki.MustIssue(t, ca, testpki.CommonName("sensor"))
	pool := x509.NewCertPool()
	pool.AddCert(ca.Cert)
	proxy := &badProxy{upstream: startEcho(t), path: "/orders/new"}
	address := proxy.start(t, &tls.Config{
		Certificates: []tls.Certificate{server.TLS()}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12,
	})
	g := &Gateway{
		Certificates: map[string]*tls.Certificate{WithCertificate: new(client.TLS()), WithOther: new(other.TLS())},
		Roots:        pool, Address: address, Timeout: patience,
	}
	if err := g.SetURL("https://" + proxy.host + proxy.path); err != nil {
		t.Fatal(err)
	}
	return g
}

// TestEverySpoofCanGetThrough checks that a gateway that does everything wrong lets
// every spoof through, over every protocol that can say it.
func TestEverySpoofCanGetThrough(t *testing.T) {
	spoofs := Spoofs()
	report, err := Run(context.Background(), behind(t), Options{Headers: []string{"X-Client-ID", "Authorization"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(report.Protocols, all) {
		t.Errorf("the protocols are %v", report.Protocols)
	}
	got := make(map[[2]string]bool)
	for _, attempt := range report.Attempts {
		key := [2]string{attempt.Spoof, attempt.Protocol}
		got[key] = got[key] || attempt.Verdict == GotThrough
	}
	for _, spoof := range spoofs {
		for _, protocol := range spoof.Protocols {
			if !got[[2]string{spoof.Name, protocol}] {
				t.Errorf("%s over %s did not get through:", spoof.Name, protocol)
				for _, attempt := range report.Attempts {
					if attempt.Spoof == spoof.Name && attempt.Protocol == protocol {
						t.Logf("  %s, %s: %s (%s)", attempt.Header, attempt.Caller, attempt.Verdict, attempt.Evidence)
					}
				}
			}
		}
	}
}

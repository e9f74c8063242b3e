package mtlsauth

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"net"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestE3_LoggedNames: the alternative names in a log line are as they would be
// declared, escaped and few.
func TestE3_LoggedNames(t *testing.T) {
	for want, options := range map[string][]testpki.Option{
		"": nil,
		"san_dns a.example|san_email x@a.example|san_ip 192.0.2.1|san_uri spiffe://a.example/b": {
			testpki.DNSNames("a.example"), testpki.Emails("x@a.example"), testpki.IPs(net.IPv4(192, 0, 2, 1)), testpki.URIs("spiffe://a.example/b"),
		},
		`san_dns a\n\x1b[1m.example`: {testpki.Extension(pkix.Extension{
			Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: append([]byte{0x30, 16, 0x82, 14}, "a\n\x1b[1m.example"...),
		})},
		strings.Repeat("san_dns x.example|", maxLoggedNames) + "…": {testpki.DNSNames(strings.Fields(strings.Repeat("x.example ", 100))...)},
	} {
		leaf := testpki.MustSelfSigned(t, options...)
		if got := strings.Join(loggedNames(leaf.Cert), "|"); got != want {
			t.Errorf("logged are %q, want %q", got, want)
		}
	}
}

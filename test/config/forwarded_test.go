package config_test

import (
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

const aroundForwarded = "{\n\tmtls {\n\t\tforwarded_certificate nginx {\n\t\t\tfrom 192.0.2.99\nBLOCK\n\t\t}\n\t}\n}\n"

func TestBadForwardedCertificate(t *testing.T) {
	const nobody = "forwarded_certificate: no trusted proxy is named; add 'from <cidr>' or 'peer_key <hash>'"
	checkBadBlocks(t, aroundRealm, []badBlock{
		{"forwarded_certificate", 1, missing("forwarded_certificate <format>")},
		{"forwarded_certificate nginx envoy {\nfrom 10.0.0.1\n}", 1, surplus("forwarded_certificate <format> {", "envoy")},
		{"forwarded_certificate {\nfrom 10.0.0.1\n}", 1, missing("forwarded_certificate <format>")},
		{`forwarded_certificate "{$MTLS_TEST_UNSET}"`, 1, "forwarded_certificate is empty; give it a value or remove the line"},
		{"forwarded_certificate NGINX {\nfrom 10.0.0.1\n}", 1, `forwarded_certificate: unknown format "NGINX" of a forwarded certificate; use one of rfc9440, nginx, haproxy, envoy, aws_alb, traefik`},
		{"forwarded_certificate apache {\nfrom 10.0.0.1\n}", 1, `forwarded_certificate: unknown format "apache" of a forwarded certificate; use nginx with the function escape in Apache's RequestHeader`},
		{"forwarded_certificate caddy {\nfrom 10.0.0.1\n}", 1, `unknown format "caddy" of a forwarded certificate; use rfc9440`},
		{"forwarded_certificate Cloudflare {\nfrom 10.0.0.1\n}", 1, `unknown format "Cloudflare" of a forwarded certificate; use haproxy with header Cf-Client-Cert-Der-Base64`},
		{"forwarded_certificate azure {\nfrom 10.0.0.1\n}", 1, `unknown format "azure" of a forwarded certificate; use haproxy with header X-ARR-ClientCert for App Service, nginx for Application Gateway`},
		{"forwarded_certificate nginx", 1, nobody},
		{"forwarded_certificate nginx {\n}", 2, nobody},
		{"forwarded_certificate nginx {\nheader X-Cert\n}", 3, nobody},
		{"forwarded_certificate nginx {\nfrom 10.0.0.1\n}\nforwarded_certificate nginx {\nfrom 10.0.0.2\n}", 4, "duplicate option 'forwarded_certificate'; a realm takes certificates from one kind of proxy"},
	})
	checkBadBlocks(t, aroundForwarded, []badBlock{
		{"from", 1, missing("from <cidr>...")},
		{`from 10.0.0.1 "{$MTLS_TEST_UNSET}"`, 1, "from is empty; give it a value or remove it"},
		{"from {$MTLS_TEST_UNSET}", 1, missing("from <cidr>...")},
		{"from 0.0.0.0/0", 1, "from '0.0.0.0/0': the range covers every address; name the proxies' addresses only"},
		{"from 10.0.0.1/0", 1, "from '10.0.0.1/0': the range covers every address; name the proxies' addresses only"},
		{"from ::/0", 1, "from '::/0': the range covers every address; name the proxies' addresses only"},
		{"from ::ffff:0:0/96", 1, "from '::ffff:0:0/96': the range covers every address; name the proxies' addresses only"},
		{"from 10.0.0.7/8", 1, "from '10.0.0.7/8': the address has bits beyond the range; write 10.0.0.0/8 for the range, or 10.0.0.7 for one proxy"},
		{"from fe80::1%eth0", 1, "from 'fe80::1%eth0': an address with a zone can belong to any host on the link; use an address without a zone, or peer_key"},
		{"from 10.0.0.0/33", 1, "from '10.0.0.0/33': not an address or a range such as 10.0.0.0/8"},
		{"from 10.0.0", 1, "from '10.0.0': not an address or a range such as 10.0.0.0/8"},
		{"from 10.0.0.0-10.0.0.9", 1, "not an address or a range such as 10.0.0.0/8"},
		{"from 10.0.0.1:8080", 1, "not an address or a range such as 10.0.0.0/8"},
		{"from proxy.example.com", 1, "from 'proxy.example.com': not an address or a range such as 10.0.0.0/8"},
		{"from private_ranges", 1, "from 'private_ranges': not an address or a range such as 10.0.0.0/8"},
		{"from *", 1, "from '*': not an address or a range such as 10.0.0.0/8"},
		{"from 192.0.2.99", 1, "duplicate from '192.0.2.99'; keep one"},
		{"peer_key", 1, missing("peer_key <hash>...")},
		{`peer_key "{$MTLS_TEST_UNSET}"`, 1, "peer_key is empty; give it a value or remove it"},
		{"peer_key SHA1", 1, "peer_key 'SHA1': it is a SHA-1 hash, which is not accepted here; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"peer_key bca0d040", 1, "peer_key 'bca0d040': it has 8 hexadecimal digits; expected SHA-256: 64 hexadecimal digits or 43 base64url characters"},
		{"peer_key e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 1, "it is the hash of empty input; hash the certificate's DER encoding"},
		{"peer_key SHA256 SHA256", 1, "duplicate peer_key 'SHA256'; keep one"},
		{"header", 1, missing("header <name>")},
		{"header A B", 1, surplus("header <name>", "B")},
		{`header "{$MTLS_TEST_UNSET}"`, 1, "header is empty; give it a value or remove the line"},
		{"header A\nheader A", 2, "duplicate option 'header'; keep one"},
		{`header "X Cert"`, 1, `"X Cert" is not a header name; use letters, digits and hyphens`},
		{"header X_Cert:", 1, `"X_Cert:" is not a header name; use letters, digits and hyphens`},
		{"header X-SSL-*\nheader A", 2, "duplicate option 'header'; keep one"},
		{"header Connection", 1, "header 'Connection' belongs to the connection; choose another name"},
		{"header Host", 1, "header 'Host' belongs to the connection; choose another name"},
		{"trusted_proxies 10.0.0.1", 1, "unrecognized forwarded_certificate option 'trusted_proxies'; use one of from, header, peer_key"},
		{"from 10.0.0.1 {\nx\n}", 1, "from: it takes no block; remove the braces and write 'from <cidr>...'"},
	})
}

// inForwarded returns a configuration with the members of forwarded_certificate and
// a handler of the realm.
func inForwarded(members string) string { return forwardedConfig(members, `"realm":"partners"`) }

func forwardedConfig(members, handler string) string {
	return `{"apps":{"mtls":{"realms":{"partners":{"clients":[{"client_id":"a","x509_thumbprints":"SHA256"}],"forwarded_certificate":{` + members + `}}}},` +
		`"http":{"servers":{"s":{"listen":["127.0.0.1:0"],"automatic_https":{"disable":true},"routes":[{"handle":[{"handler":"mtls_auth",` + handler + `}]}]}}}}}`
}

func TestLoadForwardedCertificate(t *testing.T) {
	const from = `"from":["10.0.0.0/8"]`
	checkLoadErrors(t, loadJSON, inForwarded, []loadTest{
		{"no format", from, []string{`realm 'partners': forwarded_certificate: unknown format "" of a forwarded certificate; use one of rfc9440, nginx`}},
		{"unknown format", `"format":"apache",` + from, []string{`realm 'partners': forwarded_certificate: unknown format "apache"`}},
		{"format in capitals", `"format":"Envoy",` + from, []string{`unknown format "Envoy"`}},
		{"format that is a placeholder", `"format":"{env.MTLS_TEST_UNSET}",` + from, []string{`unknown format "{env.MTLS_TEST_UNSET}"`}},
		{"anybody", `"format":"nginx"`, []string{"realm 'partners': forwarded_certificate: no trusted proxy is named; add 'from <cidr>' or 'peer_key <hash>'"}},
		{"empty lists", `"format":"nginx","from":[],"peer_keys":[]`, []string{"no trusted proxy is named"}},
		{"null", `"format":"nginx","from":null`, []string{"no trusted proxy is named"}},
		{"empty address", `"format":"nginx","from":[""]`, []string{"realm 'partners': forwarded_certificate: from '': not an address or a range such as 10.0.0.0/8"}},
		{"every address", `"format":"nginx","from":["10.0.0.1","::/0"]`, []string{"from '::/0': the range covers every address; name the proxies' addresses only"}},
		{"unset variable in from", `"format":"nginx","from":["{env.MTLS_TEST_UNSET}"]`, []string{"forwarded_certificate: from: evaluated placeholder {env.MTLS_TEST_UNSET} is empty; set it"}},
		{"empty variable in from", `"format":"nginx","from":["10.0.0.1{env.MTLS_TEST_EMPTY}"]`, []string{"forwarded_certificate: from: evaluated placeholder {env.MTLS_TEST_EMPTY} is empty; set it"}},
		{"file in from", `"format":"nginx","from":["{file.DIR/subject.txt}"]`, []string{"from 'CN=from file,O=company': not an address or a range"}},
		{"empty key", `"format":"nginx","peer_keys":[""]`, []string{"forwarded_certificate: peer_key '': "}},
		{"SHA-1 key", `"format":"nginx","peer_keys":["SHA1"]`, []string{"forwarded_certificate: peer_key 'SHA1': it is a SHA-1 hash"}},
		{"bad key beside an address", `"format":"nginx",` + from + `,"peer_keys":["abcd"]`, []string{"forwarded_certificate: peer_key 'abcd': "}},
		{"unset variable in a key", `"format":"nginx","peer_keys":["{env.MTLS_TEST_UNSET}"]`, []string{"forwarded_certificate: peer_key: evaluated placeholder {env.MTLS_TEST_UNSET} is empty; set it"}},
		{"bad header", `"format":"nginx",` + from + `,"header":"X Cert"`, []string{`forwarded_certificate: header: "X Cert" is not a header name; use letters, digits and hyphens`}},
		{"header with a wildcard", `"format":"nginx",` + from + `,"header":"X-SSL-Client:"`, []string{`forwarded_certificate: header: "X-SSL-Client:" is not a header name`}},
		{"header that is a placeholder", `"format":"nginx",` + from + `,"header":"{env.MTLS_TEST_EMPTY}"`, []string{"forwarded_certificate: header: ", "is not a header name"}},
		{"header of the connection", `"format":"nginx",` + from + `,"header":"transfer_encoding"`, []string{"forwarded_certificate: header: header 'transfer_encoding' belongs to the connection"}},
		{"header of the chain", `"format":"rfc9440",` + from + `,"header":"client-cert-chain"`, []string{"forwarded_certificate: header 'client-cert-chain' carries the chain"}},
		{"unknown member", `"format":"nginx",` + from + `,"trusted_proxies":["10.0.0.1"]`, []string{`unknown field "trusted_proxies"`}},
		{"peer_key for peer_keys", `"format":"nginx","peer_key":["SHA256"]`, []string{`unknown field "peer_key"`}},
	})
}

// TestTheForwardedHeaderCannotBeKept_A9 checks that keep_header cannot name the
// header in which the proxies forward certificates.
func TestTheForwardedHeaderCannotBeKept_A9(t *testing.T) {
	for _, test := range []struct{ members, keep, header string }{
		{`"format":"nginx"`, "X-SSL-Client-Cert", "X-Ssl-Client-Cert"},
		{`"format":"nginx"`, "x_ssl_client_cert", "X-Ssl-Client-Cert"},
		{`"format":"haproxy"`, "X-SSL-*", "X-Ssl-Client-Cert"},
		{`"format":"rfc9440"`, "Client-Cert-Chain", "Client-Cert-Chain"},
		{`"format":"rfc9440"`, "Client-Cert*", "Client-Cert"},
		{`"format":"rfc9440","header":"Edge-Certificate"`, "Client-Cert*", "Client-Cert-Chain"},
		{`"format":"envoy"`, "X-Forwarded-Client-Cert", "X-Forwarded-Client-Cert"},
		{`"format":"aws_alb"`, "X-Amzn-Mtls-*", "X-Amzn-Mtls-Clientcert"},
		{`"format":"traefik"`, "X-Forwarded-Tls-Client-Cert*", "X-Forwarded-Tls-Client-Cert"},
		{`"format":"nginx","header":"edge-certificate"`, "Edge.Certificate", "Edge-Certificate"},
		// other headers may be kept
		{`"format":"nginx"`, "Client-Cert*", ""},
		{`"format":"nginx","header":"Edge-Certificate"`, "X-SSL-*", ""},
	} {
		t.Run(test.members+" "+test.keep, func(t *testing.T) {
			handler := `"realm":"partners","keep_header":["` + test.keep + `"]`
			result := loadJSON(t, fillLoadTest("", forwardedConfig(test.members+`,"from":["10.0.0.1"]`, handler)))
			if test.header == "" {
				if result.err != nil {
					t.Error(result.err)
				}
				return
			}
			testtool.WantError(t, result.err, "mtls_auth: keep_header: the realm takes certificates from header '"+test.header+"', so it cannot be kept; remove one of the two")
		})
	}
}

// TestForwardedCertificateNeedsNoClientAuth checks that a server behind a proxy
// that terminates TLS need not ask for certificates.
func TestForwardedCertificateNeedsNoClientAuth(t *testing.T) {
	config := fillLoadTest("", inForwarded(`"format":"nginx","from":["10.0.0.1"]`))
	if result := loadJSON(t, config); result.err != nil || len(result.warnings()) > 0 {
		t.Errorf("%v, warnings %q", result.err, result.warnings())
	}
	without := strings.Replace(config, "forwarded_certificate", "issuer", 1)
	without = strings.Replace(without, `"format":"nginx","from":["10.0.0.1"]`, `"url":"https://a.example"`, 1)
	if result := loadJSON(t, without); result.err != nil || len(result.warnings()) != 1 {
		t.Errorf("without it: %v, warnings %q, want one", result.err, result.warnings())
	}
}

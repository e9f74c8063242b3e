package auth_test

import (
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

const sanRealm = `
mtls {
	trust_pool file "@DIR@/clients-ca.pem"
	client billing {
		san_uri spiffe://prod.example/ns/billing/*
	}
	client reports {
		san_uri spiffe://prod.example/ns/reports/**
	}
	client crawler {
		san_uri https://Crawler.example/bots/7
	}
	client devices {
		san_dns *.devices.example.com
		san_dns gateway.example.com
	}
	client host {
		san_ip 192.0.2.7
		san_ip 2001:db8::7
	}
	client mail {
		san_email billing@Example.com
	}
	client keyed {
		public_key @KEY@
	}
	client rotating {
		thumbprint @OLD@ until @TOMORROW@
		thumbprint @GONE@ until @YESTERDAY@
	}
	issuer https://auth.test
}
`

const sanSite = `
https://api.test:@HTTPS@, https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
	mtls_auth {
		header_up X-Client-ID  {http.mtls.client_id}
		header_up X-Matched    {http.mtls.matched}
		header_up X-Credential {http.mtls.credential}
	}
	reverse_proxy @UP@
}
`

// nameKeys holds the pinned certificates of sanRealm.
type nameKeys struct{ keyed, old, gone *testpki.Leaf }

func startNames(t *testing.T) (*rig.Rig, nameKeys) {
	r := rig.New(t)
	keys := nameKeys{r.SelfSigned("keyed"), r.SelfSigned("old"), r.SelfSigned("gone")}
	r.Start(strings.NewReplacer("@KEY@", rig.KeyHash(keys.keyed), "@OLD@", testpki.HashOf(keys.old.Cert.Raw), "@GONE@", testpki.HashOf(keys.gone.Cert.Raw),
		"@TOMORROW@", time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339),
		"@YESTERDAY@", time.Now().Add(-24*time.Hour).UTC().Format(time.RFC3339)).Replace(sanRealm), sanSite)
	return r, keys
}

func TestNamesAdmit(t *testing.T) {
	r, keys := startNames(t)
	// certificates renewed with the same key, by any issuer
	renewed := testpki.MustSelfSigned(t, testpki.CommonName("renewed"), testpki.Key(keys.keyed.Key))
	issued := testpki.MustIssue(t, r.OtherCA, testpki.Key(keys.keyed.Key))
	for _, tc := range []struct {
		leaf                        *testpki.Leaf
		client, credential, matched string
	}{
		{r.Issue("x", testpki.URIs("spiffe://prod.example/ns/billing/nightly")), "billing", "san_uri", "spiffe://prod.example/ns/billing/nightly"},
		{r.Issue("x", testpki.URIs("spiffe://prod.example/ns/billing/hourly")), "billing", "san_uri", "spiffe://prod.example/ns/billing/hourly"},
		{r.Issue("x", rdns(t), testpki.URIs("spiffe://prod.example/ns/billing/a"), testpki.DNSNames("a.example")), "billing", "san_uri", "spiffe://prod.example/ns/billing/a"},
		{r.Issue("x", testpki.URIs("spiffe://prod.example/ns/reports/a")), "reports", "san_uri", "spiffe://prod.example/ns/reports/a"},
		{r.Issue("x", testpki.URIs("spiffe://prod.example/ns/reports/a/b/c")), "reports", "san_uri", "spiffe://prod.example/ns/reports/a/b/c"},
		{r.Issue("x", testpki.URIs("https://crawler.EXAMPLE/bots/7", "urn:example:other")), "crawler", "san_uri", "https://crawler.example/bots/7"},
		{r.Issue("x", testpki.DNSNames("unit7.devices.example.com")), "devices", "san_dns", "unit7.devices.example.com"},
		{r.Issue("x", testpki.DNSNames("other.example", "UNIT7.Devices.example.com")), "devices", "san_dns", "unit7.devices.example.com"},
		{r.Issue("x", testpki.DNSNames("gateway.example.com")), "devices", "san_dns", "gateway.example.com"},
		{r.Issue("x", testpki.IPs(net.IPv4(192, 0, 2, 7))), "host", "san_ip", "192.0.2.7"},
		{r.Issue("x", testpki.IPs(net.ParseIP("2001:db8:0::0:7"))), "host", "san_ip", "2001:db8::7"},
		{r.Issue("x", testpki.Emails("billing@EXAMPLE.com")), "mail", "san_email", "billing@example.com"},
		{keys.keyed, "keyed", "public_key", rig.KeyHash(keys.keyed)},
		{renewed, "keyed", "public_key", rig.KeyHash(keys.keyed)},
		{issued, "keyed", "public_key", rig.KeyHash(keys.keyed)},
		{keys.old, "rotating", "thumbprint", testpki.HashOf(keys.old.Cert.Raw)},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(tc.client+"/"+protocol+"/"+tc.matched, func(t *testing.T) {
				c := r.Caller(t, protocol, tc.leaf)
				forged := []func(*http.Request){rig.With("X-Matched", "forged"), rig.With("X-Credential", "forged")}
				got := c.Get("https://api.test/", forged...).WantStatus(t, http.StatusOK).WantClient(t, tc.client)
				if matched := got.Seen.Header["X-Matched"]; len(matched) != 1 || matched[0] != tc.matched {
					t.Errorf("{http.mtls.matched} is %q, want %q", matched, tc.matched)
				}
				if credential := got.Seen.Header["X-Credential"]; len(credential) != 1 || credential[0] != tc.credential {
					t.Errorf("{http.mtls.credential} is %q, want %q", credential, tc.credential)
				}
				rig.WantToken(r, t, rig.AskToken(c, "https://auth.test", tc.client), tc.client, tc.leaf)
			})
		}
	}
}

func TestNamesRefuse(t *testing.T) {
	r, keys := startNames(t)
	const workload = "spiffe://prod.example/ns/billing/nightly"
	uri, dns := func(uris ...string) *testpki.Leaf { return r.Issue("x", testpki.URIs(uris...)) }, func(names ...string) *testpki.Leaf { return r.Issue("x", testpki.DNSNames(names...)) }
	for name, tc := range map[string]struct {
		leaf   *testpki.Leaf
		reason string
	}{
		"B12 another trust domain":        {uri("spiffe://test.example/ns/billing/nightly"), "certificate_unknown"},
		"B12 trust domain as a prefix":    {uri("spiffe://prod.example.evil/ns/billing/nightly"), "certificate_unknown"},
		"B12 two URIs":                    {uri(workload, "https://a.example"), "certificate_unsuitable"},
		"B12 two workloads":               {uri(workload, "spiffe://prod.example/ns/billing/hourly"), "certificate_unsuitable"},
		"B12 upper case":                  {uri("spiffe://Prod.example/ns/billing/nightly"), "certificate_unsuitable"},
		"B12 no path":                     {uri("spiffe://prod.example"), "certificate_unknown"},
		"B12 a CA":                        {r.Issue("x", testpki.URIs(workload), testpki.IsCA(true), testpki.KeyUsage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign)), "certificate_unsuitable"},
		"B12 signs certificates":          {r.Issue("x", testpki.URIs(workload), testpki.KeyUsage(x509.KeyUsageDigitalSignature|x509.KeyUsageCertSign)), "certificate_unsuitable"},
		"B12 signs CRLs":                  {r.Issue("x", testpki.URIs(workload), testpki.KeyUsage(x509.KeyUsageDigitalSignature|x509.KeyUsageCRLSign)), "certificate_unsuitable"},
		"B7 more segments":                {uri(workload + "/x"), "certificate_unknown"},
		"B7 fewer segments":               {uri("spiffe://prod.example/ns/billing"), "certificate_unknown"},
		"B7 no segment for two asterisks": {uri("spiffe://prod.example/ns/reports"), "certificate_unknown"},
		"B7 empty segment":                {uri("spiffe://prod.example/ns/billing/"), "certificate_unknown"},
		"B7 dot segments":                 {uri("spiffe://prod.example/ns/reports/../billing/a"), "certificate_unknown"},
		"B7 path in another case":         {uri("spiffe://prod.example/NS/billing/a"), "certificate_unknown"},
		"B7 query":                        {uri(workload + "?a=b"), "certificate_unknown"},
		"B7 percent":                      {uri("spiffe://prod.example/ns/billing/%2e%2e"), "certificate_unknown"},
		"B7 wildcard presented":           {uri("spiffe://prod.example/ns/billing/*"), "certificate_unknown"},
		"B7 DNS wildcard presented":       {dns("*.devices.example.com"), "certificate_unknown"},
		"B7 two labels":                   {dns("a.b.devices.example.com"), "certificate_unknown"},
		"B7 no label":                     {dns("devices.example.com"), "certificate_unknown"},
		"B7 suffix":                       {dns("xdevices.example.com"), "certificate_unknown"},
		"B7 DNS name as a subject":        {r.Issue("gateway.example.com"), "certificate_unknown"},
		"B7 DNS name as a URI":            {uri("gateway.example.com"), "certificate_unknown"},
		"B7 DNS name as an e-mail":        {r.Issue("x", testpki.Emails("gateway.example.com")), "certificate_unknown"},
		"B7 e-mail as a DNS name":         {dns("billing@example.com"), "certificate_unknown"},
		"B7 address as a DNS name":        {dns("192.0.2.7"), "certificate_unknown"},
		"B7 URI as a DNS name":            {dns(workload), "certificate_unknown"},
		"B7 another address":              {r.Issue("x", testpki.IPs(net.IPv4(192, 0, 2, 8))), "certificate_unknown"},
		"B7 local part in another case":   {r.Issue("x", testpki.Emails("Billing@example.com")), "certificate_unknown"},
		"B7 e-mail of a subdomain":        {r.Issue("x", testpki.Emails("billing@mail.example.com")), "certificate_unknown"},
		"another CA":                      {r.IssueBy(r.OtherCA, "x", testpki.URIs(workload)), "certificate_untrusted"},
		"self-signed":                     {r.SelfSigned("x", testpki.DNSNames("gateway.example.com")), "certificate_untrusted"},
		"a pin that has ended":            {keys.gone, "certificate_untrusted"},
		"the subject of a pinned one":     {r.Issue("keyed"), "certificate_unknown"},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				c := r.Caller(t, protocol, tc.leaf)
				r.WantReason(t, c.Get("https://api.test/"), tc.reason)
				rig.WantNoToken(r, t, rig.AskToken(c, "https://auth.test", "billing"), tc.reason)
			})
		}
	}
}

// TestPinEndsOnAnOpenConnection checks that a pin stops admitting at its end,
// even on connections that it admitted before.
func TestPinEndsOnAnOpenConnection(t *testing.T) {
	r := rig.New(t)
	clock := rig.NewClock(t)
	old, next := r.SelfSigned("old"), r.SelfSigned("next")
	end := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	r.Start(`
mtls {
	trust_pool rig "@DIR@/clients-ca.pem" `+t.Name()+`
	client sensor-7 {
		public_key `+rig.KeyHash(old)+` until `+end+`
		thumbprint `+testpki.HashOf(next.Cert.Raw)+`
	}
}
`, rig.OneSite)
	callers := make(map[string][2]*rig.Caller)
	for _, protocol := range rig.Protocols {
		callers[protocol] = [2]*rig.Caller{r.Caller(t, protocol, old), r.Caller(t, protocol, next)}
	}
	for _, passed := range []time.Duration{0, 2 * time.Hour} {
		clock.Advance(passed)
		for _, protocol := range rig.Protocols {
			for range 2 {
				got := callers[protocol][0].Get("https://api.test/")
				if passed == 0 {
					got.WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
				} else if entry := rig.WantRefusal(r, t, got, "default", "certificate_unknown"); !strings.Contains(entry.Str("detail"), "the public_key of client 'sensor-7' ended at "+end) {
					t.Errorf("detail %q", entry["detail"])
				}
				callers[protocol][1].Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
			}
		}
	}
}

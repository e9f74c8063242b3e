package auth_test

import (
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

func TestNoCertificate_B1(t *testing.T) {
	r := rig.New(t)
	billing, _ := r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth
	respond "inside"
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	@expression expression `+"`"+`path("/expression") && {http.mtls.client_id} != ""`+"`"+`
	respond @expression "inside"
	@regexp {
		path /regexp
		vars_regexp {http.mtls.client_id} .
	}
	respond @regexp "inside"
	@not {
		path /not
		not vars {http.mtls.client_id} ""
	}
	respond @not "inside"
	@thumbprint {
		path /thumbprint
		vars_regexp {http.mtls.thumbprint} .+
	}
	respond @thumbprint "inside"
	@header {
		path /header
		header X-Client-ID *
	}
	respond @header "inside"
	respond 403
}
`)
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			nobody, known := r.Caller(t, protocol, nil), r.Caller(t, protocol, billing)
			forged := rig.With("X-Client-Id", "billing.partner")
			nobody.Get("https://api.test/", forged).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			for _, recipe := range []string{"expression", "regexp", "not", "thumbprint", "header"} {
				if got := nobody.Get("https://public.test/"+recipe, forged); got.Status != http.StatusForbidden || got.Body != "" {
					t.Errorf("%s admits a caller without a certificate: %d %q", recipe, got.Status, got.Body)
				}
				if got := known.Get("https://public.test/" + recipe); got.Status != http.StatusOK || got.Body != "inside" {
					t.Errorf("%s refuses a client: %d %q", recipe, got.Status, got.Body)
				}
			}
		})
	}
}

// modeSite returns a site with its own TLS client authentication mode.
func modeSite(host, clientAuth string) string {
	return fmt.Sprintf(`
https://%s:@HTTPS@ {
	bind 127.0.0.1
	tls "@DIR@/server.pem" "@DIR@/server.key" {
		client_auth {
			%s
		}
	}
	mtls_auth
	reverse_proxy @UP@
}
`, host, clientAuth)
}

func TestOnlyTheRealmDecidesWhoIsTrusted_B2_B3(t *testing.T) {
	r := rig.New(t)
	billing, sensor, impostor := r.Issue("billing"), r.SelfSigned("sensor"), r.IssueBy(r.OtherCA, "billing")
	r.Write("both.pem", append(r.CA.PEM(), r.OtherCA.PEM()...))
	r.Start(rig.BillingAndSensor, modeSite("api.test", "mode request")+
		modeSite("public.test", "mode require")+
		modeSite("other.test", "mode verify_if_given\ntrust_pool file @DIR@/other-ca.pem")+
		modeSite("alias.test", "mode require_and_verify\ntrust_pool file @DIR@/both.pem")+
		modeSite("localhost", "mode require_and_verify"))
	const handshake = 0
	for _, tc := range []struct {
		host   string
		leaf   *testpki.Leaf
		status int
		client string
	}{
		{"api.test", billing, 200, "billing.partner"}, {"api.test", sensor, 200, "sensor-7"}, {"api.test", impostor, 401, ""}, {"api.test", nil, 401, ""},
		{"public.test", billing, 200, "billing.partner"}, {"public.test", sensor, 200, "sensor-7"}, {"public.test", impostor, 401, ""}, {"public.test", nil, handshake, ""},
		// TLS verifies the impostor's chain here, but only the realm counts
		{"other.test", impostor, 401, ""}, {"other.test", nil, 401, ""}, {"other.test", billing, handshake, ""},
		{"alias.test", billing, 200, "billing.partner"}, {"alias.test", impostor, 401, ""}, {"alias.test", sensor, handshake, ""},
		// without a trust_pool Caddy trusts the system's CAs
		{"localhost", billing, handshake, ""}, {"localhost", impostor, handshake, ""},
	} {
		for _, protocol := range rig.Protocols {
			name := "nobody"
			if tc.leaf != nil {
				name = tc.leaf.Cert.Issuer.CommonName
			}
			t.Run(tc.host+"/"+name+"/"+protocol, func(t *testing.T) {
				got, err := r.Caller(t, protocol, tc.leaf).Try(http.MethodGet, "https://"+tc.host+"/", rig.With("X-Client-Id", "billing.partner"))
				switch {
				case tc.status == handshake:
					if err == nil {
						t.Errorf("answered %d, want a failed handshake", got.Status)
					}
				case err != nil:
					t.Error(err)
				case tc.status == 200:
					got.WantStatus(t, 200).WantClient(t, tc.client)
				default:
					got.WantStatus(t, tc.status)
				}
			})
		}
	}
}

func TestOnlyTheLeafCounts_B5(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	sub := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Sub CA"))
	otherSub := testpki.MustIntermediate(t, r.OtherCA, testpki.CommonName("Sub CA"))
	below, otherBelow := r.IssueBy(sub, "billing"), r.IssueBy(otherSub, "billing")
	mallory, stranger, unknown := r.SelfSigned("mallory"), r.IssueBy(r.OtherCA, "billing"), r.Issue("unknown")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	for name, tc := range map[string]struct {
		leaf   *testpki.Leaf
		client string
		reason string
	}{
		"self-signed before a client's":    {testpki.Presenting(mallory, billing.Cert), "", "certificate_untrusted"},
		"self-signed before a pinned one":  {testpki.Presenting(mallory, sensor.Cert), "", "certificate_untrusted"},
		"self-signed before client and CA": {testpki.Presenting(mallory, billing.Cert, r.CA.Cert), "", "certificate_untrusted"},
		"other CA before client and CAs":   {testpki.Presenting(stranger, billing.Cert, r.OtherCA.Cert, r.CA.Cert), "", "certificate_untrusted"},
		"brings its own CA":                {testpki.Presenting(stranger, r.OtherCA.Cert), "", "certificate_untrusted"},
		"CA of the right name":             {testpki.Presenting(otherBelow, sub.Cert), "", "certificate_untrusted"},
		"CAs in a heap":                    {testpki.Presenting(otherBelow, otherSub.Cert, sub.Cert, r.OtherCA.Cert, r.CA.Cert), "", "certificate_untrusted"},
		"unknown before a client's":        {testpki.Presenting(unknown, billing.Cert, sensor.Cert), "", "certificate_unknown"},
		"client before another":            {testpki.Presenting(sensor, billing.Cert), "sensor-7", ""},
		"below an intermediate":            {below, "billing.partner", ""},
		"intermediate withheld":            {testpki.Presenting(below), "", "certificate_untrusted"},
		"intermediates in disorder":        {testpki.Presenting(below, mallory.Cert, r.CA.Cert, otherSub.Cert, sub.Cert), "billing.partner", ""},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				got := r.Caller(t, protocol, tc.leaf).Get("https://api.test/", rig.With("X-Client-Id", "billing.partner"))
				if tc.client != "" {
					got.WantStatus(t, http.StatusOK).WantClient(t, tc.client)
				} else {
					r.WantReason(t, got, tc.reason)
				}
			})
		}
	}
}

func TestWhatACertificateIsFor_B6(t *testing.T) {
	r := rig.New(t)
	type variant struct {
		name        string
		options     []testpki.Option
		pki, pinned string // the reason, or "" if admitted
	}
	const unsuitable = "certificate_unsuitable"
	variants := []variant{
		{"clientAuth", nil, "", ""},
		{"no-eku", []testpki.Option{testpki.NoEKU()}, "", ""},
		{"any", []testpki.Option{testpki.EKU(x509.ExtKeyUsageAny)}, "", ""},
		{"both", []testpki.Option{testpki.EKU(x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth)}, "", ""},
		{"server", []testpki.Option{testpki.EKU(x509.ExtKeyUsageServerAuth)}, unsuitable, unsuitable},
		{"email", []testpki.Option{testpki.EKU(x509.ExtKeyUsageEmailProtection)}, unsuitable, unsuitable},
		{"ca", []testpki.Option{testpki.IsCA(true), testpki.NoEKU()}, unsuitable, ""}, // the default of openssl req -x509
		{"certsign", []testpki.Option{testpki.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign), testpki.IsCA(true)}, unsuitable, ""},
		{"certsign-no-ca", []testpki.Option{testpki.KeyUsage(x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign)}, unsuitable, ""},
		{"no-usage", []testpki.Option{testpki.KeyUsage(0)}, "", ""},
		{"encipher", []testpki.Option{testpki.KeyUsage(x509.KeyUsageKeyEncipherment)}, unsuitable, ""},
	}
	named, pinned := make(map[string]*testpki.Leaf), make(map[string]*testpki.Leaf)
	var clients strings.Builder
	for _, v := range variants {
		named[v.name] = r.Issue("pki-"+v.name, v.options...)
		pinned[v.name] = r.SelfSigned("pin-"+v.name, v.options...)
		fmt.Fprintf(&clients, "client pki-%[1]s {\nsubject CN=pki-%[1]s\n}\nclient pin-%[1]s {\ncertificate @DIR@/pin-%[1]s.pem\n}\n", v.name)
	}
	r.Start("mtls {\ntrust_pool file @DIR@/clients-ca.pem\n"+clients.String()+"}\n", rig.OneSite)
	for _, protocol := range rig.Protocols {
		for _, v := range variants {
			t.Run(protocol+"/"+v.name, func(t *testing.T) {
				for _, tc := range []struct {
					id, reason string
					leaf       *testpki.Leaf
				}{{"pki-" + v.name, v.pki, named[v.name]}, {"pin-" + v.name, v.pinned, pinned[v.name]}} {
					got := r.Caller(t, protocol, tc.leaf).Get("https://api.test/")
					if tc.reason != "" {
						r.WantReason(t, got, tc.reason)
					} else {
						got.WantStatus(t, http.StatusOK).WantClient(t, tc.id)
					}
				}
			})
		}
	}
}

func TestSpellingsOfThumbprints_B11(t *testing.T) {
	r := rig.New(t)
	spell := map[string]func(der []byte) string{
		"hex":          func(der []byte) string { s := sha256.Sum256(der); return hex.EncodeToString(s[:]) },
		"upper":        func(der []byte) string { s := sha256.Sum256(der); return strings.ToUpper(hex.EncodeToString(s[:])) },
		"colons":       func(der []byte) string { s := sha256.Sum256(der); return colons(s[:]) },
		"base64url":    func(der []byte) string { s := sha256.Sum256(der); return base64.RawURLEncoding.EncodeToString(s[:]) },
		"sha1":         func(der []byte) string { s := sha1.Sum(der); return hex.EncodeToString(s[:]) },
		"sha1-colons":  func(der []byte) string { s := sha1.Sum(der); return colons(s[:]) },
		"sha1-base64u": func(der []byte) string { s := sha1.Sum(der); return base64.RawURLEncoding.EncodeToString(s[:]) },
	}
	leaves := make(map[string]*testpki.Leaf)
	var clients strings.Builder
	for name, text := range spell {
		leaves[name] = r.SelfSigned(name)
		fmt.Fprintf(&clients, "client %s {\nthumbprint %q\n}\n", name, text(leaves[name].Cert.Raw))
	}
	r.Start("mtls {\n"+clients.String()+"}\n", rig.OneSite)
	for name, leaf := range leaves {
		for _, protocol := range rig.Protocols {
			r.Caller(t, protocol, leaf).Get("https://api.test/", rig.With("X-Client-Id", "hex")).WantStatus(t, http.StatusOK).WantClient(t, name)
		}
		warned := len(r.Logs.All(func(e rig.LogEntry) bool {
			return e.Str("level") == "warn" && strings.Contains(e.Str("msg"), "'"+name+"'") && strings.Contains(e.Str("msg"), "SHA-1")
		}))
		if want := strings.HasPrefix(name, "sha1"); (warned > 0) != want {
			t.Errorf("%s: %d warnings about SHA-1", name, warned)
		}
	}
}

func colons(sum []byte) string {
	return strings.ToUpper(strings.ReplaceAll(fmt.Sprintf("% x", sum), " ", ":"))
}

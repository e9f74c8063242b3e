package auth_test

import (
	"crypto/sha256"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

var (
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOU = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
)

// rigAttribute returns a name attribute of the given ASN.1 string type.
func rigAttribute(oid asn1.ObjectIdentifier, tag int, text string) pkix.AttributeTypeAndValue {
	value := []byte(text)
	if tag == asn1.TagBMPString {
		value = nil
		for _, unit := range utf16.Encode([]rune(text)) {
			value = append(value, byte(unit>>8), byte(unit))
		}
	}
	return pkix.AttributeTypeAndValue{Type: oid, Value: asn1.RawValue{Tag: tag, Bytes: value}}
}

// rdns sets the subject to these RDNs, the most significant one first.
func rdns(t *testing.T, sets ...pkix.RelativeDistinguishedNameSET) testpki.Option {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence(sets))
	if err != nil {
		t.Fatal(err)
	}
	return testpki.RawSubject(der)
}

func TestOtherNamesAreNotTheSubject_B7(t *testing.T) {
	r := rig.New(t)
	empty, star := rdns(t), testpki.CommonName("*")
	leaves := map[string]*testpki.Leaf{
		"DNS":             r.Issue("x", testpki.DNSNames("billing", "CN=billing")),
		"URI":             r.Issue("x", testpki.URIs("billing", "CN=billing", "spiffe://prod.example/billing")),
		"email":           r.Issue("x", testpki.Emails("billing", "CN=billing")),
		"IP":              r.Issue("x", testpki.IPs(net.IPv4(127, 0, 0, 1))),
		"empty subject":   r.Issue("x", empty, testpki.DNSNames("billing")),
		"wildcard":        r.Issue("x", star),
		"part wildcard":   r.Issue("x", testpki.CommonName("bill*")),
		"other attribute": r.Issue("x", testpki.Subject(pkix.Name{Organization: []string{"billing"}})),
	}
	r.Start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing.partner {
			subject "CN=billing"
		}
	}`, rig.OneSite)
	for name, leaf := range leaves {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				r.WantReason(t, r.Caller(t, protocol, leaf).Get("https://api.test/"), "certificate_unknown")
			})
		}
	}
}

func TestDistinguishedNames_B8(t *testing.T) {
	const utf8String, printable, t61, bmp, ia5 = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagT61String, asn1.TagBMPString, asn1.TagIA5String
	set := func(attributes ...pkix.AttributeTypeAndValue) pkix.RelativeDistinguishedNameSET { return attributes }
	one := func(oid asn1.ObjectIdentifier, text string) pkix.RelativeDistinguishedNameSET {
		return set(rigAttribute(oid, utf8String, text))
	}
	o, ou, cn := one(oidO, "company"), one(oidOU, "production"), one(oidCN, "client")
	r := rig.New(t)
	// the declared name is CN=client,OU=production,O=company
	cases := map[string]struct {
		subject testpki.Option
		admit   bool
	}{
		"exact":            {rdns(t, o, ou, cn), true},
		"PrintableString":  {rdns(t, set(rigAttribute(oidO, printable, "company")), ou, set(rigAttribute(oidCN, printable, "client"))), true},
		"T61String":        {rdns(t, o, ou, set(rigAttribute(oidCN, t61, "client"))), true},
		"BMPString":        {rdns(t, o, ou, set(rigAttribute(oidCN, bmp, "client"))), true},
		"IA5String":        {rdns(t, o, ou, set(rigAttribute(oidCN, ia5, "client"))), true},
		"other case":       {rdns(t, one(oidO, "COMPANY"), ou, one(oidCN, "Client")), true},
		"spaces":           {rdns(t, o, ou, one(oidCN, " client ")), true},
		"reversed":         {rdns(t, cn, ou, o), false},
		"another order":    {rdns(t, ou, o, cn), false},
		"extra OU":         {rdns(t, o, ou, one(oidOU, "test"), cn), false},
		"extra on top":     {rdns(t, one(oidO, "holding"), o, ou, cn), false},
		"extra below":      {rdns(t, o, ou, cn, one(oidCN, "x")), false},
		"OU missing":       {rdns(t, o, cn), false},
		"CN twice":         {rdns(t, o, ou, cn, cn), false},
		"CN prefix":        {rdns(t, o, ou, one(oidCN, "client.evil")), false},
		"CN suffix":        {rdns(t, o, ou, one(oidCN, "evil client")), false},
		"all in the CN":    {rdns(t, one(oidCN, "client,OU=production,O=company")), false},
		"escaped in an OU": {rdns(t, o, one(oidOU, `production\,CN=client`), cn), false},
		"slashes":          {rdns(t, one(oidCN, "/O=company/OU=production/CN=client")), false},
		"NUL":              {rdns(t, o, ou, one(oidCN, "client\x00")), false},
		"NUL and more":     {rdns(t, o, ou, one(oidCN, "client\x00.evil.example")), false},
		"line end":         {rdns(t, o, ou, one(oidCN, "client\n")), false},
		"zero width":       {rdns(t, o, ou, one(oidCN, "cli\u200bent")), false},
		"homograph":        {rdns(t, o, ou, one(oidCN, "сlient")), false}, // Cyrillic с
		"other type":       {rdns(t, o, ou, one(asn1.ObjectIdentifier{2, 5, 4, 41}, "client")), false},
		"one RDN":          {rdns(t, o, set(rigAttribute(oidOU, utf8String, "production"), rigAttribute(oidCN, utf8String, "client"))), false},
		"empty RDN":        {rdns(t, o, ou, set(), cn), false},
		"empty CN":         {rdns(t, o, ou, one(oidCN, "")), false},
	}
	leaves := make(map[string]*testpki.Leaf)
	for name, tc := range cases {
		leaves[name] = r.Issue("x", tc.subject)
	}
	r.Start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client mtls.client {
			subject "CN=client, OU=production, O=company"
		}
	}`, rig.OneSite)
	for name, tc := range cases {
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				got := r.Caller(t, protocol, leaves[name]).Get("https://api.test/")
				if tc.admit {
					got.WantStatus(t, http.StatusOK).WantClient(t, "mtls.client")
				} else {
					r.WantReason(t, got, "certificate_unknown")
				}
			})
		}
	}
}

func TestSameSubjectFromTwoTrustedCAs_B9_R23(t *testing.T) {
	r := rig.New(t)
	byFirst, bySecond := r.Issue("billing"), r.IssueBy(r.OtherCA, "billing")
	r.Write("both.pem", append(r.CA.PEM(), r.OtherCA.PEM()...))
	certificate, key := sha256.Sum256(r.CA.Cert.Raw), sha256.Sum256(r.CA.Cert.RawSubjectPublicKeyInfo)
	realm := func(issuedBy string) string {
		return "mtls {\ntrust_pool file @DIR@/both.pem\nclient billing.partner {\nsubject CN=billing\n" + issuedBy + "\n}\n}\n"
	}
	r.Start(realm(""), rig.OneSite)
	warning := func(e rig.LogEntry) bool {
		return strings.Contains(e.Str("msg"), "issued_by") && fmt.Sprint(e["client_ids"]) == "[billing.partner]" && e.Str("level") == "warn"
	}
	if len(r.Logs.All(warning)) != 1 {
		t.Error("no warning that either of two CAs can issue the name")
	}
	for _, protocol := range rig.Protocols {
		r.Caller(t, protocol, byFirst).Get("https://api.test/").WantStatus(t, http.StatusOK)
		r.Caller(t, protocol, bySecond).Get("https://api.test/").WantStatus(t, http.StatusOK)
	}
	for name, sum := range map[string][sha256.Size]byte{"certificate": certificate, "public key": key} {
		r.Reload(realm("issued_by "+hex.EncodeToString(sum[:])), rig.OneSite)
		for _, protocol := range rig.Protocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				r.Caller(t, protocol, byFirst).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				r.WantReason(t, r.Caller(t, protocol, bySecond).Get("https://api.test/"), "certificate_untrusted")
			})
		}
	}
	if len(r.Logs.All(warning)) != 1 {
		t.Error("a warning although issued_by is set")
	}
}

func TestTwoClientsOneCertificate_B10(t *testing.T) {
	r := rig.New(t)
	twin, sensor := r.Issue("twin"), r.SelfSigned("sensor")
	pki := func(shared1, shared2 string) string {
		return `
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client one {
			subject CN=twin
			` + shared1 + `
		}
		client two {
			subject "cn = TWIN"
			` + shared2 + `
		}
	}`
	}
	r.Start(pki("shared_credential", "shared_credential"), rig.OneSite)
	for _, options := range []string{pki("", ""), pki("shared_credential", ""), pki("", "shared_credential")} {
		err := r.Load(options, rig.OneSite)
		if err == nil {
			t.Fatal("a configuration with two clients of one subject loads")
		}
		for _, part := range []string{"'one'", "'two'", "shared_credential", "CN=twin"} {
			if !strings.Contains(strings.ReplaceAll(err.Error(), "TWIN", "twin"), part) {
				t.Errorf("the error %q does not name %s", err, part)
			}
		}
	}
	for _, protocol := range rig.Protocols {
		for range 5 { // the outcome must not depend on chance
			r.WantReason(t, r.Caller(t, protocol, twin).Get("https://api.test/"), "certificate_ambiguous")
		}
	}
	// a pin and a name of two clients match one certificate; loading cannot detect it
	r.Reload(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client by-pin {
			certificate "@DIR@/twin.pem"
		}
		client by-name {
			subject CN=twin
		}
		client sensor-7 {
			certificate "@DIR@/sensor.pem"
		}
	}`, rig.OneSite)
	for _, protocol := range rig.Protocols {
		// names only count if no pin admits
		r.Caller(t, protocol, twin).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "by-pin")
		r.Caller(t, protocol, sensor).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
	}
}

func TestBrokenFilesLoadNothing_B4(t *testing.T) {
	r := rig.New(t)
	billing, sensor := r.Issue("billing"), r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	broken := map[string][]byte{
		"missing.pem": nil, "empty.pem": {}, "garbage.pem": []byte("no PEM\n"), "key.pem": sensor.KeyPEM(),
		"damaged.pem": []byte(strings.Replace(string(sensor.PEM()), "MII", "MIJ", 1)), "folder": nil,
	}
	for name, content := range broken {
		if content != nil {
			r.Write(name, content)
		}
	}
	uses := map[string]string{
		"trust_pool":  "trust_pool file @DIR@/FILE\nclient billing.partner {\nsubject CN=billing\n}",
		"certificate": "client sensor-7 {\ncertificate @DIR@/FILE\n}",
		"signing_key": "client sensor-7 {\ncertificate @DIR@/sensor.pem\n}\nissuer https://auth.test {\nsigning_key @DIR@/FILE\n}",
	}
	for use, realm := range uses {
		for name := range broken {
			if use == "signing_key" && name == "key.pem" {
				continue // a valid signing key
			}
			t.Run(use+"/"+name, func(t *testing.T) {
				err := r.Load("mtls {\n"+strings.ReplaceAll(realm, "FILE", name)+"\n}\n", rig.OneSite)
				if err == nil {
					t.Fatal("the configuration loads")
				}
				if text := err.Error(); !strings.Contains(text, name) || !strings.Contains(text, use) || !strings.Contains(text, "realm 'default'") {
					t.Errorf("the error does not name the file and its use: %s", text)
				}
				for _, fragment := range rig.DerFragments(sensor) {
					if strings.Contains(err.Error(), fragment) {
						t.Errorf("the error repeats content of the file: %s", err)
					}
				}
				// the previous configuration still runs
				protocol := rig.Protocols[len(name)%len(rig.Protocols)]
				r.Caller(t, protocol, billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
				r.Caller(t, protocol, nil).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			})
		}
	}
}

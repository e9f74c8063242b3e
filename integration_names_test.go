package mtlsauth

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

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

var (
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOU = asn1.ObjectIdentifier{2, 5, 4, 11}
	oidO  = asn1.ObjectIdentifier{2, 5, 4, 10}
)

// rigAttribute is an attribute of a name, of the given ASN.1 string type.
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

// rdns is a subject of these RDNs, first the most significant one.
func rdns(t *testing.T, sets ...pkix.RelativeDistinguishedNameSET) testpki.Option {
	t.Helper()
	der, err := asn1.Marshal(pkix.RDNSequence(sets))
	if err != nil {
		t.Fatal(err)
	}
	return testpki.RawSubject(der)
}

func TestB7_OtherNamesAreNotTheSubject(t *testing.T) {
	r := newRig(t)
	empty, star := rdns(t), testpki.CommonName("*")
	leaves := map[string]*testpki.Leaf{
		"DNS":             r.issue("x", testpki.DNSNames("billing", "CN=billing")),
		"URI":             r.issue("x", testpki.URIs("billing", "CN=billing", "spiffe://prod.example/billing")),
		"email":           r.issue("x", testpki.Emails("billing", "CN=billing")),
		"IP":              r.issue("x", testpki.IPs(net.IPv4(127, 0, 0, 1))),
		"empty subject":   r.issue("x", empty, testpki.DNSNames("billing")),
		"wildcard":        r.issue("x", star),
		"part wildcard":   r.issue("x", testpki.CommonName("bill*")),
		"other attribute": r.issue("x", testpki.Subject(pkix.Name{Organization: []string{"billing"}})),
	}
	r.start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client billing.partner {
			subject "CN=billing"
		}
	}`, oneSite)
	for name, leaf := range leaves {
		for _, protocol := range rigProtocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				r.wantReason(t, r.caller(t, protocol, leaf).get("https://api.test/"), "certificate_unknown")
			})
		}
	}
}

func TestB8_DistinguishedNames(t *testing.T) {
	const utf8String, printable, t61, bmp, ia5 = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagT61String, asn1.TagBMPString, asn1.TagIA5String
	set := func(attributes ...pkix.AttributeTypeAndValue) pkix.RelativeDistinguishedNameSET { return attributes }
	one := func(oid asn1.ObjectIdentifier, text string) pkix.RelativeDistinguishedNameSET {
		return set(rigAttribute(oid, utf8String, text))
	}
	o, ou, cn := one(oidO, "company"), one(oidOU, "production"), one(oidCN, "client")
	r := newRig(t)
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
		leaves[name] = r.issue("x", tc.subject)
	}
	r.start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client mtls.client {
			subject "CN=client, OU=production, O=company"
		}
	}`, oneSite)
	for name, tc := range cases {
		for _, protocol := range rigProtocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				got := r.caller(t, protocol, leaves[name]).get("https://api.test/")
				if tc.admit {
					got.wantStatus(t, http.StatusOK).wantClient(t, "mtls.client")
				} else {
					r.wantReason(t, got, "certificate_unknown")
				}
			})
		}
	}
}

func TestB9_R23_SameSubjectFromTwoTrustedCAs(t *testing.T) {
	r := newRig(t)
	byFirst, bySecond := r.issue("billing"), r.issueBy(r.otherCA, "billing")
	r.write("both.pem", append(r.ca.PEM(), r.otherCA.PEM()...))
	certificate, key := sha256.Sum256(r.ca.Cert.Raw), sha256.Sum256(r.ca.Cert.RawSubjectPublicKeyInfo)
	realm := func(issuedBy string) string {
		return "mtls {\ntrust_pool file @DIR@/both.pem\nclient billing.partner {\nsubject CN=billing\n" + issuedBy + "\n}\n}\n"
	}
	r.start(realm(""), oneSite)
	warning := func(e logEntry) bool {
		return strings.Contains(e.str("msg"), "issued_by") && fmt.Sprint(e["client_ids"]) == "[billing.partner]" && e.str("level") == "warn"
	}
	if len(r.logs.all(warning)) != 1 {
		t.Error("no warning that any of two CAs can issue the name")
	}
	for _, protocol := range rigProtocols {
		r.caller(t, protocol, byFirst).get("https://api.test/").wantStatus(t, http.StatusOK)
		r.caller(t, protocol, bySecond).get("https://api.test/").wantStatus(t, http.StatusOK)
	}
	for name, sum := range map[string][sha256.Size]byte{"certificate": certificate, "public key": key} {
		r.reload(realm("issued_by "+hex.EncodeToString(sum[:])), oneSite)
		for _, protocol := range rigProtocols {
			t.Run(name+"/"+protocol, func(t *testing.T) {
				r.caller(t, protocol, byFirst).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				r.wantReason(t, r.caller(t, protocol, bySecond).get("https://api.test/"), "certificate_untrusted")
			})
		}
	}
	if len(r.logs.all(warning)) != 1 {
		t.Error("a warning although issued_by is there")
	}
}

func TestB10_TwoClientsOneCertificate(t *testing.T) {
	r := newRig(t)
	twin, sensor := r.issue("twin"), r.selfSigned("sensor")
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
	r.start(pki("shared_credential", "shared_credential"), oneSite)
	for _, options := range []string{pki("", ""), pki("shared_credential", ""), pki("", "shared_credential")} {
		err := r.load(options, oneSite)
		if err == nil {
			t.Fatal("two clients declare one subject, and it loads")
		}
		for _, part := range []string{"'one'", "'two'", "shared_credential", "CN=twin"} {
			if !strings.Contains(strings.ReplaceAll(err.Error(), "TWIN", "twin"), part) {
				t.Errorf("the error %q does not name %s", err, part)
			}
		}
	}
	for _, protocol := range rigProtocols {
		for range 5 { // never by chance
			r.wantReason(t, r.caller(t, protocol, twin).get("https://api.test/"), "certificate_ambiguous")
		}
	}
	// a pin and a name of two clients, which no one can know at load
	r.reload(`
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
	}`, oneSite)
	for _, protocol := range rigProtocols {
		// the design looks at names only where no pin admits
		r.caller(t, protocol, twin).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "by-pin")
		r.caller(t, protocol, sensor).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "sensor-7")
	}
}

func TestB4_BrokenFilesLoadNothing(t *testing.T) {
	r := newRig(t)
	billing, sensor := r.issue("billing"), r.selfSigned("sensor")
	r.start(billingAndSensor, oneSite)
	broken := map[string][]byte{
		"missing.pem": nil, "empty.pem": {}, "garbage.pem": []byte("no PEM\n"), "key.pem": sensor.KeyPEM(),
		"damaged.pem": []byte(strings.Replace(string(sensor.PEM()), "MII", "MIJ", 1)), "folder": nil,
	}
	for name, content := range broken {
		if content != nil {
			r.write(name, content)
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
				continue // that is a key
			}
			t.Run(use+"/"+name, func(t *testing.T) {
				err := r.load("mtls {\n"+strings.ReplaceAll(realm, "FILE", name)+"\n}\n", oneSite)
				if err == nil {
					t.Fatal("it loads")
				}
				if text := err.Error(); !strings.Contains(text, name) || !strings.Contains(text, use) || !strings.Contains(text, "realm 'default'") {
					t.Errorf("the error does not name the file and its use: %s", text)
				}
				for _, fragment := range derFragments(sensor) {
					if strings.Contains(err.Error(), fragment) {
						t.Errorf("the error repeats the file: %s", err)
					}
				}
				// what ran before still runs
				protocol := rigProtocols[len(name)%len(rigProtocols)]
				r.caller(t, protocol, billing).get("https://api.test/").wantStatus(t, http.StatusOK).wantClient(t, "billing.partner")
				r.caller(t, protocol, nil).get("https://api.test/").wantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
			})
		}
	}
}

package revocation

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha1"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

func mustDeny(tb testing.TB, lines ...string) *DenyList {
	tb.Helper()
	list, err := parseDenyList([]byte(strings.Join(lines, "\n")))
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

func TestParseDenyList(t *testing.T) {
	hash := digest([]byte("x"))
	for title, test := range map[string]struct {
		text  string
		rules int
		want  string
	}{
		"empty":                   {"", 0, ""},
		"comments":                {"# stolen on Monday\n\n   \n\t# more\n", 0, ""},
		"every kind":              {"serial 0A1B CN=CA, O=company\npublic_key " + hash + "\ntbs " + hash + "\nthumbprint " + hash, 4, ""},
		"spaces, tabs and CRLF":   {"  thumbprint\t" + hash + " \r\nserial\t0a:1b\tCN=CA\r\n", 2, ""},
		"byte order mark":         {"\ufeffthumbprint " + hash, 1, ""},
		"a rule twice":            {"tbs " + hash + "\ntbs " + strings.ToUpper(hash), 1, ""},
		"SHA-1 thumbprint":        {"thumbprint " + hash[:40], 1, ""},
		"an odd number of digits": {"serial A1B CN=CA", 1, ""},

		"B4 garbage":                 {"\x00\x01garbage", 0, `line 1: unknown rule '\x00\x01garbage'`},
		"B4 another file":            {"-----BEGIN CERTIFICATE-----", 0, "line 1: unknown rule"},
		"B4 names the line":          {"# a\n\nthumbprint " + hash + "\nThumbprint " + hash, 0, `line 4: unknown rule 'Thumbprint'`},
		"no value":                   {"thumbprint", 0, "line 1: thumbprint: the hash is empty"},
		"half a line":                {"thumbprint " + hash[:63], 0, "line 1: thumbprint: "},
		"short hash":                 {"tbs " + hash[:40], 0, "line 1: tbs: "},
		"hash of nothing":            {"public_key e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", 0, "hash of empty input"},
		"comment behind":             {"thumbprint " + hash + " # stolen", 0, "line 1: thumbprint: "},
		"comment behind a name":      {"# a\nserial 0A1B CN=CA,O=company # stolen", 0, "line 2: serial: comment after"},
		"comment behind, tab":        {"serial 0A1B CN=CA\t#stolen", 0, "line 1: serial: comment after"},
		"comment for a name":         {"serial 0A1B # CN=CA", 0, "line 1: serial: "},
		"as openssl prints it":       {"# stolen on Monday\nserial 1C8F02A94D C = DE, O = company, CN = Clients CA\n", 1, ""},
		"with openssl's labels":      {"serial=1C8F02A94D issuer=C = DE, O = company, CN = Clients CA\nserial 0A1B issuer= CN=CA\nserial serial=0A1C\tissuer=CN=CA\n", 3, ""},
		"a label without an issuer":  {"serial=0A1B\nissuer=CN=CA", 0, "line 1: serial: write the serial number"},
		"issuer without a number":    {"serial issuer=CN=CA", 0, "line 1: serial: write the serial number"},
		"number sign in a name":      {`serial 0A1B CN=CA \#1,OU=C#,O=a#`, 1, ""},
		"name in hexadecimal digits": {"serial 0A1B CN = #0c024341", 1, ""},
		"comment, CR alone":          {"# stolen\rthumbprint " + hash + "\r", 0, "line 1: carriage return"},
		"CR alone behind CRLF":       {"# stolen\r\nthumbprint " + hash + "\rtbs " + hash, 0, "line 2: carriage return"},

		"no issuer":    {"serial 0A1B", 0, "and then the issuer's name"},
		"no number":    {"serial CN=CA", 0, "and then the issuer's name"},
		"empty number": {"serial : CN=CA", 0, "and then the issuer's name"},
		"decimal":      {"serial 0x12 CN=CA", 0, "not a number in hexadecimal digits"},
		"long number":  {"serial " + strings.Repeat("a", maxSerialHex+1) + " CN=CA", 0, "and then the issuer's name"},
		"bad issuer":   {"serial 0A /CN=CA", 0, "line 1: serial: issuer: "},
		"hostile":      {strings.Repeat("\u202e", 1<<20), 0, "line 1: unknown rule"},
		"too large":    {strings.Repeat("#", maxDenyFile+1), 0, "larger than"},
	} {
		t.Run(title, func(t *testing.T) {
			list, err := parseDenyList([]byte(test.text))
			wantError(t, err, test.want)
			if list.Len() != test.rules || (list == nil) != (err != nil) {
				t.Errorf("%d rules, want %d", list.Len(), test.rules)
			}
		})
	}
}

func TestDenyListMatch(t *testing.T) {
	root := testpki.MustCA(t, testpki.CommonName("Root"))
	sub := testpki.MustIntermediate(t, root, testpki.CommonName("Sub"))
	leaf := testpki.MustIssue(t, sub)
	chain := []*x509.Certificate{leaf.Cert, sub.Cert, root.Cert}
	other := testpki.MustIssue(t, root).Cert
	serial := func(cert *x509.Certificate, issuer string) string {
		return fmt.Sprintf("serial %x %s", cert.SerialNumber, issuer)
	}
	sha1Sum := sha1.Sum(leaf.Cert.Raw)
	long := testpki.MustCA(t, testpki.Subject(pkix.Name{Country: []string{"DE"}, Organization: []string{"company"}, CommonName: "Long CA"}))
	chain = append(chain, testpki.MustIssue(t, long).Cert)

	for title, test := range map[string]struct {
		rule string
		want string // "" is not denied
	}{
		"leaf by serial":                       {serial(leaf.Cert, "CN=Sub"), "serial rule for the certificate"},
		"leaf by serial, as openssl prints it": {strings.Replace(serial(leaf.Cert, "issuer=CN = Sub"), "serial ", "serial=", 1), "serial rule for the certificate"},
		"leaf by serial, name in other case":   {serial(leaf.Cert, "cn=SUB"), "serial rule for the certificate"},
		"leaf by serial, leading zeros":        {strings.Replace(serial(leaf.Cert, "CN=Sub"), "serial ", "serial 0000", 1), "serial rule for the certificate"},
		"leaf's serial of another CA":          {serial(leaf.Cert, "CN=Root"), ""},
		"leaf by key":                          {"public_key " + digest(leaf.Cert.RawSubjectPublicKeyInfo), "public_key rule for the certificate"},
		"leaf by tbs":                          {"tbs " + digest(leaf.Cert.RawTBSCertificate), "tbs rule for the certificate"},
		"leaf by thumbprint":                   {"thumbprint " + digest(leaf.Cert.Raw), "thumbprint rule for the certificate"},
		"leaf by SHA-1 thumbprint":             {"thumbprint " + hex.EncodeToString(sha1Sum[:]), "thumbprint rule for the certificate"},
		"CA by serial":                         {serial(sub.Cert, "CN=Root"), "serial rule for CA CN=Sub"},
		"CA by key":                            {"public_key " + digest(sub.Cert.RawSubjectPublicKeyInfo), "public_key rule for CA CN=Sub"},
		"CA by tbs":                            {"tbs " + digest(sub.Cert.RawTBSCertificate), "tbs rule for CA CN=Sub"},
		"CA by thumbprint":                     {"thumbprint " + digest(sub.Cert.Raw), ""},
		"anchor by serial":                     {serial(root.Cert, "CN=Root"), "serial rule for CA CN=Root"},
		"anchor by key":                        {"public_key " + digest(root.Cert.RawSubjectPublicKeyInfo), "public_key rule for CA CN=Root"},
		"long name, as RFC 4514 has it":        {serial(chain[3], "CN=Long CA,O=company,C=DE"), "serial rule"},
		"long name, as openssl prints it":      {serial(chain[3], "C = DE, O = company, CN = Long CA"), "serial rule"},
		"long name, in another order":          {serial(chain[3], "O=company,C=DE,CN=Long CA"), ""},
		"another certificate":                  {"tbs " + digest(other.RawTBSCertificate), ""},
		"one kind of hash as another":          {"tbs " + digest(leaf.Cert.Raw), ""},
	} {
		t.Run(title, func(t *testing.T) {
			detail, denied := mustDeny(t, test.rule).match(chain)
			if denied != (test.want != "") || !strings.Contains(detail, test.want) {
				t.Errorf("%v, %q, want %q", denied, detail, test.want)
			}
		})
	}

	// A pin comes without a chain.
	if _, denied := mustDeny(t, "public_key "+digest(leaf.Cert.RawSubjectPublicKeyInfo)).match(chain[:1]); !denied {
		t.Error("a pinned certificate is not denied")
	}
	var none *DenyList
	for _, list := range []*DenyList{none, mustDeny(t)} {
		if _, denied := list.match(chain); denied || list.Len() != 0 {
			t.Error("a list without rules denies")
		}
	}
	if _, denied := mustDeny(t, "tbs "+digest(leaf.Cert.Raw)).match(nil); denied {
		t.Error("nothing is denied")
	}
}

// ecdsaTwin returns the certificate that anybody can make from one signed with ECDSA,
// on the curve of the CA's key.
func ecdsaTwin(tb testing.TB, cert *x509.Certificate, curve elliptic.Curve) *x509.Certificate {
	tb.Helper()
	var parts struct {
		TBS, Algorithm asn1.RawValue
		Signature      asn1.BitString
	}
	var point struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(cert.Raw, &parts); err != nil {
		tb.Fatal(err)
	}
	if _, err := asn1.Unmarshal(parts.Signature.Bytes, &point); err != nil {
		tb.Fatal(err)
	}
	point.S.Sub(curve.Params().N, point.S)
	flipped := marshal(tb, point)
	parts.Signature = asn1.BitString{Bytes: flipped, BitLength: 8 * len(flipped)}
	twin, err := x509.ParseCertificate(marshal(tb, parts))
	if err != nil {
		tb.Fatal(err)
	}
	return twin
}

func TestDenyCatchesTheECDSATwin(t *testing.T) {
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		key   testpki.Option
		curve elliptic.Curve
	}{
		{"P-224", testpki.Key(p224), elliptic.P224()},
		{"P-256", testpki.WithKeyType(testpki.P256), elliptic.P256()},
		{"P-384", testpki.WithKeyType(testpki.P384), elliptic.P384()},
		{"P-521", testpki.WithKeyType(testpki.P521), elliptic.P521()},
	} {
		t.Run(test.name, func(t *testing.T) {
			ca := testpki.MustCA(t, test.key)
			selfSigned := testpki.MustSelfSigned(t, test.key)
			for _, leaf := range []*testpki.Leaf{testpki.MustIssue(t, ca), testpki.MustIssue(t, ca, testpki.WithKeyType(testpki.RSA2048)), selfSigned} {
				twin := ecdsaTwin(t, leaf.Cert, test.curve)
				if validators.ThumbprintOf(twin.Raw) == validators.ThumbprintOf(leaf.Cert.Raw) {
					t.Fatal("the twin has the same thumbprint")
				}
				if leaf != selfSigned {
					if _, err := validators.NewTrustPool(ca.Pool()).Verify(twin, nil, now); err != nil {
						t.Fatal(err)
					}
				} else if err := twin.CheckSignature(twin.SignatureAlgorithm, twin.RawTBSCertificate, twin.Signature); err != nil {
					t.Fatal(err)
				}
				wantRefusal(t, validators.CheckLeaf(twin), "", "")
				sha1Sum := sha1.Sum(leaf.Cert.Raw)
				for _, sum := range []string{digest(leaf.Cert.Raw), hex.EncodeToString(sha1Sum[:])} {
					list := mustDeny(t, "thumbprint "+sum)
					for _, cert := range []*x509.Certificate{leaf.Cert, twin} {
						if _, denied := list.match([]*x509.Certificate{cert}); !denied {
							t.Errorf("%s is not denied by %s", digest(cert.Raw), sum)
						}
					}
				}
				if _, denied := mustDeny(t, "thumbprint "+digest(twin.Raw)).match([]*x509.Certificate{leaf.Cert}); !denied {
					t.Error("the certificate is not denied by the thumbprint of its twin")
				}
				if _, denied := mustDeny(t, "thumbprint "+digest(ca.Cert.Raw)).match([]*x509.Certificate{twin}); denied {
					t.Error("denied by another thumbprint")
				}
			}
		})
	}
}

func TestDenyCatchesReencodedCertificates(t *testing.T) {
	for _, key := range []testpki.KeyType{testpki.P256, testpki.RSA2048, testpki.Ed25519} {
		leaf := testpki.MustIssue(t, testpki.MustCA(t, testpki.WithKeyType(key)))
		list := mustDeny(t, "thumbprint "+digest(leaf.Cert.Raw))
		for name, variant := range testpki.Reencoded(t, leaf.Cert) {
			if _, denied := list.match([]*x509.Certificate{variant}); !denied {
				t.Errorf("key type %d: %s is not denied", key, name)
			}
		}
	}
}

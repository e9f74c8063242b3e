package clients

import (
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

const (
	sha256Hex = "bca0d040847f843c5ee0fa6eb494837470155868bca0d040847f843c5ee0fa6e"
	sha1Hex   = "bca0d040847f843c5ee0fa6eb494837470155868"
)

// plainFiles reads the documents of a client from files. Those behind URLs are not known.
type plainFiles struct{}

func (plainFiles) Certificate(file string) (*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return ParseCertificate(text)
}

func (plainFiles) KeySet(file string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	certificates, _, err := ParseKeySet(text)
	return certificates, err
}

func (plainFiles) KeySetAt(address string) (string, []*x509.Certificate, error) {
	return address, nil, nil
}

// makeClient returns the client of a record, and warnings.
func makeClient(record Record) (*Client, []string, error) {
	text, err := json.Marshal(record)
	if err != nil {
		return nil, nil, err
	}
	client, warnings, err := New(text, NewOrigin("config", 0), plainFiles{}, time.Now())
	var texts []string
	for _, w := range warnings {
		texts = append(texts, w.Text)
	}
	return client, texts, err
}

func mustClient(t testing.TB, record Record) *Client {
	t.Helper()
	client, _, err := makeClient(record)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestNewClientErrors(t *testing.T) {
	no := false
	for _, test := range []struct {
		name    string
		record  Record
		wantErr string
	}{
		{"no id", Record{}, "client_id is empty"},
		{"long id", Record{ClientID: strings.Repeat("a", 201)}, "at most 200"},
		{"id with a space", Record{ClientID: "a b"}, "use letters, digits"},
		{"no credential", Record{ClientID: "a"}, "no credential; add"},
		{"bad subject", Record{ClientID: "a", SubjectDN: Strings{"client"}}, "subject 'client'"},
		{"empty subject", Record{ClientID: "a", SubjectDN: Strings{""}}, "subject ''"},
		{"empty attribute", Record{ClientID: "a", SubjectDN: Strings{"CN=,O=x"}}, "subject 'CN=,O=x'"},
		{"value that is not text", Record{ClientID: "a", SubjectDN: Strings{"CN=#040161"}}, "subject 'CN=#040161': the value of CN is not text"},
		{"short thumbprint", Record{ClientID: "a", Thumbprints: Strings{"abcd"}}, "thumbprint 'abcd'"},
		{"bad issued_by", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, IssuedBy: Strings{sha1Hex}}, "issued_by '" + sha1Hex},
		{"missing file", Record{ClientID: "a", CertificateFiles: Strings{"/nonexistent/a.pem"}}, "certificate '/nonexistent/a.pem'"},
		{"empty file name", Record{ClientID: "a", CertificateFiles: Strings{""}}, "the file name is empty"},
		{"bad scope", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, Scope: `a"b`}, "RFC 6749"},
		{"foreign default scope", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, Scope: "a", DefaultScope: "b"}, "default scope 'b'"},
		{"empty claim", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, Claims: map[string]json.RawMessage{"t": []byte(`""`)}}, "claim t is empty"},
		{"grant", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, GrantTypes: Strings{"password"}}, "lack client_credentials"},
		{"method", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, TokenEndpointAuthMethod: "none"}, "token_endpoint_auth_method 'none'"},
		{"unbound", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, CertificateBound: &no}, "every token is bound"},
		{"lifetime", Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, TokenLifetime: caddy.Duration(-1)}, "too short"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, err := makeClient(test.record)
			if err == nil || !strings.Contains(err.Error(), test.wantErr) {
				t.Fatalf("error %v, want %q", err, test.wantErr)
			}
		})
	}
}

// TestEveryTokenIsBound_R15: a client cannot be registered for unbound tokens.
func TestEveryTokenIsBound_R15(t *testing.T) {
	for _, bound := range []bool{true, false} {
		_, _, err := makeClient(Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, CertificateBound: &bound})
		if bound != (err == nil) {
			t.Errorf("tls_client_certificate_bound_access_tokens %t: error %v", bound, err)
		}
	}
}

func TestSHA1ThumbprintWarns(t *testing.T) {
	_, warnings, err := makeClient(Record{ClientID: "a", Thumbprints: Strings{sha1Hex, sha256Hex}})
	if err != nil {
		t.Fatal(err)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], sha1Hex) {
		t.Fatalf("warnings: %q", warnings)
	}
}

func TestClaimText(t *testing.T) {
	client := mustClient(t, Record{ClientID: "a", Thumbprints: Strings{sha256Hex}, Claims: map[string]json.RawMessage{
		"text": []byte(`"acme"`), "number": []byte(`12345678901234567890`), "list": []byte(`[ "a", "b" ]`),
	}})
	for name, want := range map[string]string{"text": "acme", "number": "12345678901234567890", "list": `["a","b"]`, "none": ""} {
		if got := client.ClaimText(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestCertificateFile(t *testing.T) {
	leaf, err := testpki.SelfSigned(testpki.CommonName("a"))
	if err != nil {
		t.Fatal(err)
	}
	ca, dir := testpki.MustCA(t), t.TempDir()
	write := func(name string, parts ...[]byte) string {
		file := filepath.Join(dir, name)
		var text []byte
		for _, part := range parts {
			text = append(text, part...)
		}
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	client := mustClient(t, Record{ClientID: "a", CertificateFiles: Strings{write("good.pem", leaf.PEM())}})
	registry, err := newRegistry([]*Client{client})
	if err != nil {
		t.Fatal(err)
	}
	found := registry.Pins(leaf.Cert, sha256.Sum256(leaf.Cert.Raw))
	if len(found) != 1 || found[0].Client != client || found[0].Kind != KindCertificate {
		t.Fatalf("found %v", found)
	}
	for name, chain := range map[string][]byte{
		"a chain":                  bytes.Join([][]byte{leaf.PEM(), ca.PEM(), testpki.MustCA(t).PEM()}, nil),
		"a chain of nobody's":      bytes.Join([][]byte{leaf.PEM(), testpki.UnreadablePEM(t, testpki.UnsupportedCurve, "Meter CA")}, nil),
		"a self-signed CA and one": bytes.Join([][]byte{ca.PEM(), testpki.MustCA(t).PEM()}, nil),
	} {
		client, _, err := makeClient(Record{ClientID: "a", CertificateFiles: Strings{write("chain.pem", chain)}})
		if err != nil || len(client.Credentials) != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, test := range map[string]struct {
		file, wantErr string
	}{
		"empty":           {write("empty.pem"), "contains no PEM certificate"},
		"der":             {write("der.pem", leaf.Cert.Raw), "contains no PEM certificate"},
		"key":             {write("key.pem", leaf.KeyPEM()), "keep only the certificate"},
		"damaged":         {write("damaged.pem", bytes.Replace(leaf.PEM(), []byte("\n"), []byte("\n!"), 1), leaf.PEM()), "damaged, cut off or indented"},
		"begin":           {write("begin.pem", bytes.Replace(leaf.PEM(), []byte("-----BEGIN"), []byte("----BEGIN"), 1), leaf.PEM()), "line 1: a PEM block is damaged"},
		"two":             {write("two.pem", leaf.PEM(), leaf.PEM()), "several certificates"},
		"garbage":         {write("garbage.pem", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")), "line 1: invalid certificate: its octets are not a certificate in DER, or not all of one; copy it again"},
		"unreadable":      {write("unreadable.pem", testpki.UnreadablePEM(t, testpki.NegativeSerial, "client")), "line 1: invalid certificate 'CN=client': its serial number is negative"},
		"chain, then two": {write("chaintwo.pem", leaf.PEM(), ca.PEM(), leaf.PEM()), "contains several certificates that are not of CAs; keep the client's own, with or without its chain"},
		"chain first":     {write("chainfirst.pem", ca.PEM(), leaf.PEM()), "contains several certificates that are not of CAs"},
		"chain cut off":   {write("chaincut.pem", leaf.PEM(), ca.PEM()[:200]), "damaged, cut off or indented"},
	} {
		if _, _, err := makeClient(Record{ClientID: "a", CertificateFiles: Strings{test.file}}); err == nil || !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%s: error %v, want %q", name, err, test.wantErr)
		}
	}
}

// TestTwoClientsOneCredential_B10: two clients that one certificate would fit
// are an error at load, never a matter of order.
func TestTwoClientsOneCredential_B10(t *testing.T) {
	for _, test := range []struct {
		name   string
		a, b   Record
		shared bool
		ok     bool
	}{
		{"same subject, spelt differently", Record{SubjectDN: Strings{"CN=x,O=y"}}, Record{SubjectDN: Strings{"cn=X , o=Y"}}, false, false},
		{"same thumbprint, hex and base64url", Record{Thumbprints: Strings{sha256Hex}}, Record{Thumbprints: Strings{"vKDQQIR_hDxe4PputJSDdHAVWGi8oNBAhH-EPF7g-m4"}}, false, false},
		{"same subject, both shared", Record{SubjectDN: Strings{"CN=x"}}, Record{SubjectDN: Strings{"CN=x"}}, true, true},
		{"reversed subject", Record{SubjectDN: Strings{"CN=x,O=y"}}, Record{SubjectDN: Strings{"O=y,CN=x"}}, false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.a.ClientID, test.b.ClientID = "a", "b"
			test.a.SharedCredential, test.b.SharedCredential = test.shared, test.shared
			_, err := newRegistry([]*Client{mustClient(t, test.a), mustClient(t, test.b)})
			if test.ok != (err == nil) {
				t.Fatal(err)
			}
			if err != nil && (!strings.Contains(err.Error(), "client 'a'") || !strings.Contains(err.Error(), "client 'b'")) {
				t.Fatalf("%v does not name both clients", err)
			}
		})
	}
	one := mustClient(t, Record{ClientID: "a", SharedCredential: true, SubjectDN: Strings{"CN=x"}})
	other := mustClient(t, Record{ClientID: "b", SubjectDN: Strings{"CN=x"}})
	if _, err := newRegistry([]*Client{one, other}); err == nil {
		t.Fatal("one shared_credential is not enough")
	}
	if _, err := newRegistry([]*Client{one, one}); err == nil || !strings.Contains(err.Error(), "client 'a' is twice in") {
		t.Fatal(err)
	}
}

// TestReversedSubjectWarns: a subject in the order of openssl may be right, and
// usually is not.
func TestReversedSubjectWarns(t *testing.T) {
	for subject, want := range map[string]string{
		"O = company, OU = production, CN = client": "'CN=client,OU=production,O=company'",
		"DC=example,CN=a":                   "'CN=a,DC=example'",
		"CN=client,OU=production,O=company": "",
		"CN=client":                         "",
		"OU=a,OU=b":                         "",
		"CN=a,CN=b":                         "",
	} {
		_, warnings, err := makeClient(Record{ClientID: "a", SubjectDN: Strings{subject}})
		if err != nil || (want == "") != (len(warnings) == 0) || len(warnings) > 0 && !strings.Contains(warnings[0], want) {
			t.Errorf("%s: %q, %v", subject, warnings, err)
		}
	}
}

// TestOneCertificateInSeveralWays_B10: a certificate that one client declares as
// a file must not be another's by its key or by its SHA-1 hash.
func TestOneCertificateInSeveralWays_B10(t *testing.T) {
	leaf, dir := testpki.MustSelfSigned(t), t.TempDir()
	file := filepath.Join(dir, "leaf.pem")
	if err := os.WriteFile(file, leaf.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	key, old, sum := sha256.Sum256(leaf.Cert.RawSubjectPublicKeyInfo), sha1.Sum(leaf.Cert.Raw), sha256.Sum256(leaf.Cert.Raw)
	for name, record := range map[string]Record{
		"the same file": {CertificateFiles: Strings{file}},
		"its key":       {PublicKeys: Strings{hex.EncodeToString(key[:])}},
		"its SHA-1":     {Thumbprints: Strings{hex.EncodeToString(old[:])}},
		"its SHA-256":   {Thumbprints: Strings{hex.EncodeToString(sum[:])}},
	} {
		for _, shared := range []bool{false, true} {
			a, b := Record{ClientID: "a", CertificateFiles: Strings{file}, SharedCredential: shared}, record
			b.ClientID, b.SharedCredential = "b", shared
			one, two := mustClient(t, a), mustClient(t, b)
			for _, list := range [][]*Client{{one, two}, {two, one}} {
				_, err := newRegistry(list)
				if (err == nil) != shared || err != nil && (!strings.Contains(err.Error(), "client 'a'") || !strings.Contains(err.Error(), "client 'b'")) {
					t.Errorf("%s, shared %t: %v", name, shared, err)
				}
			}
		}
		record.ClientID, record.CertificateFiles = "a", Strings{file}
		if _, err := newRegistry([]*Client{mustClient(t, record)}); err != nil {
			t.Errorf("%s, of the same client: %v", name, err)
		}
	}
}

// TestManyClientsOneCredential_B10: among clients that share a credential, one
// that does not share is found at any position.
func TestManyClientsOneCredential_B10(t *testing.T) {
	for name, record := range map[string]Record{
		"subject":    {SubjectDN: Strings{"CN=x"}},
		"thumbprint": {Thumbprints: Strings{sha256Hex, sha256Hex + " until 2090-01-01T00:00:00Z"}},
		"public key": {PublicKeys: Strings{sha256Hex}},
		"name":       {SANDNS: Strings{"a.x.example"}},
		"pattern":    {SANURI: Strings{"spiffe://x.example/*/a"}},
	} {
		for unshared := range 5 {
			var list []*Client
			for i := range 4 {
				r := record
				r.ClientID, r.SharedCredential = fmt.Sprint("client-", i), i != unshared
				list = append(list, mustClient(t, r))
				if name == "name" || name == "pattern" { // one that only overlaps, of another client
					r.ClientID, r.SANDNS, r.SANURI = fmt.Sprint("other-", i), Strings{"*.x.example"}, Strings{"spiffe://x.example/b/**"}
					r.SharedCredential = true
					list = append(list, mustClient(t, r))
				}
			}
			_, err := newRegistry(list)
			if id := fmt.Sprintf("'client-%d'", unshared); (err == nil) != (unshared == 4) || err != nil && !strings.Contains(err.Error(), id) {
				t.Errorf("%s, without shared_credential in %s: %v", name, id, err)
			}
		}
	}
}

func TestRegistryLookups(t *testing.T) {
	leaf, err := testpki.SelfSigned(testpki.CommonName("a"))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(leaf.Cert.Raw)
	pinned := mustClient(t, Record{ClientID: "pinned", Thumbprints: Strings{hex.EncodeToString(sum[:])}, Scope: "b a"})
	named := mustClient(t, Record{ClientID: "named", SubjectDN: Strings{"CN=a"}, Scope: "b c"})
	registry, err := newRegistry([]*Client{pinned, named})
	if err != nil {
		t.Fatal(err)
	}
	if found := registry.Pins(leaf.Cert, sum); len(found) != 1 || found[0].Client != pinned {
		t.Errorf("pins: %v", found)
	}
	subject, err := dn.FromRaw(leaf.Cert.RawSubject)
	if err != nil {
		t.Fatal(err)
	}
	if found := registry.Subject(subject.Key()); len(found) != 1 || found[0].Client != named {
		t.Errorf("subject: %v", found)
	}
	if got := fmt.Sprint(registry.Scopes()); got != "[a b c]" {
		t.Errorf("scopes: %s", got)
	}
	if registry.Len() != 2 || registry.Client("named") != named || registry.Client("x") != nil || !registry.HasPKI() || !registry.HasPins() {
		t.Error("the registry does not hold what was put in")
	}
}

// TestOverlappingNames_B10: patterns that one certificate could fit are an
// error at load that names both clients, and two trust domains are one.
func TestOverlappingNames_B10(t *testing.T) {
	record := func(id string, shared bool, name string) *Client {
		r := Record{ClientID: id, SANURI: Strings{name}, SharedCredential: shared}
		if !strings.Contains(name, "://") {
			r.SANURI, r.SANDNS = nil, Strings{name}
		}
		return mustClient(t, r)
	}
	const foreign = "another SPIFFE trust domain"
	for _, test := range []struct{ a, b, want string }{
		{"spiffe://prod.example/ns/*/sa/x", "spiffe://prod.example/ns/billing/**", "overlaps with"},
		{"spiffe://prod.example/ns/a", "spiffe://prod.example/ns/a", "is also a credential of client"},
		{"spiffe://prod.example/ns/a", "spiffe://test.example/ns/a", foreign},
		{"spiffe://prod.example/ns/*/x", "spiffe://prod.example/ns/*/y", ""},
		{"https://prod.example/*", "https://prod.example/a", "overlaps with"},
		{"*.devices.example.com", "unit7.devices.example.com", "overlaps with"},
		{"unit7.Devices.example.com", "UNIT7.devices.example.com", "is also a credential of client"},
		{"*.devices.example.com", "*.Devices.example.com", "is also a credential of client"},
		{"*.devices.example.com", "a.b.devices.example.com", ""},
		{"*.devices.example.com", "devices.example.com", ""},
	} {
		// in either order, because it does not matter which is found first
		for _, names := range [][2]string{{test.a, test.b}, {test.b, test.a}} {
			_, err := newRegistry([]*Client{record("a", false, names[0]), record("b", false, names[1])})
			if test.want == "" {
				if err != nil {
					t.Errorf("%q: error %v", names, err)
				}
				continue
			}
			wants := []string{test.want, "client 'a'", "client 'b'"}
			if test.want == foreign { // which is the realm's, not another client's
				wants = []string{foreign, "client 'b'"}
			}
			testtool.WantError(t, err, wants...)
		}
		if test.want != "" && test.want != foreign {
			if _, err := newRegistry([]*Client{record("a", true, test.a), record("b", true, test.b)}); err != nil {
				t.Errorf("%s and %s, shared: %v", test.a, test.b, err)
			}
		}
	}
	if _, err := newRegistry([]*Client{record("a", true, "spiffe://prod.example/**"), record("b", true, "spiffe://prod.example/x")}); err != nil {
		t.Error(err)
	}
}

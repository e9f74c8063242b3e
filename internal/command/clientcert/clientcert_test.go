package clientcert

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

var now = time.Now().Truncate(time.Second)

func caOf(ca *testpki.CA) *CA {
	return &CA{Certificate: ca.Cert, Key: ca.Key, Chain: ca.Chain, Lasting: ca.Cert}
}

func request() Request {
	return Request{ClientID: "sensor-7", KeyType: "p256", Lifetime: 24 * time.Hour}
}

// TestIssue checks what is in a certificate of every type of key, and that its files have
// it.
func TestIssue(t *testing.T) {
	root := testpki.MustCA(t)
	intermediate, err := root.Intermediate()
	if err != nil {
		t.Fatal(err)
	}
	for _, keyType := range KeyTypes {
		r := request()
		r.KeyType, r.Subject = keyType, "CN=Müller+UID=7, OU=production, DC=example"
		for kind, text := range map[validators.NameKind]string{
			validators.NameDNS: "a.example.com", validators.NameURI: "urn:x:y", validators.NameIP: "2001:db8::1", validators.NameEmail: "a@example.com",
		} {
			name, err := validators.ParseName(kind, text)
			if err != nil {
				t.Fatal(err)
			}
			r.Names = append(r.Names, name)
		}
		issued, err := Issue(r, caOf(intermediate), now)
		if err != nil {
			t.Errorf("%s: %v", keyType, err)
			continue
		}
		leaf := issued.Leaf
		if got := dn.Format(leaf.RawSubject); got != "CN=Müller+UID=7,OU=production,DC=example" && got != "UID=7+CN=Müller,OU=production,DC=example" {
			t.Errorf("%s: the subject is %s", keyType, got)
		}
		if names, err := validators.NamesOf(leaf); err != nil || len(names) != 4 {
			t.Errorf("%s: the names are %v, %v", keyType, names, err)
		}
		if !leaf.NotAfter.Equal(now.Add(24*time.Hour)) || leaf.SerialNumber.BitLen() != 127 || leaf.KeyUsage != x509.KeyUsageDigitalSignature {
			t.Errorf("%s: %s, %x, %v", keyType, leaf.NotAfter, leaf.SerialNumber, leaf.KeyUsage)
		}
		key, err := issued.KeyPEM()
		if err != nil {
			t.Fatal(err)
		}
		if pair, err := tls.X509KeyPair(issued.CertificatePEM(), key); err != nil || len(pair.Certificate) != 2 {
			t.Errorf("%s: %v", keyType, err)
		}
		for _, legacy := range []bool{false, true} {
			file, err := issued.PKCS12("secret", legacy)
			if err != nil {
				t.Fatal(err)
			}
			own, certificate, chain, err := pkcs12.DecodeChain(file, "secret")
			if err != nil || !certificate.Equal(leaf) || len(chain) != 1 || !issued.Key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(own.(crypto.Signer).Public()) {
				t.Errorf("%s, legacy %t: %v", keyType, legacy, err)
			}
			if _, _, _, err := pkcs12.DecodeChain(file, "wrong"); err == nil {
				t.Errorf("%s, legacy %t: any password reads the file", keyType, legacy)
			}
		}
	}
}

// TestIssueRefuses checks that nothing is issued that a server would refuse.
func TestIssueRefuses(t *testing.T) {
	good := testpki.MustCA(t)
	leaf := testpki.MustIssue(t, good)
	for name, tc := range map[string]struct {
		ca     *CA
		change func(*Request)
		want   string
	}{
		"CA ends first":      {caOf(testpki.MustCA(t, testpki.Validity(now.Add(-time.Hour), now.Add(90*time.Hour)))), func(r *Request) { r.Lifetime = 100 * time.Hour }, "use '--days 3' or less"},
		"CA ends today":      {caOf(testpki.MustCA(t, testpki.Validity(now.Add(-time.Hour), now.Add(time.Hour)))), nil, "use another CA"},
		"CA has expired":     {caOf(testpki.MustCA(t, testpki.Validity(now.Add(-2*time.Hour), now.Add(-time.Hour)))), nil, "expired"},
		"no CA":              {&CA{Certificate: leaf.Cert, Key: leaf.Key}, nil, "it is not a CA"},
		"another key":        {&CA{Certificate: good.Cert, Key: leaf.Key}, nil, "the private key is not that of CA"},
		"CA may not sign":    {caOf(testpki.MustCA(t, testpki.KeyUsage(x509.KeyUsageCRLSign))), nil, "key usage"},
		"CA for servers":     {caOf(testpki.MustCA(t, testpki.EKU(x509.ExtKeyUsageServerAuth))), nil, "not clientAuth"},
		"other names only":   {caOf(testpki.MustCA(t, testpki.Template(func(c *x509.Certificate) { c.PermittedDNSDomains = []string{"example.com"} }))), withName(t, "a.example.org"), "would be refused"},
		"long common name":   {caOf(good), func(r *Request) { r.ClientID = strings.Repeat("x", 65) }, "name the subject with --subject"},
		"subject":            {caOf(good), func(r *Request) { r.Subject = "sensor-7" }, `write "CN=sensor-7"`},
		"type of key":        {caOf(good), func(r *Request) { r.KeyType = "rsa1024" }, "unknown key type 'rsa1024'; use p256, "},
		"self-signed, names": {nil, func(r *Request) { r.Subject = "CN=\u202e" }, "invisible"},
	} {
		r := request()
		if tc.change != nil {
			tc.change(&r)
		}
		_, err := Issue(r, tc.ca, now)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func withName(t *testing.T, text string) func(*Request) {
	name, err := validators.ParseName(validators.NameDNS, text)
	if err != nil {
		t.Fatal(err)
	}
	return func(r *Request) { r.Names = []validators.Name{name} }
}

// TestFiles checks who may read the files, and that none is lost.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	issued, err := Issue(request(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	files := FilesOf(dir, "sensor-7")
	if err := issued.Write(files, "secret", false, false); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]os.FileMode{files.Key: 0o600, files.PKCS12: 0o600, files.Certificate: 0o644} {
		if info, err := os.Stat(file); err != nil || info.Mode().Perm()&^want != 0 {
			t.Errorf("%s: %v, %v", file, info.Mode(), err)
		}
	}
	before, _ := os.ReadFile(files.Key)
	if existing, err := files.Existing(); err != nil || existing != files.Key {
		t.Errorf("%q exists, %v", existing, err)
	}
	testtool.WantError(t, issued.Write(files, "secret", false, false), "exists")
	if after, _ := os.ReadFile(files.Key); string(after) != string(before) {
		t.Error("the key is another")
	}

	if err := os.Chmod(files.Key, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := issued.Write(files, "secret", false, true); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(files.Key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("after it was replaced, %v, %v", info.Mode(), err)
	}

	// nor does a file that cannot be replaced cost the key
	before, _ = os.ReadFile(files.Key)
	if err := errors.Join(os.Remove(files.PKCS12), os.MkdirAll(filepath.Join(files.PKCS12, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
	other, err := Issue(request(), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	testtool.WantError(t, other.Write(files, "secret", false, true), "is a folder")
	if after, _ := os.ReadFile(files.Key); string(after) != string(before) {
		t.Error("the key is replaced, and the certificate is not")
	}
	if err := errors.Join(os.RemoveAll(files.PKCS12), issued.Write(files, "secret", false, true)); err != nil {
		t.Fatal(err)
	}

	// a failure leaves nothing behind
	half := FilesOf(dir, "half")
	if err := os.WriteFile(half.PKCS12, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.WantError(t, issued.Write(half, "secret", false, false), "exists")
	for _, file := range []string{half.Key, half.Certificate} {
		if _, err := os.Stat(file); err == nil {
			t.Errorf("%s is left", file)
		}
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 4 {
		t.Errorf("%v", entries)
	}
}

// TestFileNamesStayInTheFolder checks the names of files for client IDs with characters
// that have a meaning in paths.
func TestFileNamesStayInTheFolder(t *testing.T) {
	for id, want := range map[string]string{
		"sensor-7": "sensor-7", "team/sensor": "team_sensor", "../../etc/x": "_._.._etc_x", "..": "_.", "-rf": "_rf",
		"urn:x@y~z,+": "urn_x_y_z__",
	} {
		if got := FilesOf("out", id).Key; got != filepath.Join("out", want+".key") {
			t.Errorf("%s: %s", id, got)
		}
	}
}

// TestPasswords checks that generated passwords differ and are not short.
func TestPasswords(t *testing.T) {
	if a, b := NewPassword(), NewPassword(); a == b || len(a) < 26 {
		t.Errorf("%s, %s", a, b)
	}
}

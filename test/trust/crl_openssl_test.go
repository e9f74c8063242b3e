package trust_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// opensslCRLs signs CRLs of the rig's CA with openssl.
type opensslCRLs struct {
	r   *rig.Rig
	dir string
}

func newOpenSSLCRLs(t *testing.T, r *rig.Rig, revoked *testpki.Leaf) *opensslCRLs {
	t.Helper()
	testtool.Path(t, "openssl")
	o := &opensslCRLs{r: r, dir: t.TempDir()}
	o.write("ca.pem", r.CA.PEM())
	o.write("ca.key", testpki.KeyPEM(t, r.CA.Key))
	o.write("crlnumber", []byte("01\n"))
	o.write("index.txt", []byte(fmt.Sprintf("R\t350101000000Z\t260101000000Z,keyCompromise\t%X\tunknown\t/CN=client\n", revoked.Cert.SerialNumber.Bytes())))
	return o
}

func (o *opensslCRLs) write(name string, content []byte) {
	o.r.T.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), content, 0o600); err != nil {
		o.r.T.Fatal(err)
	}
}

// sign returns a CRL in PEM with extensions, in the syntax of openssl's configuration.
func (o *opensslCRLs) sign(t *testing.T, extensions string) []byte {
	t.Helper()
	config := "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ndefault_md=sha256\ncrlnumber=crlnumber\n"
	if extensions != "" {
		config += "crl_extensions=x\n[x]\n" + extensions
	}
	o.write("ca.cnf", []byte(config))
	command := exec.Command("openssl", "ca", "-config", "ca.cnf", "-keyfile", "ca.key", "-cert", "ca.pem", "-gencrl", "-crldays", "7", "-out", "out.crl")
	command.Dir = o.dir
	if output, err := command.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	crl, err := os.ReadFile(filepath.Join(o.dir, "out.crl"))
	if err != nil {
		t.Fatal(err)
	}
	return crl
}

// TestListedIsRevokedWhateverTheCRL checks, with CRLs of openssl from a file and from a
// URL, that a certificate that a CRL lists is refused, with on_unavailable allow too.
// What the CRL does not list is admitted if the CRL covers it.
func TestListedIsRevokedWhateverTheCRL(t *testing.T) {
	const address = "fullname=URI:http://ca.test/crl\n"
	for name, test := range map[string]struct {
		extensions string
		covers     bool
	}{
		"plain":                      {"authorityKeyIdentifier=keyid\n", true},
		"of version 1":               {"", true},
		"users only, as step-ca":     {"issuingDistributionPoint=critical,@i\n[i]\n" + address + "onlyuser=TRUE\n", true},
		"users only, elsewhere":      {"issuingDistributionPoint=critical,@i\n[i]\nfullname=URI:http://ca.test/2\nonlyuser=TRUE\n", false},
		"CAs only":                   {"issuingDistributionPoint=critical,@i\n[i]\nonlyCA=TRUE\n", false},
		"some reasons":               {"issuingDistributionPoint=critical,@i\n[i]\nonlysomereasons=keyCompromise,CACompromise\n", false},
		"attribute certificates":     {"issuingDistributionPoint=critical,@i\n[i]\nonlyAA=TRUE\n", false},
		"indirect":                   {"issuingDistributionPoint=critical,@i\n[i]\nindirectCRL=TRUE\n", true},
		"delta":                      {"2.5.29.27=critical,DER:020101\n", false},
		"unknown critical extension": {"1.2.3.4=critical,DER:0500\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			r := rig.New(t)
			pointing := testpki.Template(func(c *x509.Certificate) { c.CRLDistributionPoints = []string{"http://ca.test/crl"} })
			good := r.IssueBy(r.CA, "good", testpki.CommonName("billing"), pointing)
			revoked := r.IssueBy(r.CA, "revoked", testpki.CommonName("billing"), pointing)
			r.SelfSigned("sensor")
			crl := newOpenSSLCRLs(t, r, revoked).sign(t, test.extensions)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(crl) }))
			defer server.Close()
			r.Write("clients.crl", crl)
			check := func(want int) {
				t.Helper()
				r.Caller(t, "h1", revoked).Get("https://api.test/").WantRefused(t, "default", http.StatusUnauthorized, "certificate_refused")
				r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "certificate_revoked" })
				r.Caller(t, "h1", good).Get("https://api.test/").WantStatus(t, want)
			}
			want := http.StatusOK
			if !test.covers {
				want = http.StatusUnauthorized
			}
			r.Start(revocationRealm(`crl "@DIR@/clients.crl"`), rig.OneSite)
			check(want)
			r.Reload(revocationRealm("crl "+server.URL+"/clients.crl\non_unavailable allow"), rig.OneSite)
			check(http.StatusOK)
		})
	}
}

// TestCRLFileOfNginx checks that a file with the CRLs of several CAs, and certificates
// between them, is read as nginx and HAProxy read it.
func TestCRLFileOfNginx(t *testing.T) {
	r := rig.New(t)
	sub := testpki.MustIntermediate(t, r.CA, testpki.CommonName("Sub"))
	good, revoked := r.IssueBy(sub, "good", testpki.CommonName("billing")), r.IssueBy(sub, "revoked", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	ofSub := func(extensions string) []byte {
		o := newOpenSSLCRLs(t, r, revoked)
		o.write("ca.pem", sub.PEM())
		o.write("ca.key", testpki.KeyPEM(t, sub.Key))
		return o.sign(t, extensions)
	}
	ofRoot := newOpenSSLCRLs(t, r, good).sign(t, "authorityKeyIdentifier=keyid\n")
	r.Write("clients.crl", bytes.Join([][]byte{r.CA.PEM(), ofRoot, sub.PEM(), ofSub("issuingDistributionPoint=critical,@i\n[i]\nonlyuser=TRUE\n")}, []byte("# text\n")))
	r.Start(revocationRealm(`crl "@DIR@/clients.crl"`), rig.OneSite)
	r.Caller(t, "h2", good).Get("https://api.test/").WantStatus(t, http.StatusOK)
	r.Caller(t, "h2", revoked).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
}

// TestExemptCA checks that a CA that publishes nothing can be exempt, and that the deny
// file counts all the same.
func TestExemptCA(t *testing.T) {
	r := rig.New(t)
	billing, denied := r.Issue("billing"), r.IssueBy(r.CA, "denied", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	other := testpki.MustCA(t, testpki.CommonName("Other"))
	r.Write("other.crl", testpki.CRL(t, other, 1, billing.Cert.NotAfter))
	r.Write("deny", []byte("thumbprint "+testpki.HashOf(denied.Cert.Raw)+"\n"))
	lines := "crl \"@DIR@/other.crl\"\ndeny \"@DIR@/deny\"\n"
	r.Start(revocationRealm(lines), rig.OneSite)
	r.Logs.Wait(t, "the CA without a CRL", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "no CRL covers a CA of the trust pool" && entry.Str("thumbprint") == testpki.HashOf(r.CA.Cert.Raw)
	})
	r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	r.Logs.Wait(t, "the remedy", func(entry rig.LogEntry) bool {
		return entry.Str("reason") == "revocation_unavailable" && strings.Contains(entry.Str("detail"), "; add its CRL to crl or, if the CA publishes none, the CA to exempt")
	})
	r.Reload(revocationRealm(lines+"exempt "+testpki.HashOf(r.CA.Cert.RawSubjectPublicKeyInfo)), rig.OneSite)
	r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	r.Caller(t, "h1", denied).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
}

// TestDetailNamesTheFailingSource checks that a refusal for want of a CRL says which
// source fails and why, without its password.
func TestDetailNamesTheFailingSource(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "down", http.StatusServiceUnavailable) }))
	defer server.Close()
	r.Start(revocationRealm("crl "+strings.Replace(server.URL, "://", "://user:secret@", 1)+"/clients.crl"), rig.OneSite)
	r.Logs.Wait(t, "the fetch", func(entry rig.LogEntry) bool {
		return strings.HasPrefix(entry.Str("msg"), "refreshing revocation source failed")
	})
	r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	entry := r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool { return entry.Str("reason") == "revocation_unavailable" })
	detail := entry.Str("detail")
	for _, want := range []string{"no CRL of the issuer", "CN=billing", "/clients.crl: the server answers 503"} {
		if !strings.Contains(detail, want) {
			t.Errorf("detail %q, want %q", detail, want)
		}
	}
	if strings.Contains(detail, "secret") {
		t.Errorf("detail %q has the password", detail)
	}
}

// TestCRLOfAClockThatIsAhead checks that a CRL may be dated a minute ahead, and that a
// refusal because it is further ahead ends when it no longer is.
func TestCRLOfAClockThatIsAhead(t *testing.T) {
	r, clock := rig.New(t), rig.NewClock(t)
	billing, revoked := r.Issue("billing"), r.IssueBy(r.CA, "revoked", testpki.CommonName("billing"))
	r.SelfSigned("sensor")
	ahead := func(by time.Duration) []byte {
		der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
			Number: big.NewInt(1), ThisUpdate: clock.Now().Add(by), NextUpdate: clock.Now().Add(time.Hour),
			RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked.Cert.SerialNumber, RevocationTime: clock.Now()}},
		}, r.CA.Cert, r.CA.Key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	realm := strings.Replace(rig.ClockRealmOf(t), "\n\tclient billing.partner", "\n\trevocation {\n\t\tcrl \"@DIR@/clients.crl\"\n\t}\n\tclient billing.partner", 1)
	file := r.Write("clients.crl", ahead(50*time.Second))
	r.Start(realm, rig.OneSite)
	r.Caller(t, "h1", billing).Get("https://api.test/").WantStatus(t, http.StatusOK)
	r.Caller(t, "h1", revoked).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)

	if err := os.WriteFile(file, ahead(5*time.Minute), 0o600); err != nil {
		t.Fatal(err)
	}
	open := r.Caller(t, "h1", billing)
	open.Eventually(t, http.StatusUnauthorized)
	r.Logs.Wait(t, "the reason", func(entry rig.LogEntry) bool {
		return strings.Contains(entry.Str("detail"), "is dated in the future: ") && strings.Contains(entry.Str("detail"), "; check the clocks")
	})
	r.Caller(t, "h1", revoked).Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	clock.Advance(4*time.Minute + 6*time.Second) // within the minute, and five seconds later
	open.Get("https://api.test/").WantStatus(t, http.StatusOK)
}

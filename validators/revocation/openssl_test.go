package revocation

import (
	"bufio"
	"context"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// opensslConfig is the configuration for "openssl ca".
const opensslConfig = `
[ca]
default_ca = this
[this]
dir              = .
database         = index.txt
serial           = serial
crlnumber        = crlnumber
new_certs_dir    = .
certificate      = ca.pem
private_key      = ca.key
default_md       = sha256
default_days     = 1
default_crl_days = 1
policy           = any
unique_subject   = no
crl_extensions   = crl
[crl]
authorityKeyIdentifier = keyid
[crl_shard]
issuingDistributionPoint = critical, @shard
[shard]
onlyuser = TRUE
[any]
commonName = supplied
[req]
distinguished_name = dn
[dn]
[root]
basicConstraints = critical, CA:TRUE
keyUsage         = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[client]
extendedKeyUsage = clientAuth
[responder]
extendedKeyUsage = OCSPSigning
`

// opensslCA is a CA in a directory of its own.
type opensslCA struct {
	t   *testing.T
	dir string
}

func newOpenSSLCA(t *testing.T, key ...string) *opensslCA {
	t.Helper()
	version, err := exec.Command(testtool.Path(t, "openssl"), "version").Output()
	if err != nil {
		t.Fatal(err)
	}
	if version := string(version); !strings.HasPrefix(version, "OpenSSL ") || strings.HasPrefix(version, "OpenSSL 1.") {
		testtool.Missing(t, "needs OpenSSL 3 or later, not %s", strings.TrimSpace(version))
	}
	ca := &opensslCA{t: t, dir: t.TempDir()}
	for name, content := range map[string]string{"openssl.cnf": opensslConfig, "index.txt": "", "serial": "1000\n", "crlnumber": "01\n"} {
		if err := os.WriteFile(ca.path(name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca.run(append([]string{"req", "-x509", "-config", "openssl.cnf", "-extensions", "root", "-nodes", "-subj", "/CN=CA", "-days", "2", "-keyout", "ca.key", "-out", "ca.pem"}, key...)...)
	return ca
}

func (ca *opensslCA) path(name string) string { return filepath.Join(ca.dir, name) }

func (ca *opensslCA) run(args ...string) {
	ca.t.Helper()
	command := exec.Command("openssl", args...)
	command.Dir = ca.dir
	if output, err := command.CombinedOutput(); err != nil {
		ca.t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, output)
	}
}

func (ca *opensslCA) cert(name string) *x509.Certificate {
	ca.t.Helper()
	text, err := os.ReadFile(ca.path(name + ".pem"))
	if err != nil {
		ca.t.Fatal(err)
	}
	block, _ := pem.Decode(text[strings.Index(string(text), "-----BEGIN"):])
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func (ca *opensslCA) issue(name, extensions string) *x509.Certificate {
	ca.t.Helper()
	ca.run("req", "-new", "-config", "openssl.cnf", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN="+name, "-keyout", name+".key", "-out", name+".csr")
	ca.run("ca", "-batch", "-config", "openssl.cnf", "-extensions", extensions, "-in", name+".csr", "-out", name+".pem")
	return ca.cert(name)
}

func (ca *opensslCA) revoke(name, reason string) {
	ca.t.Helper()
	ca.run("ca", "-config", "openssl.cnf", "-revoke", name+".pem", "-crl_reason", reason)
}

func (ca *opensslCA) crl(args ...string) {
	ca.t.Helper()
	ca.run(append([]string{"ca", "-config", "openssl.cnf", "-gencrl", "-out", "ca.crl"}, args...)...)
}

var ecKey = []string{"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}

func TestRevocationByOpenSSLCRL(t *testing.T) {
	for name, key := range map[string][]string{"ECDSA": ecKey, "RSA": {"-newkey", "rsa:2048"}} {
		t.Run(name, func(t *testing.T) {
			ca := newOpenSSLCA(t, key...)
			good, stolen, held, late := ca.issue("good", "client"), ca.issue("stolen", "client"), ca.issue("held", "client"), ca.issue("late", "client")
			anchor := ca.cert("ca")
			server := httptest.NewServer(http.FileServer(http.Dir(ca.dir)))
			defer server.Close()

			checker := NewChecker(Config{CRLs: true})
			later := time.Duration(0)
			source, err := NewCRLSource(CRLConfig{
				Locations: []string{server.URL + "/ca.crl", ca.path("ca.crl")}, Use: checker.SetCRLs,
				Now: func() time.Time { return time.Now().Add(later) }, Refresh: time.Minute,
			})
			if err != nil {
				t.Fatal(err)
			}
			refresh := func() {
				t.Helper()
				later += time.Minute
				source.Refresh(t.Context())
				if err := source.LoadFiles(); err != nil {
					t.Error(err)
				}
			}
			expect := func(cert *x509.Certificate, want validators.Reason) {
				t.Helper()
				refusal, _ := checker.Check(t.Context(), []*x509.Certificate{cert, anchor}, time.Now())
				if refusal == nil && want != "" || refusal != nil && refusal.Reason != want {
					t.Errorf("%s: %v, want %q", cert.Subject, refusal, want)
				}
			}
			ca.crl()
			refresh()
			for _, cert := range []*x509.Certificate{good, stolen, held} {
				expect(cert, "")
			}
			ca.revoke("stolen", "keyCompromise")
			ca.revoke("held", "certificateHold")
			ca.crl()
			refresh()
			expect(good, "")
			expect(stolen, validators.CertificateRevoked)
			expect(held, validators.CertificateRevoked)

			// A CRL for only some certificates counts as well.
			ca.revoke("late", "superseded")
			ca.crl("-crlexts", "crl_shard")
			refresh()
			expect(late, validators.CertificateRevoked)
			expect(good, "")
			expect(stolen, validators.CertificateRevoked)
		})
	}
}

// responder starts "openssl ocsp" and returns its address. openssl prints it,
// with the port it has found, when it is ready.
func (ca *opensslCA) responder(args ...string) string {
	ca.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, "openssl", append([]string{"ocsp", "-index", "index.txt", "-CA", "ca.pem", "-port", "0"}, args...)...)
	command.Dir = ca.dir
	output, err := command.StdoutPipe()
	if err != nil {
		ca.t.Fatal(err)
	}
	command.Stderr = command.Stdout
	if err := command.Start(); err != nil {
		ca.t.Fatal(err)
	}
	ca.t.Cleanup(func() {
		cancel()
		_ = command.Wait()
	})
	var said []string
	for lines := bufio.NewScanner(output); lines.Scan(); {
		said = append(said, lines.Text())
		fields := strings.Fields(lines.Text()) // ACCEPT [::]:40123 PID=7
		if len(fields) < 2 || fields[0] != "ACCEPT" {
			continue
		}
		_, port, err := net.SplitHostPort(fields[1])
		if err != nil {
			continue
		}
		go func() { _, _ = io.Copy(io.Discard, output) }() // or it would block on a full pipe
		return "http://localhost:" + port
	}
	ca.t.Fatalf("openssl ocsp does not say where it listens: %q", said)
	return ""
}

func TestRevocationByOpenSSLResponder(t *testing.T) {
	for name, key := range map[string][]string{"ECDSA": ecKey, "RSA": {"-newkey", "rsa:2048"}} {
		t.Run(name, func(t *testing.T) {
			ca := newOpenSSLCA(t, key...)
			certs := map[string]*x509.Certificate{"good": ca.issue("good", "client"), "stolen": ca.issue("stolen", "client"), "held": ca.issue("held", "client")}
			ca.issue("responder", "responder")
			anchor := ca.cert("ca")
			ca.revoke("stolen", "keyCompromise")
			ca.revoke("held", "certificateHold")
			all := map[string]validators.Reason{"good": "", "stolen": validators.CertificateRevoked, "held": validators.CertificateRevoked}
			none := map[string]validators.Reason{"good": validators.RevocationUnavailable, "stolen": validators.RevocationUnavailable, "held": validators.RevocationUnavailable}

			// A database without the certificates that the CA has issued.
			if err := os.WriteFile(ca.path("empty.txt"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			for _, test := range []struct {
				name string
				args []string
				want map[string]validators.Reason
				why  string
			}{
				{"the CA answers", []string{"-rsigner", "ca.pem", "-rkey", "ca.key", "-nmin", "5"}, all, ""},
				{"the CA answers, without its certificate", []string{"-rsigner", "ca.pem", "-rkey", "ca.key", "-nmin", "5", "-resp_no_certs"}, all, ""},
				{"a delegate answers", []string{"-rsigner", "responder.pem", "-rkey", "responder.key", "-nmin", "5"}, all, ""},
				{"a delegate answers, by key", []string{"-rsigner", "responder.pem", "-rkey", "responder.key", "-nmin", "5", "-resp_key_id"}, all, ""},
				{"without nextUpdate", []string{"-rsigner", "responder.pem", "-rkey", "responder.key"}, all, ""},
				{"a client answers", []string{"-rsigner", "good.pem", "-rkey", "good.key", "-nmin", "5"}, none, "without the extended key usage OCSPSigning"},
				{"signed with SHA-1", []string{"-rsigner", "responder.pem", "-rkey", "responder.key", "-nmin", "5", "-rmd", "sha1"}, none, "SHA-1"},
				{"unknown", []string{"-rsigner", "ca.pem", "-rkey", "ca.key", "-nmin", "5", "-index", "empty.txt"}, none, errOCSPUnknown.Error()},
			} {
				t.Run(test.name, func(t *testing.T) {
					local := *ca
					local.t = t
					url := local.responder(test.args...)
					checker := NewChecker(Config{OCSP: []string{url}, Timeout: 30 * time.Second})
					for name, want := range test.want {
						refusal, _ := checker.Check(t.Context(), []*x509.Certificate{certs[name], anchor}, time.Now())
						if refusal == nil && want != "" || refusal != nil && (refusal.Reason != want || !strings.Contains(refusal.Detail, test.why)) {
							t.Errorf("%s: %v, want %q: %s", name, refusal, want, test.why)
						}
					}
				})
			}
		})
	}
}

// A responder on loopback that accepts the request and never answers, and one that is
// down.
func TestRevocationByHangingOrDownResponder(t *testing.T) {
	synthetic := newPKI(t)
	end := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-end:
		}
	}))
	defer hanging.Close()
	defer close(end)
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()

	checker := NewChecker(Config{OCSP: []string{hanging.URL}, Timeout: 200 * time.Millisecond})
	start := time.Now()
	refusal, _ := checker.Check(t.Context(), synthetic.chain(), start)
	wantRefusal(t, refusal, validators.RevocationUnavailable, "OCSP: ")
	if took := time.Since(start); took < 150*time.Millisecond || took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	checker = NewChecker(Config{OCSP: []string{down.URL}})
	refusal, _ = checker.Check(t.Context(), synthetic.chain(), time.Now())
	wantRefusal(t, refusal, validators.RevocationUnavailable, "OCSP: ")
}

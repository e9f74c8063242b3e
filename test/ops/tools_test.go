package ops_test

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"os/exec"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// tool runs an installed program in the folder of the test, and skips the test if
// the program is missing.
func tool(r *rig.Rig, t *testing.T, input, name string, args ...string) string {
	t.Helper()
	path := testtool.Path(t, name)
	ctx, cancel := context.WithTimeout(t.Context(), rig.Patience)
	defer cancel()
	command := exec.CommandContext(ctx, path, args...)
	command.Dir = r.Dir
	command.Stdin = strings.NewReader(input)
	output, err := command.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, output)
	}
	return string(output)
}

func TestCurl(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.IssuerRealm(""), rig.OneSite+rig.IssuerSite)
	versions := []string{"--http1.1"}
	if strings.Contains(tool(r, t, "", "curl", "--version"), "HTTP2") {
		versions = append(versions, "--http2")
	} else {
		t.Log("SKIPPED in part: this curl has no HTTP/2")
	}
	for _, version := range versions {
		t.Run(version, func(t *testing.T) {
			curl := func(certificate string, args ...string) string {
				common := []string{"-sS", version, "--cacert", "server-ca.pem", "-w", "\n%{http_version} %{http_code}",
					"--resolve", "api.test:" + r.HTTPS + ":127.0.0.1", "--resolve", "auth.test:" + r.HTTPS + ":127.0.0.1"}
				if certificate != "" {
					common = append(common, "--cert", certificate+".pem", "--key", certificate+".key")
				}
				return tool(r, t, "", "curl", append(common, args...)...)
			}
			number := strings.TrimPrefix(version, "--http")
			for certificate, id := range map[string]string{"billing": "billing.partner", "sensor": "sensor-7"} {
				got := curl(certificate, "-H", "X-Client-ID: someone", "-H", "x_client_id: someone", "https://api.test:"+r.HTTPS+"/")
				if !strings.Contains(got, `"X-Client-Id":["`+id+`"]`) || strings.Contains(got, "someone") || !strings.HasSuffix(got, number+" 200") {
					t.Errorf("as %s: %s", certificate, got)
				}
				got = curl(certificate, "-d", "grant_type=client_credentials", "-d", "client_id="+id, "https://auth.test:"+r.HTTPS+"/connect/token")
				if !strings.Contains(got, `"access_token":"ey`) || !strings.HasSuffix(got, number+" 200") {
					t.Errorf("a token as %s: %s", certificate, got)
				}
			}
			if got := curl("", "-i", "https://api.test:"+r.HTTPS+"/"); !strings.Contains(got, `error="certificate_missing"`) || !strings.HasSuffix(got, " 401") {
				t.Errorf("without a certificate: %s", got)
			}
		})
	}
}

func TestOpenSSL(t *testing.T) {
	r := rig.New(t)
	r.Write("clients-ca.key", r.CA.KeyPEM())
	openssl := func(input string, args ...string) string { return tool(r, t, input, "openssl", args...) }
	// a self-signed certificate made as in the manual page, thus with CA:TRUE
	openssl("", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/O=Devices/CN=device", "-keyout", "device.key", "-out", "device.pem")
	// a certificate issued by the CA
	openssl("", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/C=DE/O=Partner, Inc./OU=production/CN=billing", "-keyout", "partner.key", "-out", "partner.csr")
	openssl("", "x509", "-req", "-days", "2", "-in", "partner.csr", "-CA", "clients-ca.pem", "-CAkey", "clients-ca.key", "-CAcreateserial", "-out", "partner.pem")
	fingerprint := strings.TrimSpace(openssl("", "x509", "-in", "device.pem", "-noout", "-fingerprint", "-sha256"))
	_, fingerprint, _ = strings.Cut(fingerprint, "=")
	subject := strings.TrimSpace(openssl("", "x509", "-in", "partner.pem", "-noout", "-subject", "-nameopt", "RFC2253"))
	subject = strings.TrimPrefix(subject, "subject=")
	r.Start(`
	mtls {
		trust_pool file "@DIR@/clients-ca.pem"
		client device {
			thumbprint `+fingerprint+`
		}
		client partner {
			subject `+"`"+subject+"`"+`
		}
	}`, rig.OneSite)
	for _, id := range []string{"device", "partner"} {
		for _, version := range []string{"-tls1_2", "-tls1_3"} {
			got := openssl("GET / HTTP/1.1\r\nHost: api.test\r\nX-Client-ID: someone\r\nConnection: close, X-Client-ID\r\n\r\n",
				"s_client", "-quiet", version, "-connect", "127.0.0.1:"+r.HTTPS, "-servername", "api.test", "-verify_return_error",
				"-CAfile", "server-ca.pem", "-cert", id+".pem", "-key", id+".key", "-alpn", "http/1.1")
			if !strings.Contains(got, `"X-Client-Id":["`+id+`"]`) {
				t.Errorf("%s as %s: %s", version, id, got)
			}
		}
		got := openssl("", "s_client", "-connect", "127.0.0.1:"+r.HTTPS, "-servername", "api.test", "-CAfile", "server-ca.pem", "-cert", id+".pem", "-key", id+".key", "-alpn", "h2")
		if !strings.Contains(got, "ALPN protocol: h2") || !strings.Contains(got, "Verify return code: 0 (ok)") {
			t.Errorf("HTTP/2 with %s: %s", id, got)
		}
	}
	// a token's confirmation must equal the hash that openssl computes
	der := openssl("", "x509", "-in", "device.pem", "-outform", "der")
	device, err := x509.ParseCertificate([]byte(der))
	if err != nil {
		t.Fatal(err)
	}
	want := openssl(openssl(der, "dgst", "-sha256", "-binary"), "base64")
	want = strings.NewReplacer("+", "-", "/", "_", "=", "", "\n", "").Replace(want)
	if got := validators.X5tS256(sha256.Sum256(device.Raw)); got != want {
		t.Errorf("the confirmation is %s, openssl says %s", got, want)
	}
}

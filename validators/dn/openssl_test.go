package dn

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// What OpenSSL prints is either the name, in the form of RFC 2253, or refused with an
// error that says how to write the name.
func TestDNOfOpenSSL(t *testing.T) {
	testtool.OpenSSL(t)
	for subj, want := range map[string]string{
		"/O=company/OU=production/CN=client":                                 "CN=client,OU=production,O=company",
		`/C=DE/O=Bär, "Inc."/CN=b+OU=a`:                                      `OU=a+CN=b,O=BÄR\, \"Inc.\",C=de`,
		`/DC=com/UID=u/emailAddress=a@b/SN=s/GN=g/CN=http:\/\/x\/CN=y`:       "CN=http://x/CN=y,GN=g,SN=s,E=a@b,UID=u,DC=com",
		"/C=US/ST=a  b/serialNumber=1/title=t/dnQualifier=d/CN=x;<y>=#":      `CN=x\;\<y\>=#,dnQualifier=d,title=t,serialNumber=1,S=A B,C=US`,
		"/jurisdictionC=DE/businessCategory=x/organizationIdentifier=y/CN=熊": "CN=熊,organizationIdentifier=y,businessCategory=x,jurisdictionC=DE",
		"/CN=client": "CN=client",
	} {
		raw, printed := opensslSubject(t, subj)
		presented := mustPresent(t, raw)
		if presented.Key() != mustDeclare(t, want).Key() {
			t.Errorf("%s makes %s, want %s", subj, presented, want)
		}
		for option, text := range printed {
			rfc2253 := strings.Contains(option, "RFC2253")
			if rfc2253 {
				if declared := mustDeclare(t, strings.TrimPrefix(text, "subject=")); declared.Key() != presented.Key() {
					t.Errorf("%s (%s) is read as %s", text, option, declared)
				}
			}
			_, err := Parse(text)
			if err == nil {
				t.Errorf("%s (%s) is taken as a name", text, option)
				continue
			}
			_, advice, found := strings.Cut(err.Error(), "OpenSSL prints; write ")
			quoted, quoteErr := strconv.QuotedPrefix(advice)
			if !found || quoteErr != nil {
				t.Errorf("%s (%s): no advice in %q", text, option, err)
				continue
			}
			suggestion, _ := strconv.Unquote(quoted)
			if mustDeclare(t, suggestion).Key() != presented.Key() {
				t.Errorf("%s (%s): %s is suggested", text, option, suggestion)
			}
		}
	}
}

// TestQuotableNameOfOpenSSL compares with what openssl prints. Only an equals sign in a
// value differs.
func TestQuotableNameOfOpenSSL(t *testing.T) {
	testtool.OpenSSL(t)
	for _, subj := range []string{
		"/O=company/OU=production/CN=client", `/C=DE/O=Bär, Inc./CN=b+OU=a`, `/DC=com/UID=u/emailAddress=a@b/SN=s/GN=g/CN=http:\/\/x\/CN=y`,
		"/C=US/ST=a  b/L=l/street=1 Main/serialNumber=1/title=t/dnQualifier=d/CN=x<y>=#", "/CN=# a ", "/CN= a",
		"/jurisdictionC=DE/businessCategory=x/organizationIdentifier=y/CN=熊", "/1.2.3.4=a/CN=client", "/postalCode=1/initials=i/pseudonym=p/name=n/description=d/CN=c",
	} {
		raw, printed := opensslSubject(t, subj)
		if got, err := FormatQuotable(raw); err != nil || "subject="+strings.ReplaceAll(got, `\3D`, "=") != printed["RFC2253"] {
			t.Errorf("%s is written as %s, %v; openssl prints %s", subj, got, err, printed["RFC2253"])
		}
	}
}

// opensslSubject creates a certificate, and returns its RawSubject and what "openssl
// x509 -subject" prints with each -nameopt.
func opensslSubject(t *testing.T, subj string) (raw []byte, printed map[string]string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cert.pem")
	openssl(t, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", file+".key",
		"-utf8", "-multivalue-rdn", "-subj", subj, "-out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	printed = make(map[string]string)
	for _, option := range []string{"RFC2253", "RFC2253,-esc_msb,utf8", "oneline", "oneline,-space_eq", "oneline,-esc_msb,utf8", "compat"} {
		printed[option] = strings.TrimRight(openssl(t, "x509", "-in", file, "-noout", "-subject", "-nameopt", option), "\n")
	}
	return cert.RawSubject, printed
}

func openssl(t *testing.T, args ...string) string {
	t.Helper()
	var complaints strings.Builder
	command := exec.Command("openssl", args...)
	command.Stderr = &complaints
	output, err := command.Output()
	if err != nil {
		t.Fatalf("openssl %v: %v: %s", args, err, &complaints)
	}
	return string(output)
}

package command

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/clientcert"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxPath bounds the path of a file in the output, in bytes.
const maxPath = 4096

// registration is what registers an issued certificate.
type registration struct {
	block  string         // of a Caddyfile
	record clients.Record // for the admin API
}

// register returns what registers an issued certificate: its subject, and which CA must
// have issued it, or its thumbprint if it is self-signed.
func register(clientID string, issued *clientcert.Issued, ca *clientcert.CA, trust string) *registration {
	leaf := issued.Leaf
	record := clients.Record{ClientID: clientID}
	var block strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&block, format+"\n", args...) }
	names := nameLines(leaf)
	if ca == nil || !declareName(&record, leaf, names) {
		pin, publicKey := pinLines(leaf)
		line("client %q {", clientID)
		line("\t%s", pin)
		line("\t# or, to accept renewed certificates with the same key too:")
		line("\t# %s", publicKey)
		line("}")
		record.Thumbprints = []string{fmt.Sprintf("%x", sha256.Sum256(leaf.Raw))}
		return &registration{block.String(), record}
	}
	issuer := fmt.Sprintf("%x", sha256.Sum256(ca.Lasting.RawSubjectPublicKeyInfo))
	record.IssuedBy = []string{issuer}
	line("# The realm must trust the CA: %s", trust)
	line("client %q {", clientID)
	line("\t%s", names[0])
	line("\tissued_by %q", issuer)
	if len(names) > 1 {
		line("\t# other ways to identify the client, each sufficient by itself:")
	}
	for _, name := range names[1:] {
		line("\t# %s", name)
	}
	line("}")
	return &registration{block.String(), record}
}

// declareName puts the first of the lines about names into the record, and reports
// whether it could: it is the subject, or the SPIFFE ID of a workload.
func declareName(record *clients.Record, leaf *x509.Certificate, lines []string) bool {
	if len(lines) == 0 {
		return false
	}
	kind, quoted, _ := strings.Cut(lines[0], " ")
	switch clients.Kind(kind) {
	case clients.KindSubject:
		name, err := dn.FromRaw(leaf.RawSubject)
		record.SubjectDN = []string{name.String()}
		return err == nil
	case clients.KindSANURI:
		record.SANURI = []string{strings.Trim(quoted, `"`)}
		return true
	}
	return false
}

func printFiles(out io.Writer, issued *clientcert.Issued, files clientcert.Files, registration *registration, now time.Time) {
	f := facts{out}
	f.print("certificate", "%s", source.Text(files.Certificate, maxPath))
	f.print("private key", "%s", source.Text(files.Key, maxPath))
	f.print("PKCS #12", "%s", source.Text(files.PKCS12, maxPath))
	f.print("subject", "%s", dn.Format(issued.Leaf.RawSubject))
	f.print("issuer", "%s", dn.Format(issued.Leaf.RawIssuer))
	f.print("valid until", "%s (%s)", issued.Leaf.NotAfter.UTC().Format(time.RFC3339), validityText(issued.Leaf, now))
	fmt.Fprintf(out, "\nTo register it, paste this into the mtls global option:\n\n%s", registration.block)
}

// issuedJSON is the output for programs.
type issuedJSON struct {
	ClientID    string         `json:"client_id"`
	Certificate string         `json:"certificate_file"`
	Key         string         `json:"key_file"`
	PKCS12      string         `json:"pkcs12_file"`
	Subject     string         `json:"subject"`
	Issuer      string         `json:"issuer"`
	Serial      string         `json:"serial"`
	NotBefore   time.Time      `json:"not_before"`
	NotAfter    time.Time      `json:"not_after"`
	Thumbprint  string         `json:"thumbprint"`
	PublicKey   string         `json:"public_key"`
	Register    string         `json:"register"`
	Record      clients.Record `json:"record"`
}

func describeIssued(issued *clientcert.Issued, files clientcert.Files, registration *registration) issuedJSON {
	leaf := issued.Leaf
	return issuedJSON{
		ClientID: registration.record.ClientID, Certificate: files.Certificate, Key: files.Key, PKCS12: files.PKCS12,
		Subject: dn.Format(leaf.RawSubject), Issuer: dn.Format(leaf.RawIssuer), Serial: validators.FormatSerial(leaf.SerialNumber),
		NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		Thumbprint: fmt.Sprintf("%x", sha256.Sum256(leaf.Raw)), PublicKey: fmt.Sprintf("%x", sha256.Sum256(leaf.RawSubjectPublicKeyInfo)),
		Register: registration.block, Record: registration.record,
	}
}

package command

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // the thumbprint that older systems show
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// maxShownNames bounds how many alternative names are printed.
const maxShownNames = 32

func inspectCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect [--password <text> | --password-file <file>] [--json] <certificate>",
		Short: "Shows a certificate and the client block that registers it",
		Long: `
Prints the names, validity and hashes of a client certificate, and a client
block that registers it, ready to be pasted into the mtls global option.
Nothing is sent over the network.

The file may be PEM, DER or PKCS #12; "-" reads standard input. If it has
several certificates, the first one is the client's own. A private key in the
file is never printed.

Inspect a certificate file:

	$ caddy mtls inspect client.pem

Inspect a PKCS #12 file:

	$ caddy mtls inspect --password-file secret.txt client.p12

Inspect the output of another program:

	$ openssl pkcs12 -in client.p12 -nokeys | caddy mtls inspect -`,
		Args: cobra.ExactArgs(1),
	}
	flags, asJSON := certfile.AddPasswordFlags(cmd), addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		certificates, unreadable, err := certfile.Read(cmd.InOrStdin(), args[0], flags)
		if err != nil {
			return err
		}
		if *asJSON {
			return printJSON(cmd.OutOrStdout(), inspectionOf(certificates, unreadable, time.Now()))
		}
		printUnreadable(cmd.ErrOrStderr(), unreadable)
		printInspection(cmd.OutOrStdout(), certificates, time.Now())
		return nil
	}
	return cmd
}

// printUnreadable prints which certificates of a file do not count.
func printUnreadable(out io.Writer, unreadable []string) {
	for _, text := range unreadable {
		fmt.Fprintln(out, "left out: "+text)
	}
}

// facts prints one fact per line. The caller escapes text from certificates.
type facts struct{ out io.Writer }

func (f facts) print(label, format string, args ...any) {
	fmt.Fprintf(f.out, "%-17s %s\n", label, fmt.Sprintf(format, args...))
}

func printInspection(out io.Writer, certificates []*x509.Certificate, now time.Time) {
	f := facts{out}
	for i, certificate := range certificates {
		if i > 0 {
			fmt.Fprintln(out)
			f.print(fmt.Sprintf("certificate %d", i+1), "presented after the client's own")
		}
		f.certificate(certificate, now)
		if i == 0 {
			for _, note := range notesOn(certificates, now) {
				f.print("note", "%s", note)
			}
		}
	}
	fmt.Fprintf(out, "\nTo register it, paste this into the mtls global option:\n\n%s", clientBlock(certificates))
}

func (f facts) certificate(c *x509.Certificate, now time.Time) {
	f.print("subject", "%s", orNone(dn.Format(c.RawSubject)))
	f.names(c)
	f.print("issuer", "%s", orNone(dn.Format(c.RawIssuer)))
	if selfSigned(c) {
		f.print("", "(the certificate is self-signed)")
	}
	f.print("serial", "%s", validators.FormatSerial(c.SerialNumber))
	f.print("valid from", "%s", c.NotBefore.UTC().Format(time.RFC3339))
	f.print("valid until", "%s (%s)", c.NotAfter.UTC().Format(time.RFC3339), validityText(c, now))
	f.print("key", "%s", keyText(c))
	f.print("signature", "%s", c.SignatureAlgorithm)
	f.print("CA", "%t", c.IsCA)
	sum, key := sha256.Sum256(c.Raw), sha256.Sum256(c.RawSubjectPublicKeyInfo)
	old := sha1.Sum(c.Raw) //nolint:gosec // see above
	f.hash("thumbprint", "SHA-256", sum[:])
	f.hash("", "SHA-1", old[:])
	f.hash("public key", "SHA-256", key[:])
}

func (f facts) hash(label, algorithm string, sum []byte) {
	f.print(label, "%-7s hex        %s", algorithm, hex.EncodeToString(sum))
	f.print("", "%-7s base64url  %s", algorithm, base64.RawURLEncoding.EncodeToString(sum))
}

func (f facts) names(c *x509.Certificate) {
	shown, err := validators.ShowNames(c)
	if err != nil {
		f.print("note", "%s", err)
		return
	}
	names := slices.Collect(shown)
	for i, name := range names {
		switch {
		case i == maxShownNames:
			f.print("more names", "%d", len(names)-i)
			return
		case name.Kind == "":
			f.print("other name", "of a kind that cannot be declared")
		case name.Name == validators.Name{}:
			f.print(string(name.Kind), "%s (cannot match a client)", name.Text)
		default:
			f.print(string(name.Kind), "%s", name.Text)
		}
	}
}

// notesOn returns why the first certificate would be refused, or count in part only,
// whichever client it belongs to.
func notesOn(certificates []*x509.Certificate, now time.Time) (notes []string) {
	c := certificates[0]
	for _, refusal := range []*validators.Refusal{validators.CheckValidity(c, now), validators.CheckLeaf(c)} {
		if refusal != nil {
			notes = append(notes, "it would be refused: "+refusal.Detail)
		}
	}
	if refusal := validators.CheckPKILeaf(c); refusal != nil && !selfSigned(c) {
		notes = append(notes, "it can only be pinned: "+refusal.Detail)
	}
	if _, refusal := validators.IsSVID(c); refusal != nil && isWorkload(c) {
		notes = append(notes, "its SPIFFE ID is ignored: "+refusal.Detail)
	}
	if c.IsCA && len(certificates) > 1 {
		notes = append(notes, "this is a CA certificate; if the client's own certificate follows, put it first")
	}
	return notes
}

func orNone(name string) string {
	if name == "" {
		return "(empty)"
	}
	return name
}

func selfSigned(c *x509.Certificate) bool {
	return string(c.RawSubject) == string(c.RawIssuer) && !validators.HasHugeKey(c) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

func keyText(c *x509.Certificate) string {
	switch key := c.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return c.PublicKeyAlgorithm.String()
}

func validityText(c *x509.Certificate, now time.Time) string {
	switch {
	case now.Before(c.NotBefore):
		return "not valid for another " + spanText(c.NotBefore.Sub(now))
	case now.After(c.NotAfter):
		return "expired " + spanText(now.Sub(c.NotAfter)) + " ago"
	}
	return "in " + spanText(c.NotAfter.Sub(now))
}

func spanText(d time.Duration) string {
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	case d >= 2*time.Hour:
		return fmt.Sprintf("%d hours", d/time.Hour)
	case d >= 2*time.Minute:
		return fmt.Sprintf("%d minutes", d/time.Minute)
	}
	return fmt.Sprintf("%d seconds", d/time.Second)
}

// clientBlock returns the block that registers the first certificate. Comments in it
// show the other ways to declare the client. The names may come from an attacker, so
// each is quoted, and names with characters that have a meaning in a Caddyfile or in
// placeholders are escaped or left out.
func clientBlock(certificates []*x509.Certificate) string {
	leaf := certificates[0]
	var names []string
	if !selfSigned(leaf) && validators.CheckPKILeaf(leaf) == nil {
		names = nameLines(leaf)
	}
	if len(names) == 0 {
		return pinBlock(leaf)
	}
	pin, publicKey := pinLines(leaf)
	var b strings.Builder
	b.WriteString("client \"CHANGE-ME\" {\n")
	line := func(prefix, text string) { fmt.Fprintf(&b, "\t%s%s\n", prefix, text) }
	line("", names[0])
	line("# ", "the CA must be in trust_pool; renewed certificates are accepted too")
	if ca := issuerAmong(certificates); ca != nil {
		line("# ", "if trust_pool has other CAs, name the one that issues the certificate:")
		line("# ", fmt.Sprintf(`issued_by "%x"`, sha256.Sum256(ca.RawSubjectPublicKeyInfo)))
	}
	line("# ", "other ways to identify the client, each sufficient by itself:")
	for _, name := range names[1:] {
		line("# ", name)
	}
	line("# ", publicKey)
	line("# ", pin)
	b.WriteString("}\n")
	return b.String()
}

// pinBlock returns the block that registers a certificate by its thumbprint, which
// admits it whatever its CA.
func pinBlock(leaf *x509.Certificate) string {
	pin, publicKey := pinLines(leaf)
	return "client \"CHANGE-ME\" {\n\t" + pin + "\n\t# or, to accept renewed certificates with the same key too:\n\t# " + publicKey + "\n}\n"
}

// pinLines returns the lines that declare the thumbprint and the key of a certificate.
func pinLines(leaf *x509.Certificate) (thumbprint, publicKey string) {
	return fmt.Sprintf(`thumbprint "%x"`, sha256.Sum256(leaf.Raw)), fmt.Sprintf(`public_key "%x"`, sha256.Sum256(leaf.RawSubjectPublicKeyInfo))
}

// nameLines returns the lines that declare the subject and the alternative names of a
// certificate, as far as these can be declared. For a SPIFFE workload it returns the
// SPIFFE ID alone, because other workloads may share the other names.
func nameLines(leaf *x509.Certificate) []string {
	const most = 8
	var lines []string
	workload := isWorkload(leaf)
	if _, refusal := validators.IsSVID(leaf); workload && refusal != nil {
		return nil
	}
	if subject, err := dn.FromRaw(leaf.RawSubject); err == nil {
		text := configText.Replace(subject.String())
		if declared, err := dn.Parse(text); err == nil && declared.Key() == subject.Key() && !workload {
			lines = append(lines, `subject "`+text+`"`)
		}
	}
	presented, err := validators.NamesOf(leaf)
	if err != nil {
		return lines
	}
	for _, name := range presented {
		text := name.String()
		declared, err := validators.ParseName(name.Kind(), text)
		if err != nil || declared != name || strings.ContainsAny(text, "{}\"\\") || workload && name.TrustDomain() == "" {
			continue
		}
		if lines = append(lines, string(name.Kind())+` "`+text+`"`); len(lines) == most {
			break
		}
	}
	return lines
}

// isWorkload reports whether a certificate has a SPIFFE ID.
func isWorkload(leaf *x509.Certificate) bool {
	return slices.ContainsFunc(leaf.URIs, func(uri *url.URL) bool { return uri.Scheme == "spiffe" })
}

// configText escapes characters of a distinguished name that would end a quoted word
// of a Caddyfile or begin a placeholder, as octets (RFC 4514 §2.4).
var configText = strings.NewReplacer(`\"`, `\22`, `\\`, `\5C`, "{", `\7B`, "}", `\7D`)

// issuerAmong returns the presented certificate that issued the first one.
func issuerAmong(certificates []*x509.Certificate) *x509.Certificate {
	for _, ca := range certificates[1:] {
		if !validators.HasHugeKey(ca) && certificates[0].CheckSignatureFrom(ca) == nil {
			return ca
		}
	}
	return nil
}

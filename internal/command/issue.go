package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddypki"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/clientcert"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// maxDays bounds how long a certificate is valid.
const maxDays = 36500

// issueFlags are the flags of `caddy mtls issue`.
type issueFlags struct {
	caFlags
	request                clientcert.Request
	dns, uris, ips, emails []string
	days                   int
	out                    string
	replace, legacy        bool
	password               *certfile.Password
	json                   *bool
}

func issueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "issue <client_id> [--self-signed | --ca <id> | --ca-cert <file> --ca-key <file>]",
		Short: "Makes a key and a certificate for a client",
		Long: `
Makes a private key and a certificate for a client, and prints the client block
that registers it. Writes <client_id>.key and <client_id>.pem, in PEM, and
<client_id>.p12, which has both as PKCS #12, for .NET, Java, browsers and
phones. The password of the latter is generated and printed once on standard
error, unless --password-file names one. Existing files are not replaced.

A CA of Caddy's pki app signs the certificate, "local" by default. The command
reads the CA from the storage that the configuration names, so run it as the
user that Caddy runs as. It creates no CA. The root signs, because Caddy
replaces the intermediate every few days.

Issue a certificate of Caddy's local CA:

	$ caddy mtls issue sensor-7 --config /etc/caddy/Caddyfile --out ~/sensor-7

Issue one of a CA of the Caddy that runs here, whatever its configuration is:

	$ caddy mtls issue sensor-7 --address localhost:2019

Issue a certificate of another CA:

	$ caddy mtls issue billing --ca-cert ca.pem --ca-key ca.key --subject "CN=billing, O=Company"

Make a self-signed certificate, which is registered by its thumbprint:

	$ caddy mtls issue sensor-7 --self-signed --days 730

Print key and certificate instead of writing files:

	$ caddy mtls issue sensor-7 --self-signed --out - > sensor-7.pem`,
		Args: cobra.ExactArgs(1),
	}
	f := issueFlags{password: certfile.AddPasswordFlags(cmd), json: addJSONFlag(cmd)}
	f.add(cmd)
	cmd.ValidArgsFunction = completeArgs(nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		f.request.ClientID = args[0]
		if err := f.check(); err != nil {
			return usageError{err}
		}
		return f.run(cmd)
	}
	return cmd
}

func (f *issueFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.selfSigned, "self-signed", false, "The certificate is signed with its own key")
	flags.StringVar(&f.id, "ca", caddypki.DefaultCAID, "ID of a CA of Caddy's pki app")
	flags.BoolVar(&f.intermediate, "intermediate", false, "The intermediate of that CA signs, which Caddy replaces every few days")
	flags.StringVar(&f.certificateFile, "ca-cert", "", "File with the certificate of another CA, and those above it")
	flags.StringVar(&f.keyFile, "ca-key", "", "File with the private key of that CA")
	flags.StringVar(&f.admin.address, "address", "", "Address of the admin API of a running Caddy, whose configuration counts instead of a file")
	flags.StringVarP(&f.admin.config, "config", "c", "", "Configuration file with the CA and the storage (default: Caddyfile in the current directory, or else Caddy's defaults)")
	flags.StringVarP(&f.admin.adapter, "adapter", "a", "", "Name of the config adapter to apply")
	cmd.MarkFlagsRequiredTogether("ca-cert", "ca-key")
	cmd.MarkFlagsMutuallyExclusive("self-signed", "ca", "ca-cert")
	cmd.MarkFlagsMutuallyExclusive("self-signed", "intermediate", "ca-cert")
	cmd.MarkFlagsMutuallyExclusive("address", "config", "self-signed", "ca-cert")

	flags.StringVar(&f.request.KeyType, "key-type", clientcert.KeyTypes[0], "Type of the key: "+strings.Join(clientcert.KeyTypes, ", "))
	flags.IntVar(&f.days, "days", 365, "Days until the certificate expires")
	flags.StringVar(&f.request.Subject, "subject", "", `Subject, such as "CN=billing, O=Company" (default: the client ID as common name)`)
	flags.StringArrayVar(&f.dns, "san-dns", nil, "DNS name in the certificate")
	flags.StringArrayVar(&f.uris, "san-uri", nil, "URI in the certificate")
	flags.StringArrayVar(&f.ips, "san-ip", nil, "IP address in the certificate")
	flags.StringArrayVar(&f.emails, "san-email", nil, "Email address in the certificate")

	flags.StringVarP(&f.out, "out", "o", ".", "Folder of the files; - prints key and certificate in PEM instead")
	flags.BoolVar(&f.replace, "force", false, "Replace existing files")
	flags.BoolVar(&f.legacy, "legacy", false, "Encrypt the PKCS #12 file weakly, for Windows Server 2016, Java 11, and older")
	_ = cmd.RegisterFlagCompletionFunc("key-type", cobra.FixedCompletions(clientcert.KeyTypes, cobra.ShellCompDirectiveNoFileComp)) // which fails without the flag
}

// check returns what is wrong with the command line, and reads the names.
func (f *issueFlags) check() error {
	if err := clients.CheckID(f.request.ClientID); err != nil {
		return err
	}
	if !slices.Contains(clientcert.KeyTypes, f.request.KeyType) {
		return fmt.Errorf("unknown key type %q; use %s", f.request.KeyType, strings.Join(clientcert.KeyTypes, ", "))
	}
	if f.days < 1 || f.days > maxDays {
		return fmt.Errorf("--days is %d; use 1 to %d", f.days, maxDays)
	}
	f.request.Lifetime = time.Duration(f.days) * 24 * time.Hour
	if f.out == "-" && *f.json {
		return errors.New("--json and '--out -' both print on standard output; name a folder")
	}
	for kind, texts := range map[validators.NameKind][]string{
		validators.NameDNS: f.dns, validators.NameURI: f.uris, validators.NameIP: f.ips, validators.NameEmail: f.emails,
	} {
		for _, text := range texts {
			name, err := validators.ParseName(kind, text)
			if err != nil {
				return fmt.Errorf("%s %q: %w", kind, text, err)
			}
			f.request.Names = append(f.request.Names, name)
		}
	}
	return nil
}

func (f *issueFlags) run(cmd *cobra.Command) error {
	password, err := f.password.Read()
	if err != nil {
		return fmt.Errorf("reading the password: %w", err)
	}
	if password == "" && (f.password.File != "" || cmd.Flags().Changed("password")) {
		return errors.New("the password is empty; write one, or leave the flag out to have one generated")
	}
	files := clientcert.FilesOf(f.out, f.request.ClientID)
	if f.out != "-" {
		if existing, err := files.Existing(); err != nil || existing != "" && !f.replace {
			return errors.Join(err, existsError(existing))
		}
	}
	ca, trust, err := f.ca(cmd.InOrStdin())
	if err != nil {
		return err
	}
	now := time.Now().Truncate(time.Second)
	issued, err := clientcert.Issue(f.request, ca, now)
	if err != nil {
		return err
	}
	registration := register(f.request.ClientID, issued, ca, trust)
	if f.out == "-" {
		return printIssued(cmd, issued, registration)
	}
	if err := os.MkdirAll(f.out, 0o700); err != nil {
		return err
	}
	generated := password == ""
	if generated {
		password = clientcert.NewPassword()
	}
	if err := issued.Write(files, password, f.legacy, f.replace); err != nil {
		return err
	}
	if generated {
		fmt.Fprintf(cmd.ErrOrStderr(), "Password of %s, which is not shown again: %s\n", source.Text(files.PKCS12, maxPath), password)
	}
	if *f.json {
		return printJSON(cmd.OutOrStdout(), describeIssued(issued, files, registration))
	}
	printFiles(cmd.OutOrStdout(), issued, files, registration, now)
	return nil
}

func existsError(file string) error {
	if file == "" {
		return nil
	}
	return fmt.Errorf("%s exists; use --force to replace it, or another folder with --out", file)
}

// printIssued prints the private key and the certificate, and on standard error the
// block.
func printIssued(cmd *cobra.Command, issued *clientcert.Issued, registration *registration) error {
	key, err := issued.KeyPEM()
	if err != nil {
		return err
	}
	if _, err := cmd.OutOrStdout().Write(append(key, issued.CertificatePEM()...)); err != nil {
		return err
	}
	_, err = io.WriteString(cmd.ErrOrStderr(), registration.block)
	return err
}

package command

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/clienttoken"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// tokenFlags are the flags of `caddy mtls token`.
type tokenFlags struct {
	request                     clienttoken.Request
	certificate, key, authority string
	password                    *certfile.Password
	bare                        bool
	json                        *bool
}

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token --issuer <url> --cert <file> [--key <file>]",
		Short: "Gets an access token as a client, or says why there is none",
		Long: `
Gets an access token with a client certificate, and shows its header and its
claims. Verifies it as an API does: with the keys of the issuer, its issuer, its
times, that it is bound to the certificate, and its audience if --resource
names one.

The metadata of the issuer leads to the token endpoint, and to its alias for
mutual TLS if there is one.

If there is no token, says how far the request went: the address, the
connection, the server's certificate, whether it asked for the client's, and
its answer. Only the issuer and the token endpoint get the client's certificate,
and redirects of their answers are not followed.

The exit status is 0 if there is a token and nothing is wrong with it.

Show what a client gets:

	$ caddy mtls token --issuer https://auth.example.com --cert sensor-7.pem --key sensor-7.key

Call an API:

	$ curl --cert sensor-7.pem --key sensor-7.key -H "Authorization: Bearer $(caddy mtls token --bare --issuer https://auth.example.com --cert sensor-7.pem --key sensor-7.key)" https://api.example.com/`,
		Args: cobra.NoArgs,
	}
	f := tokenFlags{password: certfile.AddPasswordFlags(cmd), json: addJSONFlag(cmd)}
	flags := cmd.Flags()
	flags.StringVar(&f.request.Issuer, "issuer", "", "URL of the issuer")
	flags.StringVar(&f.request.Endpoint, "url", "", "URL of the token endpoint (default: that of the issuer's metadata)")
	flags.StringVar(&f.certificate, "cert", "", "File with the client's certificate, in PEM or PKCS #12, which may have the key too")
	flags.StringVar(&f.key, "key", "", "File with the private key in PEM")
	flags.StringVar(&f.request.ClientID, "client-id", "", "Client ID (default: the common name of the certificate)")
	flags.StringArrayVar(&f.request.Scopes, "scope", nil, "Scope to ask for (default: none, so those that the issuer grants)")
	flags.StringArrayVar(&f.request.Resources, "resource", nil, "Resource to ask for")
	flags.StringVar(&f.authority, "cacert", "", "File with the CAs of the server, in PEM, instead of the system's")
	flags.DurationVar(&f.request.Timeout, "timeout", 10*time.Second, "How long each request may take")
	flags.BoolVar(&f.bare, "bare", false, "Print only the token, unverified")
	_ = cmd.MarkFlagRequired("cert") // which fails without the flag
	cmd.MarkFlagsOneRequired("issuer", "url")
	cmd.MarkFlagsMutuallyExclusive("bare", "json")
	cmd.ValidArgsFunction = completeArgs(nil)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for name, address := range map[string]string{"issuer": f.request.Issuer, "url": f.request.Endpoint} {
			if address != "" && source.CheckSecureURL(address) != nil {
				return usagef("--%s %q is not an https URL; use one like https://auth.example.com", name, source.ShownURL(address))
			}
		}
		if f.request.Timeout <= 0 {
			return usagef("--timeout is %s; use a positive duration, such as 10s", f.request.Timeout)
		}
		if err := f.read(); err != nil {
			return err
		}
		return f.run(cmd)
	}
	return cmd
}

// read reads the files that the flags name.
func (f *tokenFlags) read() (err error) {
	if f.request.Identity, err = certfile.ReadIdentity(f.certificate, f.key, f.password); err != nil {
		return err
	}
	if f.request.ClientID == "" {
		f.request.ClientID = f.request.Identity.Leaf.Subject.CommonName
		if clients.CheckID(f.request.ClientID) != nil {
			return usagef("the common name of the certificate, %.80q, is not a client ID; name the client with --client-id", f.request.ClientID)
		}
	}
	if f.authority == "" {
		return nil
	}
	text, err := certfile.ReadFile(f.authority)
	if err != nil {
		return err
	}
	certificates, _, err := certfile.Parse(text, "")
	if err != nil {
		return fmt.Errorf("%s: %w", f.authority, err)
	}
	f.request.Roots = x509.NewCertPool()
	for _, certificate := range certificates {
		f.request.Roots.AddCert(certificate)
	}
	return nil
}

// obtained is the output for programs.
type obtained struct {
	Endpoint    string          `json:"token_endpoint"`
	ClientID    string          `json:"client_id"`
	AccessToken string          `json:"access_token"`
	TokenType   string          `json:"token_type"`
	Scope       string          `json:"scope,omitempty"`
	ExpiresIn   int64           `json:"expires_in,omitempty"`
	Header      json.RawMessage `json:"header,omitempty"`
	Claims      json.RawMessage `json:"claims,omitempty"`
	// Verified is null if the token cannot be verified, as without an issuer.
	Verified *bool              `json:"verified"`
	Reason   string             `json:"reason,omitempty"`
	Steps    []clienttoken.Step `json:"steps"`
}

func (f *tokenFlags) run(cmd *cobra.Command) error {
	answer, err := f.request.Get(cmd.Context())
	if err != nil {
		return f.explain(cmd, err)
	}
	if f.bare {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), source.Text(answer.AccessToken, len(answer.AccessToken)))
		return err
	}
	o := &obtained{
		Endpoint: answer.Endpoint, ClientID: f.request.ClientID, AccessToken: answer.AccessToken, TokenType: answer.TokenType,
		Scope: answer.Scope, ExpiresIn: answer.ExpiresIn, Steps: answer.Steps,
	}
	wrong := f.inspect(cmd, o)
	if *f.json {
		if err := printJSON(cmd.OutOrStdout(), o); err != nil {
			return err
		}
	} else if err := o.print(cmd.OutOrStdout(), f.request.Identity); err != nil {
		return err
	}
	if wrong != nil {
		cmd.SilenceErrors = true // the output has it
	}
	return wrong
}

// inspect decodes and verifies the token, and returns what is wrong with it.
func (f *tokenFlags) inspect(cmd *cobra.Command, o *obtained) error {
	header, claims, ok := clienttoken.Decode(o.AccessToken)
	if !ok {
		o.Reason = "the token is not a signed JWT, so only its issuer can read it"
		return nil
	}
	o.Header, o.Claims = header, claims
	if f.request.Issuer == "" {
		o.Reason = "the issuer is not known; name it with --issuer"
		return nil
	}
	err := f.request.Verify(cmd.Context(), o.AccessToken)
	good := err == nil
	if o.Verified = &good; !good {
		o.Reason = err.Error()
	}
	return err
}

func (o *obtained) print(out io.Writer, identity *tls.Certificate) error {
	f := facts{out}
	f.print("token endpoint", "%s", source.Text(o.Endpoint, maxPath))
	f.print("client", "%s", source.Text(o.ClientID, maxClientID))
	f.print("certificate", "%s", dn.Format(identity.Leaf.RawSubject))
	f.print("token type", "%s", source.Text(o.TokenType, maxCell))
	f.print("scope", "%s", orNone(source.Text(o.Scope, maxPath)))
	if o.ExpiresIn > 0 {
		f.print("expires", "in %s", spanText(time.Duration(min(o.ExpiresIn, maxDays*86400))*time.Second))
	}
	switch {
	case o.Verified == nil:
		f.print("verified", "not known: %s", o.Reason)
	case *o.Verified:
		f.print("verified", "yes")
	default:
		f.print("verified", "NO: %s", o.Reason)
	}
	for _, part := range []struct {
		name string
		text json.RawMessage
	}{{"header", o.Header}, {"claims", o.Claims}} {
		if part.text == nil {
			continue
		}
		fmt.Fprintf(out, "\n%s\n", part.name)
		if err := printRecord(out, part.text); err != nil {
			return err
		}
	}
	return nil
}

// explain prints how far a request went.
func (f *tokenFlags) explain(cmd *cobra.Command, err error) error {
	var failure *clienttoken.RequestError
	if !errors.As(err, &failure) {
		return err
	}
	if *f.json {
		cmd.SilenceErrors = true
		return errors.Join(printJSON(cmd.OutOrStdout(), failure), err)
	}
	out := cmd.ErrOrStderr()
	fmt.Fprintf(out, "No token. The request to %s went so far:\n", source.ShownURL(failure.URL))
	t := newTable(out, column{title: "STEP"}, column{title: ""}, column{title: "WHAT HAPPENED", most: maxPath})
	for _, step := range failure.Steps {
		word := "ok"
		if !step.OK {
			word = "FAILED"
		}
		t.row(step.Name, word, step.Text)
	}
	if err := t.flush(); err != nil {
		return err
	}
	cmd.SilenceErrors = true // the table has it
	return err
}

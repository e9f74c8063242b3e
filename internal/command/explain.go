package command

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
	"github.com/caddymtls/caddy-mtls-auth/internal/reasons"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// appID is the ID of the mtls app in Caddy's configuration.
const appID = "mtls"

// LoadFunc provisions the realms in the JSON configuration of the mtls app, without
// their issuers. The context is that of a configuration with only the storage and
// Caddy's pki app.
type LoadFunc func(ctx caddy.Context, app json.RawMessage) (Explainer, error)

// Explainer reports what the realms of a configuration decide about a certificate.
// The mtls app implements it.
type Explainer interface {
	// Explain authenticates the presented certificates, leaf first, as a request
	// would. It returns an error if the realm does not exist.
	Explain(q Question, presented []*x509.Certificate) (*Explanation, error)
}

// Question describes a request with the certificate.
type Question struct {
	Realm    string
	ClientID string    // the client that the request names, "" for none
	At       time.Time // the time of the request
}

// Explanation is the decision of a realm about a certificate. Either Credential or
// Refusal is set.
type Explanation struct {
	Realm      string
	Credential *clients.Credential // the credential that admits the certificate
	Matched    string              // the value in the certificate that the credential matches
	Refusal    *validators.Refusal
	NearMisses []string // sentences about credentials that almost match
	// Registrable reports whether registering the certificate would admit it.
	Registrable bool
	// UnfetchedJWKS and UnfetchedCRLs count the documents that a server would have
	// fetched from URLs and that could change the decision.
	UnfetchedJWKS, UnfetchedCRLs int
	// Exempt are the CAs above the certificate that publish no revocations.
	Exempt []string
	// Shadow is the decision under the shadow trust pool, "" if the realm has none.
	Shadow string
}

// errRefused makes the process exit with status 1 after the explanation has been
// printed.
var errRefused = errors.New("the certificate is refused")

func explainCommand(load LoadFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [--config <file>] [--realm <name>] [--client-id <id>] [--json] <certificate>",
		Short: "Explains which client a certificate identifies, or why it is refused",
		Long: `
Loads a configuration and authenticates a certificate as a request would.
Prints the client and the credential that matches, or the reason why the
certificate is refused, what to do about it, the credentials that almost match,
and the client block that registers an unknown certificate.

No server is started, the issuer's keys are neither read nor created, and JWKS
and CRLs are not fetched from URLs. OCSP responders are queried as the server
would.

The certificate file may be PEM, DER or PKCS #12; "-" reads standard input. If
it has several certificates, the client presents all of them, its own first.
The config adapter is chosen as in 'caddy validate'.

The exit status is 0 if the certificate is accepted, and 1 if it is refused or
an error occurs.

Show which client a certificate identifies:

	$ caddy mtls explain --config Caddyfile client.pem

Show why a certificate is refused that should be billing.partner:

	$ caddy mtls explain --config Caddyfile --client-id billing.partner client.pem

Show whether a certificate will be accepted on a date:

	$ caddy mtls explain --config Caddyfile --at 2027-01-31T12:00:00Z client.pem`,
		Args: cobra.ExactArgs(1),
	}
	var file, adapter string
	var q Question
	cmd.Flags().StringVarP(&file, "config", "c", "", "Configuration file (default: Caddyfile in the current directory)")
	cmd.Flags().StringVarP(&adapter, "adapter", "a", "", "Name of the config adapter to apply")
	cmd.Flags().StringVar(&q.Realm, "realm", "default", "Name of the realm")
	cmd.Flags().StringVar(&q.ClientID, "client-id", "", "Client that the request names, or that the certificate should identify")
	at := cmd.Flags().String("at", "", "Time of the request, such as 2027-01-31T12:00:00Z (default: now)")
	flags, asJSON := certfile.AddPasswordFlags(cmd), addJSONFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "-" && args[0] == "-" {
			return usagef("the configuration and the certificate cannot both be read from standard input")
		}
		if *at != "" {
			var err error
			if q.At, err = time.Parse(time.RFC3339, *at); err != nil {
				return usagef("invalid time %q in --at; write it as 2027-01-31T12:00:00Z", *at)
			}
		} else {
			q.At = time.Now()
		}
		presented, unreadable, err := certfile.Read(cmd.InOrStdin(), args[0], flags)
		if err != nil {
			return err
		}
		if !*asJSON {
			printUnreadable(cmd.ErrOrStderr(), unreadable)
		}
		explainer, err := loadConfig(file, adapter, load)
		if err != nil {
			return err
		}
		explanation, err := explainer.Explain(q, presented)
		if err != nil {
			return err
		}
		if *asJSON {
			err = explanation.WriteJSON(cmd.OutOrStdout(), presented[0], unreadable)
		} else {
			printExplanation(cmd.OutOrStdout(), explanation, presented[0], q.At)
		}
		if err != nil {
			return err
		}
		if explanation.Refusal != nil {
			cmd.SilenceErrors = true
			return errRefused
		}
		return nil
	}
	return cmd
}

// loadConfig provisions only the realms of a configuration file.
func loadConfig(file, adapter string, load LoadFunc) (Explainer, error) {
	file, err := configOrDefault(file)
	if err != nil {
		return nil, err
	}
	whole, err := readConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	app := whole.Apps[appID]
	if app == nil {
		return nil, errors.New("the configuration has no realm; add 'mtls { … }' to the global options")
	}
	config, ctx, err := whole.provision()
	if err != nil {
		return nil, err
	}
	// an app that is added after provisioning is loaded only when a trust pool
	// asks for it; the pki app may create a CA
	if pki := whole.Apps["pki"]; pki != nil {
		config.AppsRaw["pki"] = pki
	}
	return load(ctx, app)
}

func printExplanation(out io.Writer, e *Explanation, leaf *x509.Certificate, at time.Time) {
	f, sum := facts{out}, sha256.Sum256(leaf.Raw)
	f.print("realm", "%s", e.Realm)
	f.print("subject", "%s", orNone(dn.Format(leaf.RawSubject)))
	f.print("issuer", "%s", orNone(dn.Format(leaf.RawIssuer)))
	f.print("valid until", "%s (%s)", leaf.NotAfter.UTC().Format(time.RFC3339), validityText(leaf, at))
	f.print("thumbprint", "%s", hex.EncodeToString(sum[:]))
	if e.Refusal == nil {
		f.admission(e)
	} else {
		f.print("refused", "%s", e.Refusal.Reason)
		f.print("detail", "%s", e.Refusal.Detail)
		for _, miss := range e.NearMisses {
			f.print("hint", "%s", miss)
		}
		f.alternativeNames(leaf)
	}
	if e.UnfetchedJWKS > 0 {
		f.print("not known", "the JWKS behind URLs (%d), which are not fetched here", e.UnfetchedJWKS)
	}
	if e.UnfetchedCRLs > 0 {
		f.print("not known", "the CRLs behind URLs (%d), which are not fetched here", e.UnfetchedCRLs)
	}
	for _, ca := range e.Exempt {
		f.print("exempt", "%s (revocation is not asked for what it has issued)", ca)
	}
	if e.Shadow != "" {
		f.print("shadow_trust_pool", "%s", e.Shadow)
	}
	if e.Refusal != nil {
		if text, known := reasons.Of(string(e.Refusal.Reason)); known {
			text = text.Plain()
			printAdvice(out, text.Sentence, text.Remedy)
		}
	}
	if e.Registrable {
		printRegister(out, e.Realm)
		fmt.Fprint(out, pinBlock(leaf))
	}
}

// alternativeNames prints the first alternative names of a refused certificate, as the log does.
func (f facts) alternativeNames(leaf *x509.Certificate) {
	const most = 8
	for i, name := range factsOf(leaf).Names {
		if i == most {
			f.print("names", "…")
			return
		}
		f.print("names", "%s", source.Text(name, maxShownText))
	}
}

func (f facts) admission(e *Explanation) {
	client := e.Credential.Client
	f.print("client", "%s", client.ID)
	f.print("credential", "%s", e.Credential.Kind)
	f.print("matched", "%s", e.Matched)
	if e.Matched != e.Credential.Value {
		f.print("declared", "%s", e.Credential.Value)
	}
	if !e.Credential.Until().IsZero() {
		f.print("until", "%s", e.Credential.Until().UTC().Format(time.RFC3339))
	}
	f.print("scopes", "%s", orNone(client.Scope()))
	if len(client.DefaultScopes) > 0 {
		f.print("default scopes", "%s", strings.Join(client.DefaultScopes, " "))
	}
}

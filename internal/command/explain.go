package command

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// appID is the ID of the mtls app in Caddy's configuration.
const appID = "mtls"

// LoadFunc provisions the realms in the JSON configuration of the mtls app, without
// their issuers. The context is that of a configuration with only the storage and
// Caddy's pki app.
type LoadFunc func(ctx caddy.Context, app json.RawMessage) (Explainer, error)

// Explainer tells what the realms of a configuration decide about a certificate.
// The mtls app implements it.
type Explainer interface {
	// Explain authenticates the certificates, which are presented leaf first, as
	// a request would. It returns an error if the realm does not exist.
	Explain(q Question, presented []*x509.Certificate) (*Explanation, error)
}

// Question is what an operator asks about a certificate.
type Question struct {
	Realm    string
	ClientID string    // the client that the request names, "" for none
	At       time.Time // the time that the certificate is presented
}

// Explanation is what a realm decides about a certificate. Either Credential or
// Refusal is set.
type Explanation struct {
	Realm      string
	Credential *clients.Credential // admits the certificate
	Matched    string              // what of the certificate the credential matches
	Refusal    *validators.Refusal
	NearMisses []string // sentences about what a refused certificate comes close to
	// Registrable reports whether registering the certificate would help.
	Registrable bool
	// UnfetchedJWKS and UnfetchedCRLs are the numbers of documents behind URLs
	// that a server would have fetched and that could change the decision.
	UnfetchedJWKS, UnfetchedCRLs int
	// Shadow says what would be decided under the shadow trust pool, "" if the
	// realm has none.
	Shadow string
}

// errRefused makes the process exit with status 1. What there is to say has
// been printed.
var errRefused = errors.New("the certificate is refused")

func explainCommand(load LoadFunc) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain --config <file> [--realm <name>] [--client-id <id>] <certificate>",
		Short: "Tells which client a certificate is, or why it is none",
		Long: `
Reads a configuration and asks it about a certificate, as a request with that
certificate would: which client it is and by which credential, or the reason
why it is refused and everything it comes close to. No server is started, the
issuer's keys are neither read nor made, and a JWKS or a CRL behind a URL is not
fetched. OCSP responders are asked as the server would ask them.

The certificate may be PEM, DER or PKCS #12; "-" is the standard input. If the
file holds several certificates, they are what the client presents, its own
first. The configuration is adapted by its name, as 'caddy validate' does it.

The exit status is 0 if the certificate is a client's, and 1 if it is refused or
the question could not be answered, which then says an error.

Which client is this?

	$ caddy mtls explain --config Caddyfile client.pem

Why is this one refused, that should be billing.partner?

	$ caddy mtls explain --config Caddyfile --client-id billing.partner client.pem

Will it still be accepted next year?

	$ caddy mtls explain --config Caddyfile --at 2027-01-31T12:00:00Z client.pem`,
		Args: cobra.ExactArgs(1),
	}
	var file, adapter string
	var q Question
	cmd.Flags().StringVarP(&file, "config", "c", "", "Configuration file. Default: Caddyfile in the current directory")
	cmd.Flags().StringVarP(&adapter, "adapter", "a", "", "Name of the config adapter, if the file's name does not tell")
	cmd.Flags().StringVar(&q.Realm, "realm", "default", "The realm that is asked")
	cmd.Flags().StringVar(&q.ClientID, "client-id", "", "The client that the request names, or that it should be")
	at := cmd.Flags().String("at", "", "The time that it would be, as 2027-01-31T12:00:00Z. Default: now")
	flags := addPasswordFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if file == "-" && args[0] == "-" {
			return errors.New("only one of configuration and certificate can be the standard input")
		}
		if *at != "" {
			var err error
			if q.At, err = time.Parse(time.RFC3339, *at); err != nil {
				return fmt.Errorf("--at %q is no time; write it as 2027-01-31T12:00:00Z", *at)
			}
		} else {
			q.At = time.Now()
		}
		presented, err := readCertificates(cmd.InOrStdin(), args[0], flags)
		if err != nil {
			return err
		}
		explainer, err := loadConfig(file, adapter, load)
		if err != nil {
			return err
		}
		explanation, err := explainer.Explain(q, presented)
		if err != nil {
			return err
		}
		printExplanation(cmd.OutOrStdout(), explanation, presented[0], q.At)
		if explanation.Refusal != nil {
			cmd.SilenceErrors = true
			return errRefused
		}
		return nil
	}
	return cmd
}

// loadConfig provisions the realms of a configuration file and nothing else of
// it.
func loadConfig(file, adapter string, load LoadFunc) (Explainer, error) {
	quiet := &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{
			Level:     "ERROR",
			WriterRaw: caddyconfig.JSONModuleObject(caddy.StderrWriter{}, "output", "stderr", nil),
		}},
	}}
	// reading the file logs too, so this comes first
	if _, err := caddy.ProvisionContext(&caddy.Config{Logging: quiet}); err != nil {
		return nil, err
	}
	if file == "" {
		if _, err := os.Stat("Caddyfile"); err != nil {
			return nil, errors.New("there is no Caddyfile here; name a configuration with --config")
		}
		file = "Caddyfile"
	}
	text, _, _, err := caddycmd.LoadConfig(file, adapter)
	if err != nil {
		return nil, err
	}
	var whole struct {
		Storage json.RawMessage            `json:"storage"`
		Apps    map[string]json.RawMessage `json:"apps"`
	}
	if err := json.Unmarshal(caddy.RemoveMetaFields(text), &whole); err != nil {
		return nil, err
	}
	app := whole.Apps[appID]
	if app == nil {
		return nil, errors.New("the configuration declares no realm; add 'mtls { … }' to the global options")
	}
	config := &caddy.Config{StorageRaw: whole.Storage, AppsRaw: make(caddy.ModuleMap), Logging: quiet}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, err
	}
	// Caddy loads an app that is added now only when a trust pool asks for it,
	// as Caddy's pki app would create a CA
	if pki := whole.Apps["pki"]; pki != nil {
		config.AppsRaw["pki"] = pki
	}
	return load(ctx, app)
}

func printExplanation(out io.Writer, e *Explanation, leaf *x509.Certificate, at time.Time) {
	f, sum := facts{out}, sha256.Sum256(leaf.Raw)
	f.print("realm", "%s", e.Realm)
	f.print("subject", "%s", orNone(validators.FormatDN(leaf.RawSubject)))
	f.print("issuer", "%s", orNone(validators.FormatDN(leaf.RawIssuer)))
	f.print("valid until", "%s (%s)", leaf.NotAfter.UTC().Format(time.RFC3339), validityText(leaf, at))
	f.print("thumbprint", "%s", hex.EncodeToString(sum[:]))
	if e.Refusal == nil {
		f.admission(e)
	} else {
		f.print("refused", "%s", e.Refusal.Reason)
		f.print("detail", "%s", e.Refusal.Detail)
		for _, miss := range e.NearMisses {
			f.print("near miss", "%s", miss)
		}
	}
	if e.UnfetchedJWKS > 0 {
		f.print("not known", "what the JWKS of clients say that are behind URLs (%d): they are not fetched here", e.UnfetchedJWKS)
	}
	if e.UnfetchedCRLs > 0 {
		f.print("not known", "what the CRLs say that are behind URLs (%d): they are not fetched here", e.UnfetchedCRLs)
	}
	if e.Registrable {
		f.print("to register it", "see 'caddy mtls inspect'")
	}
	if e.Shadow != "" {
		f.print("shadow_trust_pool", "%s", e.Shadow)
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
	if !e.Credential.Until.IsZero() {
		f.print("until", "%s", e.Credential.Until.UTC().Format(time.RFC3339))
	}
	f.print("scopes", "%s", orNone(client.Scope()))
	if len(client.DefaultScopes) > 0 {
		f.print("default scopes", "%s", strings.Join(client.DefaultScopes, " "))
	}
}

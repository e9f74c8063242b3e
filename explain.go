package mtlsauth

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// errRefused makes the process exit with status 1. What there is to say has
// been printed.
var errRefused = errors.New("the certificate is refused")

func explainCommand() *cobra.Command {
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
	var q question
	cmd.Flags().StringVarP(&q.config, "config", "c", "", "Configuration file. Default: Caddyfile in the current directory")
	cmd.Flags().StringVarP(&q.adapter, "adapter", "a", "", "Name of the config adapter, if the file's name does not tell")
	cmd.Flags().StringVar(&q.realm, "realm", defaultRealm, "The realm that is asked")
	cmd.Flags().StringVar(&q.clientID, "client-id", "", "The client that the request names, or that it should be")
	at := cmd.Flags().String("at", "", "The time that it would be, as 2027-01-31T12:00:00Z. Default: now")
	flags := addPasswordFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if q.config == "-" && args[0] == "-" {
			return errors.New("only one of configuration and certificate can be the standard input")
		}
		if *at != "" {
			var err error
			if q.at, err = time.Parse(time.RFC3339, *at); err != nil {
				return fmt.Errorf("--at %q is no time; write it as 2027-01-31T12:00:00Z", *at)
			}
		} else {
			q.at = time.Now()
		}
		presented, err := readCertificates(cmd.InOrStdin(), args[0], flags)
		if err != nil {
			return err
		}
		realm, err := q.load()
		if err != nil {
			return err
		}
		if !q.answer(cmd.OutOrStdout(), realm, presented) {
			cmd.SilenceErrors = true
			return errRefused
		}
		return nil
	}
	return cmd
}

// question is what somebody asks about a certificate.
type question struct {
	config, adapter string
	realm, clientID string
	at              time.Time
}

// load provisions the realms of a configuration and nothing else of it. Its
// issuers stay out, so that neither storage nor signing keys are needed, which
// whoever asks may not be allowed to read.
func (q *question) load() (*Realm, error) {
	quiet := &caddy.Logging{Logs: map[string]*caddy.CustomLog{
		caddy.DefaultLoggerName: {BaseLog: caddy.BaseLog{
			Level:     "ERROR",
			WriterRaw: caddyconfig.JSONModuleObject(caddy.StderrWriter{}, "output", "stderr", nil),
		}},
	}}
	// before anything is read, for the reading is logged too
	if _, err := caddy.ProvisionContext(&caddy.Config{Logging: quiet}); err != nil {
		return nil, err
	}
	file := q.config
	if file == "" {
		if _, err := os.Stat("Caddyfile"); err != nil {
			return nil, errors.New("there is no Caddyfile here; name a configuration with --config")
		}
		file = "Caddyfile"
	}
	text, _, _, err := caddycmd.LoadConfig(file, q.adapter)
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
	if whole.Apps[appID] == nil {
		return nil, errors.New("the configuration declares no realm; add 'mtls { … }' to the global options")
	}
	config := &caddy.Config{StorageRaw: whole.Storage, AppsRaw: make(caddy.ModuleMap), Logging: quiet}
	if config.AppsRaw[appID], err = withoutIssuers(whole.Apps[appID]); err != nil {
		return nil, err
	}
	// a trust pool may be that of one of Caddy's own CAs
	if pki := whole.Apps["pki"]; pki != nil && strings.Contains(string(whole.Apps[appID]), `"pki_`) {
		config.AppsRaw["pki"] = pki
	}
	issuersLeftOut.Store(true)
	defer issuersLeftOut.Store(false)
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		return nil, err
	}
	module, err := ctx.AppIfConfigured(appID)
	if err != nil {
		return nil, err
	}
	realms := module.(*App).Realms
	realm, ok := realms[q.realm]
	if !ok {
		return nil, fmt.Errorf("unknown realm %q; declared are: %s", q.realm, strings.Join(slices.Sorted(maps.Keys(realms)), ", "))
	}
	realm.current.Load().now = func() time.Time { return q.at }
	return realm, nil
}

// issuersLeftOut is set while realms are provisioned without their issuers. What
// clients say of an issuer's resources cannot be checked then.
var issuersLeftOut atomic.Bool

// withoutIssuers takes the issuers, and the storage of their keys, out of the
// app's configuration.
func withoutIssuers(raw json.RawMessage) (json.RawMessage, error) {
	var app map[string]json.RawMessage
	var realms map[string]map[string]json.RawMessage
	if err := json.Unmarshal(raw, &app); err != nil {
		return nil, fmt.Errorf("app %s: %w", appID, err)
	}
	if app["realms"] == nil {
		return raw, nil
	}
	if err := json.Unmarshal(app["realms"], &realms); err != nil {
		return nil, fmt.Errorf("app %s: realms: %w", appID, err)
	}
	for _, realm := range realms {
		delete(realm, "issuer")
		delete(realm, "storage")
	}
	var err error
	if app["realms"], err = json.Marshal(realms); err != nil {
		return nil, err
	}
	return json.Marshal(app)
}

// answer prints which client the certificate is, or why it is none.
func (q *question) answer(out io.Writer, realm *Realm, presented []*x509.Certificate) (admitted bool) {
	f, leaf := facts{out}, presented[0]
	sum := sha256.Sum256(leaf.Raw)
	f.print("realm", "%s", realm.name)
	f.print("subject", "%s", orNone(validators.FormatDN(leaf.RawSubject)))
	f.print("issuer", "%s", orNone(validators.FormatDN(leaf.RawIssuer)))
	f.print("valid until", "%s (%s)", leaf.NotAfter.UTC().Format(time.RFC3339), validityText(leaf, q.at))
	f.print("thumbprint", "%s", hex.EncodeToString(sum[:]))

	id, refusal, _ := realm.current.Load().authenticate(presented, q.clientID)
	if refusal == nil {
		client := id.client()
		f.print("client", "%s", client.ID)
		f.print("credential", "%s", id.credential.Kind)
		f.print("matched", "%s", id.matched)
		if id.matched != id.credential.Value {
			f.print("declared", "%s", id.credential.Value)
		}
		if !id.credential.Until.IsZero() {
			f.print("until", "%s", id.credential.Until.UTC().Format(time.RFC3339))
		}
		f.print("scopes", "%s", orNone(client.Scope()))
		if len(client.DefaultScopes) > 0 {
			f.print("default scopes", "%s", strings.Join(client.DefaultScopes, " "))
		}
		if byChain(admission{Match: clients.Match{Credential: id.credential}}) {
			printUnfetchedCRLs(f, realm)
		}
		q.answerShadow(f, realm, presented)
		return true
	}
	f.print("refused", "%s", refusal.Reason)
	f.print("detail", "%s", refusal.Detail)
	for _, miss := range realm.current.Load().explain(presented, q.clientID, refusal, q.at) {
		f.print("near miss", "%s", miss)
	}
	if count := realm.directory.Unfetched(); count > 0 {
		f.print("not known", "what the JWKS of clients say that are behind URLs (%d): they are not fetched here", count)
	}
	printUnfetchedCRLs(f, realm)
	if realm.current.Load().registrable(leaf, refusal.Reason) {
		f.print("to register it", "see 'caddy mtls inspect'")
	}
	q.answerShadow(f, realm, presented)
	return false
}

// printUnfetchedCRLs says that the server may decide otherwise, for it knows them.
func printUnfetchedCRLs(f facts, realm *Realm) {
	if realm.revocation == nil || realm.revocation.crls == nil {
		return
	}
	if count := realm.revocation.crls.URLs(); count > 0 {
		f.print("not known", "what the CRLs say that are behind URLs (%d): they are not fetched here", count)
	}
}

// answerShadow prints what would be decided under the shadow trust pool.
func (q *question) answerShadow(f facts, realm *Realm, presented []*x509.Certificate) {
	if current := realm.current.Load(); current.shadow != nil {
		f.print(wordShadowPool, "%s", current.underShadow(presented, q.clientID))
	}
}

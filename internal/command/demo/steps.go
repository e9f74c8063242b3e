package demo

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// timeout is how long a step may take, on a busy machine too.
const timeout = time.Minute

// run calls the API and the issuer as each of the clients and prints the results.
func (d *demo) run(ctx context.Context) {
	d.say(`Caddy is running with an API and an issuer:

  https://%s   an API behind mtls_auth and reverse_proxy
  https://%s   mtls_issuer, which issues access tokens

and two registered clients: billing.partner by the subject of a certificate from
the trusted CA, and sensor-7 by a pinned self-signed certificate. To repeat the
commands below, change to the folder with the certificates first:

   $ cd %s
`, d.API, d.Auth, shellQuote(filepath.FromSlash(d.Dir)))

	for _, c := range []call{
		{"A client with a certificate from the trusted CA", "billing", nil, http.StatusOK, "hello billing.partner, your scopes are: invoices.read invoices.write"},
		{"A client with a pinned self-signed certificate", "sensor", nil, http.StatusOK, "hello sensor-7, your scopes are: telemetry"},
		{"The same client claims to be another; mtls_auth replaces the header", "sensor", http.Header{"X-Client-ID": {"billing.partner"}}, http.StatusOK, "hello sensor-7, your scopes are: telemetry"},
		{"No certificate", "", nil, http.StatusUnauthorized, "certificate_missing"},
		{"An unregistered certificate: the right subject from the wrong CA", "impostor", nil, http.StatusUnauthorized, "certificate_refused"},
	} {
		d.check(c.title, d.call(ctx, c))
	}
	d.check("the operator's log line", d.showRefusal(ctx, "certificate_untrusted"))
	const title = "An access token, bound to the certificate"
	d.check(title, d.token(ctx, title))
}

// check notes the failure of a step.
func (d *demo) check(step string, err error) {
	if err != nil {
		d.say("   FAILED: %v\n", err)
		d.failures = append(d.failures, step+": "+err.Error())
	}
}

// reply is the part of a response that the demo looks at.
type reply struct {
	status    int
	challenge string // WWW-Authenticate
	body      []byte
}

// do makes a request with the named certificate, or with none.
func (d *demo) do(ctx context.Context, certificate, method, target string, header http.Header, form url.Values) (*reply, error) {
	config := &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS12}
	if certificate != "" {
		config.Certificates = []tls.Certificate{d.leaves[certificate].TLS()}
	}
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	request.Header = header.Clone()
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	return &reply{response.StatusCode, response.Header.Get("WWW-Authenticate"), body}, err
}

// curl returns the curl command for a request of the demo.
func (d *demo) curl(certificate string, args ...string) string {
	words := []string{"curl", "--cacert", "server-ca.pem"}
	if certificate != "" {
		words = append(words, "--cert", certificate+".pem", "--key", certificate+".key")
	}
	return strings.Join(append(words, args...), " ")
}

func shellQuote(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@=+") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// call is a request to the API, with the named certificate or none, and what the
// response must have.
type call struct {
	title, certificate string
	header             http.Header
	status             int
	answer             string
}

// call makes one request to the API and checks the response.
func (d *demo) call(ctx context.Context, c call) error {
	target := "https://" + d.API + "/"
	args := []string{"-i"}
	for name, values := range c.header {
		args = append(args, "-H", shellQuote(name+": "+values[0]))
	}
	d.say("\n── %s\n   $ %s\n", c.title, d.curl(c.certificate, append(args, target)...))
	response, err := d.do(ctx, c.certificate, http.MethodGet, target, c.header, nil)
	if err != nil {
		return err
	}
	answer := strings.TrimSpace(string(response.body))
	if response.status != http.StatusOK {
		answer = response.challenge
	}
	d.say("   %d  %s\n", response.status, answer)
	if response.status != c.status || !strings.Contains(answer, c.answer) {
		return fmt.Errorf("got %d %q, want %d %q", response.status, answer, c.status, c.answer)
	}
	return nil
}

// showRefusal prints the operator's log line of a refusal with the given reason, which
// Caddy writes in the background.
func (d *demo) showRefusal(ctx context.Context, reason string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	entry := d.loggedRefusal(reason)
	for ; entry == nil; entry = d.loggedRefusal(reason) {
		if ctx.Err() != nil {
			return fmt.Errorf("none with reason %s", reason)
		}
		time.Sleep(10 * time.Millisecond)
	}
	d.say("   The caller learns no more than that. The log line for the operator has the details:\n")
	for _, field := range []string{"error_id", "reason", "detail", "subject", "issuer", "hint"} {
		if entry[field] != nil {
			d.say("     %-9s %v\n", field, entry[field])
		}
	}
	return nil
}

// loggedRefusal returns the fields of the first refusal with the given reason in
// Caddy's log, or nil if there is none yet.
func (d *demo) loggedRefusal(reason string) map[string]any {
	text, _ := os.ReadFile(filepath.Join(d.Dir, "caddy.log"))
	for line := range strings.Lines(string(text)) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "client refused" && entry["reason"] == reason {
			return entry
		}
	}
	return nil
}

// token gets an access token, verifies it as an API would, and prints it.
func (d *demo) token(ctx context.Context, title string) error {
	target := "https://" + d.Auth + "/connect/token"
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"billing.partner"}, "scope": {"invoices.read"}}
	d.say("\n── %s\n   $ %s\n", title, d.curl("billing", "-d", "grant_type=client_credentials", "-d", "client_id=billing.partner", "-d", "scope=invoices.read", target))

	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := d.fetch(ctx, "billing", http.MethodPost, target, form, &answer); err != nil {
		return err
	}
	var keys jose.JSONWebKeySet
	if err := d.fetch(ctx, "", http.MethodGet, "https://"+d.Auth+"/.well-known/openid-configuration/jwks", nil, &keys); err != nil {
		return err
	}
	claims := jwt.MapClaims{}
	token, err := jwt.ParseWithClaims(answer.AccessToken, claims, func(token *jwt.Token) (any, error) {
		kid, _ := token.Header["kid"].(string)
		found := keys.Key(kid)
		if len(found) != 1 {
			return nil, fmt.Errorf("the JWKS has no key %q", kid)
		}
		return found[0].Key, nil
	}, jwt.WithValidMethods([]string{"ES256"}), jwt.WithIssuer("https://"+d.Auth), jwt.WithExpirationRequired())
	if err != nil {
		return err
	}
	d.show("header", token.Header)
	d.show("claims", claims)
	d.say("   The signature verifies with the issuer's JWKS, and cnf is the hash of the certificate:\n   without the certificate's private key, a stolen token is useless.\n")

	confirmation, _ := claims["cnf"].(map[string]any)
	if confirmation["x5t#S256"] != validators.X5tS256(sha256.Sum256(d.leaves["billing"].Cert.Raw)) {
		return errors.New("the token is not bound to the certificate")
	}
	if claims["client_id"] != "billing.partner" || claims["scope"] != "invoices.read" {
		return fmt.Errorf("the token is for %v with scope %v", claims["client_id"], claims["scope"])
	}
	return nil
}

// show prints what was decoded from JSON, which can be encoded again.
func (d *demo) show(name string, value any) {
	text, _ := json.MarshalIndent(value, "   ", "  ")
	d.say("   %s %s\n", name, text)
}

// fetch makes a request and decodes the JSON response.
func (d *demo) fetch(ctx context.Context, certificate, method, target string, form url.Values, into any) error {
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	response, err := d.do(ctx, certificate, method, target, header, form)
	if err != nil {
		return err
	}
	if response.status != http.StatusOK {
		return fmt.Errorf("%s answered %d: %.200s", target, response.status, response.body)
	}
	return json.Unmarshal(response.body, into)
}

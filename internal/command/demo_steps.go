package command

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
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
)

const demoTimeout = 10 * time.Second

// run calls the API and the issuer as each of the clients and prints the results.
func (d *demo) run(ctx context.Context) {
	d.say(`Caddy is running with two sites:

  https://%s   an API behind mtls_auth and reverse_proxy
  https://%s   mtls_issuer, which issues access tokens

and two registered clients: billing.partner by the subject of a certificate from
the trusted CA, and sensor-7 by a pinned self-signed certificate. To repeat the
commands below, change to the folder with the certificates first:

   $ cd %s
`, d.API, d.Auth, shellQuote(filepath.FromSlash(d.Dir)))

	d.call(ctx, "A client with a certificate from the trusted CA", "billing", nil, http.StatusOK, "hello billing.partner, your scopes are: invoices.read invoices.write")
	d.call(ctx, "A client with a pinned self-signed certificate", "sensor", nil, http.StatusOK, "hello sensor-7, your scopes are: telemetry")
	d.call(ctx, "The same client claims to be another; mtls_auth replaces the header", "sensor", http.Header{"X-Client-ID": {"billing.partner"}}, http.StatusOK, "hello sensor-7, your scopes are: telemetry")
	d.call(ctx, "No certificate", "", nil, http.StatusUnauthorized, "certificate_missing")
	d.call(ctx, "An unregistered certificate: the right subject from the wrong CA", "impostor", nil, http.StatusUnauthorized, "certificate_refused")
	d.showRefusal(ctx, "certificate_untrusted")
	d.token(ctx)
}

// client returns an HTTP client that trusts the demo's server and presents the
// named certificate, or none.
func (d *demo) client(certificate string) *http.Client {
	config := &tls.Config{RootCAs: d.roots, MinVersion: tls.VersionTLS12}
	if certificate != "" {
		config.Certificates = []tls.Certificate{d.clients[certificate].TLS()}
	}
	return &http.Client{Timeout: demoTimeout, Transport: &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}}
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
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-:@=") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

// call makes one request to the API and checks the response.
func (d *demo) call(ctx context.Context, title, certificate string, header http.Header, wantStatus int, want string) {
	target := "https://" + d.API + "/"
	args := []string{"-i"}
	for name, values := range header {
		args = append(args, "-H", shellQuote(name+": "+values[0]))
	}
	d.say("\n── %s\n   $ %s\n", title, d.curl(certificate, append(args, target)...))

	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		d.fail(title, err)
		return
	}
	request.Header = header.Clone()
	response, err := d.client(certificate).Do(request)
	if err != nil {
		d.fail(title, err)
		return
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		d.fail(title, err)
		return
	}
	answer := strings.TrimSpace(string(body))
	if response.StatusCode != http.StatusOK {
		answer = response.Header.Get("WWW-Authenticate")
	}
	d.say("   %d  %s\n", response.StatusCode, answer)
	if response.StatusCode != wantStatus || !strings.Contains(answer, want) {
		d.fail(title, fmt.Errorf("got %d %q, want %d %q", response.StatusCode, answer, wantStatus, want))
	}
}

// showRefusal prints the operator's log line of a refusal with the given reason, which
// Caddy writes in the background.
func (d *demo) showRefusal(ctx context.Context, reason string) {
	ctx, cancel := context.WithTimeout(ctx, demoTimeout)
	defer cancel()
	entry, err := d.loggedRefusal(reason)
	for ; err == nil && entry == nil && ctx.Err() == nil; entry, err = d.loggedRefusal(reason) {
		time.Sleep(10 * time.Millisecond)
	}
	if err == nil && entry == nil {
		err = fmt.Errorf("none with reason %s", reason)
	}
	if err != nil {
		d.fail("the operator's log line", err)
		return
	}
	d.say("   The caller learns no more than that. The log line for the operator has the details:\n")
	for _, field := range []string{"error_id", "reason", "detail", "subject", "issuer", "hint"} {
		if entry[field] != nil {
			d.say("     %-9s %v\n", field, entry[field])
		}
	}
}

// loggedRefusal returns the fields of the first refusal with the given reason in
// Caddy's log, or nil.
func (d *demo) loggedRefusal(reason string) (map[string]any, error) {
	text, err := os.ReadFile(filepath.Join(d.Dir, "caddy.log"))
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["msg"] == "client refused" && entry["reason"] == reason {
			return entry, nil
		}
	}
	return nil, nil
}

// token gets an access token, verifies it as an API would, and prints it.
func (d *demo) token(ctx context.Context) {
	const title = "An access token, bound to the certificate"
	target := "https://" + d.Auth + "/connect/token"
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {"billing.partner"}, "scope": {"invoices.read"}}
	d.say("\n── %s\n   $ %s\n", title, d.curl("billing", "-d", "grant_type=client_credentials", "-d", "client_id=billing.partner", "-d", "scope=invoices.read", target))

	var answer struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
	}
	if err := d.fetch(ctx, "billing", http.MethodPost, target, form, &answer); err != nil {
		d.fail(title, err)
		return
	}
	var keys jose.JSONWebKeySet
	if err := d.fetch(ctx, "", http.MethodGet, "https://"+d.Auth+"/.well-known/openid-configuration/jwks", nil, &keys); err != nil {
		d.fail(title, err)
		return
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
		d.fail(title, err)
		return
	}
	d.show("header", token.Header)
	d.show("claims", claims)
	d.say("   The signature verifies with the issuer's JWKS, and cnf is the hash of the certificate:\n   without the certificate's private key, a stolen token is useless.\n")

	sum := sha256.Sum256(d.clients["billing"].Cert.Raw)
	confirmation, _ := claims["cnf"].(map[string]any)
	if confirmation["x5t#S256"] != base64.RawURLEncoding.EncodeToString(sum[:]) {
		d.fail(title, errors.New("the token is not bound to the certificate"))
	}
	if claims["client_id"] != "billing.partner" || claims["scope"] != "invoices.read" {
		d.fail(title, fmt.Errorf("the token is for %v with scope %v", claims["client_id"], claims["scope"]))
	}
}

func (d *demo) show(name string, value any) {
	text, err := json.MarshalIndent(value, "   ", "  ")
	if err != nil {
		d.fail("showing the "+name, err)
		return
	}
	d.say("   %s %s\n", name, text)
}

// fetch makes a request and decodes the JSON response.
func (d *demo) fetch(ctx context.Context, certificate, method, target string, form url.Values, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, target, strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	response, err := d.client(certificate).Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s: %.200s", target, response.Status, body)
	}
	return json.Unmarshal(body, into)
}

func (d *demo) fail(title string, err error) {
	d.say("   FAILED: %v\n", err)
	d.failures = append(d.failures, title+": "+err.Error())
}

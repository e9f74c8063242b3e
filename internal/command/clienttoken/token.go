package clienttoken

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// maxAnswer bounds an answer of the server, in bytes.
const maxAnswer = 256 << 10

// Request says which token a client wants.
type Request struct {
	// Issuer leads to the token endpoint by its metadata, and verifies the token. It may
	// be "" if Endpoint is not.
	Issuer string
	// Endpoint is the URL of the token endpoint. Default: that of the metadata.
	Endpoint  string
	ClientID  string
	Scopes    []string
	Resources []string
	// Identity is the client's certificate with its key. Its Leaf is set.
	Identity *tls.Certificate
	// Roots are the CAs of the server. Default: those of the system.
	Roots *x509.CertPool
	// Timeout bounds each request.
	Timeout time.Duration
}

// Answer is the answer of the token endpoint, and the way there.
type Answer struct {
	Endpoint    string
	Steps       []Step // of the last request
	AccessToken string
	TokenType   string
	Scope       string
	ExpiresIn   int64 // seconds, 0 if the answer does not say
}

// RequestError says where a request failed.
type RequestError struct {
	URL   string `json:"url"`
	Steps []Step `json:"steps"`
	// Status, OAuthError, Description and ErrorID are those of the answer, if there is
	// one.
	Status      int    `json:"status,omitempty"`
	OAuthError  string `json:"error,omitempty"`
	Description string `json:"error_description,omitempty"`
	ErrorID     string `json:"error_id,omitempty"`
}

// Error returns where the request failed, and why.
func (f *RequestError) Error() string {
	last := f.Steps[len(f.Steps)-1]
	return fmt.Sprintf("%s: %s: %s", source.ShownURL(f.URL), last.Name, last.Text)
}

// fail returns the failure of a step.
func (f *RequestError) fail(name, format string, args ...any) error {
	f.Steps = append(f.Steps, Step{name, false, fmt.Sprintf(format, args...)})
	return f
}

// Get gets a token. If a request fails, the error is a [*RequestError].
func (r *Request) Get(ctx context.Context) (*Answer, error) {
	endpoint := r.Endpoint
	if endpoint == "" {
		var err error
		if endpoint, err = r.discover(ctx); err != nil {
			return nil, err
		}
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {r.ClientID}, "resource": r.Resources}
	if len(r.Scopes) > 0 {
		form.Set("scope", strings.Join(r.Scopes, " "))
	}
	reply, err := r.do(ctx, http.MethodPost, endpoint, form.Encode())
	if err != nil {
		return nil, err
	}
	if reply.status != http.StatusOK {
		return nil, reply.refusal()
	}
	var body struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		Scope       string `json:"scope"`
		ExpiresIn   int64  `json:"expires_in"`
	}
	err = json.Unmarshal(reply.body, &body)
	wrongType, ok := errors.AsType[*json.UnmarshalTypeError](err)
	switch {
	case ok && wrongType.Field != "":
		return nil, reply.fail(StepToken, "the member '%s' of the answer is a %s (RFC 6749 §5.1); correct the issuer", source.Text(wrongType.Field, maxText), source.Text(wrongType.Value, maxText))
	case err != nil || body.AccessToken == "":
		return nil, reply.fail(StepToken, "the answer has no access_token; is this a token endpoint?")
	case strings.ContainsFunc(body.AccessToken, func(c rune) bool { return c <= ' ' || c > '~' }):
		return nil, reply.fail(StepToken, "the access_token has characters that no header can have (RFC 6750 §2.1); correct the issuer")
	}
	reply.Steps = append(reply.Steps, Step{StepAnswer, true, "200, with a token"})
	return &Answer{endpoint, reply.Steps, body.AccessToken, body.TokenType, body.Scope, body.ExpiresIn}, nil
}

// reply is what a server answers. Its RequestError is that of the request, should it be one.
type reply struct {
	*RequestError
	status int
	header http.Header
	body   []byte
}

// do sends a request, and follows no redirect: a client sends its certificate to nobody
// but whom it was told.
func (r *Request) do(ctx context.Context, method, address, form string) (*reply, error) {
	failure := &RequestError{URL: address}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(form))
	if err != nil {
		return nil, failure.fail(StepName, "it is not a URL")
	}
	if method == http.MethodPost {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	request.Header.Set("Accept", "application/json")
	trail := newTrail(request, r.Identity.Leaf)
	transport := r.transport(trail.certificate(r.Identity))
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request.WithContext(httptrace.WithClientTrace(ctx, trail.trace())))
	var body []byte
	if err == nil {
		defer response.Body.Close()
		body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	}
	if err != nil && trail.refusalIsLost(err) {
		if alert := r.lostAlert(ctx, trail, request.URL); alert != "" {
			err = errors.New(alertMark + alert)
		}
	}
	steps, failed := trail.steps(err)
	if failure.Steps = steps; failed {
		return nil, failure
	}
	failure.Status = response.StatusCode
	if len(body) > maxAnswer {
		return nil, failure.fail(StepAnswer, "the answer has more than %d bytes; is the address right?", maxAnswer)
	}
	return &reply{failure, response.StatusCode, response.Header, body}, nil
}

// transport returns a transport that makes a connection for each request.
func (r *Request) transport(certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) *http.Transport {
	return &http.Transport{
		Proxy: http.ProxyFromEnvironment,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, source.DialAddress(address))
		},
		TLSClientConfig:   &tls.Config{RootCAs: r.Roots, GetClientCertificate: certificate, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, DisableKeepAlives: true,
	}
}

// lostAlert returns the alert with which a server refuses the client's certificate, or
// "". With TLS 1.3 the alert comes after the handshake, and is lost if the client writes
// its request meanwhile. So this connection only reads.
func (r *Request) lostAlert(ctx context.Context, trail *trail, target *url.URL) string {
	config := r.transport(trail.certificate(r.Identity)).TLSClientConfig
	config.ServerName = target.Hostname()
	config.NextProtos = []string{"h2", "http/1.1"} // with HTTP/2, the server speaks first
	dialer := tls.Dialer{Config: config}
	conn, err := dialer.DialContext(ctx, "tcp", source.DialAddress(net.JoinHostPort(target.Hostname(), cmp.Or(target.Port(), "443"))))
	if err != nil {
		return ""
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(min(r.Timeout, 5*time.Second))); err != nil {
		return ""
	}
	_, err = conn.Read(make([]byte, 1))
	return alertOf(err)
}

// discover returns the token endpoint in the metadata of the issuer (RFC 8414): the
// alias for mutual TLS (RFC 8705 §5), if there is one.
func (r *Request) discover(ctx context.Context) (string, error) {
	var first error
	for _, address := range tokens.MetadataURLs(r.Issuer) {
		reply, err := r.do(ctx, http.MethodGet, address, "")
		if err != nil {
			return "", err // the other address is of the same server
		}
		endpoint, err := reply.endpoint(r.Issuer)
		if err == nil {
			return endpoint, nil
		}
		if first == nil || reply.status == http.StatusOK {
			first = err
		}
	}
	return "", first
}

// endpoint returns the token endpoint of metadata.
func (r *reply) endpoint(issuer string) (string, error) {
	if r.status != http.StatusOK {
		return "", r.refusal()
	}
	var metadata struct {
		Issuer        string `json:"issuer"`
		TokenEndpoint string `json:"token_endpoint"`
		Aliases       struct {
			TokenEndpoint string `json:"token_endpoint"`
		} `json:"mtls_endpoint_aliases"`
	}
	if json.Unmarshal(r.body, &metadata) != nil || metadata.Issuer == "" {
		return "", r.fail(StepAnswer, "the answer is not the metadata of an issuer; check the URL of the issuer, or name the token endpoint with --url")
	}
	if metadata.Issuer != issuer {
		return "", r.fail(StepAnswer, "this is the metadata of issuer '%s'; use --issuer with that URL, character by character", source.Text(metadata.Issuer, maxText))
	}
	endpoint := metadata.TokenEndpoint
	if metadata.Aliases.TokenEndpoint != "" {
		endpoint = metadata.Aliases.TokenEndpoint
	}
	if err := source.CheckSecureURL(endpoint); err != nil {
		return "", r.fail(StepAnswer, "the token_endpoint of the metadata, '%s', is not an https URL; correct the issuer", source.Text(endpoint, maxText))
	}
	return endpoint, nil
}

// errorID matches the id by which an operator finds a refusal.
var errorID = regexp.MustCompile(`error id: ([a-z0-9]{6,32})\)`)

// refusal returns the failure for an answer that is an error (RFC 6749 §5.2).
func (r *reply) refusal() error {
	var answer struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if json.Unmarshal(r.body, &answer) != nil || answer.Error == "" {
		return r.fail(StepAnswer, "%d %s%s", r.status, http.StatusText(r.status), r.statusRemedy())
	}
	r.OAuthError, r.Description = source.Text(answer.Error, maxText), source.Text(answer.Description, 2*maxText)
	text := fmt.Sprintf("%d %s", r.status, r.OAuthError)
	if r.Description != "" {
		text += ", " + r.Description
	}
	if match := errorID.FindStringSubmatch(answer.Description); match != nil {
		r.ErrorID = match[1]
		text += "; where Caddy runs, 'caddy mtls why " + r.ErrorID + "' says why"
	}
	return r.fail(StepAnswer, "%s", text)
}

// statusRemedy says what to do about a status without an OAuth error.
func (r *reply) statusRemedy() string {
	switch {
	case r.status >= 300 && r.status < 400:
		return ", to '" + source.Text(source.ShownURL(r.header.Get("Location")), maxText) + "'; a client does not follow. Use that URL if it is right"
	case r.status == http.StatusNotFound:
		return "; is the URL that of an issuer or a token endpoint?"
	case r.status == http.StatusMisdirectedRequest:
		return "; the host of the request is not the one of the connection"
	}
	return ""
}

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"golang.org/x/sync/singleflight"
)

// timeout is how long an answer may take.
const timeout = 10 * time.Second

// Transport sends requests with a client certificate and the access token that is bound to it. It renews the token when
// 70 % of its life is over, and when the API refuses it. It reads the certificate again when its files change.
type Transport struct {
	Issuer, ClientID string
	Scopes           []string
	Certificate, Key string // PEM files; the intermediate CAs follow the certificate

	mu        sync.Mutex
	identity  *identity
	files     string    // sizes and times of the files when they were read
	lookAgain time.Time // when to look whether they have changed
}

// identity is a certificate and what goes with it. A token is refused on a connection with another certificate, and an
// open connection keeps the certificate it was made with. So a new certificate comes with new connections and a new token.
type identity struct {
	settings    *Transport
	connections *http.Transport
	endpoint    atomic.Pointer[string] // nil until the issuer's metadata has been read
	token       atomic.Pointer[token]
	renewal     singleflight.Group
}

type token struct {
	*oauth2.Token

	renewAt, endsAt time.Time
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, refused, err := t.send(request)
	if !refused || request.Body != nil && request.GetBody == nil { // it cannot be sent again
		return response, err
	}
	again := request.Clone(request.Context())
	if request.GetBody != nil {
		if again.Body, err = request.GetBody(); err != nil {
			return response, nil //nolint:nilerr // the answer says more
		}
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(response.Body, 1<<16)) // or the connection could not be used again
	_ = response.Body.Close()
	response, _, err = t.send(again)
	return response, err
}

// send sends a request. A token that the API refuses is not used again.
func (t *Transport) send(request *http.Request) (response *http.Response, refused bool, err error) {
	id, err := t.currentIdentity()
	var tok *token
	if err == nil {
		tok, err = id.usableToken(request.Context())
	}
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, false, err
	}
	request = request.Clone(request.Context())
	tok.SetAuthHeader(request)
	if response, err = id.connections.RoundTrip(request); err != nil {
		return nil, false, fmt.Errorf("%w; check that the API runs", err)
	}
	refused = response.StatusCode == http.StatusUnauthorized && strings.Contains(response.Header.Get("WWW-Authenticate"), "invalid_token")
	if now := id.token.Load(); refused && now != nil && now.AccessToken == tok.AccessToken && id.token.CompareAndSwap(now, nil) {
		id.renewal.Forget("") // the answer to a request that is under way may be as bad
	}
	return response, refused, nil
}

// currentIdentity returns the identity in use. If the files have changed, their identity replaces it as soon as it has a token.
func (t *Transport) currentIdentity() (*identity, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.identity != nil && time.Now().Before(t.lookAgain) {
		return t.identity, nil
	}
	t.lookAgain = time.Now().Add(time.Second)
	files := state(t.Certificate) + state(t.Key)
	if t.identity != nil && files == t.files {
		return t.identity, nil
	}
	t.files = files
	next, err := t.load()
	switch {
	case t.identity == nil && err != nil:
		return nil, fmt.Errorf("certificate not usable: %w; name the PEM files of a certificate and its key", err)
	case t.identity == nil:
		t.identity = next
	case err != nil:
		log.Printf("certificate not usable: %v; going on with the one in use", err)
	default:
		t.lookAgain = time.Now().Add(3 * timeout) // replace sets another time when it is done
		go t.replace(next)
	}
	return t.identity, nil
}

// load returns the identity of the files.
func (t *Transport) load() (*identity, error) {
	certificate, err := tls.LoadX509KeyPair(t.Certificate, t.Key) // fails if they do not belong together
	if err != nil {
		return nil, err
	}
	connections := http.DefaultTransport.(*http.Transport).Clone()
	connections.ResponseHeaderTimeout = timeout
	connections.TLSClientConfig = &tls.Config{
		// Certificates would send nothing if the server names CAs and none of them issued the certificate.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil },
	}
	return &identity{settings: t, connections: connections}, nil
}

// replace puts an identity in the place of the one in use, unless it gets no token.
func (t *Transport) replace(next *identity) {
	_, err := next.renew(context.Background())
	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		log.Printf("certificate not replaced: %v; going on with the one in use", err)
		t.files, t.lookAgain = "", time.Now().Add(timeout) // once more
		return
	}
	log.Print("certificate replaced")
	t.identity.connections.CloseIdleConnections() // the others close after their last answer
	t.identity, t.lookAgain = next, time.Now().Add(time.Second)
}

// state returns a text that changes when the file does.
func state(file string) string {
	info, err := os.Stat(file)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintln(info.Size(), info.ModTime())
}

// usableToken returns a token. If it is time to renew it, callers go on with the old one while it lasts, or wait for one
// request that is made for all of them.
func (id *identity) usableToken(ctx context.Context) (*token, error) {
	now, old := time.Now(), id.token.Load()
	if old != nil && now.Before(old.renewAt) {
		return old, nil
	}
	renewed := id.renewal.DoChan("", func() (any, error) { return id.renew(context.WithoutCancel(ctx)) })
	if old != nil && now.Before(old.endsAt) {
		return old, nil
	}
	select {
	case result := <-renewed:
		if result.Err != nil {
			return nil, result.Err
		}
		return result.Val.(*token), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (id *identity) renew(ctx context.Context) (*token, error) {
	old := id.token.Load()
	if old != nil && time.Now().Before(old.renewAt) {
		return old, nil // it has just been renewed
	}
	renewed, err := id.requestToken(ctx)
	if err == nil {
		id.token.CompareAndSwap(old, renewed)
		return renewed, nil
	}
	if old != nil && time.Now().Before(old.endsAt) {
		log.Printf("token not renewed: %v; using the old one until it expires", err)
		id.token.CompareAndSwap(old, &token{old.Token, time.Now().Add(5 * time.Second), old.endsAt})
	}
	return nil, err
}

func (id *identity) requestToken(ctx context.Context) (*token, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := &http.Client{Transport: id.connections}
	endpoint := id.endpoint.Load()
	if endpoint == nil {
		var err error
		if endpoint, err = discover(ctx, client, id.settings.Issuer); err != nil {
			return nil, fmt.Errorf("%w; check that the issuer runs and has this URL, and SSL_CERT_FILE if its CA is private", err)
		}
		id.endpoint.Store(endpoint)
	}
	now := time.Now()
	// Without a secret, the default AuthStyle would send HTTP Basic with an empty password.
	config := clientcredentials.Config{ClientID: id.settings.ClientID, Scopes: id.settings.Scopes, TokenURL: *endpoint, AuthStyle: oauth2.AuthStyleInParams}
	tok, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if err != nil {
		id.endpoint.Store(nil)                                            // it may have moved
		if refusal, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its description holds the error id
			err = fmt.Errorf("%s: %q %.200q", refusal.Response.Status, refusal.ErrorCode, cmp.Or(refusal.ErrorDescription, string(refusal.Body)))
		}
		return nil, fmt.Errorf("no token from %s: %w; give the error id, if there is one, to the issuer's operator", *endpoint, err)
	}
	life := cmp.Or(time.Duration(tok.ExpiresIn)*time.Second, time.Minute)
	return &token{tok, now.Add(life * 7 / 10), now.Add(life - time.Second)}, nil
}

// discover returns the token endpoint for clients with a certificate (RFC 8705 §5).
func discover(ctx context.Context, client *http.Client, issuer string) (*string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, issuer+"/.well-known/openid-configuration", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	var metadata struct {
		Issuer  string `json:"issuer"`
		Aliases struct {
			TokenEndpoint string `json:"token_endpoint"`
		} `json:"mtls_endpoint_aliases"`
	}
	err = json.NewDecoder(io.LimitReader(response.Body, 1<<20)).Decode(&metadata)
	if err != nil || metadata.Issuer != issuer || metadata.Aliases.TokenEndpoint == "" {
		return nil, fmt.Errorf("%s: %s, without the issuer's metadata", request.URL, response.Status)
	}
	return &metadata.Aliases.TokenEndpoint, nil
}

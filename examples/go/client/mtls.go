package main

// The part to copy is mtls.go, certificate.go, token.go and issuer.go.

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// timeout is how long an answer may take.
const timeout = 10 * time.Second

// Settings of a client. All but Scopes are needed.
type Settings struct {
	Issuer, ClientID string
	Scopes           []string
	Certificate, Key string // PEM files; the intermediate CAs follow the certificate
}

// Transport sends requests with a client certificate and the access token that is bound to it. It renews the token when
// 70 % of its life is over, and when the API refuses it. It reads the certificate again when its files change.
type Transport struct {
	identity atomic.Pointer[identity]
}

// NewTransport returns a Transport that watches the files of its certificate as long as the program runs.
func NewTransport(settings Settings) (*Transport, error) {
	seen := modified(settings)
	identity, err := load(settings)
	if err != nil {
		return nil, fmt.Errorf("certificate not usable: %w; name the PEM files of a certificate and its key", err)
	}
	t := new(Transport)
	t.identity.Store(identity)
	go t.watch(settings, seen)
	return t, nil
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
	_ = response.Body.Close()
	response, _, err = t.send(again)
	return response, err
}

// send sends a request. A token that the API refuses is not used again.
func (t *Transport) send(request *http.Request) (response *http.Response, refused bool, err error) {
	id := t.identity.Load()
	token, err := id.usableToken(request.Context())
	if err != nil {
		if request.Body != nil {
			_ = request.Body.Close()
		}
		return nil, false, err
	}
	request = request.Clone(request.Context())
	request.Header.Set("Authorization", "Bearer "+token)
	if response, err = id.connections.RoundTrip(request); err != nil {
		return nil, false, fmt.Errorf("%w; check the URL, and that the API runs", err)
	}
	challenge := response.Header.Get("WWW-Authenticate")
	if refused = response.StatusCode == http.StatusUnauthorized && strings.Contains(challenge, "invalid_token"); refused {
		id.tokens.discard(token)
	}
	return response, refused, nil
}

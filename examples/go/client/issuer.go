package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// requestToken returns a token and how long it lasts.
func (id *identity) requestToken(ctx context.Context) (token string, life time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	client := &http.Client{Transport: id.connections}
	endpoint := id.tokens.endpoint.Load()
	if endpoint == nil {
		if endpoint, err = discover(ctx, client, id.settings.Issuer); err != nil {
			return "", 0, fmt.Errorf("%w; check that the issuer runs and has this URL, and SSL_CERT_FILE", err)
		}
		id.tokens.endpoint.Store(endpoint)
	}
	config := clientcredentials.Config{
		ClientID:  id.settings.ClientID,
		Scopes:    id.settings.Scopes,
		TokenURL:  *endpoint,
		AuthStyle: oauth2.AuthStyleInParams, // the default would send HTTP Basic with an empty password
	}
	answer, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
	if refusal, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its description holds the error id
		said := cmp.Or(refusal.ErrorDescription, string(refusal.Body))
		err = fmt.Errorf("%s: %q %.200q", refusal.Response.Status, refusal.ErrorCode, said)
	}
	if err != nil {
		id.tokens.endpoint.Store(nil) // it may have moved
		return "", 0, fmt.Errorf("no token from %s: %w; give the error id, if there is one, to its operator", *endpoint, err)
	}
	return answer.AccessToken, cmp.Or(time.Duration(answer.ExpiresIn)*time.Second, time.Minute), nil
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

// Command client gets tokens from mtls_issuer with golang.org/x/oauth2 and verifies
// them with go-oidc, as an API does. Copy from client.go; this file checks the
// results.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

var (
	certificates = os.Getenv("CERTIFICATES")
	audience     = os.Getenv("AUDIENCE")
	stranger     = os.Getenv("STRANGER")
)

func main() {
	log.SetFlags(0)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	for entry := range strings.FieldsSeq(os.Getenv("ISSUERS")) {
		algorithm, issuer, _ := strings.Cut(entry, "=")
		report(algorithm+": tokens and refusals", tryIssuer(ctx, issuer, algorithm))
	}
	_, issuer, _ := strings.Cut(strings.Fields(os.Getenv("ISSUERS"))[0], "=")
	report("mtls_endpoint_aliases on another host", tryMixed(ctx, os.Getenv("MIXED_ISSUER")))
	report("the API", errors.Join( // behind mtls_auth, which accepts a certificate alone
		expect(ctx, os.Getenv("API"), "billing", "", "200 hello billing"),
		expect(ctx, os.Getenv("API"), stranger, "", `401 ClientCertificate realm="default", error="certificate_refused"`),
	))
	report("the API that requires tokens", tryTokenAPI(ctx, os.Getenv("TOKEN_API"), issuer))
}

// report ends the program if what was tried has failed.
func report(tried string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", tried, err)
	}
	fmt.Println(" ", tried)
}

// tryIssuer gets tokens for both clients and provokes each refusal.
func tryIssuer(ctx context.Context, issuer, algorithm string) error {
	s, err := discover(ctx, issuer)
	if err != nil {
		return err
	}
	for _, clientID := range []string{"billing", "sensor-7"} {
		if _, err := getToken(ctx, s, algorithm, clientID); err != nil {
			return fmt.Errorf("%s: %w", clientID, err)
		}
	}
	const api = "https://api.example.com"
	return errors.Join(
		refused(ctx, s.Aliases.Token, "billing", "billing", "telemetry", api, "invalid_scope"),
		refused(ctx, s.Aliases.Token, "billing", "billing", "", "https://other.example.com", "invalid_target"),
		refused(ctx, s.Aliases.Token, "billing", stranger, "", api, "invalid_client"),
		refused(ctx, s.Aliases.Token, "billing", "sensor-7", "", api, "invalid_client"),
		refused(ctx, s.Aliases.Token, "billing", "", "", api, "invalid_client"),
	)
}

// tryMixed uses an issuer whose token endpoint for certificates is on another host
// (RFC 8705 §5). The issuer's own host does not request a certificate.
func tryMixed(ctx context.Context, issuer string) error {
	s, err := discover(ctx, issuer)
	if err != nil {
		return err
	}
	if _, err := getToken(ctx, s, "ES256", "billing"); err != nil {
		return err
	}
	return refused(ctx, s.Token, "billing", "billing", "", "https://api.example.com", "invalid_client")
}

// tryTokenAPI calls an API behind mtls_bearer, which accepts a token with the
// certificate it is bound to.
func tryTokenAPI(ctx context.Context, api, issuer string) error {
	s, err := discover(ctx, issuer)
	if err != nil {
		return err
	}
	token, err := getToken(ctx, s, "ES256", "billing")
	if err != nil {
		return err
	}
	telemetry, err := requestToken(ctx, s.Aliases.Token, "sensor-7", "sensor-7", "telemetry", "https://api.example.com")
	if err != nil {
		return err
	}
	return errors.Join(
		expect(ctx, api, "billing", token, "200 hello billing"),
		expect(ctx, api, "sensor-7", token, `401 Bearer error="invalid_token"`),
		expect(ctx, api, "", token, `401 Bearer error="invalid_token"`),
		expect(ctx, api, "sensor-7", telemetry.AccessToken, `403 Bearer error="insufficient_scope", scope="invoices.read"`),
		expect(ctx, api, "billing", "", "401 Bearer"),
	)
}

// expect calls the API and returns an error unless the response is "status
// challenge", up to the error id, or "status body".
func expect(ctx context.Context, api, certificate, token, want string) error {
	client, err := httpClient(certificate)
	if err != nil {
		return err
	}
	if token != "" {
		ctx := context.WithValue(ctx, oauth2.HTTPClient, client)
		client = oauth2.NewClient(ctx, oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token}))
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	text := string(body)
	if response.StatusCode != http.StatusOK { // the body repeats the word and the error id
		text, _, _ = strings.Cut(response.Header.Get("WWW-Authenticate"), ", error_id=")
	}
	if got := fmt.Sprintf("%d %s", response.StatusCode, text); got != want {
		return fmt.Errorf("got %q with the certificate %q, want %q", got, certificate, want)
	}
	return nil
}

// getToken gets a token for a client and checks all of it.
func getToken(ctx context.Context, s *server, algorithm, clientID string) (string, error) {
	token, err := requestToken(ctx, s.Aliases.Token, clientID, clientID, "invoices.read", "https://api.example.com")
	if err != nil {
		return "", err
	}
	got, err := verify(ctx, s, algorithm, token.AccessToken)
	if err != nil {
		return "", err
	}
	lifetime := got.Expires - got.IssuedAt
	if token.TokenType != "Bearer" || token.Extra("scope") != "invoices.read" || lifetime <= 0 || lifetime > 3600 || token.ExpiresIn > lifetime {
		return "", fmt.Errorf("got %s %v, for %d of %d seconds", token.TokenType, token.Extra("scope"), token.ExpiresIn, lifetime)
	}
	want := &claims{Subject: clientID, ClientID: clientID, Scope: "invoices.read", Expires: got.Expires, IssuedAt: got.IssuedAt}
	if want.Cnf.X5TS256, err = thumbprint(clientID); err != nil {
		return "", err
	}
	if *got != *want {
		return "", fmt.Errorf("got %+v, want %+v", got, want)
	}
	return token.AccessToken, nil
}

// refused returns an error unless the token request is refused with the error code.
func refused(ctx context.Context, endpoint, clientID, certificate, scope, resource, want string) error {
	_, err := requestToken(ctx, endpoint, clientID, certificate, scope, resource)
	var failure *oauth2.RetrieveError
	if !errors.As(err, &failure) || failure.ErrorCode != want {
		return fmt.Errorf("%s with the certificate %q: got %v, want %s", clientID, certificate, err, want)
	}
	return nil
}

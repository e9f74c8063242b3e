// The smallest client, with the standard library alone: it gets an access token from the
// issuer and calls an API with it, over connections with the same certificate.
package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	certificate, err := tls.LoadX509KeyPair(os.Getenv("CERTIFICATE"), os.Getenv("KEY"))
	if err != nil {
		log.Fatalf("certificate not usable: %v; set CERTIFICATE and KEY to the PEM files of a certificate and its key", err)
	}
	// Without GetClientCertificate, nothing is sent if the server names CAs and none of them issued the certificate.
	tlsConfig := &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}}

	var answer struct {
		Aliases struct {
			TokenEndpoint string `json:"token_endpoint"`
		} `json:"mtls_endpoint_aliases"`
		AccessToken string `json:"access_token"`
	}
	metadata := os.Getenv("ISSUER") + "/.well-known/openid-configuration"
	if err := json.Unmarshal(send(client, http.MethodGet, metadata, nil, ""), &answer); err != nil || answer.Aliases.TokenEndpoint == "" {
		log.Fatalf("%s: no metadata with mtls_endpoint_aliases; set ISSUER to the URL of the issuer", metadata)
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {os.Getenv("CLIENT_ID")}, "scope": {os.Getenv("SCOPE")}}
	if err := json.Unmarshal(send(client, http.MethodPost, answer.Aliases.TokenEndpoint, form, ""), &answer); err != nil || answer.AccessToken == "" {
		log.Fatalf("%s: the answer has no token; set ISSUER to the URL of the issuer", answer.Aliases.TokenEndpoint)
	}
	fmt.Println(strings.TrimSpace(string(send(client, http.MethodGet, os.Getenv("API"), nil, answer.AccessToken))))
}

// send returns the body of the answer. Anything but 200 ends the program.
func send(client *http.Client, method, target string, form url.Values, token string) []byte {
	request, err := http.NewRequestWithContext(context.Background(), method, target, strings.NewReader(form.Encode()))
	if err != nil {
		log.Fatalf("%v; set ISSUER and API to URLs", err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	response, err := client.Do(request)
	if err != nil {
		log.Fatalf("%v; check that the server runs, and SSL_CERT_FILE if its CA is private", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil || response.StatusCode != http.StatusOK {
		log.Fatalf("%s: %s %s %q; give the error id, if there is one, to its operator", target, response.Status, response.Header.Get("WWW-Authenticate"), body)
	}
	return body
}

// Command client calls an API as an OAuth 2.0 client with a certificate: once, or with LISTEN as a service that calls it
// for each of its own requests.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
)

func main() {
	log.SetFlags(0)
	transport, err := NewTransport(Settings{
		Issuer:      os.Getenv("ISSUER"),
		ClientID:    os.Getenv("CLIENT_ID"),
		Scopes:      strings.Fields(os.Getenv("SCOPE")),
		Certificate: os.Getenv("CERTIFICATE"),
		Key:         os.Getenv("KEY"),
	})
	if err != nil {
		log.Fatal(err)
	}
	api := &invoices{url: os.Getenv("API"), http: &http.Client{
		Timeout:   3 * timeout, // for the token, too
		Transport: transport,
		// The transport would send a token wherever it is redirected to.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if listen := os.Getenv("LISTEN"); listen != "" {
		server := &http.Server{Addr: listen, Handler: api, ReadHeaderTimeout: timeout}
		log.Fatalf("%v; set LISTEN to a free host:port", server.ListenAndServe())
	}
	body, err := api.get(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(body)
}

// invoices is the API. It knows nothing of certificates and tokens.
type invoices struct {
	url  string
	http *http.Client
}

func (api *invoices) get(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, api.url, nil)
	if err != nil {
		return "", fmt.Errorf("%w; set API to the URL of an API", err)
	}
	response, err := api.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return "", fmt.Errorf("%s: %w; try again", api.url, err)
	}
	if response.StatusCode != http.StatusOK { // the challenge holds the error id
		return "", fmt.Errorf("%s: %s %s; give the error id, if there is one, to the API's operator",
			api.url, response.Status, response.Header.Get("WWW-Authenticate"))
	}
	return strings.TrimSpace(string(body)), nil
}

func (api *invoices) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := api.get(r.Context())
	if err != nil {
		log.Print(err)
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	fmt.Fprintln(w, body)
}

// Command api-token is an API that verifies tokens: access tokens behind mtls_bearer, which has checked that they are bound
// to the certificate, or with TOKEN_TYPE=gateway+jwt the tokens of forward_token.
//
//	mtls_bearer {
//		audience https://api.example.com
//	}
package main

import (
	"cmp"
	"fmt"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	tokens, err := newVerifier(os.Getenv("ISSUER"), os.Getenv("AUDIENCE"), cmp.Or(os.Getenv("TOKEN_TYPE"), "at+jwt"))
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", tokens.require("", func(w http.ResponseWriter, _ *http.Request, c *claims) {
		fmt.Fprintln(w, "hello", c.ClientID)
	}))
	mux.HandleFunc("GET /invoices", tokens.require("invoices.read", func(w http.ResponseWriter, _ *http.Request, c *claims) {
		fmt.Fprintln(w, "invoices of", c.ClientID)
	}))
	server := &http.Server{Addr: cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080"), Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Fatalf("%v; set LISTEN to a free host:port", server.ListenAndServe())
}

// Command api-mtls is an API with no Caddy in front. It asks for the client's certificate itself, and accepts a token only
// on a connection with the certificate that the token is bound to (RFC 8705 §3).
package main

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
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
	tokens.check = checkBinding
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", tokens.require("", func(w http.ResponseWriter, _ *http.Request, c *claims) {
		fmt.Fprintln(w, "hello", c.ClientID)
	}))
	mux.HandleFunc("GET /invoices", tokens.require("invoices.read", func(w http.ResponseWriter, _ *http.Request, c *claims) {
		fmt.Fprintln(w, "invoices of", c.ClientID)
	}))
	server := &http.Server{
		Addr: cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8443"), Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		// Any certificate will do here: the token says which one it must be.
		TLSConfig: &tls.Config{ClientAuth: tls.RequestClientCert},
	}
	err = server.ListenAndServeTLS(os.Getenv("TLS_CERTIFICATE"), os.Getenv("TLS_KEY"))
	log.Fatalf("%v; set TLS_CERTIFICATE and TLS_KEY to the PEM files of the API's certificate, and LISTEN to a free host:port", err)
}

// checkBinding returns an error unless the token is bound to the certificate of its connection.
func checkBinding(r *http.Request, c *claims) error {
	if len(r.TLS.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	hash := sha256.Sum256(r.TLS.PeerCertificates[0].Raw)
	if c.Confirmation.Thumbprint != base64.RawURLEncoding.EncodeToString(hash[:]) {
		return errors.New("the token is bound to another certificate")
	}
	return nil
}

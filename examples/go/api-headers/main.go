// Command api-headers is an API behind mtls_auth or mtls_bearer, which takes the client from the headers that Caddy sets.
// It must be reachable through Caddy only.
//
//	mtls_auth {
//		header_up X-Client-ID {http.mtls.client_id}
//		header_up X-Client-Scope {http.mtls.scope}
//	}
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// client is who makes a request.
type client struct {
	ID     string
	Scopes []string
}

type clientKey struct{}

// authenticated calls next with the client in the context of the request.
func authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ids := r.Header.Values("X-Client-ID")
		if len(ids) != 1 || ids[0] == "" {
			http.Error(w, "no client", http.StatusUnauthorized)
			return
		}
		c := client{ID: ids[0], Scopes: strings.Fields(r.Header.Get("X-Client-Scope"))}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), clientKey{}, c)))
	})
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "hello", r.Context().Value(clientKey{}).(client).ID)
	})
	mux.HandleFunc("GET /invoices", func(w http.ResponseWriter, r *http.Request) {
		c := r.Context().Value(clientKey{}).(client)
		if !slices.Contains(c.Scopes, "invoices.read") {
			http.Error(w, "the client lacks the scope invoices.read", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "invoices of", c.ID)
	})
	server := &http.Server{Addr: cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8080"), Handler: authenticated(mux), ReadHeaderTimeout: 10 * time.Second}
	log.Fatalf("%v; set LISTEN to a free host:port", server.ListenAndServe())
}

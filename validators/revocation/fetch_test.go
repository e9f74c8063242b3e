package revocation

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

func TestFetcher(t *testing.T) {
	answer := []byte("answer")
	mux := http.NewServeMux()
	mux.HandleFunc("/crl", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		_, _ = w.Write(answer)
	})
	mux.HandleFunc("/ocsp", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" ||
			r.Header.Get("Accept") != "application/ocsp-response" || string(body) != "question" {
			t.Errorf("%s with %v and %q", r.Method, r.Header, body)
		}
		_, _ = w.Write(answer)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range maxCRLSize/len(chunk) + 2 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	mux.Handle("/found", http.RedirectHandler("/ocsp", http.StatusFound))
	mux.Handle("/307", http.RedirectHandler("/ocsp", http.StatusTemporaryRedirect))
	server := httptest.NewServer(mux)
	defer server.Close()

	for path, want := range map[string]string{"/crl": "", "/large": "more than 67108864 bytes", "/nothing": "404 instead of 200"} {
		t.Run("CRL "+path, func(t *testing.T) {
			content, err := fetchCRL(t.Context(), server.URL+path)
			wantError(t, err, want)
			if err == nil && !bytes.Equal(content, answer) {
				t.Errorf("got %q", content)
			}
		})
	}
	for path, want := range map[string]string{"/ocsp": "", "/307": "", "/found": "the redirect changes the method", "/large": "more than 16384 bytes", "/nothing": "404"} {
		t.Run("OCSP "+path, func(t *testing.T) {
			content, err := askResponder(t.Context(), server.URL+path, []byte("question"))
			wantError(t, err, want)
			if err == nil && !bytes.Equal(content, answer) {
				t.Errorf("got %q", content)
			}
		})
	}
}

func TestFetchesEndWithTheirContext_C5(t *testing.T) {
	asked, end := make(chan struct{}, 2), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-end:
		}
	}))
	defer server.Close()
	defer close(end)
	for _, fetch := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := fetchCRL(ctx, server.URL); return err },
		func(ctx context.Context) error { _, err := askResponder(ctx, server.URL, nil); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		wantError(t, fetch(ctx), "context canceled")
	}
}

func TestFetchRefusesOtherAddresses(t *testing.T) {
	for address, want := range map[string]string{
		"http://ca.example/crl": "", "https://user:secret@ca.example:8443/a?b=c": "", "HTTP://ca.example": "",
		"ldap://ca.example/cn=crl": "not an http or https URL", "file:///etc/passwd": "not an http or https URL",
		"ca.example/crl": "not an http or https URL", "http:///crl": "not an http or https URL", "": "not an http or https URL",
		"http://a b": "invalid character", "ftp://user:secret@x": "'ftp://x'", "http://[::1": "missing ']'",
	} {
		err := source.CheckURL(address)
		wantError(t, err, want)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is shown: %v", err)
		}
		if want == "" {
			continue
		}
		if _, err := fetchCRL(t.Context(), address); err == nil {
			t.Errorf("%s is fetched", address)
		}
	}
}

package validators

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestFetcher(t *testing.T) {
	answer := []byte("answer")
	mux := http.NewServeMux()
	mux.HandleFunc("/crl", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.TLS == nil && r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b", Path: "/"})
		_, _ = w.Write(answer)
	})
	mux.HandleFunc("/ocsp", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" || string(body) != "question" {
			t.Errorf("%s with %v and %q", r.Method, r.Header, body)
		}
		_, _ = w.Write(answer)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range MaxCRLSize/len(chunk) + 2 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxFetchHeader))
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write(answer)
	})
	mux.Handle("/found", http.RedirectHandler("/ocsp", http.StatusFound))
	mux.Handle("/307", http.RedirectHandler("/ocsp", http.StatusTemporaryRedirect))
	mux.Handle("/1", http.RedirectHandler("/crl", http.StatusFound))
	mux.Handle("/2", http.RedirectHandler("/1", http.StatusFound))
	mux.Handle("/3", http.RedirectHandler("/2", http.StatusFound))
	mux.Handle("/4", http.RedirectHandler("/3", http.StatusFound))
	mux.Handle("/file", http.RedirectHandler("file:///etc/passwd", http.StatusFound))
	mux.Handle("/ldap", http.RedirectHandler("ldap://127.0.0.1/cn=x", http.StatusFound))
	mux.Handle("/hostile", http.RedirectHandler("gopher://\u202e"+strings.Repeat("x", 4000)+"/", http.StatusFound))
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewServer(mux)
	defer server.Close()
	mux.Handle("/down", http.RedirectHandler(server.URL+"/crl", http.StatusFound))
	secure := httptest.NewUnstartedServer(mux)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()

	// What is on loopback is never asked of a proxy, so this cannot be seen.
	if NewFetcher(nil).client.Transport.(*http.Transport).Proxy != nil {
		t.Error("a proxy may be asked")
	}

	for name, test := range map[string]struct {
		path, want string
	}{
		"CRL":                          {"/crl", ""},
		"three redirects":              {"/3", ""},
		"four redirects":               {"/4", "more than 3 redirects"},
		"C5 redirect to a file":        {"/file", "not an http or https URL"},
		"C5 redirect to LDAP":          {"/ldap", "not an http or https URL"},
		"C5 redirect, hostile address": {"/hostile", "…"},
		"not found":                    {"/nothing", "404 instead of 200"},
		"nothing":                      {"/empty", "204 instead of 200"},
		"C5 too large":                 {"/large", "more than 67108864 bytes"},
		"C5 header too large":          {"/header", "header"},
		"cut off":                      {"/short", "unexpected EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := NewFetcher(nil).CRL(t.Context(), server.URL+test.path)
			wantError(t, err, test.want)
			if err == nil && !bytes.Equal(content, answer) {
				t.Errorf("got %q", content)
			}
		})
	}
	for path, want := range map[string]string{"/ocsp": "", "/307": "", "/found": "turns the question into another", "/large": "more than 16384 bytes", "/nothing": "404"} {
		t.Run("OCSP "+path, func(t *testing.T) {
			content, err := NewFetcher(nil).OCSP(t.Context(), server.URL+path, []byte("question"))
			wantError(t, err, want)
			if err == nil && !bytes.Equal(content, answer) {
				t.Errorf("got %q", content)
			}
		})
	}
	fetcher := NewFetcher(secure.Client().Transport)
	if _, err := fetcher.CRL(t.Context(), secure.URL+"/3"); err != nil {
		t.Error(err)
	}
	_, err := fetcher.CRL(t.Context(), secure.URL+"/down")
	wantError(t, err, "away from https")
	_, err = NewFetcher(nil).CRL(t.Context(), secure.URL+"/crl") // a CA that nobody trusts
	wantError(t, err, "certificate")
}

func TestC5FetcherEndsWithItsContext(t *testing.T) {
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
	fetcher := NewFetcher(nil)
	for _, fetch := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := fetcher.CRL(ctx, server.URL); return err },
		func(ctx context.Context) error { _, err := fetcher.OCSP(ctx, server.URL, nil); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		wantError(t, fetch(ctx), "context canceled")
	}
}

func TestCheckFetchURL(t *testing.T) {
	for address, want := range map[string]string{
		"http://ca.example/crl": "", "https://user:secret@ca.example:8443/a?b=c": "", "HTTP://ca.example": "",
		"ldap://ca.example/cn=crl": "not an http or https URL", "file:///etc/passwd": "not an http or https URL",
		"ca.example/crl": "not an http or https URL", "http:///crl": "not an http or https URL", "": "not an http or https URL",
		"http://a b": "invalid character", "ftp://user:secret@x": "xxxxx", "http://[::1": "missing ']'",
	} {
		err := CheckFetchURL(address)
		wantError(t, err, want)
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("a password is shown: %v", err)
		}
		if want == "" || errors.Is(err, context.Canceled) {
			continue
		}
		if _, err := NewFetcher(nil).CRL(t.Context(), address); err == nil {
			t.Errorf("%s is fetched", address)
		}
	}
}

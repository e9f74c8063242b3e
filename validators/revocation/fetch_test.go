package revocation

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestFetchRequests(t *testing.T) {
	answer := []byte("answer")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/ocsp" && (r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/ocsp-request" ||
			r.Header.Get("Accept") != "application/ocsp-response" || string(body) != "question") || r.URL.Path == "/crl" && r.Method != http.MethodGet {
			t.Errorf("%s with %v and %q", r.Method, r.Header, body)
		}
		switch r.URL.Path {
		case "/crl", "/ocsp":
			_, _ = w.Write(answer)
		case "/large":
			_, _ = w.Write(make([]byte, maxOCSPSize+1))
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer server.Close()
	crl := func(path string) ([]byte, error) { return NewFetcher(nil).CRL(t.Context(), server.URL+path) }
	ocsp := func(path string) ([]byte, error) {
		return NewFetcher(nil).Ask(t.Context(), server.URL+path, []byte("question"))
	}
	for path, test := range map[string]struct {
		fetch func(path string) ([]byte, error)
		want  string
	}{"/crl": {crl, ""}, "/no/crl": {crl, "404"}, "/ocsp": {ocsp, ""}, "/large": {ocsp, "more than 16384 bytes"}, "/no/ocsp": {ocsp, "404"}} {
		content, err := test.fetch(path)
		wantError(t, err, test.want)
		if err == nil && !bytes.Equal(content, answer) {
			t.Errorf("%s: got %q", path, content)
		}
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
		func(ctx context.Context) error { _, err := NewFetcher(nil).CRL(ctx, server.URL); return err },
		func(ctx context.Context) error { _, err := NewFetcher(nil).Ask(ctx, server.URL, nil); return err },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			<-asked
			cancel()
		}()
		wantError(t, fetch(ctx), "context canceled")
	}
}

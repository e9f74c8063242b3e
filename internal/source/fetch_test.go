package source

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func wantError(t *testing.T, err error, want string) {
	t.Helper()
	if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %q", err, want)
	}
}

// server answers over https with a certificate that only its client trusts.
func server(t *testing.T, handler http.Handler) (*httptest.Server, http.RoundTripper) {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, s.Client().Transport
}

func TestFetcher(t *testing.T) {
	const limit = 1 << 20
	answer := []byte("answer")
	mux := http.NewServeMux()
	mux.HandleFunc("/a", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.TLS == nil && r.Header.Get("Accept-Encoding") != "" || r.Header.Get("Cookie") != "" {
			t.Errorf("%s with %v", r.Method, r.Header)
		}
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b", Path: "/"})
		_, _ = w.Write(answer)
	})
	mux.HandleFunc("/post", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || string(body) != "question" {
			t.Errorf("%s with %v and %q", r.Method, r.Header, body)
		}
		_, _ = w.Write(answer)
	})
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, limit+1))
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, limit)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/largest", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, limit))
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write(answer)
	})
	mux.Handle("/found", http.RedirectHandler("/post", http.StatusFound))
	mux.Handle("/307", http.RedirectHandler("/post", http.StatusTemporaryRedirect))
	mux.Handle("/1", http.RedirectHandler("/a", http.StatusFound))
	mux.Handle("/2", http.RedirectHandler("/1", http.StatusFound))
	mux.Handle("/3", http.RedirectHandler("/2", http.StatusFound))
	mux.Handle("/4", http.RedirectHandler("/3", http.StatusFound))
	mux.Handle("/file", http.RedirectHandler("file:///etc/passwd", http.StatusFound))
	mux.Handle("/ldap", http.RedirectHandler("ldap://127.0.0.1/cn=x", http.StatusFound))
	mux.Handle("/hostile", http.RedirectHandler("gopher://\u202e"+strings.Repeat("x", 4000)+"/", http.StatusFound))
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	plain := httptest.NewServer(mux)
	defer plain.Close()
	mux.Handle("/down", http.RedirectHandler(plain.URL+"/a", http.StatusFound))
	secure, transport := server(t, mux)

	for name, test := range map[string]struct {
		path, want string
		secureWant string // where it is another
	}{
		"document":                     {"/a", "", ""},
		"three redirects":              {"/3", "", ""},
		"four redirects":               {"/4", "more than 3 redirects", ""},
		"C5 redirect to a file":        {"/file", "not an http or https URL", "away from https"},
		"C5 redirect to LDAP":          {"/ldap", "not an http or https URL", "away from https"},
		"C5 redirect, hostile address": {"/hostile", "…", "away from https"},
		"not found":                    {"/nothing", "404 instead of 200", ""},
		"nothing":                      {"/empty", "204 instead of 200", ""},
		"C5 too large":                 {"/large", "more than 1048576 bytes", ""},
		"C5 endless":                   {"/endless", "more than 1048576 bytes", ""},
		"largest":                      {"/largest", "", ""},
		"C5 header too large":          {"/header", "header", ""},
		"cut off":                      {"/short", "unexpected EOF", ""},
	} {
		t.Run(name, func(t *testing.T) {
			document, err := NewFetcher(nil).Get(t.Context(), plain.URL+test.path, limit)
			wantError(t, err, test.want)
			if err == nil && test.path != "/largest" && !bytes.Equal(document.Content, answer) {
				t.Errorf("got %q", document.Content)
			}
			if test.path == "/header" {
				return // the test server's transport has other bounds
			}
			if test.secureWant == "" {
				test.secureWant = test.want
			}
			_, err = NewSecureFetcher(transport).Get(t.Context(), secure.URL+test.path, limit)
			wantError(t, err, test.secureWant)
		})
	}
	for path, want := range map[string]string{"/post": "", "/307": "", "/found": "the redirect changes the method", "/large": "more than 16384 bytes", "/nothing": "404"} {
		t.Run("POST "+path, func(t *testing.T) {
			request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, plain.URL+path, strings.NewReader("question"))
			if err != nil {
				t.Fatal(err)
			}
			document, err := NewFetcher(nil).Do(request, 16384)
			wantError(t, err, want)
			if err == nil && !bytes.Equal(document.Content, answer) {
				t.Errorf("got %q", document.Content)
			}
		})
	}
	for _, fetcher := range []*Fetcher{NewFetcher(transport), NewSecureFetcher(transport)} {
		_, err := fetcher.Get(t.Context(), secure.URL+"/down", limit)
		wantError(t, err, "away from https")
	}
	_, err := NewSecureFetcher(nil).Get(t.Context(), secure.URL+"/a", limit) // a CA that nobody trusts
	wantError(t, err, "certificate")
	_, err = NewSecureFetcher(nil).Get(t.Context(), plain.URL+"/a", limit)
	wantError(t, err, "is not an https URL")
}

func TestFetcherEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{})
	slow, transport := server(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(asked)
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // an answer might arrive before the connection is closed
	}))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	_, err := NewSecureFetcher(transport).Get(ctx, slow.URL, 1)
	wantError(t, err, "context canceled")
}

func TestCheckURL(t *testing.T) {
	for address, want := range map[string][2]string{
		"http://ca.example/crl":                    {"", "not an https URL"},
		"https://bob:secret@ca.example:8443/a?b=c": {"", ""},
		"HTTPS://ca.example":                       {"", ""},
		"HTTP://ca.example":                        {"", "not an https URL"},
		"ldap://ca.example/cn=crl":                 {"not an http or https URL", "not an https URL"},
		"file:///etc/passwd":                       {"not an http or https URL", "not an https URL"},
		"ca.example/crl":                           {"not an http or https URL", "not an https URL"},
		"https:///crl":                             {"not an http or https URL", "not an https URL"},
		"":                                         {"not an http or https URL", "not an https URL"},
		"https://a b":                              {"invalid character", "invalid character"},
		"ftp://bob:secret@x":                       {"'ftp://x'", "'ftp://x'"},
		"ftp:bob:secret@x/y":                       {"'…@x/y'", "'…@x/y'"},
		"bob:secret@x/y":                           {"'…@x/y'", "'…@x/y'"},
		"/bob:secret@x/y":                          {"'…@x/y'", "'…@x/y'"},
		"https://bob:se/secret@x/":                 {"invalid URL: invalid port after host", "invalid URL: invalid port after host"},
		"https://bob:secret":                       {"invalid URL: invalid port after host", "invalid URL: invalid port after host"},
		"https://bob:secret%zz@x/":                 {"invalid URL: invalid URL escape", "invalid URL: invalid URL escape"},
		"https://bob:sec\"ret secret@x/":           {"invalid URL", "invalid URL"},
		"ftp://x/\u202e":                           {"%E2%80%AE", "%E2%80%AE"},
		"https://[::1":                             {"missing ']'", "missing ']'"},
		"ftp://" + strings.Repeat("x", 4000) + "/secret": {"…", "…"},
	} {
		for i, check := range []func(string) error{CheckURL, CheckSecureURL} {
			err := check(address)
			wantError(t, err, want[i])
			if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "bob")) {
				t.Errorf("a password is shown: %v", err)
			}
		}
		if want[1] != "" {
			if _, err := NewSecureFetcher(nil).Get(t.Context(), address, 1); err == nil {
				t.Errorf("%s is fetched", address)
			}
		}
	}
}

package source

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// newInside serves "document", and a redirect to http.
func newInside(t *testing.T, opts ...testpki.Option) *testtool.Inside {
	return testtool.NewInside(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			http.Redirect(w, r, "http://plain.inside.example/", http.StatusFound)
			return
		}
		_, _ = io.WriteString(w, "document")
	}), opts...)
}

// TestNetworkUsesProxiesOfTheEnvironment checks that documents are fetched through the
// proxies that the environment names, and that the server's certificate is verified
// there as elsewhere.
func TestNetworkUsesProxiesOfTheEnvironment(t *testing.T) {
	in := newInside(t)
	network := NewNetwork(in.CA.Pool())
	get := func(fetcher *Fetcher, address, want string) string {
		t.Helper()
		document, err := fetcher.Get(t.Context(), address, 100)
		wantError(t, err, want)
		if err == nil && string(document.Content) != "document" {
			t.Errorf("got %q", document.Content)
		}
		if err != nil && strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error has the password: %v", address, err)
		}
		return in.Asked()
	}
	const login = " Basic cHJveHl1c2VyOlNFQ1JFVA=="
	for _, test := range []struct{ address, asked string }{
		{"https://inside.example/a", "CONNECT inside.example:443" + login},
		{"http://inside.example/a", "GET inside.example" + login},
	} {
		if asked := get(NewFetcher(network), test.address, ""); asked != test.asked {
			t.Errorf("%s: the proxy was asked %q", test.address, asked)
		}
	}
	if asked := get(NewSecureFetcher(network), "https://inside.example/a", ""); asked == "" {
		t.Error("the proxy was not asked for a JWKS")
	}
	// what holds without a proxy holds with one
	if asked := get(NewSecureFetcher(network), "http://inside.example/a", "not an https URL"); asked != "" {
		t.Errorf("the proxy was asked %q for a JWKS over http", asked)
	}
	get(NewFetcher(network), "https://inside.example/elsewhere", "away from https")
	get(NewFetcher(network), "https://other.inside.example/", "the server's certificate 'CN=inside' does not have the name other.inside.example")
	if asked := get(NewFetcher(network), "https://direct.invalid/", "direct.invalid"); asked != "" {
		t.Errorf("the proxy was asked %q in spite of NO_PROXY", asked)
	}
	in.RefuseProxy(http.StatusForbidden)
	get(NewFetcher(network), "https://inside.example/a", "the proxy "+in.Proxy+" of the environment answers 403 instead of 200")
}

// TestNetworkRoots checks that other CAs vouch for servers from the next request on, and
// what is said of a server that none of them vouches for.
func TestNetworkRoots(t *testing.T) {
	in := newInside(t)
	network := NewNetwork(nil)
	get := func(want string) {
		t.Helper()
		_, err := NewSecureFetcher(network).Get(t.Context(), "https://user:SECRET@inside.example/a?token=SECRET", 100)
		wantError(t, err, want)
		if err != nil && (strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "x509:")) {
			t.Error(err)
		}
	}
	untrusted := "https://inside.example/a?token=…\": the server's certificate chain ends at issuer 'CN=Intranet CA', which is not trusted for servers; add this CA to trust_pool in fetch or trust_issuer"
	get(untrusted)
	network.SetRoots(in.CA.Pool())
	get("")
	network.SetRoots(testpki.MustCA(t).Pool())
	get(untrusted)

	old := newInside(t, testpki.Validity(time.Now().Add(-48*time.Hour), time.Now().Add(-24*time.Hour)))
	network = NewNetwork(old.CA.Pool())
	get("certificate 'CN=inside' of the server is valid from ")
}

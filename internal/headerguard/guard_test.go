package headerguard

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

var defaultGuard = New([]string{"X-Client-ID"}, nil, nil)

// TestProtectedNames_A1_A2 checks that a name is protected in any case, and with
// any character in place of a hyphen that an upstream might take for one.
func TestProtectedNames_A1_A2(t *testing.T) {
	for _, test := range []struct {
		name string
		want bool
	}{
		{"X-Client-ID", true},
		{"X-Client-Id", true},
		{"x-client-id", true},
		{"X-CLIENT-ID", true},
		{"X_Client_Id", true},
		{"X.Client.Id", true},
		{"X-Client_Id", true},
		{"x_client-ID", true},
		{"X Client Id", true},
		{"X-Client-Id\x00", false},
		{"X-Client", false},
		{"X-Client-Id-", false},
		{"X-Client-Id2", false},
		{"-X-Client-Id", false},
		{"X--Client-Id", false},
		{"XClientId", false},
		{"Client-Id", false},
		{"", false},
		{"-", false},
		{"Authorization", false},
		{"Cookie", false},
		{"X-Forwarded-For", false},
		{"X-Forwarded-Proto", false},
		{"X-Client-Name", false},
	} {
		if got := defaultGuard.protects(test.name); got != test.want {
			t.Errorf("%q: %t, want %t", test.name, got, test.want)
		}
	}
}

// TestForeignHeaders_A8 checks that the headers of other gateways are protected
// unless they are kept.
func TestForeignHeaders_A8(t *testing.T) {
	foreign := []string{
		"Client-Cert", "Client-Cert-Chain", "client_cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
		"X-SSL-Client-S-DN", "X-Ssl-Client-Verify", "x_ssl_client_cert", "X-SSL-", "SSL-Client-Cert", "Ssl_Client_Verify", "X-Client-Cert", "X-Client-Cert-Dn",
		"X-Client-Certificate", "X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Subject", "Cf-Client-Cert-Der-Base64", "CF-Client-Cert-Sha256", "X-ARR-ClientCert", "X-Consumer-Username", "X-Consumer-Custom-Id",
		"X-Client-DN", "x_client_verify", "X-Client-S-DN", "X-Client-I-Dn", "Cf-Cert-Subject-DN", "CF_CERT_VERIFIED", "SSL_CLIENT_S_DN", "X-SSL-CERT", "X_SSL_CERT",
	}
	harmless := []string{"Client-Cert-Chains", "Client-Certificate", "X-Ssl", "X-SSLX", "Ssl-Clients", "Sslclient-Cert", "X-Forwarded-Client-Certs", "Cf-Connecting-Ip", "X-Consumer", "X-Amzn-Trace-Id", "X-Amzn-Mtls", "X-Client-Dns", "X-Client-Version", "X-Client-IP", "Cf-Cert"}
	for _, name := range foreign {
		if !defaultGuard.protects(name) {
			t.Errorf("%s is not protected", name)
		}
	}
	for _, name := range harmless {
		if defaultGuard.protects(name) {
			t.Errorf("%s is protected", name)
		}
	}
	for _, format := range forwarded.Formats {
		if !defaultGuard.protects(format.Header) || format.ChainHeader != "" && !defaultGuard.protects(format.ChainHeader) {
			t.Errorf("the headers of %s are not protected", format)
		}
	}
	keeping := New([]string{"X-Tenant"}, []string{"X-Client-ID", "X-Consumer-Plan", "X-Caller"}, []string{"X-SSL-Protocol", "x-consumer-*", "x_caller", "X-Client*"})
	for name, want := range map[string]bool{
		"X-Ssl-Protocol": false, "x_ssl_protocol": false, "X-Consumer-Username": false, "X-Consumer-": false,
		"X-Ssl-Client-Cert": true, "X-Ssl-Protocols": true, "Client-Cert": true, "X-Tenant": true, "X_TENANT": true,
		// headers of other directives, which are kept by their whole name alone
		"X-Client-Id": true, "X-Consumer-Plan": true, "X-Caller": false, "X_caller": false, "X-Client-Cert": false,
	} {
		if got := keeping.protects(name); got != want {
			t.Errorf("keeping some: %s: %t, want %t", name, got, want)
		}
	}
}

// TestStripEveryValue_A3 checks that a header is removed whatever its values are.
func TestStripEveryValue_A3(t *testing.T) {
	r := &http.Request{Header: http.Header{
		"X-Client-Id":             {"admin", "", "  ", strings.Repeat("a", 1<<16)},
		"x-client-id":             {"not canonical"},
		"X_client_id":             {"admin"},
		"X.client.id":             {},
		"X-Forwarded-Client-Cert": nil,
		"Accept":                  {"*/*"},
		"X-Other":                 {"a", "b"},
	}}
	defaultGuard.Strip(r)
	if want := (http.Header{"Accept": {"*/*"}, "X-Other": {"a", "b"}}); !maps.EqualFunc(r.Header, want, slices.Equal[[]string]) {
		t.Errorf("left are %v, want %v", r.Header, want)
	}
}

// TestRemovedCertificateHeader checks that Strip returns which header of a proxy it
// has removed, unless it was blank.
func TestRemovedCertificateHeader(t *testing.T) {
	for name, values := range map[string][]string{
		"Client-Cert": {":MII:"}, "X-Ssl-Client-Cert": {"", "MII"}, "X-Forwarded-Client-Cert": {"Hash=a"}, "X-Forwarded-Tls-Client-Cert": {"MII"},
		"X-Client-Cert": {"MII"}, "X-Amzn-Mtls-Clientcert": {"MII"}, "X-Amzn-Mtls-Clientcert-Leaf": {"MII"},
		"X-Arr-Clientcert": {"MII"}, "Cf-Client-Cert-Der-Base64": {"MII"},
	} {
		r := &http.Request{Header: http.Header{name: values, "X-Client-Id": {"admin"}, "Accept": {"*/*"}}}
		if got := CertificateHeader(r.Header); got != name {
			t.Errorf("%s is not found: %q", name, got)
		}
		if got := defaultGuard.Strip(r); got != name || len(r.Header) != 1 {
			t.Errorf("%s: Strip returns %q, left are %v", name, got, r.Header)
		}
		if got := defaultGuard.Strip(&http.Request{Header: http.Header{name: {" ", ""}, "X-Client-Id": {"admin"}}}); got != "" {
			t.Errorf("blank %s: Strip returns %q", name, got)
		}
	}
	both := http.Header{"Client-Cert": {"a"}, "X-Ssl-Client-Cert": {"a"}, "X-Client-Cert": {"a"}}
	if got := defaultGuard.Strip(&http.Request{Header: both}); got != "Client-Cert" {
		t.Errorf("of several, Strip returns %q", got)
	}
}

// TestConnection_A5 checks that a caller cannot make a hop drop a header that the
// directive sets.
func TestConnection_A5(t *testing.T) {
	for _, test := range []struct {
		values, want []string
	}{
		{[]string{"close, X-Client-Id"}, []string{"close"}},
		{[]string{"X-Client-Id"}, nil},
		{[]string{"x_client_id,\tX.CLIENT.ID ,"}, nil},
		{[]string{"Upgrade, X-Client-Id, keep-alive"}, []string{"Upgrade, keep-alive"}},
		{[]string{"X-Client-Id", "Upgrade"}, []string{"Upgrade"}},
		{[]string{"X-Ssl-Client-Cert,,TE", "close"}, []string{"TE, close"}},
		// options that may pass stay as they were written
		{[]string{"Upgrade"}, []string{"Upgrade"}},
		{[]string{"close,TE", "X-Other"}, []string{"close,TE", "X-Other"}},
		{[]string{""}, []string{""}},
	} {
		r := &http.Request{Header: http.Header{"Connection": slices.Clone(test.values), "Upgrade": {"websocket"}}}
		defaultGuard.Strip(r)
		if got := r.Header["Connection"]; !slices.Equal(got, test.want) {
			t.Errorf("%q: left is %q, want %q", test.values, got, test.want)
		}
		if got := r.Header.Get("Upgrade"); got != "websocket" {
			t.Errorf("%q: Upgrade is %q", test.values, got)
		}
		if _, there := r.Header["Connection"]; there && test.want == nil {
			t.Errorf("%q: an empty Connection is left", test.values)
		}
	}
}

// TestStripTrailer_A6 checks that protected trailers are removed although a server
// fills in the trailers only when the body ends, in a map that it shares with the
// handlers' request.
func TestStripTrailer_A6(t *testing.T) {
	filled := http.Header{"X-Client-Id": nil, "X_client_id": nil, "X-Checksum": nil, "Client-Cert": nil}
	body := &endingBody{Reader: strings.NewReader("body"), atEnd: func() {
		for name := range filled {
			filled[name] = []string{"late"}
		}
		filled["X-Undeclared"] = []string{"late"}
		filled["X-Ssl-Client-Cert"] = []string{"late"}
	}}
	r := &http.Request{Header: http.Header{}, Trailer: filled, Body: body}
	defaultGuard.Strip(r)
	if want := (http.Header{"X-Checksum": nil}); !maps.EqualFunc(r.Trailer, want, slices.Equal[[]string]) {
		t.Errorf("before the body has ended: %v, want %v", r.Trailer, want)
	}
	if text, err := io.ReadAll(r.Body); err != nil || string(text) != "body" {
		t.Errorf("body %q, %v", text, err)
	}
	if want := (http.Header{"X-Checksum": {"late"}, "X-Undeclared": {"late"}}); !maps.EqualFunc(r.Trailer, want, slices.Equal[[]string]) {
		t.Errorf("after it has ended: %v, want %v", r.Trailer, want)
	}
	if err := r.Body.Close(); err != nil || !body.closed {
		t.Errorf("the body is not closed (%v)", err)
	}

	bodiless := &http.Request{Header: http.Header{}, Trailer: http.Header{"X-Client-Id": {"a"}}}
	defaultGuard.Strip(bodiless)
	if len(bodiless.Trailer) != 0 || bodiless.Body != nil {
		t.Errorf("without a body: %v", bodiless.Trailer)
	}
	plain := &http.Request{Header: http.Header{}, Body: body}
	defaultGuard.Strip(plain)
	if plain.Body != body || plain.Trailer != nil {
		t.Error("a request without trailers was changed")
	}
}

// endingBody calls atEnd when it has been read.
type endingBody struct {
	io.Reader
	atEnd  func()
	closed bool
}

func (b *endingBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		b.atEnd()
	}
	return n, err
}

func (b *endingBody) Close() error {
	b.closed = true
	return nil
}

// TestLongConnectionIsDropped_S2 checks that a Connection header which nobody needs is
// not read.
func TestLongConnectionIsDropped_S2(t *testing.T) {
	for size, want := range map[int]string{maxConnection: "close", maxConnection + 1: ""} {
		values := []string{"close, X-Client-ID,", strings.Repeat(",", size-len("close, X-Client-ID,"))}
		r := &http.Request{Header: http.Header{"Connection": values, "X-Client-Id": {"admin"}}}
		defaultGuard.Strip(r)
		if got := r.Header.Get("Connection"); got != want || len(r.Header["X-Client-Id"]) > 0 {
			t.Errorf("%d octets of Connection became %q, want %q", size, got, want)
		}
	}
}

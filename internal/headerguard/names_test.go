package headerguard

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

var defaultGuard = New([]string{"X-Client-ID"}, nil, nil)

// TestA1_A2_ProtectedNames: a name is protected in any case, and with anything
// for a hyphen that servers behind might take for one.
func TestA1_A2_ProtectedNames(t *testing.T) {
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

// TestA8_ForeignHeaders: the headers of other gateways are protected as well,
// unless the operator keeps one.
func TestA8_ForeignHeaders(t *testing.T) {
	foreign := []string{
		"Client-Cert", "Client-Cert-Chain", "client_cert", "X-Forwarded-Client-Cert", "X-Forwarded-Tls-Client-Cert", "X-Forwarded-Tls-Client-Cert-Info",
		"X-SSL-Client-S-DN", "X-Ssl-Client-Verify", "x_ssl_client_cert", "X-SSL-", "SSL-Client-Cert", "Ssl_Client_Verify", "X-Client-Cert", "X-Client-Cert-Dn",
		"X-Client-Certificate", "X-Amzn-Mtls-Clientcert", "X-Amzn-Mtls-Clientcert-Subject", "Cf-Client-Cert-Der-Base64", "CF-Client-Cert-Sha256", "X-ARR-ClientCert", "X-Consumer-Username", "X-Consumer-Custom-Id",
	}
	harmless := []string{"Client-Cert-Chains", "Client-Certificate", "X-Ssl", "X-SSLX", "Ssl-Clients", "Sslclient-Cert", "X-Forwarded-Client-Certs", "Cf-Connecting-Ip", "X-Consumer", "X-Amzn-Trace-Id", "X-Amzn-Mtls"}
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
	keeping := New([]string{"X-Tenant"}, []string{"X-Client-ID", "X-Consumer-Plan", "X-Caller"}, []string{"X-SSL-Protocol", "x-consumer-*", "x_caller", "X-Client*"})
	for name, want := range map[string]bool{
		"X-Ssl-Protocol": false, "x_ssl_protocol": false, "X-Consumer-Username": false, "X-Consumer-": false,
		"X-Ssl-Client-Cert": true, "X-Ssl-Protocols": true, "Client-Cert": true, "X-Tenant": true, "X_TENANT": true,
		// which other directives set: kept by the whole name alone
		"X-Client-Id": true, "X-Consumer-Plan": true, "X-Caller": false, "X_caller": false, "X-Client-Cert": false,
	} {
		if got := keeping.protects(name); got != want {
			t.Errorf("keeping some: %s: %t, want %t", name, got, want)
		}
	}
}

// TestLongNames: a name is looked at up to a bound, and that bound lets nothing
// through.
func TestLongNames(t *testing.T) {
	longest := "X-" + strings.Repeat("a", maxName-2)
	names := New([]string{longest}, nil, nil)
	for name, want := range map[string]bool{
		longest: true, strings.ToUpper(longest): true, longest + "b": false, longest[:maxName-1]: false,
		"X-Ssl-" + strings.Repeat("a", 1<<16): true, "Y-Ssl-" + strings.Repeat("a", 1<<16): false,
	} {
		if got := names.protects(name); got != want {
			t.Errorf("%.20s… of %d: %t, want %t", name, len(name), got, want)
		}
	}
	if err := CheckName(longest + "b"); err == nil {
		t.Error("a longer name can be set than is looked at")
	}
}

// TestA3_StripEveryValue: however often, and with whatever value.
func TestA3_StripEveryValue(t *testing.T) {
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

// TestA5_Connection: a caller cannot have a hop drop what the directive sets.
func TestA5_Connection(t *testing.T) {
	for _, test := range []struct {
		values, want []string
	}{
		{[]string{"close, X-Client-Id"}, []string{"close"}},
		{[]string{"X-Client-Id"}, nil},
		{[]string{"x_client_id,\tX.CLIENT.ID ,"}, nil},
		{[]string{"Upgrade, X-Client-Id, keep-alive"}, []string{"Upgrade, keep-alive"}},
		{[]string{"X-Client-Id", "Upgrade"}, []string{"Upgrade"}},
		{[]string{"X-Ssl-Client-Cert,,TE", "close"}, []string{"TE, close"}},
		// what is harmless stays as it was written
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

// TestA6_StripTrailer: a server fills the trailers of the request it read while
// the body ends, in a map that it shares with the handlers' request.
func TestA6_StripTrailer(t *testing.T) {
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

// endingBody tells when it has been read.
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

func TestCheckHeaderName(t *testing.T) {
	for name, want := range map[string]string{
		"X-Client-ID": "", "x": "", "X_Client": "", "X.Client": "", "X!#$%&'*+^`|~": "",
		"": "is empty", "X Client": "is not a header name", "X:Client": "is not a header name", "X-Clïent": "is not a header name", "X\r\nY": "is not a header name", "X\x00": "is not a header name",
		"X-Forwarded-For": "reverse_proxy overwrites", "x_forwarded_host": "reverse_proxy overwrites", "X-FORWARDED-PROTO": "reverse_proxy overwrites",
		"Connection": "belongs to the connection", "connection": "belongs to the connection", "Content_Length": "belongs to the connection", "TE": "belongs to the connection",
		"Trailer": "belongs to the connection", "transfer-encoding": "belongs to the connection", "Upgrade": "belongs to the connection", "Host": "belongs to the connection",
		"Keep-Alive": "belongs to the connection", "Proxy-Connection": "belongs to the connection", "Expect": "belongs to the connection", "Alt-Svc": "belongs to the connection",
	} {
		switch err := CheckName(name); {
		case want == "" && err != nil:
			t.Errorf("%q: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

func TestCheckKeptName(t *testing.T) {
	set := []string{"X-Client-ID", "X-Tenant"}
	for name, want := range map[string]string{
		"Client-Cert": "", "X-Ssl-*": "", "X-Consumer-Username": "", "X-Client-ID-Old": "", "X-Ten": "", "X-Client-I": "",
		"X-Client-ID": "header 'X-Client-ID' is set", "x_client_id": "header 'X-Client-ID' is set", "X-*": "header 'X-Client-ID' is set", "X-T*": "header 'X-Tenant' is set",
		"*": "is empty", "**": "has a * that is not at the end", "X-*-Dn": "has a * that is not at the end", "X Y": "is not a header name", "Connection": "belongs to the connection", "Connection*": "belongs to the connection",
	} {
		switch err := CheckKept(name, set); {
		case want == "" && err != nil:
			t.Errorf("%q: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%q: %v, want %q", name, err, want)
		}
	}
}

// TestA7_Text: what came out of a certificate, or of a template, cannot end a
// header or begin another one.
func TestA7_Text(t *testing.T) {
	for text, want := range map[string]struct{ header, certificate string }{
		"":                        {"", ""},
		"CN=client,O=Company":     {"CN=client,O=Company", "CN=client,O=Company"},
		"a\r\nX-Client-Id: admin": {`a\0D\0AX-Client-Id: admin`, `a\0D\0AX-Client-Id: admin`},
		"a\x00b":                  {`a\00b`, `a\00b`},
		"tab\tand\x7fdelete":      {"tab\tand\\7Fdelete", `tab\09and\7Fdelete`},
		"Zoë":                     {"Zoë", `Zo\C3\AB`},
		"\xff\xfe":                {"\xff\xfe", `\FF\FE`},
		`,;"=%\`:                  {`,;"=%\`, `,;"=%\`},
	} {
		if got := EscapeControl(text); got != want.header {
			t.Errorf("header text of %q is %q, want %q", text, got, want.header)
		}
		if got := EscapeNonASCII(text); got != want.certificate {
			t.Errorf("certificate text of %q is %q, want %q", text, got, want.certificate)
		}
	}
}

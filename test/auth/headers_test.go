package auth_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// hygieneSites has sites for every mode of mtls_auth and for mtls_bearer, over HTTPS
// and plain HTTP.
const hygieneSites = `
(tenant) {
	header_up X-Client-ID     {http.mtls.client_id}
	header_up X-Client-Tenant {http.mtls.claim.tenant}
}
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		import tenant
	}
	reverse_proxy @UP@
	handle_errors {
		respond "{http.request.header.X-Client-Id}{http.request.header.X-Client-Tenant}{http.request.header.Client-Cert}{http.request.header.X_Client_Id}{http.request.header.X.Client.Id}"
	}
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
		import tenant
	}
	reverse_proxy @UP@
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		report_only
		allow   billing.partner
		import  tenant
	}
	reverse_proxy @UP@
}
https://localhost:@HTTPS@ {
	import mtls
	reverse_proxy @UP@
}
https://alias.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		import tenant
	}
	reverse_proxy @UP@
	handle_errors {
		respond "{http.request.header.X-Client-Id}{http.request.header.X-Client-Tenant}{http.request.header.Client-Cert}{http.request.header.X_Client_Id}{http.request.header.X.Client.Id}"
	}
}
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
}
http://public.test:@HTTP@ {
	import plain
	mtls_auth {
		optional
		import tenant
	}
	reverse_proxy @UP@
}
http://other.test:@HTTP@ {
	import plain
	mtls_auth {
		report_only
		import tenant
	}
	reverse_proxy @UP@
}
http://api.test:@HTTP@ {
	import plain
	mtls_auth {
		import tenant
	}
	reverse_proxy @UP@
	handle_errors {
		respond "{http.request.header.X-Client-Id}{http.request.header.X-Client-Tenant}"
	}
}
`

// hygieneRig runs hygieneSites. Its method forEach sends requests to them as
// sensor-7, as a stranger and without a certificate.
type hygieneRig struct {
	*rig.Rig
	billing, sensor, stranger *testpki.Leaf

	callers map[string]*rig.Caller // kept to reuse their connections

	billingToken, sensorToken string
}

func startHygiene(t *testing.T, options string) *hygieneRig {
	r := rig.New(t)
	h := &hygieneRig{Rig: r, callers: make(map[string]*rig.Caller), billing: r.Issue("billing"), sensor: r.SelfSigned("sensor"), stranger: r.Issue("stranger")}
	r.Start(options+rig.IssuerRealm(""), hygieneSites)
	h.billingToken = rig.AccessToken(r, t, h.billing, "billing.partner")
	h.sensorToken = rig.AccessToken(r, t, h.sensor, "sensor-7")
	return h
}

// forEach calls send for each caller and site. It checks that the upstream gets
// sensor-7 or no client, in a single header, and no other header whose name folds
// to a protected one.
func (h *hygieneRig) forEach(t *testing.T, protocols []string, send func(t *testing.T, c *rig.Caller, url string) rig.Reply) {
	type door struct {
		name, url string
		leaf      *testpki.Leaf
		client    string // "-" for refused
		token     string
	}
	doors := []door{
		{"guarded", "https://api.test/", h.sensor, "sensor-7", ""},
		{"guarded, nobody", "https://api.test/", nil, "-", ""},
		{"guarded, stranger", "https://api.test/", h.stranger, "-", ""},
		{"optional", "https://public.test/", h.sensor, "sensor-7", ""},
		{"optional, nobody", "https://public.test/", nil, "", ""},
		{"report only, not allowed", "https://other.test/", h.sensor, "", ""},
		{"report only, nobody", "https://other.test/", nil, "", ""},
		{"report only, stranger", "https://other.test/", h.stranger, "", ""},
		{"bearer", "https://alias.test/", h.sensor, "sensor-7", h.sensorToken},
		{"bearer, without a token", "https://alias.test/", h.sensor, "-", ""},
		{"bearer, another's token", "https://alias.test/", h.sensor, "-", h.billingToken},
		{"bearer, without a certificate", "https://alias.test/", nil, "-", h.sensorToken},
	}
	plain := []door{
		{"plain HTTP, guarded", "http://api.test/", nil, "-", ""},
		{"plain HTTP, optional", "http://public.test/", nil, "", ""},
		{"plain HTTP, report only", "http://other.test/", nil, "", ""},
	}
	check := func(t *testing.T, key string, d door, connect func() *rig.Caller) {
		if h.callers[key] == nil {
			h.callers[key] = connect()
		}
		c := h.callers[key]
		c.T, c.Always = t, nil
		if d.token != "" {
			c.Always = []func(*http.Request){rig.Bearer(d.token)}
		}
		hits := h.Upstream.Hits.Load()
		got := send(t, c, d.url)
		if d.client == "-" {
			got.WantStatus(t, http.StatusUnauthorized)
			if got.Body != "" || h.Upstream.Hits.Load() != hits {
				t.Errorf("the error route got %q; %d requests reached the upstream", got.Body, h.Upstream.Hits.Load()-hits)
			}
			return
		}
		got.WantStatus(t, http.StatusOK).WantClient(t, d.client)
		if forged := protectedIn(got.Seen); len(forged) > 1 || len(forged) == 1 && d.client == "" {
			t.Errorf("the upstream got %q", forged)
		}
	}
	for _, d := range doors {
		for _, protocol := range protocols {
			t.Run(d.name+"/"+protocol, func(t *testing.T) {
				check(t, d.name+protocol, d, func() *rig.Caller { return h.Caller(h.T, protocol, d.leaf) })
			})
		}
	}
	for _, d := range plain {
		t.Run(d.name, func(t *testing.T) { check(t, d.name, d, func() *rig.Caller { return h.Plain(h.T) }) })
	}
}

// protectedIn lists the headers and trailers of a request that some server could
// mistake for an identity.
func protectedIn(seen *rig.SeenRequest) []string {
	protected := append([]string{"x-client-id", "x-client-tenant"}, rig.GatewayHeaders...)
	var found []string
	for _, header := range []http.Header{seen.Header, seen.Trailer} {
		for name, values := range header {
			if rig.IsNamed(name, protected...) {
				found = append(found, fmt.Sprintf("%s: %q", name, values))
			}
		}
	}
	slices.Sort(found)
	return found
}

func TestExactNameInAnyCase_A1(t *testing.T) {
	h := startHygiene(t, "")
	for _, name := range []string{"X-Client-ID", "x-client-id", "X-CLIENT-ID", "x-ClIeNt-iD", "X-Client-Tenant"} {
		t.Run(name, func(t *testing.T) {
			h.forEach(t, rig.Protocols, func(_ *testing.T, c *rig.Caller, url string) rig.Reply {
				return c.Get(url, rig.With(name, "billing.partner"))
			})
		})
	}
}

func TestAliasNames_A2(t *testing.T) {
	aliases := []string{"X_Client_Id", "x_client_id", "X.Client.Id", "X-Client_Id", "X-Client.Id", "X_Client-Id", "X!Client#Id", "X~client~id"}
	for name, options := range map[string]string{
		"default": "",
		"expected": `servers {
			expected_underscore_headers X_Client_Id X-Client_Id X_Client-Id
			expected_dot_headers X.Client.Id X-Client.Id
		}
		`,
	} {
		t.Run(name, func(t *testing.T) {
			h := startHygiene(t, options)
			for _, alias := range aliases {
				t.Run(alias, func(t *testing.T) {
					h.forEach(t, rig.Protocols, func(_ *testing.T, c *rig.Caller, url string) rig.Reply {
						return c.Get(url, rig.With(alias, "billing.partner"))
					})
				})
			}
			// all aliases at once, alongside the name itself
			h.forEach(t, rig.Protocols, func(_ *testing.T, c *rig.Caller, url string) rig.Reply {
				options := []func(*http.Request){rig.With("X-Client-Id", "billing.partner")}
				for _, alias := range aliases {
					options = append(options, rig.With(alias, "billing.partner"))
				}
				return c.Get(url, options...)
			})
		})
	}
}

func TestRepeatedEmptyPaddedAndLongValues_A3(t *testing.T) {
	h := startHygiene(t, "")
	for name, values := range map[string][]string{
		"twice": {"billing.partner", "billing.partner"}, "own and other": {"sensor-7", "billing.partner"}, "empty": {""},
		"padded": {"  billing.partner \t"}, "comma": {"sensor-7,billing.partner"}, "long": {strings.Repeat("b", 8000)},
	} {
		t.Run(name, func(t *testing.T) {
			h.forEach(t, rig.Protocols, func(_ *testing.T, c *rig.Caller, url string) rig.Reply {
				return c.Get(url, rig.With("X-Client-Id", values...))
			})
		})
	}
}

func TestAnAttributeTheClientHasNot_A4(t *testing.T) {
	h := startHygiene(t, "")
	for _, protocol := range rig.Protocols {
		t.Run(protocol, func(t *testing.T) {
			for _, forged := range []string{"acme", ""} {
				got := h.Caller(t, protocol, h.sensor).Get("https://api.test/", rig.With("X-Client-Tenant", forged)).WantClient(t, "sensor-7")
				if tenant, ok := got.Seen.Header["X-Client-Tenant"]; ok {
					t.Errorf("a client without the claim got tenant %q", tenant)
				}
				got = h.Caller(t, protocol, h.billing).Get("https://api.test/", rig.With("X-Client-Tenant", forged)).WantClient(t, "billing.partner")
				if tenant := got.Seen.Header["X-Client-Tenant"]; len(tenant) != 1 || tenant[0] != "partner 7" {
					t.Errorf("the tenant is %q, want partner 7", tenant)
				}
			}
		})
	}
}

// TestConnectionCannotDropTheIdentity_A5 checks that Connection cannot remove the
// identity headers. HTTP/2 and HTTP/3 have no Connection header; TestWireHTTP2
// sends one anyway.
func TestConnectionCannotDropTheIdentity_A5(t *testing.T) {
	h := startHygiene(t, "")
	for _, connection := range []string{
		"Connection: close, X-Client-ID",
		"Connection: X-Client-ID, close",
		"Connection: x-client-id",
		"Connection: keep-alive, X-Client-ID,X-Client-Tenant",
		"Connection: close\nConnection: X-Client-ID",
		"connection: ,, X-Client-ID ,",
		"CONNECTION:\tX-CLIENT-ID",
		"Connection: X_Client_Id, X.Client.Id, X-Client-ID",
		"Connection: Client-Cert, X-Client-ID, X-Hop\nX-Hop: 1",
	} {
		t.Run(connection, func(t *testing.T) {
			for name, tc := range map[string]struct {
				leaf       *testpki.Leaf
				host, want string
			}{
				"guarded": {h.billing, "api.test", "billing.partner"}, "optional": {h.billing, "public.test", "billing.partner"},
				"report only": {h.billing, "other.test", "billing.partner"}, "nobody": {nil, "public.test", ""},
			} {
				got := h.Raw(t, tc.leaf, tc.host).Send("GET / HTTP/1.1\nHost: " + tc.host + "\nX-Client-ID: sensor-7\n" + connection + "\n\n")
				got.WantStatus(t, http.StatusOK).WantClient(t, tc.want)
				if tenant := got.Seen.Header.Get("X-Client-Tenant"); tc.want != "" && tenant != "partner 7" {
					t.Errorf("%s: the tenant is %q, want partner 7", name, tenant)
				}
				if got.Seen.Header.Get("X-Hop") != "" {
					t.Errorf("%s: a harmless header that Connection names was not dropped", name)
				}
			}
		})
	}
}

// lateTrailers is a request body that adds undeclared trailers when it is read.
type lateTrailers struct {
	io.Reader
	request *http.Request
}

func (b *lateTrailers) Read(p []byte) (int, error) {
	b.request.Trailer["X-Client-Id"] = []string{"billing.partner"}
	b.request.Trailer["Client-Cert"] = []string{":Zm9yZ2Vk:"}
	return b.Reader.Read(p)
}

func (b *lateTrailers) Close() error { return nil }

func TestTrailers_A6(t *testing.T) {
	h := startHygiene(t, "")
	// trailers arrive after the body, so the proxy must not buffer it
	h.Reload(rig.IssuerRealm(""), strings.ReplaceAll(hygieneSites, "@UP@", "@STREAM@"))
	declared := http.Header{
		"X-Client-Id": {"billing.partner"}, "X_client_id": {"billing.partner"}, "X.client.id": {"billing.partner"},
		"Client-Cert": {":Zm9yZ2Vk:"}, "X-Forwarded-Client-Cert": {"Hash=1"}, "X-Checksum": {"42"},
	}
	for name, trailer := range map[string]func(r *http.Request){
		"declared": func(r *http.Request) { r.Trailer = declared.Clone() },
		"undeclared beside a harmless one": func(r *http.Request) {
			r.Trailer = http.Header{"X-Checksum": {"42"}}
			r.Body = &lateTrailers{r.Body, r}
		},
	} {
		t.Run(name, func(t *testing.T) {
			send := func(c *rig.Caller, url string) rig.Reply {
				return c.Do(http.MethodPost, url, func(r *http.Request) {
					r.Body, r.ContentLength = io.NopCloser(strings.NewReader("some body")), -1
					trailer(r)
				})
			}
			// Caddy itself drops the trailers of HTTP/3, so the expected trailers
			// come from a site without mtls_auth and mtls_bearer
			bare := make(map[string]string)
			for _, protocol := range rig.Protocols {
				bare[protocol] = send(h.Caller(t, protocol, nil), "https://localhost/").Seen.Trailer.Get("X-Checksum")
			}
			if bare["h1"] != "42" || bare["h2"] != "42" {
				t.Errorf("Caddy without mtls_auth drops the harmless trailer: %q", bare)
			}
			h.forEach(t, rig.Protocols, func(t *testing.T, c *rig.Caller, url string) rig.Reply {
				got := send(c, url)
				if got.Seen != nil && (got.Seen.Body != "some body" || got.Seen.Trailer.Get("X-Checksum") != bare[c.Protocol]) {
					t.Errorf("the upstream got body %q and trailers %v, want the harmless trailer", got.Seen.Body, got.Seen.Trailer)
				}
				return got
			})
		})
	}
	// trailers of a request that declares none get through only over HTTP/1.1
	t.Run("undeclared", func(t *testing.T) {
		for host, leaf := range map[string]*testpki.Leaf{"api.test": h.sensor, "public.test": nil} {
			got := h.Raw(t, leaf, host).Send("POST / HTTP/1.1\nHost: " + host + "\nTransfer-Encoding: chunked\n\n" +
				"4\nbody\n0\nX-Client-ID: billing.partner\nx_client_id: billing.partner\nX-Checksum: 42\n\n")
			got.WantStatus(t, http.StatusOK).WantClient(t, map[string]string{"api.test": "sensor-7"}[host])
			if forged := protectedIn(got.Seen); len(forged) > 1 || len(forged) == 1 && leaf == nil {
				t.Errorf("the upstream got %q", forged)
			}
		}
	})
}

// siblingSites has sites that each set a different header and never X-Client-ID.
const siblingSites = `
https://api.test:@HTTPS@ {
	import mtls
	mtls_auth {
		header_up X-Client-Name {http.mtls.client_id}
	}
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
		header_up X-Caller {http.mtls.client_id}
	}
	reverse_proxy @UP@
}
http://api.test:@HTTP@ {
	import plain
	mtls_auth {
		header_up authorization "Basic YXBpOg=="
	}
	respond hello
}
https://other.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
		header_up   X-Device {http.mtls.client_id}
		keep_header X-Client-ID X-C* X-Forwarded-*
	}
	reverse_proxy @UP@
}
https://alias.test:@HTTPS@ {
	import mtls
	mtls_bearer {
		header_up X-Token-Client {http.mtls.client_id}
	}
	reverse_proxy @UP@
}
https://auth.test:@HTTPS@ {
	import mtls
	mtls_issuer
	mtls_auth {
		optional
		header_up X-Admin {http.mtls.client_id}
		forward_token X-Gateway-Token {
			audience internal
		}
	}
	reverse_proxy @UP@
}
`

// TestHeadersOfOtherDirectives_A1_A8 checks that the caller's X-Client-ID is removed
// unless keep_header names it. Every header that any directive of the configuration
// sets is removed too, because the upstream may read any of them. The caller's
// Authorization is kept where only another directive sets it.
func TestHeadersOfOtherDirectives_A1_A8(t *testing.T) {
	r := rig.New(t)
	sensor := r.SelfSigned("sensor")
	r.Issue("billing")
	r.Start(rig.IssuerRealm(""), siblingSites)
	token := rig.AccessToken(r, t, sensor, "sensor-7")
	forged := map[string]bool{ // true if other.test keeps the header
		"X-Client-Id": true, "X-Client-Name": false, "X-Caller": false,
		"X-Token-Client": false, "X-Admin": false, "X-Device": false, "X-Gateway-Token": false,
	}
	for _, site := range []struct {
		host, header, want string
		leaf               *testpki.Leaf
		options            []func(*http.Request)
	}{
		{"api.test", "X-Client-Name", "sensor-7", sensor, nil},
		{"public.test", "X-Caller", "sensor-7", sensor, nil},
		{"public.test", "X-Caller", "", nil, nil},
		{"other.test", "X-Device", "sensor-7", sensor, nil},
		{"other.test", "X-Device", "", nil, nil},
		{"alias.test", "X-Token-Client", "sensor-7", sensor, []func(*http.Request){rig.Bearer(token)}},
		{"auth.test", "X-Admin", "sensor-7", sensor, nil},
		{"auth.test", "X-Admin", "", nil, nil},
	} {
		for _, protocol := range rig.Protocols {
			t.Run(site.host+"/"+site.want+"/"+protocol, func(t *testing.T) {
				options := append([]func(*http.Request){rig.With("Authorization", "Basic YTpi")}, site.options...)
				for name := range forged {
					options = append(options, rig.With(name, "admin"))
				}
				got := r.Caller(t, protocol, site.leaf).Get("https://"+site.host+"/", options...)
				got.WantStatus(t, http.StatusOK)
				for name, kept := range forged {
					values := got.Seen.Header[name]
					switch {
					case name == site.header && site.want != "":
						if !slices.Equal(values, []string{site.want}) {
							t.Errorf("%s is %q, want %q", name, values, site.want)
						}
					case kept && site.host == "other.test":
						if len(values) == 0 {
							t.Errorf("%s was removed although keep_header lists it", name)
						}
					case slices.Contains(values, "admin"):
						t.Errorf("the caller's %s reached the upstream: %q", name, values)
					}
				}
				if site.host != "alias.test" && got.Seen.Header.Get("Authorization") != "Basic YTpi" {
					t.Errorf("Authorization is %q, want the caller's value", got.Seen.Header["Authorization"])
				}
			})
		}
	}
}

package auth_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestAddressAsHost_D1 checks that no spelling of an address bypasses the
// directive. Clients never send an address as SNI, so SNI and Host always differ
// for a site with an address as its name.
func TestAddressAsHost_D1(t *testing.T) {
	for mode, options := range map[string]string{"strict": "", "insecure_off": "servers {\nstrict_sni_host insecure_off\n}\n"} {
		r := rig.New(t)
		billing := r.Issue("billing")
		r.SelfSigned("sensor")
		r.Start(options+rig.BillingAndSensor, publicAndGuarded+`
https://127.0.0.1:@HTTPS@, https://[::1]:@HTTPS@ {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
`)
		for _, name := range []string{"127.0.0.1", "127.0.0.1:443", "127.0.0.1.", "[::1]", "[::1]:443", "::1", "[0:0::1]", "[::ffff:127.0.0.1]", "127.1", "2130706433", "0x7f000001", "[::1%25lo]"} {
			for _, protocol := range rig.Protocols {
				for _, sni := range []string{"public.test", "api.test", "127.0.0.1"} { // Go sends no SNI for an address
					t.Run(fmt.Sprint(mode, "/", name, "/", protocol, "/", sni), func(t *testing.T) {
						for _, leaf := range []*testpki.Leaf{nil, billing} {
							got := withSNI(r.Caller(t, protocol, leaf), sni).Get("https://public.test/", host(name), rig.With("X-Client-Id", "sensor-7"))
							switch {
							case got.Seen != nil && (leaf == nil || sni == "public.test"):
								// the handshake of the public site requests no certificate
								t.Errorf("the API was reached without a certificate: %v", got.Seen.Header)
							case got.Seen != nil:
								got.WantClient(t, "billing.partner")
							case mode == "strict" && got.Status != http.StatusMisdirectedRequest && got.Status != http.StatusBadRequest:
								t.Errorf("status %d, want 421", got.Status)
							case got.Status == http.StatusUnauthorized:
								got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
							case got.Status == http.StatusOK && got.Body != "" && got.Body != "public":
								t.Errorf("answered %q", got.Body)
							}
						}
					})
				}
			}
		}
		if mode == "insecure_off" { // here the directive itself refuses
			withSNI(r.Caller(t, "h1", billing), "public.test").Get("https://public.test/", host("127.0.0.1")).
				WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
		}
		r.Caller(t, "h2", billing).Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
	}
}

// TestManyHosts_D1 checks that guarded hosts never fall through to a catch-all
// site. From a hundred names on, Caddy looks hosts up differently; that lookup
// was once case-sensitive (CVE-2026-27588).
func TestManyHosts_D1(t *testing.T) {
	for mode, options := range map[string]string{"strict": "", "insecure_off": "servers {\nstrict_sni_host insecure_off\n}\n"} {
		r := rig.New(t)
		billing := r.Issue("billing")
		r.SelfSigned("sensor")
		guarded := []string{"https://api.test:@HTTPS@"}
		for i := range 150 {
			guarded = append(guarded, fmt.Sprintf("https://Host-%03d.test:@HTTPS@", i))
		}
		r.Start(options+rig.BillingAndSensor, strings.Join(guarded, ", ")+` {
	import mtls
	mtls_auth
	reverse_proxy @UP@
}
https://public.test:@HTTPS@ {
	import tls_without_client_auth
	respond "public"
}
https://:@HTTPS@ {
	import tls_without_client_auth
	respond "all the rest"
}
`)
		spellings := func(name string) []string {
			return []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name[:len(name)-1] + "T", name + ":443", strings.ToUpper(name) + ":1"}
		}
		for _, protocol := range rig.Protocols {
			for _, name := range []string{"api.test", "host-000.test", "host-075.test", "host-149.test"} {
				t.Run(mode+"/"+protocol+"/"+name, func(t *testing.T) {
					nobody, known, other := withSNI(r.Caller(t, protocol, nil), name), withSNI(r.Caller(t, protocol, billing), name), withSNI(r.Caller(t, protocol, nil), "public.test")
					nobody.Tls.InsecureSkipVerify, known.Tls.InsecureSkipVerify = true, true // the server's certificate lacks these names
					for _, spelling := range spellings(name) {
						nobody.Get("https://public.test/", host(spelling), rig.With("X-Client-Id", "billing.partner")).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						known.Get("https://public.test/", host(spelling)).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
						got := other.Get("https://public.test/", host(spelling))
						if mode == "strict" {
							got.WantStatus(t, http.StatusMisdirectedRequest)
						} else {
							got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						}
						if strings.Contains(got.Body, "rest") {
							t.Errorf("%s falls through to the catch-all site", spelling)
						}
					}
				})
			}
		}
	}
}

// choppedConn splits the first TLS record, the ClientHello, into records of size
// octets and sends each of them in two segments.
type choppedConn struct {
	net.Conn
	size int
	sent bool
}

func (c *choppedConn) Write(p []byte) (int, error) {
	const header = 5
	if c.sent {
		return c.Conn.Write(p)
	}
	if len(p) < header || p[0] != 22 || header+int(binary.BigEndian.Uint16(p[3:])) != len(p) {
		return 0, errors.New("the first write is not a ClientHello in one record, so nothing is tested here")
	}
	c.sent = true
	for rest := p[header:]; len(rest) > 0; {
		n := min(c.size, len(rest))
		record := binary.BigEndian.AppendUint16([]byte{22, p[1], p[2]}, uint16(n))
		record = append(record, rest[:n]...)
		rest = rest[n:]
		for _, segment := range [][]byte{record[:header-2], record[header-2:]} {
			if _, err := c.Conn.Write(segment); err != nil { // Go sets TCP_NODELAY
				return 0, err
			}
		}
	}
	return len(p), nil
}

// TestFragmentedHello_D1 checks that the SNI of a fragmented ClientHello counts.
// Traefik applied its default rules to one (CVE-2026-32305). HTTP/3 needs no case
// here because the hybrid key share always makes the hello exceed a datagram.
func TestFragmentedHello_D1(t *testing.T) {
	for mode, options := range map[string]string{"strict": "", "insecure_off": "servers {\nstrict_sni_host insecure_off\n}\n"} {
		r := rig.New(t)
		billing := r.Issue("billing")
		r.SelfSigned("sensor")
		r.Start(options+rig.BillingAndSensor, publicAndGuarded)
		for _, protocol := range []string{"h1", "h2"} {
			for _, size := range []int{1, 7, 40, 100, 500, 1 << 14} {
				t.Run(fmt.Sprint(mode, "/", protocol, "/", size), func(t *testing.T) {
					chopped := func(leaf *testpki.Leaf, sni string) *rig.Caller {
						c := withSNI(r.Caller(t, protocol, leaf), sni)
						c.Rt.(*http.Transport).DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
							conn, err := new(net.Dialer).DialContext(ctx, c.Network, c.Address)
							return &choppedConn{Conn: conn, size: size}, err
						}
						return c
					}
					forged := rig.With("X-Client-Id", "sensor-7")
					chopped(billing, "api.test").Get("https://api.test/", forged).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
					chopped(nil, "api.test").Get("https://api.test/", forged).WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
					for _, leaf := range []*testpki.Leaf{nil, billing} {
						c := chopped(leaf, "public.test")
						if got := c.Get("https://public.test/", forged); got.Status != http.StatusOK || got.Body != "public" {
							t.Errorf("the public site answers %d %q", got.Status, got.Body)
						}
						got := chopped(leaf, "public.test").Get("https://public.test/", host("api.test"), forged)
						if mode == "strict" {
							got.WantStatus(t, http.StatusMisdirectedRequest)
						} else { // this handshake requested no certificate
							got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
						}
						if got.Seen != nil {
							t.Error("the request reached the API")
						}
					}
				})
			}
		}
	}
}

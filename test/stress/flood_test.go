package stress_test

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// Flood is an environment variable: how many unknown certificates a flood has.
const Flood = "MTLS_FLOOD"

const floodRealm = `
mtls {
	trust_pool file @DIR@/clients-ca.pem
	forwarded_certificate rfc9440 {
		peer_key @PROXY@
	}
	client pinned {
		certificate @DIR@/pinned.pem
		scopes      use
	}
	client named {
		subject CN=named
		scopes  use
	}
	issuer https://auth.test {
		resource https://other.test {
			scopes use
		}
	}
}
`

// varied is the serial number of the unknown certificate: eight octets to find it by,
// and eight that are replaced.
var varied = new(big.Int).SetBytes([]byte("\x5afind me\x00\x00\x00\x00\x00\x00\x00\x00"))

// flooded is a Caddy that is flooded while known clients use it.
type flooded struct {
	*rig.Rig
	known   map[string]*testpki.Leaf
	proxy   *testpki.Leaf // may forward certificates
	unknown *testpki.Leaf // whose certificate is varied
	serials atomic.Uint64
}

func startFlooded(t *testing.T) *flooded {
	f := &flooded{Rig: rig.New(t)}
	f.Grace = "0s"
	f.Change = func(config map[string]any) {
		logs := rig.Member(t, config, "logging", "logs", "default")
		logs["level"], logs["writer"] = "WARN", map[string]any{"output": "discard"}
	}
	f.known = map[string]*testpki.Leaf{"pinned": f.SelfSigned("pinned"), "named": f.Issue("named")}
	f.proxy, f.unknown = f.SelfSigned("proxy"), f.SelfSigned("unknown", testpki.Serial(varied))
	f.Start(strings.Replace(floodRealm, "@PROXY@", testpki.HashOf(f.proxy.Cert.RawSubjectPublicKeyInfo), 1), sites)
	return f
}

// vary returns the unknown certificate with another serial number. Its signature is no
// longer right, which nobody checks who does not know the certificate.
func (f *flooded) vary() []byte {
	der := append([]byte(nil), f.unknown.Cert.Raw...)
	at := strings.Index(string(der), string(varied.Bytes()))
	binary.BigEndian.PutUint64(der[at+8:], f.serials.Add(1))
	return der
}

// floods are the ways to flood a server. Each function makes one request, as the n-th
// of a worker's.
func (f *flooded) floods() map[string]func(t testing.TB, c *rig.Caller, n int) error {
	status := func(got rig.Reply, err error, want int) error {
		if err == nil && got.Status != want {
			err = fmt.Errorf("%d %.200q, want %d", got.Status, got.Body, want)
		}
		return err
	}
	return map[string]func(t testing.TB, c *rig.Caller, n int) error{
		// a proxy forwards a certificate that nobody has seen before
		"unknown certificates": func(_ testing.TB, c *rig.Caller, _ int) error {
			got, err := c.Try(http.MethodGet, "https://api.test/", rig.With("Client-Cert", ":"+base64.StdEncoding.EncodeToString(f.vary())+":"))
			return status(got, err, http.StatusUnauthorized)
		},
		// a stranger opens a connection with such a certificate
		"handshakes of strangers": func(testing.TB, *rig.Caller, int) error {
			c := f.Connect("h1", f.unknown)
			defer c.Close()
			certificate := f.unknown.TLS()
			certificate.Certificate, certificate.Leaf = [][]byte{f.vary()}, nil
			c.Tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &certificate, nil }
			got, err := c.Try(http.MethodGet, "https://api.test/")
			return status(got, err, http.StatusUnauthorized)
		},
		"handshakes of clients": func(testing.TB, *rig.Caller, int) error {
			c := f.Connect("h1", f.known["named"])
			defer c.Close()
			got, err := c.Try(http.MethodGet, "https://api.test/")
			return status(got, err, http.StatusOK)
		},
		"huge forms": func(_ testing.TB, c *rig.Caller, _ int) error {
			got, err := c.Try(http.MethodPost, "https://auth.test/connect/token", rig.WithBody("application/x-www-form-urlencoded", hugeForm))
			if err != nil {
				return nil //nolint:nilerr // the server may close the connection before it has read everything
			}
			return status(got, nil, http.StatusRequestEntityTooLarge)
		},
	}
}

var hugeForm = "grant_type=client_credentials&client_id=named&scope=" + strings.Repeat("a+", 1<<20)

// slow opens connections to the token endpoint, on each of which a form never ends. It
// returns a function that sends one more byte on each.
func (f *flooded) slow(t testing.TB, count int) (dribble func()) {
	config := f.TLSConfig(f.known["pinned"])
	config.ServerName, config.NextProtos = "auth.test", []string{"http/1.1"}
	var open []*tls.Conn
	for range count {
		conn, err := tls.Dial("tcp", "127.0.0.1:"+f.HTTPS, config)
		if err == nil {
			_, err = io.WriteString(conn, "POST /connect/token HTTP/1.1\r\nHost: auth.test\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 60000\r\n\r\ngrant_type=")
		}
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
	}
	t.Cleanup(func() {
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	return func() {
		for _, conn := range open {
			_, _ = io.WriteString(conn, "a")
		}
	}
}

// together has that many connections of a known client make their handshakes at the same
// time, and a request each.
func (f *flooded) together(t testing.TB, count int) {
	var connections sync.WaitGroup
	begin := make(chan struct{})
	for range count {
		c := f.Connect("h1", f.known["named"])
		connections.Go(func() {
			defer c.Close()
			<-begin
			if err := f.ask(c, "named", 0, nil); err != nil {
				t.Errorf("%d handshakes at once: %v", count, err)
			}
		})
	}
	close(begin)
	connections.Wait()
}

// ask makes the n-th request of a known client, which must succeed.
func (f *flooded) ask(c *rig.Caller, id string, n int, token *string) error {
	switch n % 3 {
	case 1:
		got, err := c.Try(http.MethodPost, "https://auth.test/connect/token", rig.Form(id))
		if err != nil || got.Status != http.StatusOK {
			return fmt.Errorf("token: %w %d %.200q", err, got.Status, got.Body)
		}
		issued, err := tokenAnswer(got.Body)
		*token = issued.token.text
		return err
	case 2:
		got, err := c.Try(http.MethodGet, "https://other.test/", rig.Bearer(*token))
		if err != nil || got.Status != http.StatusOK || !strings.HasPrefix(got.Body, id+" ") {
			return fmt.Errorf("bearer: %w %d %.200q", err, got.Status, got.Body)
		}
	default:
		got, err := c.Try(http.MethodGet, "https://api.test/")
		if err != nil || got.Status != http.StatusOK || !strings.HasPrefix(got.Body, id+" ") {
			return fmt.Errorf("guard: %w %d %.200q", err, got.Status, got.Body)
		}
	}
	return nil
}

// TestKnownClientsAreServedInAFlood checks that no request of a known client fails, on
// old and new connections and on many that are opened at once, while strangers with ever
// new certificates, clients that send slowly and huge forms keep the server busy, and that
// the memory it uses is bounded.
func TestKnownClientsAreServedInAFlood(t *testing.T) {
	certificates := 3000
	if text := os.Getenv(Flood); text != "" {
		var err error
		if certificates, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	f := startFlooded(t)
	var workers, knowns sync.WaitGroup
	over := make(chan struct{})
	dribble := f.slow(t, 300)
	before := heap()
	var served atomic.Int64
	for _, protocol := range rig.Protocols {
		for id, leaf := range f.known {
			c := f.Caller(t, protocol, leaf)
			knowns.Go(func() {
				var token string
				for n := 0; ; n++ {
					if err := f.ask(c, id, n, &token); err != nil {
						t.Errorf("%s of %s, request %d: %v", protocol, id, n, err)
						return
					}
					served.Add(1)
					select {
					case <-over:
						return
					default:
					}
				}
			})
		}
	}
	shares := map[string]int{"unknown certificates": certificates, "handshakes of strangers": certificates / 10, "handshakes of clients": certificates / 10, "huge forms": 100}
	for name, flood := range f.floods() {
		var made atomic.Int64
		for range 4 {
			c := f.Caller(t, "h2", f.proxy)
			if name == "huge forms" {
				c = f.Caller(t, "h2", f.known["named"])
			}
			workers.Go(func() {
				for n := int(made.Add(1)); n <= shares[name]; n = int(made.Add(1)) {
					if err := flood(t, c, n); err != nil {
						t.Errorf("%s: request %d: %v", name, n, err)
						return
					}
					if n%100 == 0 && name == "unknown certificates" {
						dribble()
					}
				}
			})
		}
	}
	workers.Go(func() { f.together(t, min(certificates/10, 2000)) })
	workers.Wait()
	close(over)
	knowns.Wait()
	after := heap()
	t.Logf("%d requests of known clients, %d unknown certificates; heap %.1f MB before, %.1f MB after", served.Load(), f.serials.Load(), before/1e6, after/1e6)
	if served.Load() < 100 {
		t.Errorf("known clients made only %d requests", served.Load())
	}
	const most = 64e6
	if after > before+most {
		t.Errorf("the heap has grown from %.1f to %.1f MB", before/1e6, after/1e6)
	}
}

// heap returns how many bytes of the heap are in use.
func heap() float64 {
	runtime.GC()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	return float64(memory.HeapAlloc)
}

package auth_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// rawAPI answers every request at the end of its headers and records each octet
// received. Before answering a CONNECT it waits for octets that must not arrive.
type rawAPI struct {
	address string
	mu      sync.Mutex
	got     bytes.Buffer
}

func newRawAPI(t *testing.T) *rawAPI {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	a := &rawAPI{address: listener.Addr().String()}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go a.serve(conn)
		}
	}()
	return a
}

func (a *rawAPI) serve(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buffer)
		a.mu.Lock()
		a.got.Write(buffer[:n])
		a.mu.Unlock()
		if err != nil {
			return
		}
		if bytes.HasPrefix(buffer[:n], []byte("CONNECT")) {
			_ = conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			more, _ := conn.Read(buffer[n:])
			_ = conn.SetReadDeadline(time.Time{})
			a.mu.Lock()
			a.got.Write(buffer[n : n+more])
			a.mu.Unlock()
		}
		if bytes.Contains(buffer[:n], []byte("\r\n\r\n")) {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	}
}

// take returns the octets received since the last call.
func (a *rawAPI) take() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got.String()
	a.got.Reset()
	return got
}

// TestConnect_D6 checks that the directives refuse CONNECT from every caller and
// that its body reaches no upstream. reverse_proxy would pass the body on as is,
// and it could hold another request with any headers.
func TestConnect_D6(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	api := newRawAPI(t)
	site := func(host, directive string) string {
		return "https://" + host + ":@HTTPS@ {\n\timport mtls\n\t" + directive + "\n\treverse_proxy " + api.address + "\n\thandle_errors {\n\t\treverse_proxy " + api.address + "\n\t}\n}\n"
	}
	r.Start(rig.IssuerRealm(""), rig.IssuerSite+site("api.test", "mtls_auth")+site("public.test", "mtls_auth {\noptional\n}")+
		site("other.test", "mtls_auth {\nreport_only\nallow nobody\n}")+site("alias.test", "mtls_bearer"))
	token := rig.AccessToken(r, t, billing, "billing.partner")
	const smuggled = "POST /smuggled HTTP/1.1\r\nHost: api.test\r\nX-Client-ID: admin\r\nContent-Length: 0\r\n\r\n"

	for host, leaves := range map[string][]*testpki.Leaf{
		"api.test": {billing, nil}, "public.test": {billing, nil}, "other.test": {billing, nil}, "alias.test": {billing, nil},
	} {
		for _, leaf := range leaves {
			ways := map[string]func() string{
				"h1": func() string {
					conn := r.Raw(t, leaf, host)
					conn.Write("CONNECT " + host + ":443 HTTP/1.1\nHost: " + host + "\nAuthorization: Bearer " + token + "\nTransfer-Encoding: chunked\n\n5\nhello\n0\n\n")
					response, err := http.ReadResponse(conn.In, nil)
					if err != nil {
						t.Fatal(err)
					}
					return response.Status[:3]
				},
				"h2": func() string {
					conn := newRawH2(r, t, leaf, host)
					conn.headers(1, false, ":method", "CONNECT", ":authority", host, "authorization", "Bearer "+token)
					_ = conn.framer.WriteData(1, false, []byte(smuggled))
					return conn.answer(1)
				},
			}
			for _, protocol := range []string{"h2c", "WebSocket", "connect-udp"} {
				ways["h3 "+protocol] = func() string {
					body := io.NopCloser(strings.NewReader(smuggled))
					got, err := r.Caller(t, "h3", leaf).Try(http.MethodConnect, "https://"+host+"/", rig.Bearer(token), func(r *http.Request) { r.Proto, r.Body = protocol, body })
					if err != nil {
						return err.Error()
					}
					return http.StatusText(got.Status)
				}
			}
			for name, way := range ways {
				status := way()
				if status != "200" && status != "OK" {
					t.Errorf("the response to %s to %s is %q", name, host, status)
				}
				if got := api.take(); strings.Contains(got, "smuggled") || strings.Contains(got, "admin") || strings.Contains(got, "hello") {
					t.Errorf("%s to %s, response %q: the API received\n%s", name, host, status, got)
				}
			}
		}
	}
	r.Logs.Wait(t, "the refusal", func(entry rig.LogEntry) bool {
		return entry.Str("msg") == "tunnel refused" && entry.Str("remote_ip") == "127.0.0.1" && entry.Str("error_id") != ""
	})
}

// TestLogLineOfATunnel_S3 checks that the log line is short, whatever the caller asks for.
func TestLogLineOfATunnel_S3(t *testing.T) {
	r := rig.New(t)
	r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite)
	host := "api.test:" + strings.Repeat("0", 7_000)
	r.Raw(t, nil, "api.test").Send("CONNECT "+host+" HTTP/1.1\nHost: "+host+"\n\n").WantStatus(t, http.StatusMethodNotAllowed)
	line := r.Logs.Wait(t, "the refusal", func(entry rig.LogEntry) bool { return entry.Str("msg") == "tunnel refused" })
	if logged := line.Str("host"); len(logged) > 200 || !strings.HasPrefix(logged, "api.test:000") {
		t.Errorf("the host in the log has %d octets: %.40q", len(logged), logged)
	}
}

func TestUpgrades_D6(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite+`
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	reverse_proxy @UP@
}
`)
	for _, tc := range []struct {
		host, connection, want string
		leaf                   *testpki.Leaf
	}{
		{"api.test", "Upgrade", `hello ["billing.partner"]`, billing},
		{"api.test", "keep-alive, Upgrade", `hello ["billing.partner"]`, billing},
		{"api.test", "X-Client-ID, upgrade, x_client_id", `hello ["billing.partner"]`, billing},
		{"public.test", "Upgrade, X-Client-ID", `hello []`, nil},
	} {
		conn := r.Raw(t, tc.leaf, tc.host)
		conn.Write("GET /upgrade HTTP/1.1\nHost: " + tc.host + "\nX-Client-ID: sensor-7\nConnection: " + tc.connection +
			"\nUpgrade: websocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\n\n")
		response, err := http.ReadResponse(conn.In, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.StatusCode != http.StatusSwitchingProtocols {
			t.Errorf("%s: %s, want an upgrade", tc.connection, response.Status)
			continue
		}
		if line := readLine(t, conn.In); line != tc.want {
			t.Errorf("%s: the API says %q, want %q", tc.connection, line, tc.want)
		}
		conn.Write("ping\n")
		if line := readLine(t, conn.In); line != "echo ping" {
			t.Errorf("the upgraded connection says %q", line)
		}
		_ = conn.Conn.Close()
	}
	// a protocol that carries further requests is not tunnelled, because the
	// caller could send the API any header in it
	for _, upgrade := range []string{"Upgrade: h2c", "Upgrade: H2C", "Upgrade: h2c, websocket", "Upgrade: websocket, h2c", "Upgrade: websocket\nUpgrade: h2c", "Upgrade: TLS/1.0", "Upgrade: HTTP/2.0", "Upgrade:"} {
		for host, leaf := range map[string]*testpki.Leaf{"api.test": billing, "public.test": nil} {
			got := r.Raw(t, leaf, host).Send("GET / HTTP/1.1\nHost: " + host + "\nConnection: Upgrade, HTTP2-Settings\nHTTP2-Settings: AAMAAABkAAQAAP__\n" + upgrade + "\n\n")
			got.WantStatus(t, http.StatusOK)
			if header := got.Seen.Header; header.Get("Upgrade") != "" || header.Get("Http2-Settings") != "" {
				t.Errorf("%s: the API is asked to upgrade: %v", upgrade, header)
			}
		}
	}
	got := r.Raw(t, nil, "api.test").Send("GET /upgrade HTTP/1.1\nHost: api.test\nConnection: Upgrade\nUpgrade: websocket\n\n")
	got.WantRefused(t, "default", http.StatusUnauthorized, "certificate_missing")
	got = r.Raw(t, nil, "api.test").Send("CONNECT api.test:443 HTTP/1.1\nHost: api.test\nX-Client-ID: billing.partner\n\n")
	if got.Status < 400 || got.Seen != nil {
		t.Errorf("CONNECT is answered %d %q", got.Status, got.Body)
	}
}

func readLine(t *testing.T, in *bufio.Reader) string {
	t.Helper()
	line, err := in.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

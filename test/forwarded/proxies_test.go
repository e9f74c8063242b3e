package forwarded_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
	"github.com/caddymtls/caddy-mtls-auth/internal/testtool"
)

// The tests here run real proxies in front of Caddy, where they are installed.

// frontProxy describes a proxy that terminates TLS on two ports. It forwards one to
// Caddy over plain HTTP and the other over TLS with its own certificate.
type frontProxy struct {
	program   string
	command   func(program, config string) *exec.Cmd
	forwarder rig.Forwarder
	config    string // @PLAIN@ and @OVER_TLS@ are the ports
}

var frontProxies = []frontProxy{
	{
		program: "nginx",
		command: func(program, config string) *exec.Cmd {
			return exec.Command(program, "-e", "stderr", "-c", config)
		},
		forwarder: rig.ByNginx,
		config: `
daemon off;
master_process off;
pid @DIR@/nginx.pid;
error_log stderr warn;
events {
	worker_connections 64;
}
http {
	access_log off;
	client_body_temp_path @DIR@/nginx-body;
	proxy_temp_path @DIR@/nginx-proxy;
	fastcgi_temp_path @DIR@/nginx-fastcgi;
	uwsgi_temp_path @DIR@/nginx-uwsgi;
	scgi_temp_path @DIR@/nginx-scgi;
	ssl_certificate @DIR@/server.pem;
	ssl_certificate_key @DIR@/server.key;
	ssl_verify_client optional_no_ca;
	ssl_verify_depth 10;
	proxy_http_version 1.1;
	proxy_set_header Host $host;
	proxy_set_header X-Forwarded-For $remote_addr;
	proxy_set_header X-SSL-Client-Cert $ssl_client_escaped_cert;
	server {
		listen 127.0.0.1:@PLAIN@ ssl;
		location / {
			proxy_pass http://127.0.0.1:@HTTP@;
		}
	}
	server {
		listen 127.0.0.1:@OVER_TLS@ ssl;
		location / {
			proxy_pass https://127.0.0.1:@HTTPS@;
			proxy_ssl_server_name on;
			proxy_ssl_name $host;
			proxy_ssl_certificate @DIR@/proxy.pem;
			proxy_ssl_certificate_key @DIR@/proxy.key;
			proxy_ssl_session_reuse off;
		}
	}
}
`,
	},
	{
		program:   "haproxy",
		command:   func(program, config string) *exec.Cmd { return exec.Command(program, "-db", "-f", config) },
		forwarder: rig.ByHAProxy,
		config: `
global
	maxconn 64
defaults
	mode http
	timeout connect 5s
	timeout client 10s
	timeout server 10s
frontend plain
	bind 127.0.0.1:@PLAIN@ ssl crt @DIR@/both.pem ca-file @DIR@/clients-ca.pem verify optional crt-ignore-err all ca-ignore-err all
	http-request deny if METH_CONNECT
	http-request set-header X-SSL-Client-Cert %[ssl_c_der,base64]
	default_backend plain
backend plain
	server caddy 127.0.0.1:@HTTP@
frontend over_tls
	bind 127.0.0.1:@OVER_TLS@ ssl crt @DIR@/both.pem ca-file @DIR@/clients-ca.pem verify optional crt-ignore-err all ca-ignore-err all
	http-request deny if METH_CONNECT
	http-request set-header X-SSL-Client-Cert %[ssl_c_der,base64]
	default_backend over_tls
backend over_tls
	server caddy 127.0.0.1:@HTTPS@ ssl verify none sni req.hdr(host) crt @DIR@/proxy-both.pem
`,
	},
}

// run starts the proxy in front of Caddy and returns its two ports.
func (p frontProxy) run(t *testing.T, f *rig.ForwardingRig) (plain, overTLS string) {
	t.Helper()
	program := testtool.Path(t, p.program)
	// another process may take a free port before the proxy does
	for attempt := range 3 {
		plain, overTLS = rig.FreePort(t), rig.FreePort(t)
		config := strings.NewReplacer("@PLAIN@", plain, "@OVER_TLS@", overTLS).Replace(f.Fill(p.config))
		var output bytes.Buffer
		command := p.command(program, f.Write(p.program+".conf", []byte(config)))
		command.Stdout, command.Stderr = &output, &output
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = command.Wait()
			close(ended)
		}()
		if listens(plain, ended) && listens(overTLS, ended) {
			t.Cleanup(func() {
				_ = command.Process.Kill()
				<-ended
				if t.Failed() {
					t.Logf("output of %s: %s", p.program, &output)
				}
			})
			return plain, overTLS
		}
		_ = command.Process.Kill()
		<-ended
		if attempt == 2 || !strings.Contains(strings.ToLower(output.String()), "address already in use") {
			t.Fatalf("starting %s failed: %s", p.program, &output)
		}
	}
	return "", ""
}

// listens waits until the port accepts connections or the process has ended.
func listens(port string, ended <-chan struct{}) bool {
	for deadline := time.Now().Add(rig.Patience); time.Now().Before(deadline); {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+port, time.Second)
		if err == nil {
			_ = conn.Close()
			return true
		}
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
	}
	return false
}

func TestRealProxies_A9(t *testing.T) {
	for _, p := range frontProxies {
		t.Run(p.program, func(t *testing.T) {
			f := rig.NewForwardingRig(t)
			server := f.Leaves[0]
			f.Write("both.pem", append(server.PEM(), server.KeyPEM()...))
			f.Write("proxy-both.pem", append(f.Proxy.PEM(), f.Proxy.KeyPEM()...))
			// Caddy recognizes the proxy by its address over plain HTTP and by its key
			// over TLS
			run(f, rig.ForwardingRealm("address", p.forwarder.Format, "from 127.0.0.1")+
				rig.ForwardingRealm("key", p.forwarder.Format, "peer_key "+rig.KeyHash(f.Proxy)), "address", "key")
			plain, overTLS := p.run(t, f)
			t.Run("plain HTTP", func(t *testing.T) { checkThroughProxy(f, t, p.forwarder, "address", plain) })
			t.Run("TLS", func(t *testing.T) { checkThroughProxy(f, t, p.forwarder, "key", overTLS) })
			t.Run("a proxy that is not trusted", func(t *testing.T) {
				c := f.Caller(t, "h1", f.Billing)
				c.Address = "127.0.0.1:" + plain
				rig.WantRefusal(f.Rig, t, c.Get("https://api.test/key/guarded"), "key", "certificate_missing")
				rig.WantNoToken(f.Rig, t, rig.AskToken(c, "https://auth.test/key", "billing.partner"), "certificate_missing")
			})
		})
	}
}

func checkThroughProxy(f *rig.ForwardingRig, t *testing.T, by rig.Forwarder, realm, port string) {
	through := func(leaf *testpki.Leaf) *rig.Caller {
		c := f.Caller(t, "h1", leaf)
		c.Address = "127.0.0.1:" + port
		return c
	}
	guarded, optional, auth := "https://api.test/"+realm+"/guarded", "https://api.test/"+realm+"/optional", "https://auth.test/"+realm
	billing, sensor, stranger, nobody := through(f.Billing), through(f.Sensor), through(f.Stranger), through(nil)

	billing.Get(guarded).WantStatus(t, http.StatusOK).WantClient(t, "billing.partner").WantGone(t)
	sensor.Get(guarded).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
	rig.WantRefusal(f.Rig, t, stranger.Get(guarded), realm, "certificate_unknown")
	rig.WantRefusal(f.Rig, t, nobody.Get(guarded), realm, "certificate_missing")
	nobody.Get(optional).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
	rig.WantToken(f.Rig, t, rig.AskToken(billing, auth, "billing.partner"), "billing.partner", f.Billing)
	rig.WantToken(f.Rig, t, rig.AskToken(sensor, auth, "sensor-7"), "sensor-7", f.Sensor)
	rig.WantNoToken(f.Rig, t, rig.AskToken(nobody, auth, "billing.partner"), "certificate_missing")
	rig.WantNoToken(f.Rig, t, rig.AskToken(sensor, auth, "billing.partner"), "client_mismatch")

	// the proxy replaces the header if the client sends it
	for _, spelling := range []string{by.Header, strings.ToLower(by.Header), "X_SSL_Client_Cert", "X-SSL_Client-Cert"} {
		for _, values := range [][]string{{by.Value(f.Billing)}, {by.Value(f.Billing), by.Value(f.Billing)}, {""}, {"garbage"}} {
			forged := rig.With(spelling, values...)
			rig.WantRefusal(f.Rig, t, nobody.Get(guarded, forged), realm, "certificate_missing")
			nobody.Get(optional, forged).WantStatus(t, http.StatusOK).WantClient(t, "").WantGone(t)
			sensor.Get(guarded, forged).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
			rig.WantRefusal(f.Rig, t, stranger.Get(guarded, forged), realm, "certificate_unknown")
			rig.WantNoToken(f.Rig, t, rig.AskToken(nobody, auth, "billing.partner", forged), "certificate_missing")
		}
	}
	// the client cannot make the proxy drop the header
	forged := func(r *http.Request) {
		r.Header["Connection"] = []string{"close, " + by.Header}
		r.Header[by.Header] = []string{by.Value(f.Billing)}
	}
	through(f.Sensor).Get(guarded, forged).WantStatus(t, http.StatusOK).WantClient(t, "sensor-7").WantGone(t)
	rig.WantRefusal(f.Rig, t, through(nil).Get(guarded, forged), realm, "certificate_missing")
}

// TestConnectThroughProxies_A9_D6 checks that the proxies, configured as documented,
// open no tunnel for CONNECT. Inside a tunnel, the caller could write the next request
// with the trusted header.
func TestConnectThroughProxies_A9_D6(t *testing.T) {
	for _, p := range frontProxies {
		t.Run(p.program, func(t *testing.T) {
			f := rig.NewForwardingRig(t)
			server := f.Leaves[0]
			f.Write("both.pem", append(server.PEM(), server.KeyPEM()...))
			f.Write("proxy-both.pem", append(f.Proxy.PEM(), f.Proxy.KeyPEM()...))
			// an unguarded site answers CONNECT like any other request
			f.Start(rig.ForwardingRealm("address", p.forwarder.Format, "from 127.0.0.1")+rig.ForwardingRealm("key", p.forwarder.Format, "peer_key "+rig.KeyHash(f.Proxy)),
				forwardingSites("address", "key")+"https://public.test:@HTTPS@ {\n\timport mtls\n\trespond public\n}\nhttp://public.test:@HTTP@ {\n\timport plain\n\trespond public\n}\n")
			plain, overTLS := p.run(t, f)
			for realm, port := range map[string]string{"address": plain, "key": overTLS} {
				for _, host := range []string{"public.test", "api.test"} {
					for _, leaf := range []*testpki.Leaf{nil, f.Sensor} {
						t.Run(realm+"/"+host, func(t *testing.T) { connectThrough(f, t, p.forwarder, realm, port, host, leaf) })
					}
				}
			}
			c := f.Caller(t, "h1", f.Billing)
			c.Address = "127.0.0.1:" + plain
			c.Get("https://api.test/address/guarded").WantStatus(t, http.StatusOK).WantClient(t, "billing.partner")
		})
	}
}

// connectThrough sends a CONNECT and then, on the same connection, a request
// that names another client.
func connectThrough(f *rig.ForwardingRig, t *testing.T, by rig.Forwarder, realm, port, host string, leaf *testpki.Leaf) {
	config := f.TLSConfig(leaf)
	config.ServerName = host
	conn, err := tls.Dial("tcp", "127.0.0.1:"+port, config)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(rig.Patience))
	in := bufio.NewReader(conn)
	fmt.Fprintf(conn, "CONNECT %s:443 HTTP/1.1\r\nHost: %s:443\r\n\r\n", host, host)
	response, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode < 400 {
		t.Errorf("the response to CONNECT is %s", response.Status)
	} else if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(conn, "GET /%s/guarded HTTP/1.1\r\nHost: api.test\r\n%s: %s\r\nConnection: close\r\n\r\n", realm, by.Header, by.Value(f.Billing))
	answer, err := io.ReadAll(in) // empty if the proxy closed the connection
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the proxy neither responded nor closed the connection: %q", answer)
	}
	if strings.Contains(string(answer), "billing.partner") {
		t.Errorf("the caller was taken for another client: %q", answer)
	}
	f.Upstream.Mu.Lock()
	defer f.Upstream.Mu.Unlock()
	if slices.Contains(f.Upstream.Told, "billing.partner") {
		t.Error("the upstream received another client's name")
	}
}

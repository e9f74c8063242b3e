package auth_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/net/http2"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// webSocketAPI accepts a WebSocket, reports the request's headers in its first
// line, and then echoes lines.
func webSocketAPI(t *testing.T) string {
	return apiBehind(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Header.Get("Upgrade") != "websocket" {
			http.Error(w, r.Method+" is no WebSocket", http.StatusTeapot)
			return
		}
		conn, stream, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		header, _ := json.Marshal(r.Header)
		fmt.Fprintf(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n%s\n", header)
		_ = stream.Flush()
		for {
			line, err := stream.ReadString('\n')
			if err != nil {
				return
			}
			_, _ = stream.WriteString("echo " + line)
			_ = stream.Flush()
		}
	})
}

func webSocketSites(api string) string {
	site := func(host, lines string) string {
		return "https://" + host + ":@HTTPS@ {\n\timport mtls\n\tmtls_auth {\n" + lines + "\n\t}\n\treverse_proxy " + api + "\n}\n"
	}
	return site("api.test", "") + site("public.test", "optional")
}

// forgedSocket lists headers that a caller sends to impersonate another client.
var forgedSocket = map[string]string{
	"x-client-id": "admin", "x_client_id": "admin", "x.client.id": "admin", "client-cert": ":YWRtaW4=:", "x-forwarded-client-cert": "Subject=admin",
	"x-ssl-client-s-dn": "CN=admin", "sec-websocket-version": "13", "x-harmless": "yes",
}

// wantSocket fails the test unless the API's first line reports the client and
// none of the forged headers.
func wantSocket(t *testing.T, line, client string) {
	t.Helper()
	var header http.Header
	if err := json.Unmarshal([]byte(line), &header); err != nil {
		t.Fatalf("the API says %q", line)
	}
	if told := header["X-Client-Id"]; client == "" && len(told) > 0 || client != "" && (len(told) != 1 || told[0] != client) {
		t.Errorf("the API was told client %q, want %q", told, client)
	}
	for name, values := range header {
		if got := strings.Join(values, " "); strings.Contains(got, "admin") || strings.Contains(got, "YWRtaW4") {
			t.Errorf("the API was sent %s: %q", name, values)
		}
	}
	if header.Get("X-Harmless") != "yes" {
		t.Error("the unprotected header is missing")
	}
}

// TestWebSocketOverHTTP3_D6 checks that the API learns the client of an extended
// CONNECT for a WebSocket (RFC 9220) as of any request, and nothing forged.
func TestWebSocketOverHTTP3_D6(t *testing.T) {
	r := rig.New(t)
	billing, stranger := r.Issue("billing"), r.Issue("stranger")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, webSocketSites(webSocketAPI(t)))
	open := func(host string, leaf *testpki.Leaf) (*http.Response, *io.PipeWriter) {
		ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
		t.Cleanup(cancel)
		body, out := io.Pipe()
		t.Cleanup(func() { _ = out.Close() })
		request, err := http.NewRequestWithContext(ctx, http.MethodConnect, "https://"+host+"/socket", body)
		if err != nil {
			t.Fatal(err)
		}
		request.Proto = "websocket"
		for name, value := range forgedSocket {
			request.Header[http.CanonicalHeaderKey(name)] = []string{value}
		}
		response, err := r.Caller(t, "h3", leaf).Rt.RoundTrip(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		return response, out
	}
	for _, test := range []struct {
		host, client string
		leaf         *testpki.Leaf
	}{{"api.test", "billing.partner", billing}, {"public.test", "billing.partner", billing}, {"public.test", "", nil}} {
		response, out := open(test.host, test.leaf)
		if response.StatusCode != http.StatusOK {
			t.Fatalf("%s answers %s", test.host, response.Status)
		}
		in := bufio.NewReader(response.Body)
		wantSocket(t, readLine(t, in), test.client)
		if _, err := io.WriteString(out, "ping\n"); err != nil {
			t.Fatal(err)
		}
		if line := readLine(t, in); line != "echo ping" {
			t.Errorf("the socket says %q", line)
		}
		// read to the end, because Caddy has a data race if it stops with a socket open
		_ = out.Close()
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("the socket ends with %q %v", rest, err)
		}
	}
	for host, leaf := range map[string]*testpki.Leaf{"api.test": nil, "public.test": stranger} {
		response, _ := open(host, leaf)
		got, err := rig.ReadReply(response)
		if err != nil {
			t.Fatal(err)
		}
		word := rig.Refused
		if leaf == nil {
			word = "certificate_missing"
		}
		got.WantRefused(t, "default", http.StatusUnauthorized, word)
	}
}

// extendedConnect makes Go's server offer the extended CONNECT of RFC 8441, which
// is off by default.
const extendedConnect = "http2xconnect=1"

// TestWebSocketOverHTTP2_D6 checks that Caddy, which does not offer extended
// CONNECT over HTTP/2, does not accept it either. Where Go's server is made to
// offer it, the API learns the client as of any request.
func TestWebSocketOverHTTP2_D6(t *testing.T) {
	r := rig.New(t)
	billing := r.Issue("billing")
	r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, webSocketSites(webSocketAPI(t)))
	offered := strings.Contains(os.Getenv("GODEBUG"), extendedConnect)
	for _, test := range []struct {
		host, client, status string
		leaf                 *testpki.Leaf
	}{{"api.test", "billing.partner", "200", billing}, {"public.test", "", "200", nil}, {"api.test", "", "401", nil}} {
		conn := newRawH2(r, t, test.leaf, test.host)
		fields := []string{":method", http.MethodConnect, ":protocol", "websocket", ":scheme", "https", ":authority", test.host, ":path", "/socket"}
		for name, value := range forgedSocket {
			fields = append(fields, name, value)
		}
		settings, err := conn.framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if on, said := settings.(*http2.SettingsFrame).Value(http2.SettingEnableConnectProtocol); (said && on == 1) != offered {
			t.Fatalf("ENABLE_CONNECT_PROTOCOL is %d, sent %t, want it on: %t", on, said, offered)
		}
		if err := conn.framer.WriteSettingsAck(); err != nil {
			t.Fatal(err)
		}
		conn.headers(1, false, fields...)
		status := conn.answer(1)
		if !offered {
			if status != "" && status != "400" {
				t.Errorf("%s answers %q", test.host, status)
			}
			continue
		}
		if status != test.status {
			t.Fatalf("%s answers %q, want %s", test.host, status, test.status)
		}
		if status == "200" {
			in := bufio.NewReader(&h2Body{conn: conn})
			wantSocket(t, readLine(t, in), test.client)
			if err := conn.framer.WriteData(1, false, []byte("ping\n")); err != nil {
				t.Fatal(err)
			}
			if line := readLine(t, in); line != "echo ping" {
				t.Errorf("the socket says %q", line)
			}
			if err := conn.framer.WriteData(1, true, nil); err != nil {
				t.Fatal(err)
			}
			if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
				t.Errorf("the socket ends with %q %v", rest, err)
			}
		}
	}
	if offered {
		return
	}
	// repeat the test in a process that offers it
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v")
	command.Env = append(os.Environ(), "GODEBUG="+extendedConnect)
	output, err := command.CombinedOutput()
	if err != nil || !strings.Contains(string(output), "--- PASS: "+t.Name()) {
		t.Errorf("with extended CONNECT offered: %v\n%s", err, output)
	}
}

// h2Body reads the data of stream 1 of a connection.
type h2Body struct {
	conn  *rawH2
	rest  []byte
	ended bool
}

func (b *h2Body) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.ended {
			return 0, io.EOF
		}
		frame, err := b.conn.framer.ReadFrame()
		if err != nil {
			return 0, err
		}
		if data, ok := frame.(*http2.DataFrame); ok && data.StreamID == 1 {
			b.rest, b.ended = append(b.rest, data.Data()...), data.StreamEnded()
		}
		if trailer, ok := frame.(*http2.MetaHeadersFrame); ok && trailer.StreamID == 1 {
			b.ended = trailer.StreamEnded()
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

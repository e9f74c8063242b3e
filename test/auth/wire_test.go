package auth_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// startWire runs a guarded site and one with optional certificates. No caller of
// these tests has the forged identity.
func startWire(t *testing.T) (r *rig.Rig, sensor *testpki.Leaf) {
	r = rig.New(t)
	r.Issue("billing")
	sensor = r.SelfSigned("sensor")
	r.Start(rig.BillingAndSensor, rig.OneSite+`
https://public.test:@HTTPS@ {
	import mtls
	mtls_auth {
		optional
	}
	reverse_proxy @UP@
}
`)
	return r, sensor
}

// stillServes fails the test if the server no longer serves, or if the API ever
// received the forged identity.
func stillServes(r *rig.Rig, t *testing.T, sensor *testpki.Leaf) {
	t.Helper()
	for _, protocol := range rig.Protocols {
		c := r.Caller(t, protocol, sensor)
		c.Get("https://api.test/").WantStatus(t, http.StatusOK).WantClient(t, "sensor-7")
		c.Close()
	}
	r.Upstream.Mu.Lock()
	defer r.Upstream.Mu.Unlock()
	if slices.ContainsFunc(r.Upstream.Told, func(id string) bool { return id != "sensor-7" }) {
		t.Errorf("the API was told %q", slices.Compact(slices.Sorted(slices.Values(r.Upstream.Told))))
	}
}

func TestWireHTTP1(t *testing.T) {
	r, sensor := startWire(t)
	const forged = "X-Client-ID: billing.partner\r\n"
	for name, request := range map[string]string{
		"space before the colon":      "GET / HTTP/1.1\r\nHost: HOST\r\nX-Client-ID : billing.partner\r\n\r\n",
		"folded line":                 "GET / HTTP/1.1\r\nHost: HOST\r\nX-Other: 1\r\n " + forged + "\r\n",
		"folded into the name":        "GET / HTTP/1.1\r\nHost: HOST\r\nX-Client-ID:\r\n billing.partner\r\n\r\n",
		"bare line feeds":             "GET / HTTP/1.1\nHost: HOST\nX-Client-ID: billing.partner\n\n",
		"bare carriage return":        "GET / HTTP/1.1\r\nHost: HOST\r\nX-Other: 1\rX-Client-ID: billing.partner\r\n\r\n",
		"NUL in a value":              "GET / HTTP/1.1\r\nHost: HOST\r\nX-Client-ID: billing.partner\x00\r\n\r\n",
		"NUL in a name":               "GET / HTTP/1.1\r\nHost: HOST\r\nX-Client-ID\x00: billing.partner\r\n\r\n",
		"no name":                     "GET / HTTP/1.1\r\nHost: HOST\r\n: billing.partner\r\n\r\n",
		"no colon":                    "GET / HTTP/1.1\r\nHost: HOST\r\nX-Client-ID billing.partner\r\n\r\n",
		"before the request line":     forged + "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n",
		"two hosts":                   "GET / HTTP/1.1\r\nHost: HOST\r\nHost: public.test\r\n" + forged + "\r\n",
		"no host":                     "GET / HTTP/1.1\r\n" + forged + "\r\n",
		"HTTP/1.0":                    "GET / HTTP/1.0\r\nHost: HOST\r\n" + forged + "\r\n",
		"HTTP/9.9":                    "GET / HTTP/9.9\r\nHost: HOST\r\n" + forged + "\r\n",
		"HTTP/2 preface":              "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"long request line":           "GET /" + strings.Repeat("x", 1<<20) + " HTTP/1.1\r\nHost: HOST\r\n\r\n",
		"header of 1 MiB":             "GET / HTTP/1.1\r\nHost: HOST\r\nX-Client-ID: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"many headers":                "GET / HTTP/1.1\r\nHost: HOST\r\n" + strings.Repeat(forged, 40000) + "\r\n",
		"many names":                  "GET / HTTP/1.1\r\nHost: HOST\r\n" + manyNames() + "\r\n",
		"length and chunks":           "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: HOST\r\n" + forged + "\r\n",
		"two lengths":                 "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\nGET / HTTP/1.1\r\nHost: HOST\r\n" + forged + "\r\n",
		"chunks, spelt oddly":         "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: HOST\r\n" + forged + "\r\n",
		"broken chunk":                "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
		"broken trailer":              "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Client-ID : billing.partner\r\n\r\n",
		"trailer of 1 MiB":            "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Client-ID: " + strings.Repeat("x", 1<<20) + "\r\n\r\n",
		"pipelined":                   "GET / HTTP/1.1\r\nHost: HOST\r\n" + forged + "\r\nGET /2 HTTP/1.1\r\nHost: HOST\r\n" + forged + "\r\n",
		"Connection names everything": "GET / HTTP/1.1\r\nHost: HOST\r\nConnection: host, connection, x-client-id, " + strings.Repeat("x,", 3000) + "close\r\n" + forged + "\r\n",
		"nothing":                     "",
		"half a request":              "GET / HTTP/1.1\r\nHost: HO",
		"noise":                       "\x16\x03\x01\x00\xff\x00\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			for host, leaf := range map[string]*testpki.Leaf{"api.test": sensor, "public.test": nil} {
				conn := r.Raw(t, leaf, host)
				// the server may answer and close before it has read everything
				go func() {
					_, _ = io.WriteString(conn.Conn, strings.ReplaceAll(request, "HOST", host))
					_ = conn.Conn.(*tls.Conn).CloseWrite()
				}()
				answer, err := io.ReadAll(conn.In)
				var timeout net.Error
				if errors.As(err, &timeout) && timeout.Timeout() {
					t.Errorf("the server keeps the connection open: %.100q", answer)
				}
			}
			stillServes(r, t, sensor)
		})
	}
}

func manyNames() string {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "X-Client-Cert-%d: x\r\n", i)
	}
	return text.String()
}

// rawH2 is an HTTP/2 connection on which a test writes arbitrary frames.
type rawH2 struct {
	t      *testing.T
	conn   net.Conn
	framer *http2.Framer
}

func newRawH2(r *rig.Rig, t *testing.T, leaf *testpki.Leaf, serverName string) *rawH2 {
	t.Helper()
	config := r.TLSConfig(leaf)
	config.ServerName, config.NextProtos = serverName, []string{"h2"}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+r.HTTPS, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(rig.Patience))
	c := &rawH2{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// headers writes a header block in as many frames as needed.
func (c *rawH2) headers(stream uint32, end bool, fields ...string) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = encoder.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1], Sensitive: true}) // not indexed
	}
	const most = 16 << 10
	first := true
	for rest := block.Bytes(); first || len(rest) > 0; {
		fragment := rest[:min(most, len(rest))]
		rest = rest[len(fragment):]
		if first {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: fragment, EndStream: end, EndHeaders: len(rest) == 0})
		} else {
			_ = c.framer.WriteContinuation(stream, len(rest) == 0, fragment)
		}
		first = false
	}
}

// answer reads until the stream is answered and returns the status, or "" if the
// stream or the connection ended without one.
func (c *rawH2) answer(stream uint32) string {
	for {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			return ""
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID == stream {
				return frame.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				return ""
			}
		case *http2.GoAwayFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				return ""
			}
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = c.framer.WriteSettingsAck()
			}
		}
	}
}

func TestWireHTTP2(t *testing.T) {
	r, sensor := startWire(t)
	request := func(host string, more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "https", ":authority", host, ":path", "/"}, more...)
	}
	const id, forged = "x-client-id", "billing.partner"
	for name, fields := range map[string]func(host string) []string{
		"connection header":        func(h string) []string { return request(h, "connection", id) },
		"connection header, upper": func(h string) []string { return request(h, "Connection", id) },
		"transfer-encoding":        func(h string) []string { return request(h, "transfer-encoding", "chunked", id, forged) },
		"upper case name":          func(h string) []string { return request(h, "X-Client-ID", forged) },
		"name with a space":        func(h string) []string { return request(h, "x-client-id ", forged) },
		"name with a line end":     func(h string) []string { return request(h, "x-a: 1\r\nx-client-id", forged) },
		"value with a line end":    func(h string) []string { return request(h, "x-a", "1\r\nX-Client-ID: "+forged) },
		"value with NUL":           func(h string) []string { return request(h, id, forged+"\x00") },
		"empty name":               func(h string) []string { return request(h, "", forged) },
		"pseudo header at the end": func(h string) []string { return request(h, id, forged, ":path", "/other") },
		"authority twice":          func(h string) []string { return request(h, ":authority", "public.test") },
		"authority and host":       func(h string) []string { return request(h, "host", "public.test", id, forged) },
		"no path":                  func(h string) []string { return []string{":method", "GET", ":scheme", "https", ":authority", h} },
		"unknown pseudo header":    func(h string) []string { return request(h, ":client-id", forged) },
		"header of 1 MiB":          func(h string) []string { return request(h, id, strings.Repeat("x", 1<<20)) },
		"many headers":             func(h string) []string { return request(h, slices.Repeat([]string{id, forged}, 20000)...) },
		"cookie crumbs":            func(h string) []string { return request(h, slices.Repeat([]string{"cookie", "a=b"}, 100)...) },
	} {
		t.Run(name, func(t *testing.T) {
			for host, leaf := range map[string]*testpki.Leaf{"api.test": sensor, "public.test": nil} {
				conn := newRawH2(r, t, leaf, host)
				conn.headers(1, true, fields(host)...)
				t.Logf("%s answers %q", host, conn.answer(1))
			}
			stillServes(r, t, sensor)
		})
	}
	t.Run("forged trailers", func(t *testing.T) {
		for host, leaf := range map[string]*testpki.Leaf{"api.test": sensor, "public.test": nil} {
			conn := newRawH2(r, t, leaf, host)
			conn.headers(1, false, ":method", "POST", ":scheme", "https", ":authority", host, ":path", "/", "trailer", "x-client-id, x_client_id")
			_ = conn.framer.WriteData(1, false, []byte("body"))
			conn.headers(1, true, id, forged, "x_client_id", forged, "x.client.id", forged)
			if status := conn.answer(1); status != "200" {
				t.Errorf("%s answers %q", host, status)
			}
		}
		stillServes(r, t, sensor)
	})
	t.Run("frames in disorder", func(t *testing.T) {
		for _, write := range []func(c *rawH2){
			func(c *rawH2) { _ = c.framer.WriteData(1, true, []byte("no headers")) },
			func(c *rawH2) { _ = c.framer.WriteContinuation(1, true, []byte("x")) },
			func(c *rawH2) { _ = c.framer.WriteRawFrame(0xff, 0xff, 1, bytes.Repeat([]byte("x"), 1000)) },
			func(c *rawH2) { _ = c.framer.WriteRawFrame(http2.FrameHeaders, 5, 1, []byte("\xff\xff\xff\xff\xff")) },
			func(c *rawH2) { c.headers(2, true, request("api.test")...) },
			func(c *rawH2) { _, _ = io.WriteString(c.conn, "GET / HTTP/1.1\r\nHost: api.test\r\n\r\n") },
		} {
			conn := newRawH2(r, t, sensor, "api.test")
			write(conn)
			_ = conn.conn.(*tls.Conn).CloseWrite()
			conn.answer(1)
		}
		stillServes(r, t, sensor)
	})
}

func TestWireHTTP3(t *testing.T) {
	r, sensor := startWire(t)
	for name, garbage := range map[string][]byte{
		"noise":          []byte("GET / HTTP/1.1\r\nHost: api.test\r\n\r\n"),
		"empty":          {},
		"data first":     {0x00, 0x04, 'b', 'o', 'd', 'y'},
		"broken headers": {0x01, 0x05, 0xff, 0xff, 0xff, 0xff, 0xff},
		"huge frame":     {0x01, 0xbf, 0xff, 0xff, 0xff, 0x00},
		"settings":       {0x04, 0x00},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), rig.Patience)
			defer cancel()
			config := r.TLSConfig(sensor)
			config.ServerName, config.NextProtos = "api.test", []string{"h3"}
			conn, err := quic.DialAddr(ctx, "127.0.0.1:"+r.HTTPS, config, &quic.Config{HandshakeIdleTimeout: 20 * time.Second})
			if err != nil {
				t.Fatal(err)
			}
			stream, err := conn.OpenStreamSync(ctx)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = stream.Write(garbage)
			_ = stream.Close()
			_ = stream.SetReadDeadline(time.Now().Add(rig.Patience))
			answer, _ := io.ReadAll(stream)
			t.Logf("answers %q", answer)
			_ = conn.CloseWithError(0, "")
			stillServes(r, t, sensor)
		})
	}
	t.Run("header of 1 MiB", func(t *testing.T) {
		got, err := r.Caller(t, "h3", sensor).Try(http.MethodGet, "https://api.test/", rig.With("X-Client-Id", strings.Repeat("x", 1<<20)))
		if err == nil && got.Status < 400 {
			t.Errorf("status %d", got.Status)
		}
		stillServes(r, t, sensor)
	})
	t.Run("datagrams of noise", func(t *testing.T) {
		conn, err := net.Dial("udp", "127.0.0.1:"+r.HTTPS)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for n := range 200 {
			_, _ = conn.Write(bytes.Repeat([]byte{byte(n), 0xff}, 10*n))
		}
		stillServes(r, t, sensor)
	})
}

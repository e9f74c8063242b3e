package ops_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// TestHalfSentOverTCP_S1 checks that a request over HTTP/1.1 or HTTP/2 that was left
// half sent before a reload, on a new connection or on one that was in use, is not
// admitted when it is finished long after.
func TestHalfSentOverTCP_S1(t *testing.T) {
	r, clock := startEnding(t, endingSites)
	billing := r.Issue("billing")
	const begin, rest = "GET / HTTP/1.1\nHost: ap", "i.test\n\n"
	used, fresh := r.Raw(t, billing, "api.test"), r.Raw(t, billing, "api.test")
	used.Send(begin+rest).WantStatus(t, http.StatusOK)
	used.Write(begin)
	fresh.Write(begin)
	usedH2, freshH2 := dialH2(r, t, billing), dialH2(r, t, billing)
	if status := usedH2.begin(1).finish(); status != "200" {
		t.Fatalf("the status is %q", status)
	}
	late := []*h2Parked{usedH2.begin(3), freshH2.begin(1)}

	r.Reload(endingRealm(t)+"\n# changed", endingSites)
	end(r, t, clock)
	for _, c := range []*rig.RawTLS{used, fresh} {
		_, _ = io.WriteString(c.Conn, strings.ReplaceAll(rest, "\n", "\r\n")) // may be closed
		if response, err := http.ReadResponse(c.In, nil); err == nil && response.StatusCode < 400 {
			t.Errorf("HTTP/1.1: the status is %d", response.StatusCode)
		}
	}
	for _, p := range late {
		if status := p.finish(); status != "" && status != "503" {
			t.Errorf("HTTP/2: the status is %q", status)
		}
	}
}

// TestLateBody_S1 checks that the client of a token request is not authenticated
// when the body comes after the end of the configuration.
func TestLateBody_S1(t *testing.T) {
	r, clock := startEnding(t, endingSites)
	body := "grant_type=client_credentials&client_id=billing.partner"
	c := r.Raw(t, r.Issue("billing"), "auth.test")
	c.Write(fmt.Sprintf("POST /connect/token HTTP/1.1\nHost: auth.test\nContent-Type: application/x-www-form-urlencoded\nExpect: 100-continue\nContent-Length: %d\n\n", len(body)))
	if line, err := c.In.ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") { // the body is being read
		t.Fatalf("%q, %v", line, err)
	}
	_, _ = c.In.ReadString('\n')
	r.Reload(endingRealm(t)+"\n# changed", endingSites)
	end(r, t, clock)
	wantEnded(t, "the token endpoint", c.Send(body))
}

// h2Conn is an HTTP/2 connection on which a test leaves requests half sent.
type h2Conn struct {
	t    *testing.T
	conn *tls.Conn
	*http2.Framer
	fields *hpack.Decoder
	status string // of the last response
}

func dialH2(r *rig.Rig, t *testing.T, leaf *testpki.Leaf) *h2Conn {
	t.Helper()
	config := r.TLSConfig(leaf)
	config.ServerName, config.NextProtos = "api.test", []string{"h2"}
	conn, err := tls.Dial("tcp", "127.0.0.1:"+r.HTTPS, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(rig.Patience))
	c := &h2Conn{t: t, conn: conn, Framer: http2.NewFramer(conn, conn)}
	c.fields = hpack.NewDecoder(4096, func(field hpack.HeaderField) {
		if field.Name == ":status" {
			c.status = field.Value
		}
	})
	_, err = io.WriteString(conn, http2.ClientPreface)
	if err == nil {
		err = c.WriteSettings()
	}
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// h2Parked is a request that waits for the rest of its header.
type h2Parked struct {
	*h2Conn
	stream uint32
	rest   []byte
}

// begin sends the first octets of a header block.
func (c *h2Conn) begin(stream uint32) *h2Parked {
	c.t.Helper()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "api.test"}, {":path", "/"}} {
		// indexing would make the block depend on the order of requests
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1], Sensitive: true})
	}
	err := c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes()[:3], EndStream: true})
	if err != nil {
		c.t.Fatal(err)
	}
	return &h2Parked{c, stream, block.Bytes()[3:]}
}

// finish sends the rest and returns the status, or "" if there is no response.
func (p *h2Parked) finish() string {
	if err := p.WriteContinuation(p.stream, true, p.rest); err != nil {
		return ""
	}
	for {
		frame, err := p.ReadFrame()
		if err != nil {
			return ""
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			if _, err := p.fields.Write(frame.HeaderBlockFragment()); err != nil {
				p.t.Error(err)
			}
			return p.status
		case *http2.RSTStreamFrame:
			return ""
		}
	}
}

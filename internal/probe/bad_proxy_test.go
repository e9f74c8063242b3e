package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/caddymtls/caddy-mtls-auth/internal/freeport"
)

// patience bounds how long a test waits for what takes moments.
const patience = time.Minute

// badProxy is a gateway that does everything wrong. It adds its headers to what the
// caller sends and passes on the rest as it is. It refuses callers without a
// certificate only if the request is spelled exactly as it expects.
type badProxy struct {
	upstream, host, path string
	// first is the name that it has sent first, which it then sends for everybody.
	first atomic.Pointer[string]
}

// identity returns the lines that say who the caller is, and whether to refuse them.
func (p *badProxy) identity(state *tls.ConnectionState, target, host string, connection []string) (line string, refused bool) {
	if len(state.PeerCertificates) == 0 {
		expected := target == p.path && host == p.host && (state.ServerName == "api.test" || host != p.host)
		return "", expected
	}
	name := state.PeerCertificates[0].Subject.CommonName
	if !p.first.CompareAndSwap(nil, &name) {
		name = *p.first.Load()
	}
	named := strings.ToLower(strings.Join(connection, ","))
	for header, value := range map[string]string{"X-Client-ID": name, "Authorization": "Bearer for-" + name} {
		if !strings.Contains(named, strings.ToLower(header)) {
			line += header + ": " + value + "\r\n"
		}
	}
	return line, false
}

// start serves HTTP/1, 2 and 3 on a port, and returns its address.
func (p *badProxy) start(t *testing.T, config *tls.Config) string {
	t.Helper()
	port, release, err := freeport.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:" + port
	listener, err := tls.Listen("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	p.host = "api.test:" + port
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				secured := conn.(*tls.Conn)
				if secured.Handshake() != nil {
					return
				}
				if state := secured.ConnectionState(); state.NegotiatedProtocol == "h2" {
					p.serveH2(secured, &state)
				} else {
					p.serveH1(secured, &state)
				}
			}()
		}
	}()
	udp, err := net.ListenPacket("udp", address)
	if err != nil {
		t.Fatal(err)
	}
	quic := &http3.Server{TLSConfig: http3.ConfigureTLSConfig(config), Handler: http.HandlerFunc(p.serveH3)}
	go func() { _ = quic.Serve(udp) }()
	t.Cleanup(func() { _, _, _ = listener.Close(), quic.Close(), udp.Close(); release() })
	return address
}

// serveH1 passes on the first request with its own line, and then every byte.
func (p *badProxy) serveH1(conn net.Conn, state *tls.ConnectionState) {
	in := bufio.NewReader(conn)
	budget := maxHead
	first, err := readLine(in, &budget)
	if err != nil {
		return
	}
	head, err := readLines(in, &budget)
	if err != nil {
		return
	}
	host := ""
	if list := values(head, "Host"); len(list) == 1 {
		host = list[0]
	}
	own, refused := p.identity(state, strings.Fields(first)[1], host, values(head, "Connection"))
	if own == "" && len(values(head, "Proxy-Connection")) == 0 && refused {
		fmt.Fprint(conn, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	if len(values(head, "Proxy-Connection")) > 0 {
		own = ""
	}
	upstream, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return
	}
	defer upstream.Close()
	fmt.Fprintf(upstream, "%s\r\n%s%s\r\n\r\n", first, own, strings.Join(head, "\r\n"))
	go func() { _, _ = io.Copy(upstream, in); _ = upstream.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(conn, upstream)
}

// serveH2 translates one request into HTTP/1 without a look at it.
func (p *badProxy) serveH2(conn net.Conn, state *tls.ConnectionState) {
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	var method, target, host, head string
	var connection []string
	var body, trailers []byte
	headers := 0
	decoder := hpack.NewDecoder(4096, func(f hpack.HeaderField) {
		switch line := f.Name + ": " + f.Value + "\r\n"; {
		case headers > 1:
			trailers = append(trailers, line...)
		case f.Name == ":method":
			method = f.Value
		case f.Name == ":path":
			target = f.Value
		case f.Name == ":authority":
			host = f.Value
		case !strings.HasPrefix(f.Name, ":"):
			if f.Name == "connection" {
				connection = append(connection, f.Value)
			}
			if f.Name == "host" {
				host = f.Value
			}
			head += line
		}
	})
	for ended := false; !ended; {
		frame, err := framer.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.HeadersFrame:
			headers++
			_, _ = decoder.Write(frame.HeaderBlockFragment())
			ended = frame.StreamEnded() && frame.HeadersEnded()
		case *http2.ContinuationFrame:
			_, _ = decoder.Write(frame.HeaderBlockFragment())
			ended = frame.HeadersEnded() && body == nil
		case *http2.DataFrame:
			body = append(body, frame.Data()...)
			ended = frame.StreamEnded()
		}
	}
	own, refused := p.identity(state, target, host, connection)
	if refused {
		writeAnswerH2(framer, http.StatusUnauthorized, nil)
		return
	}
	if method == "CONNECT" {
		target = host
	}
	message := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s%s", method, target, host, own, head)
	switch {
	case trailers != nil:
		message += fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n%s\r\n", len(body), body, trailers)
	default:
		message += "\r\n" + string(body)
	}
	status, answer := p.ask(message, body != nil)
	writeAnswerH2(framer, status, answer)
}

// ask sends text to the upstream. The last answer counts.
func (p *badProxy) ask(message string, several bool) (status int, body []byte) {
	upstream, err := net.Dial("tcp", p.upstream)
	if err != nil {
		return http.StatusBadGateway, nil
	}
	defer upstream.Close()
	_, _ = io.WriteString(upstream, message)
	_ = upstream.(*net.TCPConn).CloseWrite() // so that the upstream ends after its last answer
	in := bufio.NewReader(upstream)
	for status = http.StatusBadGateway; ; {
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			return status, body
		}
		status = response.StatusCode
		if body, err = io.ReadAll(response.Body); err != nil || !several {
			return status, body
		}
	}
}

func writeAnswerH2(framer *http2.Framer, status int, body []byte) {
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true})
	for len(body) > 16<<10 {
		_ = framer.WriteData(1, false, body[:16<<10])
		body = body[16<<10:]
	}
	_ = framer.WriteData(1, true, body)
}

// serveH3 does the same over HTTP/3.
func (p *badProxy) serveH3(w http.ResponseWriter, r *http.Request) {
	own, refused := p.identity(r.TLS, r.RequestURI, r.Host, nil)
	if refused {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	message := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: %s\r\n%s", r.Method, r.RequestURI, r.Host, own)
	for name, list := range r.Header {
		for _, value := range list {
			message += name + ": " + value + "\r\n"
		}
	}
	status, answer := p.ask(message+"\r\n", false)
	w.WriteHeader(status)
	_, _ = w.Write(answer)
}

// startEcho runs the echo API and returns its address.
func startEcho(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	go func() { _ = new(Echo).Serve(ctx, listener) }()
	return listener.Addr().String()
}

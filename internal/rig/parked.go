package rig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"

	"github.com/caddymtls/caddy-mtls-auth/internal/testpki"
)

// The types of HTTP/3 frames (RFC 9114 §7.2), and the start of a control stream
// with empty SETTINGS.
const (
	frameData    = 0x00
	frameHeaders = 0x01
)

var controlStream = []byte{0x00, 0x04, 0x00}

// parkedOctets is how much of a parked request is sent: a part of the HEADERS frame.
const parkedOctets = 3

// Parking is an HTTP/3 connection on which a test leaves requests half sent, as no
// HTTP client would. The connection stays open for as long as the server allows.
type Parking struct {
	t          *testing.T
	conn       *quic.Conn
	serverName string
}

// Parking opens a connection to park requests on.
func (r *Rig) Parking(t *testing.T, leaf *testpki.Leaf, serverName string) *Parking {
	t.Helper()
	config := r.TLSConfig(leaf)
	config.ServerName, config.NextProtos = serverName, []string{"h3"}
	conn, err := quic.DialAddr(t.Context(), "127.0.0.1:"+r.HTTPS, config, &quic.Config{HandshakeIdleTimeout: 20 * time.Second, KeepAlivePeriod: time.Second, MaxIdleTimeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.CloseWithError(0, "") })
	control, err := conn.OpenUniStream()
	if err == nil {
		_, err = control.Write(controlStream)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Parking{t, conn, serverName}
}

// Parked is a request that waits for the rest of its header.
type Parked struct {
	t      *testing.T
	stream *quic.Stream
	rest   []byte
}

// Park begins a request. The server has accepted it once it has answered a request
// that was sent later on the same connection, so Park sends one to /parking.
func (p *Parking) Park(method, path string, options ...func(*http.Request)) *Parked {
	p.t.Helper()
	parked := p.begin(method, path, options...)
	if got := p.begin(http.MethodGet, "/parking").Finish(); got.Status == 0 {
		p.t.Fatal("the server does not answer")
	}
	return parked
}

func (p *Parking) begin(method, path string, options ...func(*http.Request)) *Parked {
	p.t.Helper()
	request, err := http.NewRequest(method, "https://"+p.serverName+path, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, option := range options {
		option(request)
	}
	var block bytes.Buffer
	encoder := qpack.NewEncoder(&block)
	write := func(name, value string) { _ = encoder.WriteField(qpack.HeaderField{Name: name, Value: value}) }
	write(":method", method)
	write(":scheme", "https")
	write(":authority", p.serverName)
	write(":path", path)
	for name, values := range request.Header {
		for _, value := range values {
			write(strings.ToLower(name), value)
		}
	}
	text := appendFrame(nil, frameHeaders, block.Bytes())
	if request.Body != nil {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			p.t.Fatal(err)
		}
		text = appendFrame(text, frameData, body)
	}
	stream, err := p.conn.OpenStreamSync(p.t.Context())
	if err == nil {
		_, err = stream.Write(text[:parkedOctets])
	}
	if err != nil {
		p.t.Fatal(err)
	}
	return &Parked{p.t, stream, text[parkedOctets:]}
}

func appendFrame(text []byte, frame uint64, payload []byte) []byte {
	text = quicvarint.Append(quicvarint.Append(text, frame), uint64(len(payload)))
	return append(text, payload...)
}

// Finish sends the rest of the request and returns the response. The status is 0 if
// there is none.
func (p *Parked) Finish() Reply {
	p.t.Helper()
	if _, err := p.stream.Write(p.rest); err != nil {
		p.t.Logf("finishing the request: %v", err)
		return Reply{}
	}
	_ = p.stream.Close()
	_ = p.stream.SetReadDeadline(time.Now().Add(Patience))
	text, err := io.ReadAll(p.stream)
	response, parseErr := parseH3(text)
	if parseErr != nil {
		p.t.Logf("reading the response: %v, %v", err, parseErr)
		return Reply{}
	}
	defer func() { _ = response.Body.Close() }()
	got, err := ReadReply(response)
	if err != nil {
		p.t.Fatal(err)
	}
	return got
}

// parseH3 parses the frames of a response.
func parseH3(text []byte) (*http.Response, error) {
	response := &http.Response{Header: make(http.Header), ProtoMajor: 3}
	var body bytes.Buffer
	for in := bytes.NewReader(text); in.Len() > 0; {
		frame, err := quicvarint.Read(in)
		if err != nil {
			return nil, err
		}
		length, err := quicvarint.Read(in)
		if err != nil {
			return nil, err
		}
		payload := make([]byte, min(length, uint64(len(text))))
		if _, err := io.ReadFull(in, payload); err != nil {
			return nil, err
		}
		switch frame {
		case frameData:
			body.Write(payload)
		case frameHeaders:
			if err := readFields(response, payload); err != nil {
				return nil, err
			}
		}
	}
	if response.StatusCode == 0 {
		return nil, io.ErrUnexpectedEOF
	}
	response.Body = io.NopCloser(&body)
	return response, nil
}

func readFields(response *http.Response, block []byte) error {
	decode := qpack.NewDecoder().Decode(block)
	for {
		field, err := decode()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case field.Name == ":status":
			if _, err := fmt.Sscan(field.Value, &response.StatusCode); err != nil {
				return err
			}
		default:
			response.Header.Add(field.Name, field.Value)
		}
	}
}

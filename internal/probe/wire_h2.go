package probe

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// maxH2Frame is how much of a header fits into one frame that every server takes.
	maxH2Frame = 16 << 10
	// maxH2Frames bounds the frames that are read.
	maxH2Frames = 4096
)

var errNoH2 = fmt.Errorf("%w: the gateway does not speak HTTP/2", errUnreachable)

// sendH2 sends a message over HTTP/2, frame by frame, because clients of Go refuse to
// send most of it.
func (g *Gateway) sendH2(ctx context.Context, caller string, m Message) result {
	if g.scheme == "http" {
		return result{err: errNoH2}
	}
	conn, err := g.dial(ctx, caller, m.SNI, "h2")
	if err != nil {
		return result{err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if conn.(*tls.Conn).ConnectionState().NegotiatedProtocol != "h2" {
		return result{err: errNoH2}
	}
	go writeH2(conn, &m) // a gateway may answer before it has read everything
	answer, err := readH2(conn)
	if err != nil {
		return result{err: err}
	}
	return result{answers: []Answer{answer}}
}

// writeH2 writes the frames of a message. What goes wrong shows in the answer.
func writeH2(conn net.Conn, m *Message) {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	out.WriteString(http2.ClientPreface)
	_ = framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxAnswer + 1}, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	_ = framer.WriteWindowUpdate(0, maxAnswer)
	fields := [][2]string{{":method", m.Method}, {":authority", m.Host}}
	if m.Method != http.MethodConnect {
		fields = append(fields, [2]string{":scheme", "https"}, [2]string{":path", m.Target})
	}
	hasBody := m.Body != "" || m.Trailers != nil
	writeH2Header(framer, append(fields, fieldsOf(m.Lines)...), !hasBody)
	if hasBody {
		_ = framer.WriteData(1, m.Trailers == nil, []byte(m.Body))
	}
	if m.Trailers != nil {
		writeH2Header(framer, fieldsOf(m.Trailers), true)
	}
	_, _ = conn.Write(out.Bytes())
}

// fieldsOf returns header lines as HTTP/2 has them.
func fieldsOf(lines []string) (fields [][2]string) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		fields = append(fields, [2]string{strings.ToLower(name), strings.TrimLeft(value, " ")})
	}
	return fields
}

func writeH2Header(framer *http2.Framer, fields [][2]string, last bool) {
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for _, field := range fields {
		_ = encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]})
	}
	rest := block.Bytes()
	first := rest[:min(len(rest), maxH2Frame)]
	rest = rest[len(first):]
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: first, EndStream: last, EndHeaders: len(rest) == 0})
	for len(rest) > 0 {
		part := rest[:min(len(rest), maxH2Frame)]
		rest = rest[len(part):]
		_ = framer.WriteContinuation(1, len(rest) == 0, part)
	}
}

// readH2 reads the answer on the only stream.
func readH2(conn net.Conn) (Answer, error) {
	framer := http2.NewFramer(io.Discard, io.LimitReader(conn, maxAnswerHead+4*maxAnswer))
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	framer.MaxHeaderListSize = maxAnswerHead
	status, body := 0, []byte(nil)
	for range maxH2Frames {
		frame, err := framer.ReadFrame()
		if err != nil {
			return Answer{}, err
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if code, err := strconv.Atoi(frame.PseudoValue("status")); err == nil && code >= 200 {
				status = code
			}
			ended = frame.StreamEnded()
		case *http2.DataFrame:
			body = append(body, frame.Data()...)
			ended = frame.StreamEnded()
		case *http2.RSTStreamFrame:
			if status != 0 && frame.ErrCode == http2.ErrCodeNo {
				return answerOf(status, body), nil
			}
			return Answer{}, fmt.Errorf("the gateway reset the stream: %s", frame.ErrCode)
		case *http2.GoAwayFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				return Answer{}, fmt.Errorf("the gateway ended the connection: %s", frame.ErrCode)
			}
		}
		if len(body) > maxAnswer {
			return Answer{}, errors.New("the answer is too large")
		}
		if ended && status != 0 {
			return answerOf(status, body), nil
		}
	}
	return Answer{}, errors.New("the answer has too many frames")
}

// Package probe finds out which spoofed requests a gateway lets through. Its echo API,
// which the gateway fronts, answers with the request as it arrived, and its requests are
// the ones with which gateways of this kind have been bypassed.
package probe

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// echoName is what answers of the echo API say that they are.
	echoName = "caddy-mtls-probe-echo"
	// maxHead bounds the lines before the body of a request, and its trailers, in bytes.
	maxHead = 256 << 10
	// maxBody bounds a body, in bytes. Nothing of it is kept.
	maxBody = 4 << 20
	// maxChunkLine bounds the line before a chunk, in bytes.
	maxChunkLine = 4 << 10
	// maxConnections bounds the connections that the echo API has at a time.
	maxConnections = 256
	echoTimeout    = 30 * time.Second
	drainTimeout   = time.Second
)

// Seen is a request as it arrived at the echo API.
type Seen struct {
	Echo     string   `json:"echo"`
	Method   string   `json:"method"`
	Target   string   `json:"target"`
	Protocol string   `json:"protocol"`
	Lines    []string `json:"lines"`    // of the header, in their order and case
	Trailers []string `json:"trailers"` // the same after a chunked body
	// BodyBytes is the length of the body, which is not kept.
	BodyBytes int64 `json:"body_bytes"`
	// Connection numbers the connection on which the request arrived, and Request the
	// request on it, from 1.
	Connection int64 `json:"connection"`
	Request    int   `json:"request"`
}

// Echo is an HTTP/1.1 server that answers each request with what arrived. It is as
// simple as an API that trusts its gateway: it checks nothing, and answers CONNECT and
// Upgrade as it does GET. It reads requests itself, because net/http neither keeps the
// order and case of header lines nor passes on what it finds odd.
type Echo struct {
	connections atomic.Int64
	open        atomic.Int64
}

// Serve answers the requests of a listener until ctx is done.
func (e *Echo) Serve(ctx context.Context, listener net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		case e.open.Add(1) > maxConnections:
			e.open.Add(-1)
			_ = conn.Close()
			continue
		}
		go func() {
			defer e.open.Add(-1)
			defer conn.Close()
			end := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer end()
			e.serveConnection(conn)
		}()
	}
}

func (e *Echo) serveConnection(conn net.Conn) {
	id := e.connections.Add(1)
	in := bufio.NewReader(conn)
	for n := 1; ; n++ {
		_ = conn.SetDeadline(time.Now().Add(echoTimeout))
		seen, last, err := readRequest(in, conn)
		if err != nil {
			if wrong, ok := errors.AsType[*badRequestError](err); ok {
				fmt.Fprintf(conn, "HTTP/1.1 %d %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", wrong.status, http.StatusText(wrong.status))
				drain(conn)
			}
			return
		}
		seen.Connection, seen.Request = id, n
		if writeSeen(conn, seen, last) != nil || last {
			drain(conn)
			return
		}
	}
}

// drain reads for a moment what the gateway is still sending, because closing a
// connection with unread bytes can take the answer with it.
func drain(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
	_ = conn.SetReadDeadline(time.Now().Add(drainTimeout))
	_, _ = io.CopyN(io.Discard, conn, maxBody)
}

func writeSeen(out io.Writer, seen *Seen, last bool) error {
	body, err := json.Marshal(seen)
	if err != nil {
		return err
	}
	connection := "keep-alive"
	if last {
		connection = "close"
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n", len(body), connection)
	if seen.Method == http.MethodHead {
		body = nil
	}
	_, err = out.Write(append([]byte(head), body...))
	return err
}

// badRequestError is a request that cannot be answered with what arrived.
type badRequestError struct{ status int }

func (e *badRequestError) Error() string { return http.StatusText(e.status) }

// readRequest reads a request. last reports whether no other can follow.
func readRequest(in *bufio.Reader, out io.Writer) (seen *Seen, last bool, err error) {
	budget := maxHead
	first := ""
	for first == "" { // RFC 9112 §2.2
		if first, err = readLine(in, &budget); err != nil {
			return nil, false, err
		}
	}
	seen = &Seen{Echo: echoName, Lines: []string{}, Trailers: []string{}}
	seen.Method, seen.Target, _ = strings.Cut(first, " ")
	if i := strings.LastIndexByte(seen.Target, ' '); i >= 0 {
		seen.Target, seen.Protocol = seen.Target[:i], seen.Target[i+1:]
	}
	if !strings.HasPrefix(seen.Protocol, "HTTP/1.") {
		return nil, false, &badRequestError{http.StatusBadRequest}
	}
	if seen.Lines, err = readLines(in, &budget); err != nil {
		return nil, false, err
	}
	last = seen.Protocol == "HTTP/1.0" || strings.Contains(strings.ToLower(seen.value("Connection")), "close")
	if strings.EqualFold(seen.value("Expect"), "100-continue") {
		if _, err := io.WriteString(out, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return nil, false, err
		}
	}
	coding, length := seen.value("Transfer-Encoding"), seen.value("Content-Length")
	switch {
	case seen.Method == http.MethodConnect: // it has no body (RFC 9110 §9.3.6)
	case strings.EqualFold(coding, "chunked"):
		var wrong *badRequestError
		if err = seen.readChunks(in); errors.As(err, &wrong) && wrong.status == http.StatusBadRequest {
			last, err = true, nil
		}
	case coding != "":
		last = true // nobody knows where it ends
	case length != "":
		n, failed := strconv.ParseUint(length, 10, 63)
		switch {
		case failed != nil:
			return seen, true, nil //nolint:nilerr // nobody knows where it ends, so the request is the last
		case n > maxBody:
			return nil, false, &badRequestError{http.StatusRequestEntityTooLarge}
		}
		seen.BodyBytes, err = io.CopyN(io.Discard, in, int64(n))
	}
	return seen, last, err
}

// readChunks reads a chunked body and what follows it.
func (s *Seen) readChunks(in *bufio.Reader) error {
	for {
		most := maxChunkLine
		line, err := readLine(in, &most)
		if err != nil {
			return err
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 63)
		switch {
		case err != nil:
			return &badRequestError{http.StatusBadRequest}
		case n > maxBody || s.BodyBytes+int64(n) > maxBody:
			return &badRequestError{http.StatusRequestEntityTooLarge}
		case n == 0:
			budget := maxHead
			s.Trailers, err = readLines(in, &budget)
			return err
		}
		if _, err := io.CopyN(io.Discard, in, int64(n)); err != nil {
			return err
		}
		s.BodyBytes += int64(n)
		if _, err := readLine(in, &most); err != nil {
			return err
		}
	}
}

// readLines reads lines until an empty one.
func readLines(in *bufio.Reader, budget *int) ([]string, error) {
	lines := []string{}
	for {
		line, err := readLine(in, budget)
		if err != nil || line == "" {
			return lines, err
		}
		lines = append(lines, line)
	}
}

// readLine reads a line, and takes its length from the budget.
func readLine(in *bufio.Reader, budget *int) (string, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if *budget -= len(part); *budget < 0 {
			return "", &badRequestError{http.StatusRequestHeaderFieldsTooLarge}
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r"), nil
}

// value returns the values of a header field, as an API reads it, joined with commas.
func (s *Seen) value(name string) string {
	return strings.Join(values(s.Lines, name), ", ")
}

// values returns the values of the lines with a name, in any case.
func values(lines []string, name string) (list []string) {
	for _, line := range lines {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.EqualFold(strings.TrimSpace(key), name) {
			list = append(list, strings.TrimSpace(value))
		}
	}
	return list
}

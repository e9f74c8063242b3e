package probe

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestEchoTellsWhatArrived checks that the lines keep their order, case and
// repetitions, and that requests and connections are counted.
func TestEchoTellsWhatArrived(t *testing.T) {
	address := startEcho(t)
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	in := bufio.NewReader(conn)
	ask := func(text string) (seen Seen) {
		t.Helper()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if response.Header.Get("Cache-Control") != "no-store" || response.StatusCode != http.StatusOK {
			t.Errorf("%s, %v", response.Status, response.Header)
		}
		if err := json.NewDecoder(response.Body).Decode(&seen); err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, response.Body)
		return seen
	}
	first := ask("POST //a/..;/b?c HTTP/1.1\r\nhOST: x\r\nX-A: 1\r\nx-a:2\r\n\tfolded\r\nTransfer-Encoding: chunked\r\n\r\n3;ext\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\nx-t: 2\r\n\r\n")
	want := Seen{
		Echo: echoName, Method: "POST", Target: "//a/..;/b?c", Protocol: "HTTP/1.1", Lines: []string{"hOST: x", "X-A: 1", "x-a:2", "\tfolded", "Transfer-Encoding: chunked"},
		Trailers: []string{"X-T: 1", "x-t: 2"}, BodyBytes: 5, Connection: first.Connection, Request: 1,
	}
	if !reflect.DeepEqual(first, want) {
		t.Errorf("got %+v, want %+v", first, want)
	}
	second := ask("PUT /b HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd")
	if second.Request != 2 || second.Connection != first.Connection || second.BodyBytes != 4 || second.Method != http.MethodPut || len(second.Lines) != 1 {
		t.Errorf("got %+v", second)
	}
	connect := ask("CONNECT x:443 HTTP/1.1\r\nContent-Length: 4\r\n\r\n")
	if connect.Request != 3 || connect.BodyBytes != 0 {
		t.Errorf("got %+v", connect)
	}
}

// TestEchoIsBounded checks that what is too large gets an error, and that framing which
// nobody can understand ends the connection.
func TestEchoIsBounded(t *testing.T) {
	address := startEcho(t)
	for name, test := range map[string]struct{ text, want string }{
		"header":      {"GET / HTTP/1.1\r\nX: " + strings.Repeat("a", maxHead) + "\r\n\r\n", "HTTP/1.1 431 "},
		"many lines":  {"GET / HTTP/1.1\r\n" + strings.Repeat("X: a\r\n", maxHead/6+1) + "\r\n", "HTTP/1.1 431 "},
		"body":        {"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", "HTTP/1.1 413 "},
		"chunk":       {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n", "HTTP/1.1 413 "},
		"chunk size":  {"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "HTTP/1.1 200 "},
		"coding":      {"POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\nabc", "HTTP/1.1 200 "},
		"length":      {"POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nabc", "HTTP/1.1 200 "},
		"long length": {"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\nabc", "HTTP/1.1 200 "},
		"no protocol": {"GET /\r\n\r\n", "HTTP/1.1 400 "},
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("tcp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			go func() { _, _ = io.WriteString(conn, test.text) }()
			answer, _ := io.ReadAll(conn) // an end by reset is one too
			if !strings.HasPrefix(string(answer), test.want) || strings.Count(string(answer), "HTTP/1.1 ") != 1 {
				t.Errorf("the answer is %.200q", answer)
			}
		})
	}
}

// FuzzReadRequest checks that no request makes the echo API panic or hold more than its
// bounds.
func FuzzReadRequest(f *testing.F) {
	for _, seed := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /a HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "\r\n\n x y HTTP/1.1\n:\n\n",
		"POST / HTTP/1.1\nContent-Length: 1\nContent-Length: 2\n\na", "POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9223372036854775807\r\n\r\n",
		"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		seen, _, err := readRequest(bufio.NewReader(strings.NewReader(string(text))), io.Discard)
		if err != nil || seen == nil {
			return
		}
		size := 0
		for _, line := range append(seen.Lines, seen.Trailers...) {
			size += len(line)
		}
		if size > 2*maxHead || seen.BodyBytes > maxBody || seen.BodyBytes < 0 {
			t.Errorf("%d bytes of lines, %d of body", size, seen.BodyBytes)
		}
	})
}

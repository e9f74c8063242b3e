package rig

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Upstream is the API that Caddy proxies to. It knows nothing of certificates and
// answers with the request that it got, as a [SeenRequest].
type Upstream struct {
	Address string
	Hits    atomic.Int64
	Blocked chan string   // a request to /block has arrived
	Release chan struct{} // lets one request to /block go on

	Mu   sync.Mutex
	Told []string // every X-Client-ID that has arrived
}

// SeenRequest is a request as it reached the upstream.
type SeenRequest struct {
	Method, URI, Host, Proto, Body string
	Header, Trailer                http.Header
}

func newUpstream(t *testing.T) *Upstream {
	u := &Upstream{Blocked: make(chan string, 100), Release: make(chan struct{})}
	server := httptest.NewServer(u)
	t.Cleanup(server.Close)
	u.Address = server.Listener.Addr().String()
	return u
}

// ServeHTTP answers a request.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	u.Hits.Add(1)
	u.Mu.Lock()
	u.Told = append(u.Told, r.Header.Values("X-Client-Id")...)
	u.Mu.Unlock()
	switch r.URL.Path {
	case "/upgrade":
		u.upgrade(w, r)
		return
	case "/block":
		u.Blocked <- r.Header.Get("X-Client-ID")
		select {
		case <-u.Release:
		case <-time.After(Patience):
		}
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Upstream", "1")
	_ = json.NewEncoder(w).Encode(SeenRequest{
		Method: r.Method, URI: r.RequestURI, Host: r.Host, Proto: r.Proto,
		Body: string(body), Header: r.Header, Trailer: r.Trailer,
	})
}

// upgrade answers a protocol upgrade with the identity that it came with and then
// echoes lines.
func (u *Upstream) upgrade(w http.ResponseWriter, r *http.Request) {
	conn, stream, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	fmt.Fprintf(stream, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\nhello %q\n",
		r.Header.Get("Upgrade"), r.Header.Values("X-Client-ID"))
	_ = stream.Flush()
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			return
		}
		_, _ = stream.WriteString("echo " + line)
		_ = stream.Flush()
	}
}

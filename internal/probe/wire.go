package probe

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxAnswer bounds the body of an answer, in bytes.
	maxAnswer = 1 << 20
	// maxAnswerHead bounds everything before it, over all answers of a connection.
	maxAnswerHead = 256 << 10
	// maxAnswers bounds how many answers of a connection are read.
	maxAnswers = 6
	// quiet is how long to wait for another answer that may not come.
	quiet = 500 * time.Millisecond
)

// Gateway is what is probed.
type Gateway struct {
	// Certificates are those of the callers, by caller; nobody has none.
	Certificates map[string]*tls.Certificate
	// Roots vouch for the gateway. Default: the CAs of the system.
	Roots *x509.CertPool
	// Address is where it listens. Default: the host and port of the URL.
	Address string
	// Timeout is how long an answer may take.
	Timeout time.Duration

	scheme, host, hostname, path string
}

// SetURL says which URL is probed.
func (g *Gateway) SetURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" || u.User != nil {
		return errors.New("it is not a URL such as https://api.example.com/orders, without user name and password")
	}
	g.scheme, g.host, g.hostname, g.path = u.Scheme, u.Host, u.Hostname(), u.EscapedPath()
	if g.path == "" {
		g.path = "/"
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	if g.Address == "" {
		g.Address = source.DialAddress(net.JoinHostPort(g.hostname, port))
	}
	return nil
}

// Answer is what came back for a request.
type Answer struct {
	Status int
	// Seen is what arrived at the echo API, nil if the answer is not the echo's.
	Seen *Seen
}

// result is everything that came back on a connection. err is why no more did.
type result struct {
	answers []Answer
	err     error
}

// errUnreachable is set if there is no connection to judge by.
var errUnreachable = errors.New("no connection")

// dial opens a connection as a caller.
func (g *Gateway) dial(ctx context.Context, caller, sni, protocol string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: g.Timeout}
	conn, err := dialer.DialContext(ctx, "tcp", g.Address)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errUnreachable, err)
	}
	_ = conn.SetDeadline(time.Now().Add(g.Timeout))
	if g.scheme == "http" {
		return conn, nil
	}
	secured := tls.Client(conn, g.tlsConfig(caller, sni, protocol))
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

// tlsConfig returns the TLS settings of a caller. The gateway's own certificate is for
// the host of the URL, whatever name the handshake has.
func (g *Gateway) tlsConfig(caller, sni, protocol string) *tls.Config {
	config := &tls.Config{
		ServerName: g.hostname, RootCAs: g.Roots, MinVersion: tls.VersionTLS12,
		NextProtos: []string{map[string]string{"h1": "http/1.1", "h2": "h2", "h3": "h3"}[protocol]},
	}
	if certificate := g.Certificates[caller]; certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	if sni == "" {
		return config
	}
	config.InsecureSkipVerify = true // VerifyConnection does it
	config.VerifyConnection = func(state tls.ConnectionState) error {
		// a gateway may have another certificate for a name that is not its own; what
		// is sent is meant for strangers anyway, but the chain has to be trusted
		options := x509.VerifyOptions{Roots: g.Roots, Intermediates: x509.NewCertPool()}
		for _, ca := range state.PeerCertificates[1:] {
			options.Intermediates.AddCert(ca)
		}
		_, err := state.PeerCertificates[0].Verify(options)
		return err
	}
	if config.ServerName = sni; sni == "none" {
		config.ServerName = ""
	}
	return config
}

// send sends a message and, on the same connection, what follows it. extra says whether
// more answers may come than were asked for.
func (g *Gateway) send(ctx context.Context, caller, protocol string, m Message, then string, extra bool) result {
	switch protocol {
	case "h2":
		return g.sendH2(ctx, caller, m)
	case "h3":
		return g.sendH3(ctx, caller, m)
	}
	return g.sendH1(ctx, caller, m, then, extra)
}

func (g *Gateway) sendH1(ctx context.Context, caller string, m Message, then string, extra bool) (got result) {
	conn, err := g.dial(ctx, caller, m.SNI, "h1")
	if err != nil {
		return result{err: err}
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	// a gateway may answer, and close, before it has read everything
	go func() { _, _ = io.WriteString(conn, m.text()) }()
	in := bufio.NewReader(io.LimitReader(conn, maxAnswerHead+maxAnswers*maxAnswer))
	method := m.Method
	if m.Raw != "" {
		method, _, _ = strings.Cut(m.Raw, " ")
	}
	for len(got.answers) < maxAnswers {
		answer, err := readAnswer(in, method)
		if err != nil {
			got.err = err
			return got
		}
		got.answers = append(got.answers, answer)
		if then != "" {
			if _, got.err = io.WriteString(conn, then); got.err != nil {
				return got
			}
			then = ""
			continue
		}
		if !extra {
			return got
		}
		_ = conn.SetReadDeadline(time.Now().Add(min(quiet, g.Timeout)))
	}
	return got
}

// readAnswer reads one answer. That to CONNECT may have a body, because an API that
// does not know CONNECT answers it like GET.
func readAnswer(in *bufio.Reader, method string) (Answer, error) {
	for {
		response, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet}) //nolint:bodyclose // Close would wait for the rest of it, which may never come
		if err != nil {
			return Answer{}, err
		}
		if response.StatusCode >= 100 && response.StatusCode < 200 && response.StatusCode != http.StatusSwitchingProtocols {
			continue
		}
		if method == http.MethodConnect && response.StatusCode < 300 && response.ContentLength < 0 && response.TransferEncoding == nil {
			return Answer{Status: response.StatusCode}, nil // a tunnel
		}
		body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
		if err != nil {
			return Answer{}, err
		}
		return answerOf(response.StatusCode, body), nil
	}
}

// answerOf reads an answer, and whether it is that of the echo API.
func answerOf(status int, body []byte) Answer {
	seen := new(Seen)
	if len(body) > maxAnswer || json.NewDecoder(bytes.NewReader(body)).Decode(seen) != nil || seen.Echo != echoName {
		return Answer{Status: status}
	}
	return Answer{status, seen}
}

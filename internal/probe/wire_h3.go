package probe

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// sendH3 sends a message over HTTP/3, as far as quic-go lets one.
func (g *Gateway) sendH3(ctx context.Context, caller string, m Message) result {
	if g.scheme == "http" {
		return result{err: fmt.Errorf("%w: HTTP/3 needs https", errUnreachable)}
	}
	ctx, cancel := context.WithTimeout(ctx, g.Timeout)
	defer cancel()
	config := g.tlsConfig(caller, m.SNI, "h3")
	transport := &http3.Transport{TLSClientConfig: config, MaxResponseHeaderBytes: maxAnswerHead, QUICConfig: &quic.Config{HandshakeIdleTimeout: g.Timeout}}
	defer transport.Close()
	request := &http.Request{
		Method: m.Method, Host: m.Host, Header: make(http.Header),
		URL: &url.URL{Scheme: "https", Host: g.Address, Opaque: m.Target},
	}
	for _, field := range fieldsOf(m.Lines) {
		request.Header[field[0]] = append(request.Header[field[0]], field[1])
	}
	response, err := transport.RoundTrip(request.WithContext(ctx))
	if err != nil {
		if strings.Contains(err.Error(), "invalid") {
			err = fmt.Errorf("%w: %w", errUnreachable, err)
		}
		return result{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	if err != nil {
		return result{err: err}
	}
	return result{answers: []Answer{answerOf(response.StatusCode, body)}}
}

package mtlsauth

import (
	"fmt"
	"net/http"
	"slices"

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
)

// The headers in which the upstream gets the certificate (RFC 9440 §2).
const (
	clientCertHeader      = "Client-Cert"
	clientCertChainHeader = "Client-Cert-Chain"
)

// upstreamHeaders returns the headers in which the upstream gets certificate and
// token.
func (h *Handler) upstreamHeaders() []string {
	var names []string
	if h.ForwardCertificate {
		names = append(names, clientCertHeader, clientCertChainHeader)
	}
	if h.ForwardToken != nil {
		names = append(names, h.ForwardToken.header())
	}
	return names
}

// checkUpstreamHeaders adds to the headers that are set those of certificate and
// token, unless one would be set twice.
func (h *Handler) checkUpstreamHeaders(set []string) ([]string, error) {
	if h.ForwardToken != nil {
		if err := h.ForwardToken.check(); err != nil {
			return nil, fmt.Errorf("forward_token: %w", err)
		}
	}
	for _, name := range h.upstreamHeaders() {
		if i := slices.IndexFunc(set, headerguard.NewNames(name).Contains); i >= 0 {
			return nil, fmt.Errorf("header '%s' is that of forward_certificate or forward_token, and it is set as '%s' already; choose another name for one of the two", name, set[i])
		}
		set = append(set, name)
	}
	return set, nil
}

// setUpstreamHeaders tells the upstream the certificate and the token of an
// admitted client.
func (h *Handler) setUpstreamHeaders(header http.Header, id identity, token string) {
	if h.ForwardCertificate {
		values := []string{id.Headers.Cert, id.Headers.Chain}
		header[clientCertHeader] = values[:1:1]
		if id.Headers.Chain != "" {
			header[clientCertChainHeader] = values[1:]
		}
	}
	if h.minter != nil {
		header[h.minter.header] = []string{token}
	}
}

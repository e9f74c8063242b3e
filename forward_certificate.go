package mtlsauth

import "net/http"

// The headers in which the API behind gets the certificate (RFC 9440 §2).
const (
	clientCertHeader      = "Client-Cert"
	clientCertChainHeader = "Client-Cert-Chain"
)

// setCertificate tells the API behind the certificate of an admitted client.
func setCertificate(header http.Header, id identity) {
	values := []string{id.Headers.Cert, id.Headers.Chain}
	header[clientCertHeader] = values[:1:1]
	if id.Headers.Chain != "" {
		header[clientCertChainHeader] = values[1:]
	}
}

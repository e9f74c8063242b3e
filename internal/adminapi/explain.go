package adminapi

import (
	"io"
	"net/http"

	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/command/certfile"
)

// maxExplainBody bounds the certificates in a request, in bytes.
const maxExplainBody = 256 << 10

// explainCertificate answers what the realm decides about the certificates in a request,
// as the client would present them.
func explainCertificate(w http.ResponseWriter, r *http.Request, realm Realm) error {
	clientID := ""
	if err := clientsapi.EachParameter(r.URL.RawQuery, func(name, value string) error {
		if name != "client_id" || value == "" {
			return apiError(http.StatusBadRequest, "unknown parameter %.100q; the only one is client_id, which names one", name)
		}
		clientID = value
		return nil
	}); err != nil {
		return err
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxExplainBody+1))
	switch {
	case err != nil:
		return apiError(http.StatusBadRequest, "reading the body: %w", err)
	case len(body) > maxExplainBody:
		return apiError(http.StatusRequestEntityTooLarge, "the body has more than %d bytes; send the certificate and those above it alone", maxExplainBody)
	}
	presented, unreadable, err := certfile.ParsePEM(body)
	if err != nil {
		return apiError(http.StatusBadRequest, "the body is not a certificate: %w", err)
	}
	explanation, err := realm.Explain(clientID, presented)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return explanation.WriteJSON(w, presented[0], unreadable)
}

// Package adminapi serves the realms of the running configuration on Caddy's admin
// endpoint: their state, clients, refusals and signing keys.
package adminapi

import (
	"crypto/x509"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
)

// App is the running configuration.
type App interface {
	// Observed returns what can be observed. Its clock is nil if no app is running.
	Observed() *observed.App
	// Realm returns the realm of a name.
	Realm(name string) (Realm, error)
}

// Realm is a realm of the running configuration.
type Realm struct {
	*observed.Realm
	Logger *zap.Logger
	Events events.Realm
	// Explain returns what the realm decides about certificates, leaf first, of a client
	// that the request names, or "".
	Explain func(clientID string, presented []*x509.Certificate) (*command.Explanation, error)
	// Owner tells the realm from those of the same name in other configurations.
	Owner any
}

// Routes returns the routes of the admin endpoint. They ask for the running configuration at
// each request, because the router can outlive the configuration it came with.
func Routes(running func() App) []caddy.AdminRoute {
	api := api{running}
	return []caddy.AdminRoute{
		{Pattern: "GET /mtls/status", Handler: caddy.AdminHandlerFunc(api.showStatus)},
		{Pattern: "GET /mtls/realms", Handler: caddy.AdminHandlerFunc(api.listRealms)},
		{Pattern: "GET /mtls/realms/{realm}", Handler: api.withRealm(showRealm)},
		{Pattern: "GET /mtls/realms/{realm}/clients", Handler: api.withClients(clientsapi.List)},
		{Pattern: "GET /mtls/realms/{realm}/clients/{id...}", Handler: api.withClients(clientsapi.Get)},
		{Pattern: "PUT /mtls/realms/{realm}/clients/{id...}", Handler: api.withClients(clientsapi.Put)},
		{Pattern: "PATCH /mtls/realms/{realm}/clients/{id...}", Handler: api.withClients(clientsapi.Patch)},
		{Pattern: "DELETE /mtls/realms/{realm}/clients/{id...}", Handler: api.withClients(clientsapi.Delete)},
		{Pattern: "GET /mtls/realms/{realm}/strangers", Handler: api.withRealm(listStrangers)},
		{Pattern: "POST /mtls/realms/{realm}/explain", Handler: api.withRealm(explainCertificate)},
		{Pattern: "GET /mtls/realms/{realm}/keys", Handler: api.withIssuer(showKeys)},
		{Pattern: "POST /mtls/realms/{realm}/keys/rotate", Handler: api.withIssuer(rotateKeys)},
		{Pattern: "GET /mtls/refusals", Handler: caddy.AdminHandlerFunc(api.listRefusals)},
		{Pattern: "GET /mtls/refusals/{error_id}", Handler: caddy.AdminHandlerFunc(api.showRefusal)},
	}
}

// api serves requests about the running configuration.
type api struct{ running func() App }

func apiError(status int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return caddy.APIError{HTTPStatus: status, Err: err, Message: err.Error()}
}

var errNoRealm = apiError(http.StatusNotFound, "the running configuration has no realm; add 'mtls { … }' to its global options")

// realmHandler serves requests about a realm.
type realmHandler func(http.ResponseWriter, *http.Request, Realm) error

// withRealm serves requests about a realm of the running configuration.
func (a api) withRealm(serve realmHandler) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		app := a.running()
		if len(app.Observed().Realms) == 0 {
			return errNoRealm
		}
		realm, err := app.Realm(r.PathValue("realm"))
		if err != nil {
			return apiError(http.StatusNotFound, "%w", err)
		}
		return serve(w, r, realm)
	}
}

// withIssuer serves requests about a realm of the running configuration that has an
// issuer.
func (a api) withIssuer(serve realmHandler) caddy.AdminHandlerFunc {
	return a.withRealm(func(w http.ResponseWriter, r *http.Request, realm Realm) error {
		if realm.Issuer == nil {
			return apiError(http.StatusNotFound, "realm '%s' has no issuer, so it has no signing keys; add 'issuer <https-url>' to it", realm.Name)
		}
		return serve(w, r, realm)
	})
}

func writeJSON(w http.ResponseWriter, answer any) error {
	return clientsapi.WriteJSON(w, answer)
}

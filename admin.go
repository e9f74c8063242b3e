package mtlsauth

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
)

// AdminAPI lets operators inspect and manage the realms of the running
// configuration on Caddy's admin endpoint:
//
//   - `GET /mtls/status` reports on the state of all realms
//   - `GET /mtls/realms` and `GET /mtls/realms/{realm}` describe realms
//   - `GET /mtls/realms/{realm}/clients` lists clients
//   - `GET`, `PUT`, `PATCH` and `DELETE /mtls/realms/{realm}/clients/{client_id}`
//     show and change a client
//   - `GET /mtls/realms/{realm}/strangers` lists certificates that were refused and belong
//     to no client
//   - `POST /mtls/realms/{realm}/explain` returns what a realm decides about a certificate
//   - `GET /mtls/refusals` and `GET /mtls/refusals/{error_id}` show recent refusals
//   - `GET /mtls/realms/{realm}/keys` lists the signing keys, without their
//     private parts
//   - `POST /mtls/realms/{realm}/keys/rotate` announces the next key, or with the
//     body `{"retire":"now"}` replaces all keys at once
type AdminAPI struct{}

// CaddyModule returns the Caddy module information.
func (AdminAPI) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.mtls",
		New: func() caddy.Module { return new(AdminAPI) },
	}
}

// Routes returns the routes of the admin endpoint. They find the realm of each
// request, because the router can outlive the configuration it came with.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "GET /mtls/status", Handler: caddy.AdminHandlerFunc(showStatus)},
		{Pattern: "GET /mtls/realms", Handler: caddy.AdminHandlerFunc(listRealms)},
		{Pattern: "GET /mtls/realms/{realm}", Handler: withRealm(showRealm)},
		{Pattern: "GET /mtls/realms/{realm}/clients", Handler: withClients(clientsapi.List)},
		{Pattern: "GET /mtls/realms/{realm}/clients/{id...}", Handler: withClients(clientsapi.Get)},
		{Pattern: "PUT /mtls/realms/{realm}/clients/{id...}", Handler: withClients(clientsapi.Put)},
		{Pattern: "PATCH /mtls/realms/{realm}/clients/{id...}", Handler: withClients(clientsapi.Patch)},
		{Pattern: "DELETE /mtls/realms/{realm}/clients/{id...}", Handler: withClients(clientsapi.Delete)},
		{Pattern: "GET /mtls/realms/{realm}/strangers", Handler: withRealm(listStrangers)},
		{Pattern: "POST /mtls/realms/{realm}/explain", Handler: withRealm(explainCertificate)},
		{Pattern: "GET /mtls/realms/{realm}/keys", Handler: withIssuer(func(w http.ResponseWriter, _ *http.Request, realm *Realm) error {
			return writeKeys(w, realm.issuer.keys, "")
		})},
		{Pattern: "POST /mtls/realms/{realm}/keys/rotate", Handler: withIssuer(rotateKeys)},
		{Pattern: "GET /mtls/refusals", Handler: caddy.AdminHandlerFunc(listRefusals)},
		{Pattern: "GET /mtls/refusals/{error_id}", Handler: caddy.AdminHandlerFunc(showRefusal)},
	}
}

func adminError(status int, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return caddy.APIError{HTTPStatus: status, Err: err, Message: err.Error()}
}

var errNoRealm = adminError(http.StatusNotFound, "the running configuration has no realm; add 'mtls { … }' to its global options")

// realmHandler serves requests about a realm.
type realmHandler func(http.ResponseWriter, *http.Request, *Realm) error

// withRealm serves requests about a realm of the running configuration.
func withRealm(serve realmHandler) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		app := runningApp()
		if len(app.Realms) == 0 {
			return errNoRealm
		}
		realm, err := app.realm(r.PathValue("realm"))
		if err != nil {
			return adminError(http.StatusNotFound, "%w", err)
		}
		return serve(w, r, realm)
	}
}

// withIssuer serves requests about a realm of the running configuration that has an
// issuer.
func withIssuer(serve realmHandler) caddy.AdminHandlerFunc {
	return withRealm(func(w http.ResponseWriter, r *http.Request, realm *Realm) error {
		if realm.issuer == nil {
			return adminError(http.StatusNotFound, "realm '%s' has no issuer, so it has no signing keys; add 'issuer <https-url>' to it", realm.name)
		}
		return serve(w, r, realm)
	})
}

// Interface guard
var _ caddy.AdminRouter = AdminAPI{}

package mtlsauth

import (
	"crypto/x509"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddymtls/caddy-mtls-auth/internal/adminapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/command"
	"github.com/caddymtls/caddy-mtls-auth/internal/observed"
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

// Routes returns the routes of the admin endpoint.
func (AdminAPI) Routes() []caddy.AdminRoute {
	return adminapi.Routes(func() adminapi.App { return administered{runningApp()} })
}

// administered implements [adminapi.App].
type administered struct{ app *App }

func (a administered) Observed() *observed.App { return a.app.Observed() }

func (a administered) Realm(name string) (adminapi.Realm, error) {
	realm, err := a.app.realm(name)
	if err != nil {
		return adminapi.Realm{}, err
	}
	asked := adminapi.Realm{Realm: realm.observed(), Logger: realm.logger, Events: realm.events, Owner: realm}
	asked.Explain = func(clientID string, presented []*x509.Certificate) (*command.Explanation, error) {
		return explainer{app: a.app}.Explain(command.Question{Realm: name, At: a.app.Now(), ClientID: clientID}, presented)
	}
	return asked, nil
}

// Interface guard
var _ caddy.AdminRouter = AdminAPI{}

package adminapi

import (
	"net/http"
	"strconv"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/clientsapi"
	"github.com/caddymtls/caddy-mtls-auth/internal/status"
	"github.com/caddymtls/caddy-mtls-auth/internal/syntax"
)

// maxStatusFilter bounds the text that clients are searched for, in bytes.
const maxStatusFilter = 200

// showStatus answers with the state of the realms.
func (a api) showStatus(w http.ResponseWriter, r *http.Request) error {
	q, err := parseStatusQuery(r.URL.RawQuery)
	if err != nil {
		return err
	}
	running := a.running()
	app := running.Observed()
	if app.Now == nil { // nothing has been provisioned
		return errNoRealm
	}
	if q.Realm != "" {
		if _, err := running.Realm(q.Realm); err != nil {
			return apiError(http.StatusNotFound, "%w", err)
		}
	}
	return writeJSON(w, app.Status(q))
}

// parseStatusQuery parses the query of a status. It refuses what it does not know, as the
// list of clients does.
func parseStatusQuery(raw string) (q status.Query, err error) {
	err = clientsapi.EachParameter(raw, func(name, value string) error {
		switch name {
		case "realm":
			if err := syntax.CheckRealmName(value); err != nil {
				return apiError(http.StatusBadRequest, "%w", err)
			}
			q.Realm = value
		case "after":
			if value != "" && clients.CheckID(value) != nil {
				return apiError(http.StatusBadRequest, "after is %.100q, which is not a client_id; use the 'next' of the previous page", value)
			}
			q.After = value
		case "q":
			if len(value) > maxStatusFilter {
				return apiError(http.StatusBadRequest, "q has more than %d bytes; shorten it", maxStatusFilter)
			}
			q.Text = value
		case "never":
			if value != "true" && value != "false" {
				return apiError(http.StatusBadRequest, "never is %.100q; use true or false", value)
			}
			q.Never = value == "true"
		case "limit":
			limit, err := strconv.Atoi(value)
			if err != nil || limit < 1 || limit > status.MaxClients {
				return apiError(http.StatusBadRequest, "limit is %.100q; use a number from 1 to %d", value, status.MaxClients)
			}
			q.Limit = limit
		default:
			return apiError(http.StatusBadRequest, "unknown parameter %.100q; known are realm, after, q, never and limit", name)
		}
		return nil
	})
	return q, err
}

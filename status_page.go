package mtlsauth

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/statuspage"
)

// StatusHandler serves the status page of all realms: traffic and refusals of the last
// hour, certificates that expire soon, clients, strangers, keys and sources, and why a
// caller with an error id was refused. It is HTML without scripts, and changes nothing.
//
// The page authenticates nobody. Put `mtls_auth` or `basic_auth` before it, or bind
// its site to a loopback address.
type StatusHandler struct {
	app *App
}

// CaddyModule returns the Caddy module information.
func (StatusHandler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.mtls_status",
		New: func() caddy.Module { return new(StatusHandler) },
	}
}

// Provision finds the app.
func (h *StatusHandler) Provision(ctx caddy.Context) error {
	module, err := ctx.AppIfConfigured(appID)
	if errors.Is(err, caddy.ErrNotConfigured) {
		return fmt.Errorf("%w: %w", errNoRealmDeclared, err)
	}
	if err != nil {
		return err
	}
	h.app = module.(*App)
	h.app.warnAboutSites(ctx)
	return nil
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (h *StatusHandler) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	if h.app.refuseEnded() != nil {
		w.Header().Set("Retry-After", retryAfter)
		return caddyhttp.Error(http.StatusServiceUnavailable, errors.New("temporarily_unavailable"))
	}
	switch err := statuspage.Serve(w, r, h.app.Observed()); {
	case err == nil:
		return nil
	case errors.Is(err, statuspage.ErrMethod):
		return caddyhttp.Error(http.StatusMethodNotAllowed, err)
	case errors.Is(err, statuspage.ErrQuery):
		return caddyhttp.Error(http.StatusRequestURITooLong, err)
	default:
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
}

// parseStatusHandler reads the mtls_status directive. Syntax:
//
//	mtls_status [<matcher>]
func parseStatusHandler(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	handler := new(StatusHandler)
	if err := handler.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	if _, ok := h.Option("mtls").(httpcaddyfile.App); !ok {
		return nil, h.WrapErr(errNoRealmDeclared)
	}
	return handler, nil
}

// UnmarshalCaddyfile reads the mtls_status directive; parseStatusHandler has the
// syntax.
func (h *StatusHandler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	if d.NextArg() {
		return d.Errf("mtls_status: unexpected '%s'; it takes a matcher, such as /path or @name, and nothing else", d.Val())
	}
	if d.NextBlock(d.Nesting()) {
		return d.Errf("mtls_status: unexpected '%s'; it shows all realms and has no subdirectives", d.Val())
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*StatusHandler)(nil)
	_ caddyhttp.MiddlewareHandler = (*StatusHandler)(nil)
	_ caddyfile.Unmarshaler       = (*StatusHandler)(nil)
)

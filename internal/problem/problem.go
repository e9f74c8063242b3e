// Package problem writes what a refused caller reads: a word and an error id, as plain
// text or as problem details (RFC 9457).
package problem

import (
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// Word is the error of a refused request in Caddy's error routes, and all that the
// caller learns: {http.error.message} often ends up in a response body.
type Word string //nolint:errname // it is no more than a word

func (w Word) Error() string { return string(w) }

// Answer has the server that a handler is provisioned for write a body where a
// request was refused with a [Word] and nothing else answers: it adds an error route
// after those of the configuration, once. Caddy compiles them after the handlers of
// the server's routes. It has done so when it provisions named routes; see [Return].
func Answer(ctx caddy.Context) {
	server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || !provisioning(server.Routes) {
		return
	}
	if server.Errors == nil {
		server.Errors = new(caddyhttp.HTTPErrorConfig)
	}
	routes := server.Errors.Routes
	if slices.ContainsFunc(routes, isWriter) {
		return
	}
	w := new(writer)
	if len(routes) == 0 {
		w.errors = ctx.Logger(caddyhttp.App{}).Named("log.error") // Caddy's own name
	}
	server.Errors.Routes = append(routes, caddyhttp.Route{Handlers: []caddyhttp.MiddlewareHandler{w}})
}

// Return returns the error of a refused request, for error routes. If the server has
// none, because only a named route has the handler that refuses, it writes the body
// instead.
func Return(w http.ResponseWriter, r *http.Request, err error) error {
	server, _ := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	failure, refused := errors.AsType[caddyhttp.HandlerError](err)
	word, said := errors.AsType[Word](failure.Err)
	if server == nil || !refused || !said || server.Errors != nil && len(server.Errors.Routes) > 0 {
		return err
	}
	write(w, r, failure.StatusCode, string(word), failure.ID)
	return nil
}

// provisioning reports whether Caddy is provisioning the handlers of the routes. It
// removes the text of those that are ready.
func provisioning(routes caddyhttp.RouteList) bool {
	return slices.ContainsFunc(routes, func(route caddyhttp.Route) bool { return len(route.HandlersRaw) > 0 })
}

func isWriter(route caddyhttp.Route) bool {
	return slices.ContainsFunc(route.Handlers, func(handler caddyhttp.MiddlewareHandler) bool {
		_, ok := handler.(*writer)
		return ok
	})
}

// writer is the error route. It is no module, so that a configuration cannot name it.
type writer struct {
	// errors is the logger of errors that no error route handles. It is nil if the
	// configuration has error routes, because Caddy then logs errors at DEBUG alone.
	errors *zap.Logger
}

// ServeHTTP implements caddyhttp.MiddlewareHandler. It leaves the errors of other
// handlers to Caddy.
func (p *writer) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	err, ok := r.Context().Value(caddyhttp.ErrorCtxKey).(error)
	if !ok {
		return next.ServeHTTP(w, r)
	}
	failure, _ := errors.AsType[caddyhttp.HandlerError](err)
	if p.errors != nil {
		p.logError(r, err)
	}
	if word, ok := errors.AsType[Word](failure.Err); ok {
		write(w, r, failure.StatusCode, string(word), failure.ID)
		return nil
	}
	if p.errors != nil && failure.StatusCode > 0 {
		// as Caddy answers without error routes, also if the error is wrapped
		w.WriteHeader(failure.StatusCode)
		return nil
	}
	return next.ServeHTTP(w, r)
}

// details are problem details whose type is about:blank (RFC 9457 §4.2.1). The other
// members have the names of the parameters of the challenge.
type details struct {
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Error   string `json:"error"`
	ErrorID string `json:"error_id"`
}

func write(w http.ResponseWriter, r *http.Request, status int, word, errorID string) {
	contentType, body := "text/plain; charset=utf-8", []byte(word+" (error id: "+errorID+")\n")
	if prefersJSON(r.Header["Accept"]) {
		if text, err := json.Marshal(details{http.StatusText(status), status, word, errorID}); err == nil {
			contentType, body = "application/problem+json", append(text, '\n')
		}
	}
	header := w.Header()
	header.Set("Content-Type", contentType)
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the caller may be gone
	}
}

// Interface guard
var _ caddyhttp.MiddlewareHandler = (*writer)(nil)

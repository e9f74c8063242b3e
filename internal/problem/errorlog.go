package problem

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
)

// logError writes the line that Caddy writes about an error of status 500 and above
// where there are no error routes, such as that an upstream cannot be reached. Caddy
// does not write it any more because of the error route of this package. Unlike
// Caddy's, the line has no headers: handlers may have added secrets since.
func (p *writer) logError(r *http.Request, err error) {
	status, message, fields := http.StatusInternalServerError, err.Error(), []zap.Field{zap.Error(err)}
	if failure, ok := errors.AsType[caddyhttp.HandlerError](err); ok {
		status = failure.StatusCode
		if failure.Err != nil {
			message = failure.Err.Error()
		}
		fields = []zap.Field{zap.Int("status", status), zap.String("err_id", failure.ID), zap.String("err_trace", failure.Trace)}
	}
	if status < http.StatusInternalServerError {
		return
	}
	bare := *r
	bare.Header = nil
	fields = append([]zap.Field{zap.Object("request", caddyhttp.LoggableHTTPRequest{Request: &bare})}, fields...)
	if start, ok := caddyhttp.GetVar(r.Context(), "start_time").(time.Time); ok {
		fields = slices.Insert(fields, 1, zap.Duration("duration", time.Since(start)))
	}
	for _, name := range loggerNames(r) {
		p.errors.Named(name).Error(message, fields...)
	}
}

// loggerNames returns what Caddy adds to the name of a logger for the request's host.
func loggerNames(r *http.Request) []string {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok || server.Logs == nil {
		return []string{""}
	}
	if list, ok := caddyhttp.GetVar(r.Context(), caddyhttp.AccessLoggerNameVarKey).([]any); ok {
		var names []string
		for _, name := range list {
			text, _ := name.(string)
			names = append(names, text)
		}
		return names
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	host = strings.ToLower(host)
	if names, ok := server.Logs.LoggerNames[host]; ok {
		return names
	}
	labels := strings.Split(host, ".")
	for i := range labels {
		if labels[i] == "" {
			continue
		}
		labels[i] = "*"
		if names, ok := server.Logs.LoggerNames[strings.Join(labels, ".")]; ok {
			return names
		}
	}
	return []string{server.Logs.DefaultLoggerName}
}

package mtlsauth

import (
	"context"
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// spanScope names the plugin in traces.
const spanScope = "github.com/caddymtls/caddy-mtls-auth"

// startSpan starts the span of a directive, within that of Caddy's `tracing`. It returns
// nil unless that one is recorded, which costs nothing.
func startSpan(r *http.Request, directive string, realm *Realm) trace.Span {
	parent := trace.SpanFromContext(r.Context())
	if !parent.IsRecording() {
		return nil
	}
	_, span := parent.TracerProvider().Tracer(spanScope).Start(r.Context(), directive, trace.WithAttributes(
		attribute.String("mtls.directive", directive), attribute.String("mtls.realm", realm.name)))
	return span
}

// endSpan ends a span with the decision of a directive and the error that it returns.
func (s *requestState) endSpan(span trace.Span, err error) {
	defer span.End()
	failure := caddyhttp.HandlerError{}
	if errors.As(err, &failure) {
		span.SetAttributes(attribute.String("mtls.error_id", failure.ID))
	}
	switch {
	case s.refused != nil:
		span.SetAttributes(attribute.String("mtls.result", string(s.refused.Reason)))
	case err != nil && failure.Err != nil: // refused for another reason, such as a missing signing key
		span.SetAttributes(attribute.String("mtls.result", failure.Err.Error()))
	case s.clientID() != "":
		span.SetAttributes(attribute.String("mtls.result", "ok"), attribute.String("mtls.client_id", s.clientID()))
	default:
		span.SetAttributes(attribute.String("mtls.result", "no_identity"))
	}
}

// spanKey is the context key of the issuer's span.
type spanKey struct{}

// withSpan returns the request with the span that [noteSpan] adds to.
func withSpan(r *http.Request, span trace.Span) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), spanKey{}, span))
}

// noteSpan notes what the issuer has decided, if the request is traced. What is noted last
// counts.
func noteSpan(r *http.Request, result, clientID, errorID string) {
	span, ok := r.Context().Value(spanKey{}).(trace.Span)
	if !ok {
		return
	}
	span.SetAttributes(attribute.String("mtls.result", result))
	if clientID != "" {
		span.SetAttributes(attribute.String("mtls.client_id", clientID))
	}
	if errorID != "" {
		span.SetAttributes(attribute.String("mtls.error_id", errorID))
	}
}

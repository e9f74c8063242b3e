package events_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/caddymtls/caddy-mtls-auth/internal/rig"
)

// spans receives spans over OTLP.
type spans struct {
	mu   sync.Mutex
	seen []*tracev1.Span
}

// ServeHTTP takes an export of spans.
func (s *spans) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var export collector.ExportTraceServiceRequest
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = proto.Unmarshal(body, &export)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, resource := range export.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			s.seen = append(s.seen, scope.GetSpans()...)
		}
	}
}

// attributes returns those of the span of that name and error id, "" for an admitted
// caller, and whether its parent is that of Caddy.
func (s *spans) attributes(name, errorID string) (found map[string]string, within bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, span := range s.seen {
		attributes := make(map[string]string)
		for _, attribute := range span.GetAttributes() {
			attributes[attribute.GetKey()] = attribute.GetValue().GetStringValue()
		}
		if span.GetName() != name || attributes["mtls.error_id"] != errorID {
			continue
		}
		for _, parent := range s.seen {
			within = within || parent.GetName() == "handler" && string(parent.GetSpanId()) == string(span.GetParentSpanId())
		}
		return attributes, within
	}
	return nil, false
}

// TestSpans checks that each directive has a span within that of Caddy's tracing, which
// says what it has decided.
func TestSpans(t *testing.T) {
	received := new(spans)
	server := httptest.NewServer(received)
	defer server.Close()
	for name, value := range map[string]string{
		"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_ENDPOINT": server.URL,
		"OTEL_BSP_SCHEDULE_DELAY": "20", "OTEL_TRACES_SAMPLER": "always_on",
	} {
		t.Setenv(name, value)
	}
	r := rig.New(t)
	billing, stranger := r.Issue("billing"), r.SelfSigned("stranger")
	r.SelfSigned("sensor")
	site := func(host, directive string) string {
		return "https://" + host + ":@HTTPS@ {\nimport mtls\ntracing\n" + directive + "\nrespond ok\n}\n"
	}
	r.Start(rig.IssuerRealm(""), site("api.test", "mtls_auth")+site("other.test", "mtls_bearer")+site("auth.test", "mtls_issuer"))
	const token = "https://auth.test/connect/token"
	check := func(directive, errorID, result, clientID string) {
		t.Helper()
		var got map[string]string
		rig.Await(r, t, "the span of "+directive+" "+errorID, func() (within bool) {
			got, within = received.attributes(directive, errorID)
			return within
		})
		want := map[string]string{"mtls.directive": directive, "mtls.realm": "default", "mtls.result": result, "mtls.client_id": clientID}
		for name, value := range want {
			if got[name] != value {
				t.Errorf("%s, %s: %s is %q, want %q", directive, errorID, name, got[name], value)
			}
		}
	}
	c, other := r.Caller(t, "h2", billing), r.Caller(t, "h2", stranger)
	answer, _, _ := rig.Token(r, t, c, token, rig.Form("billing.partner"))
	check("mtls_issuer", "", "ok", "billing.partner")
	c.Get("https://api.test/").WantStatus(t, http.StatusOK)
	check("mtls_auth", "", "ok", "billing.partner")
	c.Get("https://other.test/", rig.Bearer(answer["access_token"].(string))).WantStatus(t, http.StatusOK)
	check("mtls_bearer", "", "ok", "billing.partner")

	refused := other.Get("https://api.test/").WantStatus(t, http.StatusUnauthorized)
	check("mtls_auth", refused.ErrorID, r.Logs.WithErrorID(t, "client refused", refused.ErrorID).Str("reason"), "")
	refused = c.Get("https://other.test/", rig.Bearer("e30.e30.e30")).WantStatus(t, http.StatusUnauthorized)
	check("mtls_bearer", refused.ErrorID, r.Logs.WithErrorID(t, "token refused", refused.ErrorID).Str("reason"), "")
	refused = other.Do(http.MethodPost, token, rig.Form("billing.partner")).WantStatus(t, http.StatusBadRequest)
	check("mtls_issuer", refused.ErrorID, r.Logs.WithErrorID(t, "client refused", refused.ErrorID).Str("reason"), "")
}

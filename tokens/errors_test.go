package tokens

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestNewErrorStatus(t *testing.T) {
	for code, status := range map[string]int{
		CodeInvalidRequest:         400,
		CodeInvalidClient:          400,
		CodeUnsupportedGrantType:   400,
		CodeInvalidScope:           400,
		CodeInvalidTarget:          400,
		CodeServerError:            500,
		CodeTemporarilyUnavailable: 503,
	} {
		if got := NewError(code, "").Status; got != status {
			t.Errorf("%s has status %d, want %d", code, got, status)
		}
	}
}

// TestInvalidClientStatus_R27 checks that a 401 always has a challenge.
func TestInvalidClientStatus_R27(t *testing.T) {
	for challenge, want := range map[bool]int{false: http.StatusBadRequest, true: http.StatusUnauthorized} {
		w := httptest.NewRecorder()
		WriteError(w, InvalidClient("client authentication failed", challenge), "")
		if w.Code != want || strings.HasPrefix(w.Header().Get("WWW-Authenticate"), "Basic ") != challenge {
			t.Errorf("got %d with %v", w.Code, w.Header())
		}
	}
}

func TestWriteError(t *testing.T) {
	secret := errors.New("secret cause")
	for name, tc := range map[string]struct {
		e    *Error
		id   string
		want map[string]string
	}{
		"plain":         {NewError(CodeInvalidScope, "no such scope"), "", map[string]string{"error": "invalid_scope", "error_description": "no such scope"}},
		"with an id":    {NewError(CodeInvalidScope, "no such scope"), "abc123", map[string]string{"error": "invalid_scope", "error_description": "no such scope (error id: abc123)"}},
		"only an id":    {NewError(CodeServerError, ""), "abc123", map[string]string{"error": "server_error", "error_description": "(error id: abc123)"}},
		"nothing":       {NewError(CodeServerError, ""), "", map[string]string{"error": "server_error"}},
		"no quotes":     {NewError(CodeServerError, "a \"b\" \\ \n \u00e9"), "<\">", map[string]string{"error": "server_error", "error_description": "a ?b? ? ? ? (error id: <?>)"}},
		"cause is kept": {NewError(CodeServerError, "failed").withCause(secret), "", map[string]string{"error": "server_error", "error_description": "failed"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := httptest.NewRecorder()
			WriteError(w, tc.e, tc.id)
			var got map[string]string
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
				t.Fatal(err)
			}
			if len(got) != len(tc.want) || got["error"] != tc.want["error"] || got["error_description"] != tc.want["error_description"] {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			checkNotStored(t, w.Header())
			if w.Code != tc.e.Status {
				t.Errorf("status is %d", w.Code)
			}
		})
	}
}

func TestWriteErrorHeaders(t *testing.T) {
	w := httptest.NewRecorder()
	WriteError(w, unavailable(nil), "")
	if w.Code != 503 || w.Header().Get("Retry-After") != retryAfter {
		t.Errorf("got %d with %v", w.Code, w.Header())
	}
}

func TestTokenResponsesAreNotStored_E4_R29(t *testing.T) {
	w := httptest.NewRecorder()
	WriteToken(w, &TokenResponse{AccessToken: "a.b.c", TokenType: "Bearer", ExpiresIn: 3600, ID: "hidden", Audience: []string{"hidden"}})
	checkNotStored(t, w.Header())
	if got, want := w.Body.String(), `{"access_token":"a.b.c","token_type":"Bearer","expires_in":3600}`; w.Code != 200 || got != want {
		t.Errorf("got %d %s, want %s", w.Code, got, want)
	}
}

func checkNotStored(t *testing.T, h http.Header) {
	t.Helper()
	for name, want := range map[string]string{"Content-Type": "application/json", "Cache-Control": "no-store", "Pragma": "no-cache"} {
		if got := h.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestErrorIsAnErrorWithACause(t *testing.T) {
	cause := errors.New("the cause")
	err := NewError(CodeInvalidScope, "no").withCause(cause)
	if !errors.Is(err, cause) || err.Error() != "invalid_scope: no: the cause" {
		t.Errorf("error is %v", err)
	}
	unsupported := TokenRequest{GrantType: strings.Repeat("a", 101)}.CheckGrant()
	if want := `grant_type "` + strings.Repeat("a", 100) + `"`; unsupported.Cause.Error() != want {
		t.Errorf("the cause is %v", unsupported.Cause)
	}
}

package headerguard

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestVaryOfCopiedBodies_E4 checks that Vary is hidden in every way in which a
// handler can send the header.
func TestVaryOfCopiedBodies_E4(t *testing.T) {
	guard := Only("Client-Cert")
	for name, send := range map[string]func(w *VaryWriter) error{
		"ReadFrom": func(w *VaryWriter) error {
			_, err := w.ReadFrom(strings.NewReader("body"))
			return err
		},
		"io.Copy": func(w *VaryWriter) error {
			_, err := io.Copy(w, struct{ io.Reader }{strings.NewReader("body")})
			return err
		},
		"Write":       func(w *VaryWriter) error { _, err := io.WriteString(w, "body"); return err },
		"WriteHeader": func(w *VaryWriter) error { w.WriteHeader(http.StatusOK); return nil },
		"FlushError":  func(w *VaryWriter) error { return http.NewResponseController(w).Flush() },
	} {
		for vary, want := range map[string]string{"Client-Cert": "*", "Accept, client-cert": "*", "Accept": "Accept"} {
			recorder := httptest.NewRecorder()
			w := guard.VaryWriter(recorder)
			w.Header().Set("Vary", vary)
			if err := send(w); err != nil {
				t.Fatal(name, err)
			}
			if got := recorder.Result().Header.Get("Vary"); got != want { // as it was when the header was sent
				t.Errorf("%s: Vary %q is sent as %q, want %q", name, vary, got, want)
			}
		}
	}
}

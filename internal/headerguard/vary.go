package headerguard

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// VaryWriter hides from caches outside that a response depends on a header
// which they never see, because the gateway sets it: Vary becomes `*`, so that
// no cache gives one client's response to another (RFC 9440 §2.4).
type VaryWriter struct {
	caddyhttp.ResponseWriterWrapper
	guard *Guard
	sent  bool // the header, by WriteHeader
}

// VaryWriter returns a writer that hides the protected names in Vary. The
// response header may not have been sent when the handler within returns, so its
// caller calls [VaryWriter.Hide] then.
func (g *Guard) VaryWriter(w http.ResponseWriter) *VaryWriter {
	return &VaryWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, guard: g}
}

// Hide replaces the Vary of a response whose header has not been sent yet.
func (w *VaryWriter) Hide() {
	if w.sent {
		return
	}
	header := w.Header()
	for _, value := range header["Vary"] {
		for name := range strings.SplitSeq(value, ",") {
			if w.guard.protects(strings.TrimSpace(name)) {
				header["Vary"] = []string{"*"}
				return
			}
		}
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *VaryWriter) WriteHeader(status int) {
	w.Hide()
	w.sent = status >= http.StatusOK
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter. The first call sends the header unless
// WriteHeader has sent it.
func (w *VaryWriter) Write(p []byte) (int, error) {
	w.Hide()
	return w.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *VaryWriter) ReadFrom(r io.Reader) (int64, error) {
	w.Hide()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is called by http.ResponseController, which finds Hijack, Push and
// the deadlines in the wrapped writer.
func (w *VaryWriter) FlushError() error {
	w.Hide()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Interface guards
var (
	_ http.ResponseWriter = (*VaryWriter)(nil)
	_ io.ReaderFrom       = (*VaryWriter)(nil)
)

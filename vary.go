package mtlsauth

import (
	"io"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// varyWriter hides from caches outside that a response depends on a header
// which they never see, because it is set here: Vary becomes `*`, so that no
// cache takes the response of one client for another's (RFC 9440 §2.4).
type varyWriter struct {
	caddyhttp.ResponseWriterWrapper
	names *headerNames
	sent  bool // the header, by WriteHeader
}

// hide replaces the Vary of a response whose header is about to be sent.
func (w *varyWriter) hide() {
	if w.sent {
		return
	}
	header := w.Header()
	for _, value := range header["Vary"] {
		for name := range strings.SplitSeq(value, ",") {
			if w.names.contains(strings.TrimSpace(name)) {
				header["Vary"] = []string{"*"}
				return
			}
		}
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *varyWriter) WriteHeader(status int) {
	w.hide()
	w.sent = status >= http.StatusOK
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter. The first of them sends the header,
// where nobody has done that before.
func (w *varyWriter) Write(p []byte) (int, error) {
	w.hide()
	return w.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *varyWriter) ReadFrom(r io.Reader) (int64, error) {
	w.hide()
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is what http.ResponseController looks for. Hijack, Push and the
// deadlines it finds in the writer within.
func (w *varyWriter) FlushError() error {
	w.hide()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// pass hands the request to the next handler, and hides from the response what
// no cache outside can know.
func (h *Handler) pass(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if !h.ForwardCertificate && h.ForwardToken == nil {
		return next.ServeHTTP(w, r)
	}
	within := &varyWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, names: h.own.names}
	err := next.ServeHTTP(within, r)
	within.hide() // the header may not have been sent yet
	if err != nil {
		// error routes answer without the writer above, so they are told neither
		// the certificate nor the token
		for _, name := range h.forwardedNames() {
			delete(r.Header, name)
		}
	}
	return err
}

// Interface guards
var (
	_ http.ResponseWriter = (*varyWriter)(nil)
	_ io.ReaderFrom       = (*varyWriter)(nil)
)

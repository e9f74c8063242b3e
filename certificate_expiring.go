package mtlsauth

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/events"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
)

const (
	day = 24 * time.Hour
	// defaultExpiringWithin and maxExpiringWithin are the default and the maximum of
	// `within`.
	defaultExpiringWithin = 30 * day
	maxExpiringWithin     = 366 * day
	// defaultDaysLeftHeader is the response header if none is named.
	defaultDaysLeftHeader = "Client-Cert-Days-Left"
)

// CertificateExpiring configures who is told, and when, that the certificate of a client
// expires soon.
type CertificateExpiring struct {
	// How long before it expires a certificate is reported: once a day by the event
	// `mtls_certificate_expiring`, and to its client in the response header, if there
	// is one. Default: `30d`, at most `366d`.
	Within caddy.Duration `json:"within,omitempty"`

	// The response header in which admitted clients get the number of whole days that
	// their certificate has left. It replaces one of the upstream, and cannot be one that
	// means something else to clients, such as `Set-Cookie`. Default: none.
	ResponseHeader string `json:"response_header,omitempty"`
}

// UnmarshalCaddyfile reads who is told that a certificate expires soon. Syntax:
//
//	certificate_expiring {
//		within          <duration>
//		response_header [<name>]
//	}
func (c *CertificateExpiring) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	if err := parseBlock(d, "certificate_expiring option", c.options()); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return d.WrapErr(fmt.Errorf("certificate_expiring: %w", err))
	}
	return nil
}

// options returns the options of the block.
func (c *CertificateExpiring) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"within <duration>": caddyfileutil.Duration(&c.Within, checkExpiringWithin),
		"response_header [<name>]": {Check: checkDaysLeftHeader, Parse: func(d *caddyfile.Dispenser) error {
			if d.CountRemainingArgs() > 0 {
				return caddyfileutil.String(&c.ResponseHeader, checkDaysLeftHeader).Parse(d)
			}
			if c.ResponseHeader != "" {
				return d.Errf("duplicate option '%s'; keep one", d.Val())
			}
			c.ResponseHeader = defaultDaysLeftHeader
			return nil
		}},
	}
}

// otherMeanings are response headers that clients, browsers and caches act on.
var otherMeanings = headerguard.NewNames(
	"Accept-*", "Access-Control-*", "Age", "Allow", "Authentication-Info", "Authorization", "Cache-Control", "Clear-Site-Data", "Content-*", "Cross-Origin-*",
	"Date", "ETag", "Expires", "Last-Modified", "Link", "Location", "Pragma", "Refresh", "Retry-After", "Set-Cookie", "Strict-Transport-Security",
	"Vary", "WWW-Authenticate", "X-Content-Type-Options", "X-Frame-Options",
)

// checkDaysLeftHeader returns why the days that are left cannot be sent in the response
// header, or nil.
func checkDaysLeftHeader(name string) error {
	if otherMeanings.Contains(name) {
		return fmt.Errorf("header '%s' means something else to clients; choose another name", name)
	}
	return headerguard.CheckName(name)
}

func checkExpiringWithin(within caddy.Duration) error {
	if within <= 0 || time.Duration(within) > maxExpiringWithin {
		return fmt.Errorf("within %s is out of range; use more than 0 and at most 366d", time.Duration(within))
	}
	return nil
}

func (c *CertificateExpiring) check() error {
	if *c == (CertificateExpiring{}) {
		return errors.New("it is empty, so it has no effect; add within or response_header, or remove the block")
	}
	if c.Within != 0 {
		if err := checkExpiringWithin(c.Within); err != nil {
			return err
		}
	}
	if c.ResponseHeader == "" {
		return nil
	}
	if err := checkDaysLeftHeader(c.ResponseHeader); err != nil {
		return fmt.Errorf("response_header '%s': %w", c.ResponseHeader, err)
	}
	return nil
}

// expiryNotice is who is told that a certificate expires soon.
type expiryNotice struct {
	within time.Duration
	header string // canonical, "" for none
}

// compile returns the notice of a realm, whose configuration may be nil.
func (c *CertificateExpiring) compile() (expiryNotice, error) {
	notice := expiryNotice{within: defaultExpiringWithin}
	if c == nil {
		return notice, nil
	}
	if err := c.check(); err != nil {
		return notice, err
	}
	if c.Within != 0 {
		notice.within = time.Duration(c.Within)
	}
	notice.header = http.CanonicalHeaderKey(c.ResponseHeader)
	return notice, nil
}

// daysLeft returns how many whole days are left until notAfter, and whether that is to be
// told.
func (n *expiryNotice) daysLeft(notAfter, now time.Time) (days int, told bool) {
	left := notAfter.Sub(now)
	return events.DaysLeft(notAfter, now), left <= n.within
}

// tellDaysLeft returns a writer that tells an admitted caller how many days its
// certificate has left, or w itself if there is nothing to tell.
func (n *expiryNotice) tellDaysLeft(app *App, w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	if n.header == "" {
		return w
	}
	return n.withDaysLeft(w, stateOf(app, r).leaf(), app.Now)
}

// withDaysLeft does so for an admitted certificate, which may be nil.
func (n *expiryNotice) withDaysLeft(w http.ResponseWriter, leaf *x509.Certificate, now func() time.Time) http.ResponseWriter {
	if n.header == "" || leaf == nil {
		return w
	}
	days, told := n.daysLeft(leaf.NotAfter, now())
	if !told {
		return w
	}
	writer := &daysLeftWriter{ResponseWriterWrapper: caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, name: n.header, days: strconv.Itoa(days)}
	writer.set() // also for error routes, which do not write through this writer
	return writer
}

// daysLeftWriter sets a response header, whatever the upstream says.
type daysLeftWriter struct {
	caddyhttp.ResponseWriterWrapper
	name, days string
	sent       bool // the header
}

func (w *daysLeftWriter) set() {
	if !w.sent {
		w.Header()[w.name] = []string{w.days}
	}
}

// WriteHeader implements http.ResponseWriter.
func (w *daysLeftWriter) WriteHeader(status int) {
	w.set()
	w.sent = w.sent || status >= http.StatusOK || status == http.StatusSwitchingProtocols
	w.ResponseWriterWrapper.WriteHeader(status)
}

// Write implements http.ResponseWriter. The first call sends the header unless WriteHeader
// has sent it.
func (w *daysLeftWriter) Write(p []byte) (int, error) {
	w.set()
	w.sent = true
	return w.ResponseWriterWrapper.Write(p)
}

// ReadFrom implements io.ReaderFrom.
func (w *daysLeftWriter) ReadFrom(r io.Reader) (int64, error) {
	w.set()
	w.sent = true
	return w.ResponseWriterWrapper.ReadFrom(r)
}

// FlushError is called by http.ResponseController, which finds Hijack, Push and the
// deadlines in the wrapped writer.
func (w *daysLeftWriter) FlushError() error {
	w.set()
	w.sent = true
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*CertificateExpiring)(nil)
	_ http.ResponseWriter   = (*daysLeftWriter)(nil)
	_ io.ReaderFrom         = (*daysLeftWriter)(nil)
)

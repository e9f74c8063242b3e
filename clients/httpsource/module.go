package httpsource

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/dustin/go-humanize"
	"golang.org/x/net/http/httpguts"

	"github.com/caddymtls/caddy-mtls-auth/clients"
	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// HTTP reads clients from a document behind an https URL: a JSON array of client records
// like those of the configuration, or JSON Lines. Placeholders are not expanded in
// records. The document is asked for again and again, with the ETag and Last-Modified of
// the one that is in force. A change takes effect as a whole; one that is broken, or in
// conflict with other clients, changes nothing. The server is reached as the `fetch`
// option of the realm says.
type HTTP struct {
	// The https URL of the document. Required.
	URL string `json:"url,omitempty"`

	// How often the document is asked for. Default: `1m`, at least `1s`.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// How long the server may send nothing. The whole answer may take 5 minutes, or the
	// timeout if that is longer. Default: `30s`.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Request headers, such as one with a token. They are sent to the host of the URL
	// only, also after a redirect, and never logged.
	Headers map[string]string `json:"headers,omitempty"`

	// The file where the last good document is kept, for a start while the server cannot
	// be reached. It is written with mode 0600. Default: none.
	KeepCopy string `json:"keep_copy,omitempty"`

	// The size of the largest document, in bytes. Default: 1 GiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// What a record that is wrong does: `refuse` refuses the whole change, and `skip`
	// leaves out this record, so that what its client had stays in force. Default:
	// `refuse`.
	OnBadRecord string `json:"on_bad_record,omitempty"`

	config Config
}

// CaddyModule returns the Caddy module information.
func (*HTTP) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "mtls.clients.http",
		New: func() caddy.Module { return new(HTTP) },
	}
}

// Provision checks the settings and resolves their placeholders.
func (h *HTTP) Provision(caddy.Context) error {
	if h.URL == "" {
		return errors.New("no URL; add one")
	}
	if err := h.check(); err != nil {
		return err
	}
	h.config = Config{
		Refresh: time.Duration(h.Refresh), Timeout: time.Duration(h.Timeout), Header: make(http.Header),
		MaxSize: h.MaxSize, SkipBad: h.OnBadRecord == clients.OnBadRecordSkip,
	}
	var err error
	if h.config.Address, err = caddyfileutil.Expand(h.URL); err != nil {
		return fmt.Errorf("url '%s': %w", source.ShownValue(h.URL), err)
	}
	if h.config.KeepCopy, err = caddyfileutil.Expand(h.KeepCopy); err != nil {
		return fmt.Errorf("keep_copy '%s': %w", h.KeepCopy, err)
	}
	for name, value := range h.Headers {
		if err := checkHeaderName(name); err != nil {
			return fmt.Errorf("header %q: %w", name, err)
		}
		value, err := caddyfileutil.Expand(value)
		if err != nil {
			return fmt.Errorf("header %s: %w", name, err)
		}
		if value == "" || !httpguts.ValidHeaderFieldValue(value) {
			return fmt.Errorf("header %s: its value is empty or has characters that a header cannot have, such as a line feed; correct it", name)
		}
		if h.config.Header.Get(name) != "" {
			return fmt.Errorf("duplicate header %s; keep one", name)
		}
		h.config.Header.Set(name, value)
	}
	return nil
}

// check checks the settings that have no placeholders.
func (h *HTTP) check() error {
	if h.Refresh != 0 {
		if err := checkRefresh(h.Refresh); err != nil {
			return err
		}
	}
	if h.Timeout != 0 {
		if err := checkTimeout(h.Timeout); err != nil {
			return err
		}
	}
	if h.MaxSize < 0 {
		return fmt.Errorf("max_size %d is negative; use a number of bytes", h.MaxSize)
	}
	if h.OnBadRecord != "" {
		if err := clients.CheckOnBadRecord(h.OnBadRecord); err != nil {
			return fmt.Errorf("on_bad_record '%s': %w", h.OnBadRecord, err)
		}
	}
	return nil
}

// UnmarshalCaddyfile reads the URL of clients_from. Syntax:
//
//	clients_from http <https-url> {
//		refresh       <duration>
//		timeout       <duration>
//		header        <name> <value>
//		keep_copy     <file>
//		max_size      <size>
//		on_bad_record refuse|skip
//	}
func (h *HTTP) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the module's name
	if err := caddyfileutil.CheckArgs(d, "http <https-url> {"); err != nil {
		return err
	}
	if err := caddyfileutil.String(&h.URL, source.CheckSecureURL).Parse(d); err != nil {
		return err
	}
	return caddyfileutil.ParseBlock(d, "clients_from http option", h.options(), nil)
}

// options returns the options of the block.
func (h *HTTP) options() caddyfileutil.Options {
	return caddyfileutil.Options{
		"refresh <duration>":        caddyfileutil.Duration(&h.Refresh, checkRefresh),
		"timeout <duration>":        caddyfileutil.Duration(&h.Timeout, checkTimeout),
		"header <name> <value>":     {Parse: h.parseHeader},
		"keep_copy <file>":          caddyfileutil.String(&h.KeepCopy, nil),
		"max_size <size>":           {Parse: h.parseMaxSize},
		"on_bad_record refuse|skip": caddyfileutil.String(&h.OnBadRecord, clients.CheckOnBadRecord),
	}
}

// parseHeader reads a header. Errors do not show its value.
func (h *HTTP) parseHeader(d *caddyfile.Dispenser) error {
	var name, value string
	d.Args(&name, &value)
	if err := checkHeaderName(name); err != nil {
		return d.WrapErr(fmt.Errorf("header %q: %w", name, err))
	}
	name = http.CanonicalHeaderKey(name)
	if _, twice := h.Headers[name]; twice {
		return d.Errf("duplicate header %s; keep one", name)
	}
	if value == "" {
		return d.Errf("header %s is empty; give it a value or remove the line", name)
	}
	if h.Headers == nil {
		h.Headers = make(map[string]string)
	}
	h.Headers[name] = value
	return nil
}

func (h *HTTP) parseMaxSize(d *caddyfile.Dispenser) error {
	if h.MaxSize != 0 {
		return d.Errf("duplicate option 'max_size'; keep one")
	}
	var text string
	d.Args(&text)
	size, err := humanize.ParseBytes(text)
	if err != nil || size == 0 || size > 1<<62 {
		return d.Errf("max_size '%s' is not a size; write it as 512MiB or 2GiB", text)
	}
	h.MaxSize = int64(size)
	return nil
}

func checkRefresh(d caddy.Duration) error {
	if time.Duration(d) < minRefresh {
		return fmt.Errorf("refresh %s is too short; use at least %s", time.Duration(d), minRefresh)
	}
	return nil
}

func checkTimeout(d caddy.Duration) error {
	if time.Duration(d) < minTimeout {
		return fmt.Errorf("timeout %s is too short; use at least %s", time.Duration(d), minTimeout)
	}
	return nil
}

// ownHeaders are the headers that the source or HTTP itself sets.
var ownHeaders = []string{
	"Accept-Encoding", "Connection", "Content-Length", "Host", "If-Modified-Since", "If-None-Match", "Range", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

func checkHeaderName(name string) error {
	switch {
	case !httpguts.ValidHeaderFieldName(name):
		return errors.New("it is not the name of a header")
	case slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)):
		return errors.New("this header is set by the source itself; remove it")
	}
	return nil
}

// ClientSources implements [clients.SourceModule].
func (h *HTTP) ClientSources(host clients.Host) ([]clients.Source, error) {
	config := h.config
	config.Transport, config.Logger, config.Now = host.Transport, host.Logger, host.Now
	s, err := New(config)
	if err != nil {
		return nil, err
	}
	return []clients.Source{s}, nil
}

// Interface guards
var (
	_ caddy.Provisioner     = (*HTTP)(nil)
	_ caddyfile.Unmarshaler = (*HTTP)(nil)
	_ clients.SourceModule  = (*HTTP)(nil)
)

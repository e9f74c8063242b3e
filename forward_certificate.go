package mtlsauth

import (
	"errors"
	"fmt"
	"net/http"
	"net/textproto"

	"github.com/caddymtls/caddy-mtls-auth/internal/authn"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// ForwardCertificate gives the upstream the certificate of an admitted client, as one or
// several kinds of proxies send it. Its values are those of
// `forwarded_certificate`, which reads what is written here.
type ForwardCertificate struct {
	// In which headers, and how they are encoded: `rfc9440` (RFC 9440, `Client-Cert`
	// and `Client-Cert-Chain`), `nginx` (URL-encoded PEM in `X-SSL-Client-Cert`),
	// `haproxy` (DER in base64 in `X-SSL-Client-Cert`), `envoy`
	// (`X-Forwarded-Client-Cert`), `aws_alb` (`X-Amzn-Mtls-Clientcert`) or `traefik`
	// (`X-Forwarded-Tls-Client-Cert`). All but `nginx` and `haproxy` have the
	// verified chain, including the CA of the trust pool, unless a pin admitted the
	// client without one. No two may write the same header. Default: `rfc9440`.
	Formats []string `json:"formats,omitempty"`

	// The header that has the certificate. Only one format can have another header
	// than its own. In `X-Amzn-Mtls-Clientcert-Leaf`, `aws_alb` has the client's own
	// certificate alone. Default: the header of the format.
	Header string `json:"header,omitempty"`

	// headers are set by provision
	headers []certificateHeader
}

// certificateHeader is where the upstream gets a certificate in one format. The names are
// keys of http.Header; chain is "" for a format without a second header.
type certificateHeader struct {
	format      *forwarded.Format
	cert, chain string
}

// compile returns the headers, or what is wrong with the configuration.
func (f *ForwardCertificate) compile() ([]certificateHeader, error) {
	formats := f.Formats
	switch {
	case formats == nil:
		formats = []string{forwarded.Formats[0].Name}
	case len(formats) == 0:
		return nil, errors.New("formats is an empty list; name a format, or leave it out for rfc9440")
	case f.Header != "" && len(formats) > 1:
		return nil, fmt.Errorf("header '%s' cannot have %d formats; keep one format, or remove the header", f.Header, len(formats))
	}
	var headers []certificateHeader
	for _, name := range formats {
		format, err := forwarded.ParseFormat(name)
		if err != nil {
			return nil, err
		}
		header := certificateHeader{
			format: format.In(f.Header),
			cert:   textproto.CanonicalMIMEHeaderKey(format.Header),
			chain:  textproto.CanonicalMIMEHeaderKey(format.ChainHeader),
		}
		for _, other := range headers {
			switch {
			case other.format == header.format:
				return nil, fmt.Errorf("duplicate format '%s'; keep one", format)
			case other.cert == header.cert:
				return nil, fmt.Errorf("formats %s and %s have the same header '%s'; keep one", other.format, format, format.Header)
			}
		}
		headers = append(headers, header)
	}
	if f.Header != "" {
		if err := headerguard.CheckName(f.Header); err != nil {
			return nil, err
		}
		header := &headers[0]
		if header.chain != "" && headerguard.NewNames(f.Header).Contains(header.chain) {
			return nil, fmt.Errorf("header '%s' has the chain; name another one for the client's certificate", f.Header)
		}
		header.cert = textproto.CanonicalMIMEHeaderKey(f.Header)
	}
	return headers, nil
}

// provision compiles the configuration, and has the realm encode what it needs.
func (f *ForwardCertificate) provision(realm *Realm) error {
	var err error
	if f.headers, err = f.compile(); err != nil {
		return err
	}
	for _, header := range f.headers {
		realm.forwards.Use(header.format)
	}
	return nil
}

// names returns the names of all headers, or nil if the configuration is wrong.
func (f *ForwardCertificate) names() []string {
	headers, _ := f.compile()
	var names []string
	for _, header := range headers {
		names = append(names, header.cert)
		if header.chain != "" {
			names = append(names, header.chain)
		}
	}
	return names
}

// set sets the headers.
func (f *ForwardCertificate) set(header http.Header, values *authn.CertificateHeaders) {
	lines := make([]string, 0, 2*len(f.headers))
	set := func(name, value string) {
		if value != "" {
			lines = append(lines, value)
			last := len(lines)
			header[name] = lines[last-1 : last : last]
		}
	}
	for i := range f.headers {
		h := &f.headers[i]
		cert, chain := values.In(h.format)
		set(h.cert, cert)
		set(h.chain, chain)
	}
}

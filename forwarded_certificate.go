package mtlsauth

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddymtls/caddy-mtls-auth/internal/caddyfileutil"
	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/validators"
	"github.com/caddymtls/caddy-mtls-auth/validators/forwarded"
)

// ForwardedCertificate takes client certificates from proxies that terminate TLS
// before Caddy and send the certificate in a header. The header counts only from the
// proxies named here. From such a proxy only the header counts: the certificate of
// the proxy itself never becomes an identity.
type ForwardedCertificate struct {
	// How the proxy encodes the certificate: `rfc9440` (RFC 9440 Client-Cert),
	// `nginx` (URL-encoded PEM), `haproxy` (DER in base64), `envoy`
	// (X-Forwarded-Client-Cert, with `Cert`), `aws_alb` or `traefik` (DER in base64,
	// a comma before each certificate of the chain).
	Format string `json:"format"`

	// The addresses or CIDR ranges that the proxies connect from.
	From []string `json:"from,omitempty"`

	// SHA-256 hashes of the public keys of proxies that connect with a certificate
	// of their own. `from` or `peer_keys` is required; a proxy that either of them
	// names is trusted.
	PeerKeys []string `json:"peer_keys,omitempty"`

	// The header that carries the certificate. Default: the usual one of the format.
	Header string `json:"header,omitempty"`
}

var errNoTrustedProxies = errors.New("no trusted proxy is named; add 'from <cidr>' or 'peer_key <hash>'")

// proxyCertificates is the compiled form of [ForwardedCertificate]: which proxies
// may forward certificates, and how. It is nil if none may.
type proxyCertificates struct {
	format      *forwarded.Format
	from        []netip.Prefix
	peerKeys    map[[sha256.Size]byte]struct{}
	header      string
	chainHeader string
	// denied returns why a certificate is denied. It is nil without a deny file.
	denied func(...*x509.Certificate) *validators.Refusal
}

// compile checks the configuration.
func (c *ForwardedCertificate) compile() (*proxyCertificates, error) {
	format, err := forwarded.ParseFormat(c.Format)
	if err != nil {
		return nil, err
	}
	if len(c.From)+len(c.PeerKeys) == 0 {
		return nil, errNoTrustedProxies
	}
	p := &proxyCertificates{
		format: format, peerKeys: make(map[[sha256.Size]byte]struct{}),
		// in the form of the keys of http.Header
		header:      textproto.CanonicalMIMEHeaderKey(format.Header),
		chainHeader: textproto.CanonicalMIMEHeaderKey(format.ChainHeader),
	}
	for _, text := range c.From {
		if text, err = caddyfileutil.Expand(text); err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		prefix, err := parseFrom(text)
		if err != nil {
			return nil, fmt.Errorf("from '%s': %w", text, err)
		}
		p.from = append(p.from, prefix)
	}
	for _, text := range c.PeerKeys {
		if text, err = caddyfileutil.Expand(text); err != nil {
			return nil, fmt.Errorf("peer_key: %w", err)
		}
		sum, err := validators.ParseSHA256(text)
		if err != nil {
			return nil, fmt.Errorf("peer_key '%s': %w", text, err)
		}
		p.peerKeys[sum] = struct{}{}
	}
	if c.Header != "" {
		if err := headerguard.CheckName(c.Header); err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
		p.header = textproto.CanonicalMIMEHeaderKey(c.Header)
		if p.header == p.chainHeader {
			return nil, fmt.Errorf("header '%s' carries the chain; name the header of the client certificate", c.Header)
		}
	}
	return p, nil
}

// parseFrom parses an address or a range.
func parseFrom(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		if address.Zone() != "" {
			return netip.Prefix{}, errors.New("an address with a zone can belong to any host on the link; use an address without a zone, or peer_key")
		}
		return netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, errors.New("not an address or a range such as 10.0.0.0/8")
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	if prefix.Bits() == 0 {
		return prefix, errors.New("the range covers every address; name the proxies' addresses only")
	}
	if masked := prefix.Masked(); masked != prefix {
		return prefix, fmt.Errorf("the address has bits beyond the range; write %s for the range, or %s for one proxy", masked, prefix.Addr())
	}
	return prefix, nil
}

// headerNames returns the headers that carry certificates.
func (p *proxyCertificates) headerNames() []string {
	if p == nil {
		return nil
	}
	if p.chainHeader == "" {
		return []string{p.header}
	}
	return []string{p.header, p.chainHeader}
}

// trusts reports whether the immediate peer may forward certificates. It looks at
// the connection, never at headers.
func (p *proxyCertificates) trusts(r *http.Request) bool {
	if p == nil {
		return false
	}
	if r.Context().Value(http.LocalAddrContextKey) == nil {
		// a handler such as templates made this request, with the headers of its own
		// caller and a loopback address
		return false
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		address := peer.Addr().Unmap().WithZone("")
		if slices.ContainsFunc(p.from, func(prefix netip.Prefix) bool { return prefix.Contains(address) }) {
			return true
		}
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || earlyData(r) {
		return false
	}
	return p.trustsKey(r.TLS.PeerCertificates[0])
}

// trustsKey reports whether a peer may forward because of its own certificate.
func (p *proxyCertificates) trustsKey(own *x509.Certificate) bool {
	if p == nil || len(p.peerKeys) == 0 {
		return false
	}
	_, known := p.peerKeys[sha256.Sum256(own.RawSubjectPublicKeyInfo)]
	return known && (p.denied == nil || p.denied(own) == nil)
}

// ignoredHeader returns the header of the request with a certificate that does not
// count, because the peer is not a trusted proxy, or "".
func (p *proxyCertificates) ignoredHeader(r *http.Request) string {
	if r.Context().Value(http.LocalAddrContextKey) == nil || p.trusts(r) {
		return ""
	}
	if p == nil {
		if removed, ok := caddyhttp.GetVar(r.Context(), removedVar).(string); ok {
			return removed
		}
		return headerguard.CertificateHeader(r.Header) // mtls_issuer removes none
	}
	state, ok := caddyhttp.GetVar(r.Context(), requestVar).(*requestState)
	if ok && headerguard.HasValue(state.proxyHeaders[p.header]) {
		return p.header
	}
	return ""
}

// whyIgnored says why the header of this peer did not count.
func (p *proxyCertificates) whyIgnored(header, peer string) string {
	if p == nil {
		return fmt.Sprintf("header %s from %s was ignored because the realm has no forwarded_certificate; if this is your proxy, add one that names it", header, peer)
	}
	var missing []string
	if len(p.from) > 0 {
		missing = append(missing, "'from' does not have this address")
	}
	if len(p.peerKeys) > 0 {
		missing = append(missing, "'peer_key' does not have the key of its certificate")
	}
	return fmt.Sprintf("header %s from %s was ignored because %s; if this is your proxy, name it in forwarded_certificate",
		header, peer, strings.Join(missing, " and "))
}

// parse returns the certificates in the headers of a trusted proxy, leaf first.
func (p *proxyCertificates) parse(headers http.Header) ([]*x509.Certificate, *validators.Refusal) {
	certificates, err := p.format.Parse(headers[p.header], headers[p.chainHeader])
	switch {
	case err == nil:
		return certificates, nil
	case errors.Is(err, forwarded.ErrNoCertificate):
		return nil, refuse(validators.CertificateMissing, "the proxy forwarded no certificate in %s", p.header)
	}
	return nil, refuse(validators.CertificateUnsuitable, "what the proxy forwarded in %s cannot be read as %s: %v", p.header, p.format, err)
}

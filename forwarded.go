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

	"github.com/caddymtls/caddy-mtls-auth/internal/headerguard"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// ForwardedCertificate says that TLS may end before Caddy, at a proxy that
// sends the client's certificate along in a header. The header counts only
// from a proxy that is named here, and from such a proxy only the header
// counts: its own certificate never becomes an identity.
type ForwardedCertificate struct {
	// How the proxy writes the certificate: `rfc9440` (RFC 9440 Client-Cert),
	// `nginx` (URL-encoded PEM), `haproxy` (DER in base64), `envoy`
	// (X-Forwarded-Client-Cert, with `Cert`) or `aws_alb`.
	Format string `json:"format"`

	// The addresses, or ranges in CIDR notation, that the proxies connect from.
	From []string `json:"from,omitempty"`

	// SHA-256 hashes of the public keys of proxies, for those that connect
	// with a certificate of their own. From or peer_keys must be given; a
	// proxy that one of them names is trusted.
	PeerKeys []string `json:"peer_keys,omitempty"`

	// The header the certificate is in. Default: the one the format is known for.
	Header string `json:"header,omitempty"`
}

var errAnybodyForwards = errors.New("nothing says which proxies may forward, so anybody could; add 'from <cidr>' or 'peer_key <hash>'")

// forwarding is the compiled form of ForwardedCertificate.
type forwarding struct {
	format      validators.ForwardFormat
	from        []netip.Prefix
	peerKeys    map[[sha256.Size]byte]struct{}
	header      string
	chainHeader string
	// denied tells why a certificate is denied; nil where nothing can be
	denied func(...*x509.Certificate) *validators.Refusal
}

func (c *ForwardedCertificate) compile() (*forwarding, error) {
	format, err := validators.ParseForwardFormat(c.Format)
	if err != nil {
		return nil, err
	}
	if len(c.From)+len(c.PeerKeys) == 0 {
		return nil, errAnybodyForwards
	}
	f := &forwarding{
		format: format, peerKeys: make(map[[sha256.Size]byte]struct{}),
		// as they are keys of a request's headers
		header:      textproto.CanonicalMIMEHeaderKey(format.Header()),
		chainHeader: textproto.CanonicalMIMEHeaderKey(format.ChainHeader()),
	}
	for _, text := range c.From {
		if text, err = expand(text); err != nil {
			return nil, fmt.Errorf("from: %w", err)
		}
		prefix, err := parseFrom(text)
		if err != nil {
			return nil, fmt.Errorf("from '%s': %w", text, err)
		}
		f.from = append(f.from, prefix)
	}
	for _, text := range c.PeerKeys {
		if text, err = expand(text); err != nil {
			return nil, fmt.Errorf("peer_key: %w", err)
		}
		sum, err := validators.ParseSHA256(text)
		if err != nil {
			return nil, fmt.Errorf("peer_key '%s': %w", text, err)
		}
		f.peerKeys[sum] = struct{}{}
	}
	if c.Header != "" {
		if err := headerguard.CheckName(c.Header); err != nil {
			return nil, fmt.Errorf("header: %w", err)
		}
		f.header = textproto.CanonicalMIMEHeaderKey(c.Header)
		if f.header == f.chainHeader {
			return nil, fmt.Errorf("header '%s' is the one that the chain is in; name the one of the client's own certificate", c.Header)
		}
	}
	return f, nil
}

func parseFrom(text string) (netip.Prefix, error) {
	if address, err := netip.ParseAddr(text); err == nil {
		if address.Zone() != "" {
			return netip.Prefix{}, errors.New("an address with a zone is any host's of that link; name an address without one, or use peer_key")
		}
		return netip.PrefixFrom(address.Unmap(), address.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, errors.New("it is neither an address nor a range such as 10.0.0.0/8")
	}
	if prefix.Addr().Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	if prefix.Bits() == 0 {
		return prefix, errors.New("it is every address there is, so anybody could be anybody; name the proxies' own")
	}
	if masked := prefix.Masked(); masked != prefix {
		return prefix, fmt.Errorf("the address has more bits than the range; write %s for the range, or %s for the one proxy", masked, prefix.Addr())
	}
	return prefix, nil
}

// headers are the names that carry certificates.
func (f *forwarding) headers() []string {
	if f == nil {
		return nil
	}
	if f.chainHeader == "" {
		return []string{f.header}
	}
	return []string{f.header, f.chainHeader}
}

// trusts reports whether the other end of the connection may forward. It looks
// at the socket and never at what a header says of it.
func (f *forwarding) trusts(r *http.Request) bool {
	if f == nil {
		return false
	}
	if r.Context().Value(http.LocalAddrContextKey) == nil {
		// it came over no connection: a handler made it, such as templates,
		// with the headers of its own caller and a loopback address
		return false
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		address := peer.Addr().Unmap().WithZone("")
		if slices.ContainsFunc(f.from, func(prefix netip.Prefix) bool { return prefix.Contains(address) }) {
			return true
		}
	}
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 || earlyData(r) {
		return false
	}
	return f.knows(r.TLS.PeerCertificates[0])
}

// knows reports whether a peer's own certificate makes it one that may forward.
func (f *forwarding) knows(own *x509.Certificate) bool {
	if f == nil || len(f.peerKeys) == 0 {
		return false
	}
	_, known := f.peerKeys[sha256.Sum256(own.RawSubjectPublicKeyInfo)]
	return known && (f.denied == nil || f.denied(own) == nil)
}

// presented returns the certificates of the client, leaf first: from the
// connection, or, where a trusted proxy ended it, from the header alone.
func (realm *Realm) presented(state *requestState, r *http.Request) ([]*x509.Certificate, *validators.Refusal) {
	if !realm.forwarded.trusts(r) {
		return presentedCertificates(r), nil
	}
	certificates, err := realm.forwarded.format.Parse(state.forwarded[realm.forwarded.header], state.forwarded[realm.forwarded.chainHeader])
	switch {
	case err == nil:
		return certificates, nil
	case errors.Is(err, validators.ErrNoForwardedCertificate):
		return nil, &validators.Refusal{Reason: validators.CertificateMissing, Detail: fmt.Sprintf("the proxy forwarded no certificate in %s", realm.forwarded.header)}
	}
	return nil, &validators.Refusal{
		Reason: validators.CertificateUnsuitable,
		Detail: fmt.Sprintf("what the proxy forwarded in %s cannot be read as %s: %v", realm.forwarded.header, realm.forwarded.format, err),
	}
}

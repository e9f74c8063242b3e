package clienttoken

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/internal/strictjson"
	"github.com/caddymtls/caddy-mtls-auth/tokens"
)

// maxReason bounds why a token is not verified, in bytes.
const maxReason = 500

// Decode returns the header and the claims of a token, unverified. ok reports whether it is
// a signed JWT.
func Decode(token string) (header, claims json.RawMessage, ok bool) {
	parts := strings.Split(token, ".")
	if len(token) > tokens.MaxTokenSize || len(parts) != 3 {
		return nil, nil, false
	}
	for i, into := range []*json.RawMessage{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil || !strictjson.Shows(text) {
			return nil, nil, false
		}
		*into = text
	}
	return header, claims, true
}

// Verify verifies the token as an API would: the signature with the keys of the issuer,
// the issuer, the audience if the request names resources, the times, and that it is
// bound to the client's certificate.
func (r *Request) Verify(ctx context.Context, token string) error {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	keys, err := tokens.NewTrustedKeys(tokens.TrustedKeysConfig{Issuer: r.Issuer, Transport: r.forIssuer()})
	if err != nil {
		return err
	}
	if _, err := keys.Refresh(ctx); err != nil {
		return errors.New("the keys of the issuer cannot be read: " + source.Plain(err, maxReason))
	}
	verifier, err := tokens.NewVerifier(tokens.VerifierConfig{Issuer: r.Issuer, Keys: keys, Audiences: r.Resources, Type: tokens.TypeJWT})
	if err != nil {
		return err
	}
	verified, err := verifier.Verify(token)
	if err != nil {
		return errors.New(source.Text(err.Error(), maxReason))
	}
	sum := sha256.Sum256(r.Identity.Leaf.Raw)
	if own := base64.RawURLEncoding.EncodeToString(sum[:]); verified.Thumbprint != own {
		return errors.New("token_certificate: it is bound to the certificate '" + source.Text(verified.Thumbprint, maxText) + "', and the client's is '" + own + "'; is another proxy between this client and the issuer?")
	}
	return nil
}

// issuerTransport presents the client's certificate to the issuer alone. What its metadata
// names, or redirects to, may be a server that would act on who asks.
type issuerTransport struct {
	issuer           *url.URL
	client, stranger http.RoundTripper
}

// forIssuer returns the transport for the keys of the issuer.
func (r *Request) forIssuer() http.RoundTripper {
	present := func(identity *tls.Certificate) http.RoundTripper {
		return r.transport(func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return identity, nil })
	}
	issuer, err := url.Parse(r.Issuer)
	if err != nil {
		issuer = new(url.URL) // which no request is for
	}
	return &issuerTransport{issuer, present(r.Identity), present(new(tls.Certificate))}
}

// RoundTrip implements [http.RoundTripper].
func (t *issuerTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	if request.URL.Scheme == t.issuer.Scheme && request.URL.Host == t.issuer.Host {
		return t.client.RoundTrip(request)
	}
	return t.stranger.RoundTrip(request)
}

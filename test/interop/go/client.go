package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// httpClient returns a client that trusts the server's CA and presents the named
// certificate, or none if the name is empty.
func httpClient(certificate string) (*http.Client, error) {
	ca, err := os.ReadFile(filepath.Join(certificates, "server-ca.pem"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool()}
	config.RootCAs.AppendCertsFromPEM(ca)
	if certificate != "" {
		pair, err := loadPair(certificate)
		if err != nil {
			return nil, err
		}
		// This sends the certificate whatever CAs the server names, so a
		// self-signed one is sent too.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	}
	return &http.Client{Timeout: time.Minute, Transport: &http.Transport{TLSClientConfig: config}}, nil
}

func loadPair(name string) (tls.Certificate, error) {
	return tls.LoadX509KeyPair(filepath.Join(certificates, name+".pem"), filepath.Join(certificates, name+".key"))
}

// server holds the endpoints from the metadata of an issuer.
type server struct {
	provider *oidc.Provider
	Token    string `json:"token_endpoint"`
	Aliases  struct {
		Token string `json:"token_endpoint"`
	} `json:"mtls_endpoint_aliases"`
}

// discover reads the metadata without presenting a certificate. The keys are
// fetched the same way when the first token is verified.
func discover(ctx context.Context, issuer string) (*server, error) {
	client, err := httpClient("")
	if err != nil {
		return nil, err
	}
	provider, err := oidc.NewProvider(oidc.ClientContext(ctx, client), issuer)
	if err != nil {
		return nil, err
	}
	s := &server{provider: provider}
	return s, provider.Claims(s)
}

// requestToken gets a token; the certificate is the only authentication. Without a
// secret, a clientcredentials.Config sends the client id as HTTP Basic with an empty
// password, or with AuthStyleInParams as client_id in the form. Both will do.
func requestToken(ctx context.Context, endpoint, clientID, certificate, scope, resource string) (*oauth2.Token, error) {
	client, err := httpClient(certificate)
	if err != nil {
		return nil, err
	}
	config := clientcredentials.Config{
		ClientID:       clientID,
		TokenURL:       endpoint,
		EndpointParams: url.Values{"resource": {resource}},
		Scopes:         strings.Fields(scope),
	}
	return config.Token(context.WithValue(ctx, oauth2.HTTPClient, client))
}

// claims are the claims of RFC 9068 §2.2 with the confirmation of RFC 8705 §3.1.
type claims struct {
	Subject  string `json:"sub"`
	ClientID string `json:"client_id"`
	Scope    string `json:"scope"`
	Expires  int64  `json:"exp"`
	IssuedAt int64  `json:"iat"`
	Cnf      struct {
		X5TS256 string `json:"x5t#S256"`
	} `json:"cnf"`
}

// verify checks a token as an API does. go-oidc checks the signature, issuer,
// audience and times. It does not expose the header, whose typ distinguishes an
// access token from an ID token, so verify parses the header itself.
func verify(ctx context.Context, s *server, algorithm, token string) (*claims, error) {
	verifier := s.provider.Verifier(&oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{algorithm}})
	verified, err := verifier.Verify(ctx, token)
	if err != nil {
		return nil, err
	}
	signed, err := jose.ParseSigned(token, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
	if err != nil {
		return nil, err
	}
	if typ := signed.Signatures[0].Protected.ExtraHeaders[jose.HeaderType]; typ != "at+jwt" {
		return nil, fmt.Errorf("typ is %v", typ)
	}
	c := new(claims)
	return c, verified.Claims(c)
}

// thumbprint returns the x5t#S256 of a certificate. An API compares the claim with
// the certificate of the connection on which it received the token.
func thumbprint(certificate string) (string, error) {
	pair, err := loadPair(certificate)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(pair.Certificate[0])
	return base64.RawURLEncoding.EncodeToString(sum[:]), nil
}

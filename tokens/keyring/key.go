package keyring

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// Key is a signing key: a private key and the one algorithm it is used with.
// It is immutable and safe for concurrent use.
type Key struct {
	VerifyKey // its public half

	created time.Time
	private crypto.Signer
	method  jwt.SigningMethod
	headers [len(typeNames)]string // the encoded JOSE headers, each with its dot
}

// TokenType is the type of a token, as its `typ` names it (RFC 8725 §3.11).
type TokenType int

// The types of tokens.
const (
	AccessToken  TokenType = iota // RFC 9068 §2.1
	GatewayToken                  // see tokens.GatewayToken
)

var typeNames = [...]string{AccessToken: "at+jwt", GatewayToken: "gateway+jwt"}

// NewKey returns a signing key for an *ecdsa.PrivateKey, *rsa.PrivateKey or
// ed25519.PrivateKey. An empty alg means the default of the key: ES256, ES384,
// ES512 or EdDSA by its curve, RS256 for RSA. A key that does not fit alg, or
// that [CheckPublicKey] refuses, is an error. created may be zero if it is not
// known.
func NewKey(private crypto.Signer, alg Algorithm, created time.Time) (*Key, error) {
	public, err := newVerifyKey(private.Public(), alg, "")
	if err != nil {
		return nil, err
	}
	key := &Key{VerifyKey: *public, created: created, private: private, method: jwt.GetSigningMethod(string(public.Algorithm))}
	for typ, name := range typeNames {
		header, err := json.Marshal(map[string]string{"typ": name, "alg": string(public.Algorithm), "kid": public.ID})
		if err != nil {
			return nil, fmt.Errorf("encoding the token header: %v", err)
		}
		key.headers[typ] = base64.RawURLEncoding.EncodeToString(header) + "."
	}
	return key, nil
}

// Sign returns the token with the given claims, a JSON object. It does what
// jwt.Token.SignedString does, but encodes the header once per key and the
// claims once per token, which halves the cost besides the signature.
func (k *Key) Sign(typ TokenType, claims []byte) (string, error) {
	input := k.headers[typ] + base64.RawURLEncoding.EncodeToString(claims)
	signature, err := k.method.Sign(input, k.private)
	if err != nil {
		return "", err
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature), nil
}

// ParsePrivateKeyPEM parses the only private key of a PEM file: PKCS#8
// ("PRIVATE KEY"), SEC 1 ("EC PRIVATE KEY") or PKCS#1 ("RSA PRIVATE KEY"), not
// encrypted. alg is as in [NewKey]. Errors name what the file holds instead
// and the remedy, and never contain key material.
func ParsePrivateKeyPEM(data []byte, alg Algorithm) (*Key, error) {
	return parsePrivateKeyPEM(data, alg, time.Time{})
}

func parsePrivateKeyPEM(data []byte, alg Algorithm, created time.Time) (*Key, error) {
	data = source.WithoutBOM(data)
	var private crypto.Signer
	blocks, marks := 0, bytes.Count(data, []byte("-----BEGIN "))
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		blocks++
		if block.Type == "EC PARAMETERS" { // openssl ecparam writes them before the key
			continue
		}
		signer, err := parsePrivateKeyBlock(block)
		if err != nil {
			return nil, err
		}
		if private != nil {
			return nil, errors.New("there are several private keys; keep only the one that signs")
		}
		private = signer
	}
	if blocks != marks {
		return nil, errors.New("a PEM block is damaged or cut off")
	}
	if private == nil {
		return nil, errors.New("there is no private key in PEM form; expected -----BEGIN PRIVATE KEY-----")
	}
	return NewKey(private, alg, created)
}

func parsePrivateKeyBlock(block *pem.Block) (crypto.Signer, error) {
	_, dekInfo := block.Headers["DEK-Info"]
	var key any
	var err error
	switch {
	case block.Type == "ENCRYPTED PRIVATE KEY" || dekInfo || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
		return nil, errors.New("the private key is encrypted; decrypt it with openssl pkey -in <file> -out <new-file>")
	case block.Type == "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case block.Type == "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case block.Type == "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case strings.HasSuffix(block.Type, "CERTIFICATE"):
		return nil, errors.New("this is a certificate, not a private key")
	case strings.HasSuffix(block.Type, "CERTIFICATE REQUEST"):
		return nil, errors.New("this is a certificate request, not a private key")
	case strings.HasSuffix(block.Type, "PUBLIC KEY"):
		return nil, errors.New("this is a public key, not a private key")
	case strings.HasSuffix(block.Type, "PRIVATE KEY"):
		return nil, errors.New("private keys of this format are not supported; convert the file to PKCS#8, -----BEGIN PRIVATE KEY-----")
	default:
		return nil, errors.New("a PEM block is not a private key; expected only -----BEGIN PRIVATE KEY-----")
	}
	if err != nil {
		return nil, fmt.Errorf("the private key does not parse: %s", source.Plain(err, maxKeyError))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("keys of type %T cannot sign tokens; use P-256, P-384, P-521, RSA or Ed25519", key)
	}
	return signer, nil
}

// encodePrivateKeyPEM returns the key as an unencrypted PKCS#8 PEM block.
func encodePrivateKeyPEM(private crypto.Signer) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

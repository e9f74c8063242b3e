package certfile

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators/dn"
)

// ReadKey reads a private key from a PEM file, which may have certificates too.
func ReadKey(file string) (crypto.Signer, error) {
	text, err := ReadFile(file)
	if err != nil {
		return nil, err
	}
	key, err := parsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// ReadFile reads a file of certificates or keys, up to a megabyte.
func ReadFile(file string) ([]byte, error) {
	opened, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	text, err := io.ReadAll(io.LimitReader(opened, maxCertificateFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if len(text) > maxCertificateFile {
		return nil, fmt.Errorf("%s has more than %d bytes; is it the right file?", file, maxCertificateFile)
	}
	return text, nil
}

// parsePrivateKey parses the first private key of PEM text.
func parsePrivateKey(text []byte) (crypto.Signer, error) {
	for block, err := range source.PEMBlocks(text) {
		if err != nil {
			return nil, err
		}
		if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
			continue
		}
		if block.Type == "ENCRYPTED PRIVATE KEY" || block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the private key is encrypted; decrypt it with 'openssl pkey -in <file> -out <file>.plain'")
		}
		key, err := parseKeyBlock(block.Block)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", block.Line, err)
		}
		return key, nil
	}
	return nil, errors.New("the file has no private key in PEM; name the file that has it, or convert it with 'openssl pkey'")
}

func parseKeyBlock(block *pem.Block) (crypto.Signer, error) {
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the private key cannot be read (%s)", source.Plain(err, maxCause))
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("the private key cannot sign; use one of RSA, ECDSA or Ed25519")
	}
	return signer, nil
}

// ReadIdentity reads the certificate of a client with its private key, from PEM files, of
// which one may have both, or from a PKCS #12 file.
func ReadIdentity(certificateFile, keyFile string, password *Password) (*tls.Certificate, error) {
	text, err := ReadFile(certificateFile)
	if err != nil {
		return nil, err
	}
	secret, err := password.Read()
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	var certificates []*x509.Certificate
	var key any
	if isPKCS12(text) {
		key, certificates, err = decodePKCS12(text, secret)
	} else {
		certificates, _, err = Parse(text, secret)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", certificateFile, err)
	}
	if keyFile != "" {
		if key, err = ReadKey(keyFile); err != nil {
			return nil, err
		}
	} else if key == nil {
		if key, err = parsePrivateKey(text); err != nil {
			return nil, fmt.Errorf("%s: %w; or name the key with --key", certificateFile, err)
		}
	}
	leaf := certificates[0]
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: the private key cannot sign; use one of RSA, ECDSA or Ed25519", certificateFile)
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(leaf.PublicKey) {
		return nil, fmt.Errorf("the private key is not that of the certificate '%s'; name the key that belongs to it", source.Text(dn.Format(leaf.RawSubject), maxCause))
	}
	identity := &tls.Certificate{PrivateKey: signer, Leaf: leaf}
	for _, certificate := range certificates {
		identity.Certificate = append(identity.Certificate, certificate.Raw)
	}
	return identity, nil
}

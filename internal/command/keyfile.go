package command

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// readPrivateKey reads a private key from a PEM file, which may have certificates too.
func readPrivateKey(file string) (crypto.Signer, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	key, err := parsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return key, nil
}

// readBounded reads a file of certificates or keys.
func readBounded(file string) ([]byte, error) {
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

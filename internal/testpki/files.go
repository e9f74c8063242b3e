package testpki

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
)

// PEM returns the CA certificate.
func (ca *CA) PEM() []byte {
	return certPEM(ca.Cert)
}

// KeyPEM returns the CA's private key as PKCS #8. It panics if the key has no such
// form, which is possible only with the option [Key].
func (ca *CA) KeyPEM() []byte {
	return keyPEM(ca.Key)
}

// PEM returns the certificate without its chain.
func (l *Leaf) PEM() []byte {
	return certPEM(l.Cert)
}

// ChainPEM returns the certificate followed by its intermediates, for a client's
// configuration.
func (l *Leaf) ChainPEM() []byte {
	return certPEM(l.Presented()...)
}

// KeyPEM returns the private key as PKCS #8. It panics if the key has no such form,
// which is possible only with the option [Key].
func (l *Leaf) KeyPEM() []byte {
	return keyPEM(l.Key)
}

// WriteFile writes the CA certificate to name.pem in the directory and returns the
// file's path. It does not write the key.
func (ca *CA) WriteFile(dir, name string) (string, error) {
	path := filepath.Join(dir, name+".pem")
	return path, writeFile(path, ca.PEM(), 0o644)
}

// WriteFiles writes the certificate with its chain to name.pem and the private key
// to name.key, which only the owner can read. It returns both paths.
func (l *Leaf) WriteFiles(dir, name string) (certFile, keyFile string, err error) {
	certFile = filepath.Join(dir, name+".pem")
	keyFile = filepath.Join(dir, name+".key")
	if err := writeFile(certFile, l.ChainPEM(), 0o644); err != nil {
		return "", "", err
	}
	if err := writeFile(keyFile, l.KeyPEM(), 0o600); err != nil {
		return "", "", err
	}
	return certFile, keyFile, nil
}

// writeFile replaces a file instead of writing into it, so that a key does not get
// the looser permissions of an existing file.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("testpki: replacing %s: %w", path, err)
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fmt.Errorf("testpki: %w", err)
	}
	_, err = file.Write(content)
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("testpki: writing %s: %w", path, err)
	}
	return nil
}

func certPEM(certs ...*x509.Certificate) []byte {
	var out bytes.Buffer
	for _, cert := range certs {
		// a bytes.Buffer does not fail
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	}
	return out.Bytes()
}

func keyPEM(key crypto.Signer) []byte {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic(fmt.Sprintf("testpki: key of type %T: %v", key, err))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

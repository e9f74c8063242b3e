package clientcert

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"software.sslmate.com/src/go-pkcs12"
)

// Files are the paths of the files of a certificate.
type Files struct {
	Certificate, Key, PKCS12 string
}

// FilesOf returns the paths in a folder. Characters of the client ID that have a meaning
// in paths become "_".
func FilesOf(dir, clientID string) Files {
	name := strings.Map(func(r rune) rune {
		if r == '.' || r == '-' || '0' <= r && r <= '9' || 'A' <= r && r <= 'Z' || 'a' <= r && r <= 'z' {
			return r
		}
		return '_'
	}, clientID)
	if name[0] == '.' || name[0] == '-' {
		name = "_" + name[1:]
	}
	path := filepath.Join(dir, name)
	return Files{path + ".pem", path + ".key", path + ".p12"}
}

// Existing returns the first of the files that exists, or "".
func (f Files) Existing() (string, error) {
	for _, file := range []string{f.Key, f.Certificate, f.PKCS12} {
		_, err := os.Lstat(file)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// CertificatePEM returns the certificate and its chain.
func (i *Issued) CertificatePEM() []byte {
	var text bytes.Buffer
	for _, certificate := range append([]*x509.Certificate{i.Leaf}, i.Chain...) {
		_ = pem.Encode(&text, &pem.Block{Type: "CERTIFICATE", Bytes: certificate.Raw}) // which a buffer takes
	}
	return text.Bytes()
}

// KeyPEM returns the private key as PKCS #8.
func (i *Issued) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(i.Key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// PKCS12 returns the certificate, its chain and its key as PKCS #12. What encrypts it in
// the legacy form is weak, and is all that old software reads.
func (i *Issued) PKCS12(password string, legacy bool) ([]byte, error) {
	encoder := pkcs12.Modern2023
	if legacy {
		encoder = pkcs12.LegacyDES
	}
	return encoder.Encode(i.Key, i.Leaf, i.Chain, password)
}

// NewPassword returns a password of 130 random bits, in letters and digits.
func NewPassword() string { return rand.Text() }

// Write writes the files, those with the key for the owner alone. It replaces existing
// files only if told to. If it fails, it leaves none that it created.
func (i *Issued) Write(files Files, password string, legacy, replace bool) (err error) {
	key, err := i.KeyPEM()
	if err != nil {
		return err
	}
	container, err := i.PKCS12(password, legacy)
	if err != nil {
		return fmt.Errorf("writing PKCS #12: %w", err)
	}
	var created []string
	defer func() {
		if err != nil {
			for _, file := range created {
				err = errors.Join(err, os.Remove(file))
			}
		}
	}()
	// Nothing is replaced before everything has been written, because a certificate
	// without its key is lost.
	suffix := ""
	if replace {
		suffix = ".new-" + rand.Text()[:8]
		if err := files.replaceable(); err != nil {
			return err
		}
	}
	for _, file := range []struct {
		path    string
		content []byte
		mode    fs.FileMode
	}{{files.Key, key, 0o600}, {files.Certificate, i.CertificatePEM(), 0o644}, {files.PKCS12, container, 0o600}} {
		if err := createFile(file.path+suffix, file.content, file.mode); err != nil {
			return err
		}
		created = append(created, file.path+suffix)
	}
	for replace && len(created) > 0 {
		if err := os.Rename(created[0], strings.TrimSuffix(created[0], suffix)); err != nil {
			return err
		}
		created = created[1:]
	}
	return nil
}

// replaceable returns an error if one of the files exists and is a folder.
func (f Files) replaceable() error {
	for _, file := range []string{f.Key, f.Certificate, f.PKCS12} {
		if info, err := os.Lstat(file); err == nil && info.IsDir() {
			return fmt.Errorf("%s is a folder; remove it, or name another folder with --out", file)
		}
	}
	return nil
}

// createFile writes a file that does not exist.
func createFile(path string, content []byte, mode fs.FileMode) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = file.Write(content)
	if err = errors.Join(err, file.Close()); err != nil {
		_ = os.Remove(path)
	}
	return err
}

// Package certfile reads certificates and private keys from files in PEM, DER or
// PKCS #12, and says what another file is instead.
package certfile

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"software.sslmate.com/src/go-pkcs12"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
)

const (
	// maxCertificateFile bounds the size of a certificate file, in bytes.
	maxCertificateFile = 1 << 20
	// maxCause bounds why a PKCS #12 file cannot be read, in bytes.
	maxCause = 200
)

// Password is that of a PKCS #12 file.
type Password struct {
	Text string
	// File is the file whose first line is the password, unless it is empty.
	File string
}

// AddPasswordFlags adds the flags of commands that read PKCS #12 files.
func AddPasswordFlags(cmd *cobra.Command) *Password {
	p := new(Password)
	cmd.Flags().StringVar(&p.Text, "password", "", "Password of the PKCS #12 file; other users of this machine can see it")
	cmd.Flags().StringVar(&p.File, "password-file", "", "File whose first line is the password of the PKCS #12 file")
	cmd.MarkFlagsMutuallyExclusive("password", "password-file")
	return p
}

// Read returns the password.
func (p *Password) Read() (string, error) {
	if p.File == "" {
		return p.Text, nil
	}
	text, err := os.ReadFile(p.File)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// Read reads a certificate file, in which the client's own certificate
// comes first, and says which of the others cannot be read. "-" reads standard input.
func Read(in io.Reader, file string, password *Password) (certificates []*x509.Certificate, unreadable []string, err error) {
	name := file
	if file == "-" {
		name = "standard input"
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return nil, nil, err
		}
		defer opened.Close()
		in = opened
	}
	text, err := io.ReadAll(io.LimitReader(in, maxCertificateFile+1))
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxCertificateFile {
		return nil, nil, fmt.Errorf("%s has more than %d bytes; pass the certificate alone", name, maxCertificateFile)
	}
	secret, err := password.Read()
	if err != nil {
		return nil, nil, fmt.Errorf("reading the password: %w", err)
	}
	if certificates, unreadable, err = Parse(text, secret); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return certificates, unreadable, nil
}

// Parse parses PEM, DER or PKCS #12, and says which certificates after the
// first cannot be read.
func Parse(text []byte, password string) (certificates []*x509.Certificate, unreadable []string, err error) {
	text = source.WithoutBOM(text)
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, nil, errors.New("the file is empty")
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}), bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		return nil, nil, errors.New("the file is UTF-16 text, which PowerShell writes by default; save it as ASCII")
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return ParsePEM(text)
	}
	if certificates, err = x509.ParseCertificates(text); err == nil {
		return certificates, nil, nil
	}
	if isPKCS12(text) {
		certificates, err = parsePKCS12(text, password)
		return certificates, nil, err
	}
	return nil, nil, explainDER(text)
}

// ParsePEM returns the certificates of a PEM file, and says which after the first
// cannot be read. It skips other blocks, such as a private key.
func ParsePEM(text []byte) (certificates []*x509.Certificate, unreadable []string, err error) {
	count := 0
	other := "" // the type of the first of the other blocks
	for block, err := range source.PEMBlocks(text) {
		if err != nil {
			return nil, nil, err
		}
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			other = cmp.Or(other, block.Type)
			continue
		}
		count++
		certificate, err := validators.ParseCertificate(block.Bytes)
		switch {
		case err == nil:
			certificates = append(certificates, certificate)
		case count == 1:
			return nil, nil, fmt.Errorf("certificate 1: line %d: %w", block.Line, err)
		default:
			unreadable = append(unreadable, fmt.Sprintf("certificate %d, line %d, cannot be read: %s", count, block.Line, err))
		}
	}
	if len(certificates) == 0 {
		return nil, nil, explainPEM(other)
	}
	return certificates, unreadable, nil
}

var (
	errIsKey     = errors.New("the file has a private key but no certificate; pass the certificate of that key")
	errIsRequest = errors.New("the file is a certificate request, which no CA has signed yet; pass the certificate that the CA issued for it")
	errIsPKCS7   = errors.New("the file is PKCS #7; convert it with 'openssl pkcs7 -print_certs', adding '-inform der' unless it is PEM")
)

// explainPEM returns the error for a PEM file without a certificate, whose first block
// has the given type.
func explainPEM(blockType string) error {
	switch {
	case blockType == "":
		return errors.New("no PEM block begins at the start of a line; copy the file again")
	case strings.HasSuffix(blockType, "PRIVATE KEY"), blockType == "EC PARAMETERS": // as openssl writes it before the key
		return errIsKey
	case strings.HasSuffix(blockType, "CERTIFICATE REQUEST"):
		return errIsRequest
	case blockType == "PUBLIC KEY", blockType == "RSA PUBLIC KEY":
		return errors.New("the file has a public key but no certificate; pass the certificate")
	case blockType == "TRUSTED CERTIFICATE":
		return errors.New("the file has a trusted certificate in OpenSSL's own format; convert it with 'openssl x509'")
	case blockType == "PKCS7", blockType == "CMS":
		return errIsPKCS7
	}
	return fmt.Errorf("the file has a PEM block %.80q but no certificate", blockType)
}

// explainDER returns the error for a file that is neither PEM nor a DER certificate.
func explainDER(der []byte) error {
	var contentInfo struct {
		Type asn1.ObjectIdentifier
		Rest asn1.RawValue `asn1:"optional"`
	}
	if _, err := x509.ParseCertificateRequest(der); err == nil {
		return errIsRequest
	}
	if _, err := x509.ParsePKCS8PrivateKey(der); err == nil {
		return errIsKey
	}
	if _, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return errIsKey
	}
	if _, err := x509.ParseECPrivateKey(der); err == nil {
		return errIsKey
	}
	if _, err := asn1.Unmarshal(der, &contentInfo); err == nil && contentInfo.Type.Equal(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}) {
		return errIsPKCS7
	}
	_, err := validators.ParseCertificate(der)
	return fmt.Errorf("the file is not a certificate in PEM, DER or PKCS #12: %w", err)
}

// isPKCS12 reports whether the file begins like a PFX (RFC 7292 §4), in DER or BER: a
// SEQUENCE of the version 3 and of another SEQUENCE.
func isPKCS12(file []byte) bool {
	if len(file) < 2 || file[0] != 0x30 {
		return false
	}
	begin := 2
	if file[1] > 0x80 {
		begin += int(file[1] & 0x7f) // octets of the length
	}
	return begin < len(file) && bytes.HasPrefix(file[begin:], []byte{asn1.TagInteger, 1, 3, 0x30})
}

// indefinite begins a SEQUENCE whose length only its end tells. DER has none.
var indefinite = []byte{0x30, 0x80}

const convertPKCS12 = "; convert the file with 'openssl pkcs12 -nokeys -in <file> -out <file>.pem', adding '-legacy' if it is old"

// parsePKCS12 returns the certificates of the file, the one of its private key first.
// It discards the key.
func parsePKCS12(der []byte, password string) ([]*x509.Certificate, error) {
	_, certificates, err := decodePKCS12(der, password)
	return certificates, err
}

// decodePKCS12 returns the private key of the file, nil if it has none, and its
// certificates.
func decodePKCS12(der []byte, password string) (key any, certificates []*x509.Certificate, err error) {
	key, leaf, others, err := pkcs12.DecodeChain(der, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == "":
		return nil, nil, errors.New("the PKCS #12 file has a password; pass it with --password-file")
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, nil, errors.New("wrong password for PKCS #12 file")
	case err != nil:
		if certificates, storeErr := pkcs12.DecodeTrustStore(der, password); storeErr == nil && len(certificates) > 0 {
			return nil, certificates, nil
		}
		if bytes.HasPrefix(der, indefinite) || strings.Contains(err.Error(), "indefinite length") {
			return nil, nil, errors.New("the PKCS #12 file is in BER, as NSS and Bouncy Castle write it" + convertPKCS12)
		}
		return nil, nil, errors.New("the PKCS #12 file cannot be read (" + source.Plain(err, maxCause) + ")" + convertPKCS12)
	}
	certificates = append([]*x509.Certificate{leaf}, others...)
	if signer, ok := key.(crypto.Signer); ok {
		public, err := x509.MarshalPKIXPublicKey(signer.Public())
		if err != nil {
			return nil, nil, err
		}
		own := slices.IndexFunc(certificates, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubjectPublicKeyInfo, public) })
		if own > 0 {
			leaf = certificates[own]
			certificates = slices.Insert(slices.Delete(certificates, own, own+1), 0, leaf)
		}
	}
	return key, certificates, nil
}

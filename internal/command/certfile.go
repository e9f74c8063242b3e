package command

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
)

// maxCertificateFile bounds the size of a certificate file, in bytes.
const maxCertificateFile = 1 << 20

// passwordFlags are the flags of commands that read PKCS #12 files.
type passwordFlags struct{ password, file string }

func addPasswordFlags(cmd *cobra.Command) *passwordFlags {
	p := new(passwordFlags)
	cmd.Flags().StringVar(&p.password, "password", "", "Password of the PKCS #12 file; other users of this machine can see it")
	cmd.Flags().StringVar(&p.file, "password-file", "", "File whose first line is the password of the PKCS #12 file")
	cmd.MarkFlagsMutuallyExclusive("password", "password-file")
	return p
}

func (p *passwordFlags) read() (string, error) {
	if p.file == "" {
		return p.password, nil
	}
	text, err := os.ReadFile(p.file)
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// readCertificates reads a certificate file, in which the client's own certificate
// comes first. "-" reads standard input.
func readCertificates(in io.Reader, file string, flags *passwordFlags) ([]*x509.Certificate, error) {
	name := file
	if file == "-" {
		name = "standard input"
	} else {
		opened, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer opened.Close()
		in = opened
	}
	text, err := io.ReadAll(io.LimitReader(in, maxCertificateFile+1))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(text) > maxCertificateFile {
		return nil, fmt.Errorf("%s has more than %d bytes; pass the certificate alone", name, maxCertificateFile)
	}
	password, err := flags.read()
	if err != nil {
		return nil, fmt.Errorf("reading the password: %w", err)
	}
	certificates, err := parseCertificates(text, password)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return certificates, nil
}

// parseCertificates parses PEM, DER or PKCS #12.
func parseCertificates(text []byte, password string) ([]*x509.Certificate, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return nil, errors.New("the file is empty")
	case bytes.HasPrefix(text, []byte{0xff, 0xfe}), bytes.HasPrefix(text, []byte{0xfe, 0xff}):
		return nil, errors.New("the file is UTF-16 text, which PowerShell writes by default; save it as ASCII")
	case bytes.Contains(text, []byte("-----BEGIN ")):
		return parsePEM(text)
	}
	certificates, err := x509.ParseCertificates(text)
	if err == nil {
		return certificates, nil
	}
	if isPKCS12(text) {
		return parsePKCS12(text, password)
	}
	return nil, explainDER(text, err)
}

// parsePEM returns the certificates of a PEM file. It skips other blocks, such as a
// private key.
func parsePEM(text []byte) ([]*x509.Certificate, error) {
	var certificates []*x509.Certificate
	other := "" // the type of the first of the other blocks
	for block, err := range source.PEMBlocks(text) {
		if err != nil {
			return nil, err
		}
		if block.Type != "CERTIFICATE" && block.Type != "X509 CERTIFICATE" {
			other = cmp.Or(other, block.Type)
			continue
		}
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("certificate %d: %w", len(certificates)+1, err)
		}
		certificates = append(certificates, certificate)
	}
	if len(certificates) == 0 {
		return nil, explainPEM(other)
	}
	return certificates, nil
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
func explainDER(der []byte, notCertificate error) error {
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
	return fmt.Errorf("the file is not a certificate in PEM, DER or PKCS #12: %w", notCertificate)
}

// isPKCS12 reports whether the file begins like a PFX (RFC 7292 §4).
func isPKCS12(der []byte) bool {
	var pfx struct {
		Version  int
		AuthSafe asn1.RawValue
		MacData  asn1.RawValue `asn1:"optional"`
	}
	_, err := asn1.Unmarshal(der, &pfx)
	return err == nil && pfx.Version == 3 && pfx.AuthSafe.Tag == asn1.TagSequence
}

// parsePKCS12 returns the certificates of the file, the one of its private key first.
// It discards the key.
func parsePKCS12(der []byte, password string) ([]*x509.Certificate, error) {
	key, leaf, others, err := pkcs12.DecodeChain(der, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword) && password == "":
		return nil, errors.New("the PKCS #12 file has a password; pass it with --password-file")
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, errors.New("wrong password for PKCS #12 file")
	case err != nil:
		if certificates, storeErr := pkcs12.DecodeTrustStore(der, password); storeErr == nil && len(certificates) > 0 {
			return certificates, nil
		}
		return nil, fmt.Errorf("%w; convert the file with 'openssl pkcs12 -nokeys', adding '-legacy' if it is old", err)
	}
	certificates := append([]*x509.Certificate{leaf}, others...)
	if signer, ok := key.(crypto.Signer); ok {
		public, err := x509.MarshalPKIXPublicKey(signer.Public())
		if err != nil {
			return nil, err
		}
		own := slices.IndexFunc(certificates, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubjectPublicKeyInfo, public) })
		if own > 0 {
			leaf = certificates[own]
			certificates = slices.Insert(slices.Delete(certificates, own, own+1), 0, leaf)
		}
	}
	return certificates, nil
}

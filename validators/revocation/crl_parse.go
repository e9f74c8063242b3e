package revocation

import (
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

const (
	// maxCRLSize is the size of the largest file or response with CRLs, in bytes,
	// and maxCRLs the number of CRLs in it.
	maxCRLSize = 64 << 20
	maxCRLs    = 1 << 10
	// maxCRLNumber is the length of the largest CRL number, in octets (RFC 5280
	// §5.2.3).
	maxCRLNumber = 20
)

var (
	oidAuthorityKeyIdentifier   = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidCertificateIssuer        = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidCRLNumber                = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidDeltaCRLIndicator        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidIssuingDistributionPoint = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidReasonCode               = asn1.ObjectIdentifier{2, 5, 29, 21}
)

// parseCRLs parses a CRL in DER, or any number of them in PEM, as OpenSSL, nginx and
// HAProxy read them: certificates between them are skipped. With an error, it
// returns the CRLs that can be read nevertheless.
func parseCRLs(data []byte) (crls []*parsedCRL, err error) {
	switch {
	case len(data) > maxCRLSize:
		return nil, fmt.Errorf("the CRL is larger than %d bytes", maxCRLSize)
	case len(data) == 0:
		return nil, errors.New("the CRL is empty")
	case data[0] == asn1.TagSequence|0x20:
		crl, err := parseCRL(data)
		if err != nil {
			return nil, err
		}
		return []*parsedCRL{crl}, nil
	}
	foreign := 0
	for block, damage := range source.PEMBlocks(data) {
		var crl *parsedCRL
		switch {
		case damage != nil:
			return crls, cmp.Or(err, damage) // one is enough for a log
		case strings.HasSuffix(block.Type, "CERTIFICATE"):
			if foreign == 0 {
				foreign = block.Line
			}
			continue
		case block.Type != "X509 CRL":
			damage = fmt.Errorf("PEM block '%s' is not a CRL; remove it", source.Text(block.Type, maxQuote))
		case len(crls) == maxCRLs:
			return crls, cmp.Or(err, fmt.Errorf("line %d: there are more than %d CRLs; split the file", block.Line, maxCRLs))
		default:
			crl, damage = parseCRL(block.Bytes)
		}
		if damage != nil {
			err = cmp.Or(err, fmt.Errorf("line %d: %w", block.Line, damage))
			continue
		}
		crls = append(crls, crl)
	}
	switch {
	case len(crls) > 0 || err != nil:
		return crls, err
	case foreign > 0:
		return nil, fmt.Errorf("line %d: PEM block 'CERTIFICATE' is not a CRL; give the CRL that the CA publishes", foreign)
	}
	return nil, errors.New("the content is not a CRL in DER or PEM; download it again")
}

// parseCRL parses a CRL in DER. Its entries count whatever its scope, form and
// extensions are. What keeps it from vouching for certificates that it does not
// list is in its scope.
func parseCRL(der []byte) (*parsedCRL, error) {
	list, entries, extensions, err := parseWithoutEntries(der)
	if err != nil {
		cause := strings.TrimPrefix(err.Error(), "x509: ")
		return nil, fmt.Errorf("invalid CRL: %s; download it again", source.Text(cause, maxErrorText))
	}
	switch list.SignatureAlgorithm {
	case x509.UnknownSignatureAlgorithm:
		return nil, errors.New("the CRL has an unknown signature algorithm, so it cannot be verified; have the CA use ECDSA or RSA with SHA-256")
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.DSAWithSHA1, x509.DSAWithSHA256:
		return nil, fmt.Errorf("the CRL is signed with %s, which is not verified; have the CA use ECDSA or RSA with SHA-256", list.SignatureAlgorithm)
	}
	crl := &parsedCRL{list: list, issuer: nameKey(list.RawIssuer), outcomes: make(map[[sha256.Size]byte]error)}
	crl.readScope(extensions)
	if err := crl.readEntries(entries); err != nil {
		return nil, err
	}
	return crl, nil
}

// parseWithoutEntries parses a CRL (RFC 5280 §5.1) except its entries and its
// extensions, which it returns unparsed. There may be millions of entries, and x509
// would take fifty times the memory for them before the signature is verified, so
// x509 is given a copy of the CRL without them. The copy is of version 2, because
// x509 parses no CRL of version 1, as "openssl ca -gencrl" makes them, and without the
// issuer's name, because x509 parses fewer spellings of it than this package.
func parseWithoutEntries(der []byte) (list *x509.RevocationList, entries, extensions cryptobyte.String, err error) {
	var crl, signed, tbs, algorithm, signature cryptobyte.String
	var hasExtensions bool
	var at time.Time
	input := cryptobyte.String(der)
	ok := input.ReadASN1(&crl, cbasn1.SEQUENCE) && input.Empty() &&
		crl.ReadASN1Element(&signed, cbasn1.SEQUENCE) &&
		crl.ReadASN1Element(&algorithm, cbasn1.SEQUENCE) &&
		crl.ReadASN1Element(&signature, cbasn1.BIT_STRING) && crl.Empty()
	raw := []byte(signed)
	if !ok || !signed.ReadASN1(&tbs, cbasn1.SEQUENCE) {
		return nil, nil, nil, errors.New("malformed CRL")
	}
	version := 0
	if tbs.PeekASN1Tag(cbasn1.INTEGER) && !tbs.ReadASN1Integer(&version) || version < 0 || version > 1 {
		return nil, nil, nil, errors.New("malformed CRL, or one of an unknown version")
	}
	var inner, issuer cryptobyte.String
	ok = tbs.ReadASN1Element(&inner, cbasn1.SEQUENCE) && tbs.ReadASN1Element(&issuer, cbasn1.SEQUENCE)
	times := tbs
	ok = ok && readTime(&tbs, &at)
	if tbs.PeekASN1Tag(cbasn1.UTCTime) || tbs.PeekASN1Tag(cbasn1.GeneralizedTime) {
		ok = ok && readTime(&tbs, &at)
	}
	times = times[:len(times)-len(tbs)]
	ok = ok && tbs.ReadOptionalASN1(&entries, nil, cbasn1.SEQUENCE) &&
		tbs.ReadOptionalASN1(&extensions, &hasExtensions, cbasn1.Tag(0).Constructed().ContextSpecific()) && tbs.Empty()
	if ok && hasExtensions {
		explicit := extensions
		ok = explicit.ReadASN1(&extensions, cbasn1.SEQUENCE) && explicit.Empty()
	}
	if !ok {
		return nil, nil, nil, errors.New("malformed CRL")
	}

	var stub cryptobyte.Builder
	stub.AddASN1(cbasn1.SEQUENCE, func(stub *cryptobyte.Builder) {
		stub.AddASN1(cbasn1.SEQUENCE, func(stub *cryptobyte.Builder) {
			stub.AddASN1Int64(1)
			stub.AddBytes(inner)
			stub.AddASN1(cbasn1.SEQUENCE, func(*cryptobyte.Builder) {})
			stub.AddBytes(times)
		})
		stub.AddBytes(algorithm)
		stub.AddBytes(signature)
	})
	content, err := stub.Bytes()
	if err != nil {
		return nil, nil, nil, err
	}
	if list, err = x509.ParseRevocationList(content); err != nil {
		return nil, nil, nil, err
	}
	list.Raw, list.RawTBSRevocationList, list.RawIssuer = der, raw, issuer
	return list, entries, extensions, nil
}

// readExtensions calls read with every extension of a CRL or an entry (RFC 5280 §5.2,
// §5.3). It reports whether they are well-formed.
func readExtensions(extensions cryptobyte.String, read func(id asn1.ObjectIdentifier, critical bool, value cryptobyte.String)) bool {
	for !extensions.Empty() {
		var extension, value cryptobyte.String
		var id asn1.ObjectIdentifier
		var critical bool
		if !extensions.ReadASN1(&extension, cbasn1.SEQUENCE) || !extension.ReadASN1ObjectIdentifier(&id) ||
			extension.PeekASN1Tag(cbasn1.BOOLEAN) && !extension.ReadASN1Boolean(&critical) ||
			!extension.ReadASN1(&value, cbasn1.OCTET_STRING) || !extension.Empty() {
			return false
		}
		read(id, critical, value)
	}
	return true
}

func readTime(s *cryptobyte.String, t *time.Time) bool {
	if s.PeekASN1Tag(cbasn1.UTCTime) {
		return s.ReadASN1UTCTime(t)
	}
	return s.ReadASN1GeneralizedTime(t)
}

func insecureSignature(algorithm x509.SignatureAlgorithm) bool {
	switch algorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// validCRLNumber reports whether a CRL number is one (RFC 5280 §5.2.3).
func validCRLNumber(number *big.Int) bool {
	return number.Sign() >= 0 && number.BitLen() <= 8*maxCRLNumber
}

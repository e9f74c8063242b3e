package trustpool

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
)

// maxCAFile is how large a file of CA certificates may be, in bytes.
const maxCAFile = 16 << 20

// caFile is a watched file of CA certificates. A CA that is added counts at
// once. One that is gone counts only once the file has not changed for a while:
// it may still be being written.
type caFile struct {
	*source.Watched
	// certs are in force; next is what the file held when it was last usable.
	certs, next []*x509.Certificate
	// reported is set while a failure has been reported but not its end.
	reported bool
}

// openCAFile reads a file for the first time.
func openCAFile(path string, now time.Time) (*caFile, error) {
	f := new(caFile)
	f.Watched = source.NewWatched(path, maxCAFile, func(text []byte) error {
		certs, err := parseCAFile(path, text)
		if err == nil {
			f.next = certs
		}
		return err
	})
	if _, err := f.Poll(now); err != nil {
		return nil, err
	}
	f.certs = f.next
	return f, nil
}

// look reads the file if it has changed. It reports whether other certificates
// are in force now, and whether the outcome is to be logged: an error, or nil
// when one has ended.
func (f *caFile) look(now time.Time) (changed, report bool, err error) {
	report, err = f.Poll(now)
	if report = report && (err != nil || f.reported); report {
		f.reported = err != nil
	}
	if err != nil || sameCertificates(f.certs, f.next) || !f.Quiet(now) && len(without(f.certs, f.next)) > 0 {
		return false, report, err
	}
	f.certs = f.next
	return true, report, nil
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// parseCAFile returns the certificates of a file. A file without a CA certificate is
// an error, and so is an invalid certificate, whose line the error names.
func parseCAFile(file string, text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	var other string
	for block, err := range source.PEMBlocks(text) {
		if err != nil {
			return nil, fmt.Errorf("file '%s', %w", file, err)
		}
		if block.Type != "CERTIFICATE" {
			other = block.Type
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("file '%s', line %d: invalid certificate: %w; copy it again", file, block.Line, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case slices.ContainsFunc(certs, mayBeCA):
		return certs, nil
	case len(certs) > 0:
		return nil, fmt.Errorf("file '%s' has only end-entity certificates, so no chain can verify; replace them with the CA that issued them, or pin them with 'certificate' in a client", file)
	case other != "":
		return nil, fmt.Errorf("file '%s' holds a PEM block %q but no certificate; put the CA certificate there", file, other)
	}
	return nil, fmt.Errorf("file '%s' has no PEM certificate; put the CA certificate there, in PEM", file)
}

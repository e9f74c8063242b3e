package trustpool

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddymtls/caddy-mtls-auth/internal/source"
	"github.com/caddymtls/caddy-mtls-auth/validators"
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

// openCAFile reads a file for the first time. warn is called with what is left out of
// it, now and whenever the file has changed.
func openCAFile(path string, now time.Time, endEntities bool, warn func([]leftOut)) (*caFile, error) {
	f := new(caFile)
	f.Watched = source.NewWatched(path, maxCAFile, func(text []byte) error {
		certs, unreadable, err := parseCAFile("file", path, text, endEntities)
		if err == nil {
			f.next = certs
			warn(unreadable)
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

// leftOut is a certificate that Go cannot read, so that no chain can lead to it. The
// others of its file or its list count without it.
type leftOut struct {
	place  string // the file, or the member of the configuration
	line   int    // in the file, else 0
	number int    // in the list, from 1
	cause  error
}

// parseCAFile returns the certificates of a file, or of what is named by another kind of
// name, and those that are left out. A file without a CA certificate is an error, and so
// is one that is damaged; the error names the line. endEntities says whether certificates
// that are not of a CA count.
func parseCAFile(kind, name string, text []byte, endEntities bool) (certs []*x509.Certificate, unreadable []leftOut, err error) {
	var other string
	for block, err := range source.PEMBlocks(text) {
		if err != nil {
			return nil, nil, fmt.Errorf("%s '%s', %w", kind, name, err)
		}
		if block.Type != "CERTIFICATE" {
			other = block.Type
			continue
		}
		cert, err := validators.ParseCertificate(block.Bytes)
		switch {
		case err == nil:
			certs = append(certs, cert)
		case isDamaged(err):
			return nil, nil, fmt.Errorf("%s '%s', line %d: %w", kind, name, block.Line, err)
		default:
			unreadable = append(unreadable, leftOut{place: name, line: block.Line, number: len(certs) + len(unreadable) + 1, cause: err})
		}
	}
	switch {
	case slices.ContainsFunc(certs, mayBeCA), endEntities && len(certs) > 0:
		return certs, unreadable, nil
	case len(unreadable) > 0:
		first := unreadable[0]
		return nil, nil, fmt.Errorf("%s '%s' has no CA certificate that can be read; line %d: %w", kind, name, first.line, first.cause)
	case len(certs) > 0:
		return nil, nil, fmt.Errorf("%s '%s' has only end-entity certificates, so no chain can verify; replace them with the CA that issued them, or pin them with 'certificate' in a client", kind, name)
	case other != "":
		return nil, nil, fmt.Errorf("%s '%s' holds a PEM block %q but no certificate; put the CA certificate there", kind, name, other)
	}
	remedy := cmp.Or(source.ConversionToPEM(text), "put the CA certificate there, in PEM")
	return nil, nil, fmt.Errorf("%s '%s' has no PEM certificate; %s", kind, name, remedy)
}

// isDamaged reports whether a certificate was damaged on its way, so that nobody can
// tell what was to be trusted.
func isDamaged(err error) bool {
	unreadable := new(validators.UnreadableError)
	return errors.As(err, &unreadable) && unreadable.Damaged
}

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
// once. One that is gone, and a file that is broken, count only when the file
// has not changed for a while: it may still be being written.
type caFile struct {
	file *source.File
	// certs are what counts
	certs []*x509.Certificate
	// next is what the file says, unless parsing it failed
	next      []*x509.Certificate
	parsing   error
	looking   error
	since     time.Time
	complaint bool // made, and not taken back yet
}

// openCAFile reads a file for the first time.
func openCAFile(path string, now time.Time) (*caFile, error) {
	f := &caFile{file: source.NewFile(path, maxCAFile)}
	text, _, err := f.file.Look(now)
	if err != nil {
		return nil, err
	}
	if f.certs, err = parseCAFile(path, text); err != nil {
		return nil, err
	}
	f.next, f.since = f.certs, now
	return f, nil
}

// look reads the file if it has changed. It reports whether other certificates
// count now, and, once for each change, what is wrong with the file.
func (f *caFile) look(now time.Time) (changed bool, err error) {
	text, other, err := f.file.Look(now)
	switch {
	case err != nil:
		if f.looking == nil || f.looking.Error() != err.Error() {
			f.since, f.complaint = now, false
		}
		f.looking = err
	case other:
		f.next, f.parsing = parseCAFile(f.file.Path(), text)
		f.since, f.complaint = now, false
		fallthrough
	default:
		f.looking = nil
	}
	if f.broken() == nil {
		f.complaint = false
	}
	quiet := now.Sub(f.since) >= source.QuietTime
	if broken := f.broken(); broken != nil {
		if f.complaint || !quiet {
			return false, nil
		}
		f.complaint = true
		return false, broken
	}
	if sameCertificates(f.certs, f.next) || !quiet && !hasAll(f.next, f.certs) {
		return false, nil
	}
	f.certs = f.next
	return true, nil
}

// broken is what is wrong with the file, or nil.
func (f *caFile) broken() error {
	if f.looking != nil {
		return f.looking
	}
	return f.parsing
}

// hasAll reports whether every one of these certificates is on the list.
func hasAll(list, these []*x509.Certificate) bool {
	known := make(map[string]struct{}, len(list))
	for _, cert := range list {
		known[string(cert.Raw)] = struct{}{}
	}
	return !slices.ContainsFunc(these, func(cert *x509.Certificate) bool {
		_, ok := known[string(cert.Raw)]
		return !ok
	})
}

func sameCertificates(a, b []*x509.Certificate) bool {
	return slices.EqualFunc(a, b, (*x509.Certificate).Equal)
}

// parseCAFile returns the certificates of a file. It refuses a file without one
// of a CA and one whose certificates do not parse, with the line where the
// trouble is.
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
			return nil, fmt.Errorf("file '%s', line %d: the certificate does not parse: %w; copy it again", file, block.Line, err)
		}
		certs = append(certs, cert)
	}
	switch {
	case slices.ContainsFunc(certs, mayBeCA):
		return certs, nil
	case len(certs) > 0:
		return nil, fmt.Errorf("file '%s' holds no CA certificate, only those of end entities, so no chain could ever verify; put the CA there that issued them, or pin them as 'certificate' of a client", file)
	case other != "":
		return nil, fmt.Errorf("file '%s' holds a PEM block %q but no certificate; put the CA's certificate there", file, other)
	}
	return nil, fmt.Errorf("file '%s' holds no PEM certificate; put the CA's certificate there, in PEM", file)
}

package authn

import (
	"crypto/x509"
	"fmt"
	"slices"
	"sync/atomic"
	"unicode/utf8"

	"go.uber.org/zap"

	"github.com/caddymtls/caddy-mtls-auth/validators"
)

// The bounds of log fields about a certificate, in octets of JSON, because a stranger
// chooses the certificate.
const (
	maxLoggedDN   = 384
	maxLoggedHint = 1 << 10
	// maxLoggedNames is how many alternative names are logged, and
	// maxLoggedName how much of each.
	maxLoggedNames = 8
	maxLoggedName  = 64
)

// CertificateFields returns the log fields that describe a certificate: subject,
// issuer, serial and thumbprint, escaped and bounded.
func CertificateFields(cert *x509.Certificate) []zap.Field {
	return []zap.Field{
		zap.String("subject", LogText(validators.FormatDN(cert.RawSubject), maxLoggedDN)),
		zap.String("issuer", LogText(validators.FormatDN(cert.RawIssuer), maxLoggedDN)),
		zap.String("serial", validators.FormatSerial(cert.SerialNumber)),
		zap.String("thumbprint", validators.ThumbprintOf(cert.Raw).String()),
	}
}

// LogText cuts text so that it has at most that many octets as a JSON string, without
// the quotes.
func LogText(text string, most int) string {
	const ellipsis = "…"
	size, fits := 0, 0
	for i := 0; i < len(text); {
		r, width := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == '"' || r == '\\' || r == '\n' || r == '\r' || r == '\t':
			size += 2
		case r < ' ' || r == utf8.RuneError && width == 1:
			size += len(`\u0000`)
		default:
			size += width
		}
		if size > most {
			return text[:fits] + ellipsis
		}
		if i += width; size+len(ellipsis) <= most {
			fits = i
		}
	}
	return text
}

// Notes keeps what the log says about the certificates of a verdict, so that nothing
// is formatted for a request that repeats another. It may be used by several
// goroutines at once.
type Notes struct {
	// refusal is the one that the hints are about.
	refusal *validators.Refusal

	certificate atomic.Pointer[[]zap.Field]
	hints       atomic.Pointer[notedHints]
}

// notedHints are hints that an authenticator of this epoch has given.
type notedHints struct {
	epoch  uint64
	fields []zap.Field
}

// NewNotes returns empty notes, for certificates that an authenticator has not looked
// at.
func NewNotes(refusal *validators.Refusal) *Notes { return &Notes{refusal: refusal} }

// Made reports whether [Notes.Fields] needs no certificates any more for a refusal.
func (n *Notes) Made(by *Authenticator, refusal *validators.Refusal) bool {
	if n.certificate.Load() == nil {
		return false
	}
	hints := n.hints.Load()
	return by == nil || refusal != n.refusal || hints != nil && hints.epoch == by.epoch
}

// Fields returns the log fields about the certificates, leaf first, of a request that
// was refused. by gives hints, nil for none. It should be the authenticator that
// decides now, so that the hints are about the clients as they are now. Hints do not
// belong on the request path, because the time that they take depends on which clients
// are registered.
func (n *Notes) Fields(by *Authenticator, presented []*x509.Certificate, refusal *validators.Refusal) []zap.Field {
	certificate := n.certificate.Load()
	if certificate == nil {
		described := describe(presented[0])
		certificate = &described
		n.certificate.Store(certificate)
	}
	if by == nil || refusal != n.refusal {
		return *certificate
	}
	hints := n.hints.Load()
	// the certificates may be gone since the hints were up to date
	if hints == nil || hints.epoch != by.epoch && len(presented) > 0 {
		hints = &notedHints{by.epoch, by.hints(presented, refusal)}
		n.hints.Store(hints)
	}
	return append(slices.Clip(*certificate), hints.fields...)
}

func describe(leaf *x509.Certificate) []zap.Field {
	fields := CertificateFields(leaf)
	if names := loggedNames(leaf); len(names) > 0 {
		fields = append(fields, zap.Strings("names", names))
	}
	return fields
}

// hints says what the certificate comes close to, and which client block would admit
// it if that would help. The block contains nothing from the certificate but its hash,
// because an operator may paste it.
func (a *Authenticator) hints(presented []*x509.Certificate, refusal *validators.Refusal) (fields []zap.Field) {
	if hint := a.Hint(presented, refusal); hint != "" {
		fields = append(fields, zap.String("hint", LogText(hint, maxLoggedHint)))
	}
	if leaf := presented[0]; a.Registrable(leaf, refusal.Reason) {
		fields = append(fields, zap.String("register", fmt.Sprintf("client \"CHANGE-ME\" {\n\tthumbprint %q\n}", validators.ThumbprintOf(leaf.Raw))))
	}
	return fields
}

// loggedNames returns the first alternative names of a certificate, as a client would
// declare them.
func loggedNames(cert *x509.Certificate) (names []string) {
	shown, err := validators.ShowNames(cert)
	if err != nil {
		return nil
	}
	for name := range shown {
		if name.Kind == "" {
			continue
		}
		if len(names) == maxLoggedNames {
			return append(names, "…")
		}
		names = append(names, string(name.Kind)+" "+LogText(name.Text, maxLoggedName))
	}
	return names
}
